"""tools/find_python.sh chooses a Python that works, or says in one sentence what is missing."""

import subprocess
import sys

import pytest

from tools.lock import ROOT


@pytest.fixture
def find_python(tmp_path):
    """A function that makes programs, and only those, available, and then looks for a Python."""

    def find(**programs):
        for name, script in programs.items():
            path = tmp_path / name.replace("_", ".")
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        command = ["/bin/sh", ROOT / "tools" / "find_python.sh"]
        return subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)

    return find


def python(version, without=()):
    """Write a Python that reports a version and lacks some modules."""
    pretend = f"import sys; sys.version_info = tuple(map(int, {version!r}.split(chr(46))))"
    pretend += "".join(f"; sys.modules[{name!r}] = None" for name in without)
    return f"""[ "$1" = --version ] && echo "Python {version}" && exit
exec '{sys.executable}' -c "{pretend}; exec(sys.argv[1])" "$2" """


BROKEN_SHIM = "echo 'pyenv: command not found' >&2; exit 127"


@pytest.mark.parametrize("version", ["3.11.0", "3.13.9"])
def test_python3_is_taken_when_it_is_suitable(find_python, version):
    assert find_python(python3=python(version), python3_12=python("3.12.1")).stdout == "python3\n"


@pytest.mark.parametrize("version", ["3.10.13", "3.14.0"])
def test_otherwise_the_newest_suitable_one_is_taken(find_python, version):
    found = find_python(python3=python(version), python3_11=python("3.11.2"), python3_12=python("3.12.1"))
    assert found.stdout == "python3.12\n"


def test_a_shim_that_does_not_run_is_passed_over(find_python):
    assert (
        find_python(python3=BROKEN_SHIM, python3_13=BROKEN_SHIM, python3_11=python("3.11.2")).stdout == "python3.11\n"
    )


@pytest.mark.parametrize("version", ["3.10.13", "3.14.0"])
def test_without_a_suitable_python_one_sentence_says_what_is_needed_and_what_was_found(find_python, version):
    found = find_python(python3=python(version))
    assert (found.returncode, found.stdout) == (1, "")
    assert "needs Python 3.11, 3.12 or 3.13" in found.stderr
    assert f"found Python {version}" in found.stderr
    assert found.stderr.count("\n") == 1


def test_without_any_python_it_says_so(find_python):
    found = find_python()
    assert (found.returncode, found.stderr.count("\n")) == (1, 1)
    assert "found no python3" in found.stderr


def test_a_python_without_ensurepip_serves_uv_only(find_python):
    bare = python("3.12.1", without=["ensurepip"])
    assert "python3-venv" in find_python(python3=bare).stderr
    assert find_python(python3=bare, uv="exit").stdout == "python3\n"
