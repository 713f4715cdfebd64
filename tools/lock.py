"""Resolve the dependencies of pyproject.toml into requirements.txt, the lock, and requirements-gpu.txt, what GPUs add.

Versions in the lock stay while they satisfy pyproject.toml; remove the file first to move everything to the newest.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
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
GPU_HEADER = """\
# What the lock lacks for an NVIDIA GPU: CUDA's libraries, for Linux, to be installed after it. Made by `make lock`.
#
#     pip install --no-deps -r requirements-gpu.txt
#
# inputs: {digest}
"""
COMMAND = (
    "uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes "
    "--no-header --no-annotate --quiet"
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


def added(lock, larger):
    """The pins, with their hashes, of packages in the text of a larger lock that a lock does not have."""
    blocks = re.split(r"^(?=\w)", larger, flags=re.M)[1:]
    known = {block.split("==")[0] for block in re.split(r"^(?=\w)", lock, flags=re.M)[1:]}
    return "".join(block for block in blocks if block.split("==")[0] not in known)


def resolve(*options):
    """Run uv."""
    program, *arguments = [*COMMAND.split(), *options]
    if subprocess.run(
        [Path(sys.executable).with_name(program), *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
    ).returncode:
        sys.exit("uv could not resolve the dependencies: the locks are as they were.")


def main():
    lock, gpu_lock = ROOT / "requirements.txt", ROOT / "requirements-gpu.txt"
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, path.name) for path in (lock, gpu_lock)]
        for file in files if lock.exists() else ():  # uv keeps the versions that it finds where it writes
            shutil.copy(lock, file)
        for file, options in zip(files, ([], ["--extra", "gpu", "--constraint", str(files[0])]), strict=True):
            resolve(*options, "-o", str(file))
        pins, larger = (_without_comments(file.read_text(encoding="utf-8")) for file in files)
    digest = inputs_digest((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lock.write_text(HEADER.format(digest=digest) + pins, encoding="utf-8")
    gpu_lock.write_text(GPU_HEADER.format(digest=digest) + added(pins, larger), encoding="utf-8")


def _without_comments(text):
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


if __name__ == "__main__":
    main()
