"""The lock pins all that pyproject.toml asks for, and the environment holds what the lock pins."""

import ast
import importlib.metadata
import re
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.lock import GPU_HEADER, HEADER, ROOT, added, inputs_digest
from tools.notebooks import code_cells, find_notebooks, read

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
LOCK = (ROOT / "requirements.txt").read_text(encoding="utf-8")
GPU_LOCK = (ROOT / "requirements-gpu.txt").read_text(encoding="utf-8")
SETTINGS = tomllib.loads(PYPROJECT)
DIRECT = [Requirement(text) for text in SETTINGS["project"]["dependencies"] + SETTINGS["dependency-groups"]["dev"]]
PINS = [Requirement(line.rstrip(" \\")) for line in LOCK.splitlines() if re.match(r"\w", line)]


def pins_of(name, environment):
    """The pins that apply to a package in an environment given by its markers."""
    named = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(name)]
    return [pin for pin in named if pin.marker is None or pin.marker.evaluate(environment)]


def test_the_lock_was_made_from_these_dependencies():
    digest = inputs_digest(PYPROJECT)
    assert LOCK.startswith(HEADER.format(digest=digest)), "pyproject.toml and requirements.txt differ: run make lock"


@pytest.mark.parametrize(
    "change", [('"pandas>=3.0"', '"pandas>=9.0"'), ("pygame; python", "pygame; os"), (">=3.11", ">=3.12")]
)
def test_a_change_of_what_decides_the_lock_is_noticed(change):
    assert change[0] in PYPROJECT
    assert inputs_digest(PYPROJECT.replace(*change)) != inputs_digest(PYPROJECT)


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_each_direct_dependency_is_pinned_once_at_a_version_that_satisfies_it(requirement, python, platform):
    environment = {"python_version": python, "python_full_version": f"{python}.5", "sys_platform": platform}
    pins = pins_of(requirement.name, environment)
    assert len(pins) == 1, f"{requirement.name} has {len(pins)} pins for Python {python} on {platform}"
    (specifier,) = pins[0].specifier
    assert specifier.operator == "=="
    assert specifier.version in requirement.specifier


def test_every_pin_has_a_hash_and_no_line_names_a_host():
    blocks = re.split(r"^(?=\w)", LOCK, flags=re.M)[1:]
    assert len(blocks) == len(PINS) > 100
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert re.findall(r"^.*(?:://|--index|--find-links|--extra).*$", LOCK, flags=re.M) == []


def test_the_environment_is_what_the_lock_pins():
    wrong = {}
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate():
            installed = importlib.metadata.version(pin.name)
            if installed not in pin.specifier:
                wrong[pin.name] = installed
    assert not wrong, f"run make, the environment is behind the lock: {wrong}"


def test_the_gpu_lock_is_what_tensorflow_asks_for_on_a_gpu():
    """Each of CUDA's libraries once, at a version that this TensorFlow takes, with hashes, and nothing else."""
    assert GPU_LOCK.startswith(GPU_HEADER.format(digest=inputs_digest(PYPROJECT))), "run make lock"
    asked = [Requirement(text) for text in importlib.metadata.requires("tensorflow")]
    cuda = {each.name: each.specifier for each in asked if each.marker and "and-cuda" in str(each.marker)}
    blocks = re.split(r"^(?=\w)", GPU_LOCK, flags=re.M)[1:]
    pins = {Requirement(block.splitlines()[0].rstrip(" \\")).name: block for block in blocks}
    assert pins.keys() == cuda.keys()
    for name, block in pins.items():
        (specifier,) = Requirement(block.splitlines()[0].rstrip(" \\")).specifier
        assert specifier.version in cuda[name]
        assert "--hash=sha256:" in block


def test_only_what_the_lock_lacks_is_added():
    lock, larger = "a==1 \\\n    --hash=sha256:0\n", "a==1 \\\n    --hash=sha256:0\nb==2 \\\n    --hash=sha256:1\n"
    assert added(lock, larger) == "b==2 \\\n    --hash=sha256:1\n"
    assert added(larger, larger) == ""


def imported(source):
    """The outermost names of what a piece of code imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_whatever_is_imported_is_declared():
    """Else it is there only as long as another package happens to need it."""
    folders = ("src", "tools", "tests", "benchmarks", "04-pipelines")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    sources = [path.read_text(encoding="utf-8") for path in files]
    sources += [cell.source for path in find_notebooks() for cell in code_cells(read(path))]
    ours = {path.stem for path in files} | {"recbandits", "tests", "tools", "benchmarks", "src"}
    names = {name for source in sources for name in imported(source)} - ours - sys.stdlib_module_names
    declared = {canonicalize_name(requirement.name) for requirement in DIRECT}
    packages = importlib.metadata.packages_distributions()
    assert {name for name in names if not {canonicalize_name(d) for d in packages.get(name, [])} & declared} == set()
