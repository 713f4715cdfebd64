"""The lock pins all that pyproject.toml asks for, and the environment holds what the lock pins."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import lock
from tools.lock import COLAB, FILES, GPU, HEADER, LAB, LOCK, ROOT, added, blocks, inputs_digest
from tools.notebooks import code_cells, find_notebooks, read

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
SETTINGS = tomllib.loads(PYPROJECT)
EXTRAS, GROUPS = SETTINGS["project"]["optional-dependencies"], SETTINGS["dependency-groups"]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES}
ENTRIES = {name: blocks(text) for name, text in TEXTS.items()}
PINS = {name: [*map(Requirement, entries)] for name, entries in ENTRIES.items()}


def requirements(*entries):
    """Yield the requirements that entries of pyproject.toml name, directly or by an extra or a group."""
    for entry in entries:
        if isinstance(entry, dict):
            yield from requirements(*GROUPS[entry["include-group"]])
        elif (requirement := Requirement(entry)).name == "recbandits":
            yield from (each for extra in requirement.extras for each in requirements(*EXTRAS[extra]))
        else:
            yield requirement


CORE = SETTINGS["project"]["dependencies"]
DIRECT = {
    LOCK: [*requirements(*CORE, "recbandits[lab]", {"include-group": "dev"})],
    "requirements/serve.txt": [*requirements(*CORE, "recbandits[serve]")],
    "requirements/train.txt": [*requirements(*CORE, "recbandits[train,gcp]", {"include-group": "tf-agents"})],
    COLAB: [
        *requirements(*CORE, "recbandits[train,profile,cpr,gcp,local,plots]"),
        *requirements({"include-group": "tf-agents"}, {"include-group": "build"}),
    ],
    LAB: [*requirements(*CORE, "recbandits[lab]", *({"include-group": name} for name in ("demo", "run", "tf-agents")))],
    "requirements/build.txt": [*requirements({"include-group": "build"}, *SETTINGS["build-system"]["requires"])],
}


def pins_of(file, name, environment):
    """The pins in a file that apply to a package in an environment given by its markers."""
    named = [pin for pin in PINS[file] if canonicalize_name(pin.name) == canonicalize_name(name)]
    return [pin for pin in named if pin.marker is None or pin.marker.evaluate(environment)]


@pytest.mark.parametrize("name", FILES)
def test_each_file_was_made_from_these_dependencies(name):
    header = HEADER.format(title=FILES[name][0], name=name, digest=inputs_digest(PYPROJECT))
    assert TEXTS[name] == header + "".join(ENTRIES[name].values()), "pyproject.toml and the locks differ: run make lock"


@pytest.mark.parametrize("name", [name for name in FILES if name not in (LOCK, GPU)])
def test_the_set_of_an_image_is_a_part_of_the_lock(name):
    """Same packages, versions and hashes, so that an image gets what the tests run with; only markers can differ."""

    def artifacts(file):
        return {(pin.partition(" ;")[0], tuple(entry.splitlines()[1:])) for pin, entry in ENTRIES[file].items()}

    assert artifacts(name) <= artifacts(LOCK)


def test_colab_gets_all_that_lab_has_but_jupyter():
    lab, colab = requirements("recbandits[lab]"), DIRECT[COLAB]
    without = {each.name for each in lab} - {each.name for each in colab}
    assert without == {"ipython", "jupyter", "jupyterlab", "papermill"}


@pytest.mark.parametrize(
    "change", [('"pandas>=3.0"', '"pandas>=9.0"'), ("pygame; python", "pygame; os"), (">=3.11", ">=3.12")]
)
def test_a_change_of_what_decides_the_lock_is_noticed(change):
    assert change[0] in PYPROJECT
    assert inputs_digest(PYPROJECT.replace(*change)) != inputs_digest(PYPROJECT)


@pytest.mark.parametrize("name", DIRECT)
def test_each_direct_dependency_is_pinned_once_at_a_version_that_satisfies_it(name):
    for python, platform, requirement in product(("3.11", "3.12", "3.13"), ("linux", "darwin"), DIRECT[name]):
        environment = {"python_version": python, "python_full_version": f"{python}.5", "sys_platform": platform}
        pins = pins_of(name, requirement.name, environment)
        assert len(pins) == 1, f"{requirement.name} has {len(pins)} pins for Python {python} on {platform}"
        (specifier,) = pins[0].specifier
        assert specifier.operator == "=="
        assert specifier.version in requirement.specifier


@pytest.mark.parametrize(("name", "most"), [("requirements/serve.txt", 60), ("requirements/train.txt", 120)])
def test_the_sets_stay_small(name, most):
    """The server has no TensorFlow and no SDK of Vertex AI; training, also as the step of a pipeline, no notebooks."""
    names = {pin.name for pin in PINS[name]}
    assert len(names) <= most
    assert not names & {"jupyterlab", "pytest", "matplotlib"}
    heavy = {"tensorflow", "kfp", "google-cloud-aiplatform"}
    assert names & heavy == (heavy if name == "requirements/train.txt" else set())


def test_the_lab_runs_the_notebooks_without_the_tools_of_development():
    names = {pin.name for pin in PINS[LAB]}
    assert {"bokeh", "jupyterlab", "nbval", "papermill", "tf-agents"} <= names
    tools = {requirement.name for requirement in requirements({"include-group": "site"})}
    assert not names & (tools | {"hatchling", "hypothesis", "mypy", "playwright", "ruff", "uv"})


@pytest.mark.parametrize("name", FILES)
def test_every_pin_has_a_hash_and_no_line_names_a_host(name):
    assert [pin for pin, entry in ENTRIES[name].items() if "--hash=sha256:" not in entry] == []
    assert re.findall(r"^.*(?:://|--index|--find-links|--extra).*$", TEXTS[name], flags=re.M) == []


def test_the_environment_is_what_the_lock_pins():
    wrong = {}
    for pin in PINS[LOCK]:
        if pin.marker is None or pin.marker.evaluate():
            installed = importlib.metadata.version(pin.name)
            if installed not in pin.specifier:
                wrong[pin.name] = installed
    assert not wrong, f"run make, the environment is behind the lock: {wrong}"


def test_the_gpu_lock_is_what_tensorflow_asks_for_on_a_gpu():
    """Each of CUDA's libraries once, at a version that this TensorFlow takes, and nothing else."""
    asked = [Requirement(text) for text in importlib.metadata.requires("tensorflow")]
    cuda = {each.name: each.specifier for each in asked if each.marker and "and-cuda" in str(each.marker)}
    pins = {pin.name: pin.specifier for pin in PINS[GPU]}
    assert pins.keys() == cuda.keys()
    assert all(specifier.version in cuda[name] for name, (specifier,) in pins.items())


def test_pins_stay_also_those_for_a_gpu(tmp_path, monkeypatch):
    """An output file that is there gives uv the versions to keep."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    for name in FILES:
        (tmp_path / name).write_text(TEXTS[name])
    found = []

    def resolve(*options):
        output = Path(options[-1])
        found.append((output.name, output.exists()))
        output.write_text("")

    monkeypatch.setattr(lock, "ROOT", tmp_path)
    monkeypatch.setattr(lock, "resolve", resolve)
    lock.main()
    assert {name for name, exists in found if exists} == {LOCK, Path(GPU).name}


def test_only_what_the_lock_lacks_is_added():
    lock, larger = "a==1 \\\n    --hash=sha256:0\n", "a==1 \\\n    --hash=sha256:0\nb==2 \\\n    --hash=sha256:1\n"
    assert added(lock, larger) == "b==2 \\\n    --hash=sha256:1\n"
    assert added(larger, larger) == ""


def test_the_page_on_installation_lists_the_extras_and_how_to_install_tf_agents():
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    section = page.partition("\n## Install\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", section, flags=re.M) == list(EXTRAS)
    (tf_agents,) = GROUPS["tf-agents"]
    assert f"pip install --no-deps {tf_agents} gym==0.23.0" in page
    assert f"pip install --no-deps {tf_agents} gym==0.23.0" in (ROOT / "src/recbandits/tf.py").read_text()
    assert "gym==0.23.0" in ENTRIES[LOCK]


def imported(source):
    """The outermost names of what a piece of code imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


RUN = ["run_notebooks", "execute", "notebooks", "processes", "results", "index_page", "warm"]  # what `make run` needs
SOURCES = {
    LOCK: [f"{folder}/**/*.py" for folder in ("src", "playground", "tools", "tests", "benchmarks", "site", "04-*")],
    LAB: ["src/**/*.py", "playground/*.py", *(f"tools/{name}.py" for name in RUN)],
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_imported_package_is_declared(name):
    """Else it is there only as long as another package happens to need it."""
    files = [path for pattern in SOURCES[name] for path in ROOT.glob(pattern)]
    sources = [path.read_text(encoding="utf-8") for path in files]
    sources += [cell.source for path in find_notebooks() for cell in code_cells(read(path))]
    ours = {path.stem for path in files} | {"recbandits", "playground", "tests", "tools", "benchmarks", "src"}
    names = {name for source in sources for name in imported(source)} - ours - sys.stdlib_module_names
    declared = {canonicalize_name(requirement.name) for requirement in DIRECT[name]}
    packages = importlib.metadata.packages_distributions()
    assert {name for name in names if not {canonicalize_name(d) for d in packages.get(name, [])} & declared} == set()
