"""The layers of the package: quick to import, and each imports only from the layers above it."""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest

import recbandits
from tests.commands import run_python

PACKAGE = Path(recbandits.__file__).parent
LAYERS = ["checks", "config", "notebook", "tf", "records", "data", "exploration", "evaluation", "serving"]
LAYERS += ["environments", "agents", "training", "plots", "platforms", "loop"]
OUTSIDE = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}  # tests/test_repository_install.py has their imports
MODULES = sorted(set(PACKAGE.rglob("*.py")) - OUTSIDE)

WATCHED_IMPORT = f"""
import json, sys, time
events = []
def watch(event, arguments):
    if event in ("open", "subprocess.Popen") or event.startswith("socket."):
        if not str(arguments[0]).startswith({str(PACKAGE)!r}):
            events.append(f"{{event}} {{arguments[0]}}")
sys.addaudithook(watch)
start = time.perf_counter()
import recbandits
seconds = time.perf_counter() - start
print(json.dumps([seconds, events, sorted(sys.modules)]))
"""


def test_importing_the_package_is_quick_and_opens_nothing():
    """The best of three processes: the claim is about the package, not about what else the machine does."""
    imports = [json.loads(run_python(WATCHED_IMPORT)) for _ in range(3)]
    assert min(seconds for seconds, _, _ in imports) < 0.1
    for _, events, modules in imports:
        assert events == []
        assert [name for name in modules if name.split(".")[0] in ("tensorflow", "numpy", "pandas")] == []


def layer(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_layers(path):
    """Return the layers that a module imports from, anywhere in its code."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: import by the full name"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    inside = {name.split(".")[1] for name in names if name.startswith("recbandits.")}
    return {name for name in inside if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()}


def test_a_layer_imports_only_from_the_layers_above_it():
    assert {layer(path) for path in MODULES} == set(LAYERS)
    above = {name: {*LAYERS[: number + 1]} for number, name in enumerate(LAYERS)}
    below = {str(path): imported_layers(path) - above[layer(path)] for path in MODULES}
    assert {path: layers for path, layers in below.items() if layers} == {}


def test_a_module_has_40_to_300_lines_unless_it_is_a_public_surface():
    small = {path for path in MODULES if path.stem in ("__init__", "tf")}
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {str(path): count for path, count in lines.items() if not 40 * (path not in small) <= count <= 300} == {}


def test_importing_every_module_makes_no_cloud_client_and_no_connection():
    modules = [path for path in MODULES if path.name != "main.py"]  # those of Cloud Functions need its framework
    names = [".".join(["recbandits", *path.relative_to(PACKAGE).with_suffix("").parts]) for path in modules]
    code = f"""
import importlib, json, sys
connections = []
sys.addaudithook(lambda event, arguments: connections.append(event) if event == "socket.connect" else None)
for name in {names!r}:
    importlib.import_module(name.removesuffix(".__init__"))
cloud = [name for name in sys.modules if name.startswith("google.cloud.")]
print(json.dumps([connections, cloud]))
"""
    assert json.loads(run_python(code).splitlines()[-1]) == [[], []]


@pytest.mark.parametrize("name", [name for name in LAYERS if (PACKAGE / name).is_dir()])
def test_a_layer_describes_its_public_names_in_a_list_of_at_most_ten(name):
    module = importlib.import_module(f"recbandits.{name}")
    assert len(re.findall("^- ", module.__doc__, re.M)) <= 10
    described = set(re.findall(r"\w+", " ".join(re.findall("`([^`]+)`", module.__doc__))))
    assert set(getattr(module, "__all__", ())) - described == set()


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        (r"\bsingle_step\(|\bTrajectory\(", ["data/trajectories.py"]),
        (r"os\.(rename|replace|link)\(|(path|draft|previous|file)\.(rename|replace)\(|mkstemp", ["checks.py"]),
        (r"np\.diff\(np\.sort|ordered\[:, 1:\]", ["checks.py"]),
        (r"\b1\.96\b|t\.ppf|\.sem\(", []),
        (r"var\(ddof=1\)", ["evaluation/estimate.py", "evaluation/intervals.py"]),  # the former by Bernstein's bound
        (r"^\s*import (argparse|click|fire)", ["serving/server.py"]),  # has two options, and the extra serve no tyro
    ],
    ids=["trajectory", "draft, then replace", "all different in a row", "quantiles", "mean interval", "command line"],
)
def test_a_rule_exists_once(code, modules):
    found = [path for path in MODULES if re.search(code, path.read_text(encoding="utf-8"), re.M)]
    assert [path.relative_to(PACKAGE).as_posix() for path in found] == modules


WRITERS = ("write_text", "write_bytes", "to_parquet", "to_csv", "write_table", "savez", "dump")
IN_DRAFTS = {  # what these write is in a directory that is a draft itself, or in a temporary one
    *("data/open_bandit.py", "loop/components.py", "platforms/gcp/pipelines.py", "platforms/gcp/warehouse.py"),
    *("platforms/local/pipelines.py", "serving/manifest.py", "serving/scorer.py"),
}


def direct_writes(tree):
    """Yield the calls of writers outside `with replacing(...)`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.With) and any("replacing(" in ast.unparse(item) for item in node.items):
            continue
        name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if name.rpartition(".")[2] in WRITERS and name not in ("checks.write_text", "write_text"):
            yield name
        yield from direct_writes(node)


def test_files_are_written_as_drafts_that_replace_them():
    written = {path.relative_to(PACKAGE).as_posix(): [*direct_writes(ast.parse(path.read_text()))] for path in MODULES}
    assert {name for name, calls in written.items() if calls} == IN_DRAFTS
