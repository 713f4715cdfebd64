"""Contenders from other projects, each in an environment and a process of its own, so that no dependency is shared."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ENVIRONMENTS = Path("build/peers")


class Peer:
    """Call it to run the contender once more; it returns what its program answers, None where it does not install.

    Args:
      name: of the contender, and of its environment.
      requirements: lists of arguments of `uv pip install`, run one after the other.
      program: Python source. It finds the arrays as the .npz file `sys.argv[1]` and the arguments behind it, and
        answers every line of stdin with a line of JSON.
      arrays: mapping from name to array.
      arguments: text.
    """

    def __init__(self, name, requirements, program, arrays, arguments=()):
        self._process = None
        if not install(name, requirements):
            return
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "arrays.npz"
        np.savez(file, **arrays)
        self._process = subprocess.Popen(
            [str(python_of(name)), "-W", "ignore", "-c", program, str(file), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self):
        if self._process is None or self._process.poll() is not None:
            return None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        return json.loads(answer) if answer else None


def python_of(name):
    """Return the path of the interpreter in the environment of a contender."""
    return ENVIRONMENTS / name / "bin" / "python"


def install(name, requirements):
    """Create the environment of a contender once for its requirements; print a message if that fails."""
    marker, content = ENVIRONMENTS / name / "ready", repr(requirements)
    if marker.exists() and marker.read_text() == content and python_of(name).exists():
        return True
    uv = str(Path(sys.executable).with_name("uv"))
    commands = [[uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENTS / name)]]
    commands += [[uv, "pip", "install", "--quiet", "--python", str(python_of(name)), *group] for group in requirements]
    for command in commands:
        if subprocess.run(command, capture_output=True, check=False).returncode:
            print(f"{name} does not install here: its columns stay empty", file=sys.stderr)
            return False
    marker.write_text(content)
    return True
