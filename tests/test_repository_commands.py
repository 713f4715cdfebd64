"""The Makefile: every command explains itself, and a Python that is too old gets a sentence."""

import os
import re
import shutil
import subprocess

from tools.lock import ROOT

WORK = ["run", "test", "images", "lab", "lint", "lock", "bench", "site", "refresh", "loop", "demo", "smoke"]
COMMANDS = ["help", *WORK, "clean"]


def make(*arguments):
    """Return the output of make, without the environment of a make that started these tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True).stdout


def test_help_is_the_default_and_describes_every_command():
    shown = make()
    assert shown == make("help")
    assert re.findall(r"^  ([a-z]+) +[A-Z]\S", shown, flags=re.M) == COMMANDS


def test_every_command_but_help_and_clean_makes_the_environment_first():
    """`make -n` prints what would be done, first things first."""
    for command in WORK:
        first = make("-n", command).splitlines()[0]
        assert "tools/find_python.sh" in first
        assert "tools/environment.py" in first


def test_python_3_9_gets_a_sentence_and_nothing_is_made(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.18" && exit\nexit 1\n')
    (programs / "python3").chmod(0o755)
    (programs / "sh").symlink_to("/bin/sh")
    done = subprocess.run(
        [shutil.which("make"), "run"], cwd=tmp_path, env={"PATH": str(programs)}, capture_output=True, text=True
    )
    assert done.returncode != 0
    sentence, last = done.stderr.splitlines()
    assert sentence.startswith("RecBandits needs Python 3.11, 3.12 or 3.13")
    assert "found Python 3.9.18" in sentence
    assert last.startswith("make: ***")
    assert not (tmp_path / ".venv").exists()
