"""Resolve the dependencies of pyproject.toml into requirements.txt, and the sets of the images into requirements/.

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
LOCK, LAB = "requirements.txt", "requirements/lab.txt"
GPU, COLAB = "requirements/gpu.txt", "requirements/colab.txt"
# What each file holds, and what it is compiled from. The lock comes first and constrains the others.
FILES = {
    LOCK: ("The lock: every package of the environment", "pyproject.toml --extra lab --group dev"),
    "requirements/serve.txt": ("The packages of the prediction server", "pyproject.toml --extra serve"),
    "requirements/train.txt": (
        "The packages of the training task and of the steps of pipelines on Vertex AI",
        "pyproject.toml --extra train --extra gcp --group tf-agents",
    ),
    LAB: (
        "The packages of the notebooks, of `make run` and of the playground",
        "pyproject.toml --extra lab --group demo --group run --group tf-agents",
    ),
    "requirements/build.txt": ("The packages that build the wheel", "--group build"),
    COLAB: (  # lab and TF-Agents without Jupyter, whose packages Colab's own kernel is made of
        "The packages of the notebooks on Colab",
        "pyproject.toml --extra train --extra profile --extra cpr --extra gcp --extra local --extra plots"
        " --group tf-agents --group build",
    ),
    GPU: ("What the lock lacks for an NVIDIA GPU", "pyproject.toml --extra gpu --group tf-agents"),
}
HEADER = """\
# {title}, pinned and hashed, for Python 3.11 to 3.13. Made by `make lock`.
#
#     pip install --no-deps -r {name}
#
# --no-deps: nothing is missing, and pip cannot override the requirements of TF-Agents 0.19 (see pyproject.toml).
#
# inputs: {digest}
"""
COMMAND = "uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet"


def inputs_digest(pyproject):
    """SHA-256 of what decides the lock: the requirements and uv's settings in the text of a pyproject.toml."""
    settings = tomllib.loads(pyproject)
    project = settings["project"]
    inputs = [
        project["requires-python"],
        project["dependencies"],
        project["optional-dependencies"],
        settings["dependency-groups"],
        settings["tool"]["uv"],
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def blocks(text):
    """Map each line of a requirements file that pins a package to the whole entry, with its hashes."""
    entries = re.split(r"^(?=\w)", text, flags=re.M)[1:]
    return {entry.splitlines()[0].rstrip(" \\"): entry for entry in entries}


def added(lock, larger):
    """Return the entries of a larger requirements file whose packages a lock does not have, as text."""
    names = {pin.split("==")[0] for pin in blocks(lock)}
    return "".join(entry for pin, entry in blocks(larger).items() if pin.split("==")[0] not in names)


def resolve(*options):
    """Run uv at the root of the repository."""
    program, *arguments = [*COMMAND.split(), *options]
    command = [Path(sys.executable).with_name(program), *arguments]
    if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
        sys.exit("uv could not resolve the dependencies: the locks are as they were.")


def main():
    pins = {}
    with tempfile.TemporaryDirectory() as directory:
        lock = Path(directory, LOCK)
        Path(directory, GPU).parent.mkdir()
        for name in filter(lambda name: (ROOT / name).exists(), (LOCK, GPU)):
            shutil.copy(ROOT / name, Path(directory, name))  # uv keeps the versions that its output file has
        for name, (_, source) in FILES.items():
            output = Path(directory, name)
            output.parent.mkdir(exist_ok=True)
            resolve(*source.split(), *(["--constraint", str(lock)] if name != LOCK else []), "-o", str(output))
            pins[name] = "".join(blocks(output.read_text(encoding="utf-8")).values())
    pins[GPU] = added(pins[LOCK], pins[GPU])
    digest = inputs_digest((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for name, (title, _) in FILES.items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        header = HEADER.format(title=title, name=name, digest=digest)
        (ROOT / name).write_text(header + pins[name], encoding="utf-8")


if __name__ == "__main__":
    main()
