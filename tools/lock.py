"""Resolve the dependencies of pyproject.toml into requirements.txt, the lock.

Versions in the lock stay while they satisfy pyproject.toml; remove the file first to move everything to the newest.
"""

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = """\
# The lock: every package of the environment, pinned and hashed, for Python 3.11 to 3.13. Made by `make lock`.
#
#     pip install --no-deps -r requirements.txt
#     pip install --no-deps --no-build-isolation -e .
#
# --no-deps, because TF-Agents 0.19 asks for versions of typing-extensions, TensorFlow Probability and pygame that no
# longer install, and pip cannot override what a package asks for. Nothing is missing: the list is complete.
#
# inputs: {digest}
"""
COMMAND = (
    "uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes "
    "--no-header --no-annotate --quiet -o requirements.txt"
)


def inputs_digest(pyproject):
    """SHA-256 of what decides the lock: the requirements and uv's settings in the text of a pyproject.toml."""
    settings = tomllib.loads(pyproject)
    project = settings["project"]
    inputs = [
        project["requires-python"],
        project["dependencies"],
        project.get("optional-dependencies", {}),
        settings.get("dependency-groups", {}),
        settings.get("tool", {}).get("uv", {}),
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def main():
    program, *arguments = COMMAND.split()
    if subprocess.run([Path(sys.executable).with_name(program), *arguments], cwd=ROOT).returncode:
        sys.exit("uv could not resolve the dependencies: requirements.txt is as it was.")
    digest = inputs_digest((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = ROOT / "requirements.txt"
    pins = [line for line in lock.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    lock.write_text(HEADER.format(digest=digest) + "\n".join(pins) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
