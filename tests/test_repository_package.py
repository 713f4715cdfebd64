"""The package as a house: quick to enter, and each room imports only from the rooms above it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import recbandits

HOUSE = Path(recbandits.__file__).parent
ROOMS = [
    "config",
    "report",
    "machine",
    "interactions",
    "data",
    "environments",
    "agents",
    "evaluation",
    "serving",
    "training",
    "platforms",
    "plots",
    "loop",
]
SUBCLASSES_THE_SDK = "recbandits.serving.predictor"  # its classes are those of Vertex AI's model server
MODULES = sorted(path for path in HOUSE.rglob("*.py") if path != HOUSE / "__init__.py")

WATCHED_IMPORT = f"""
import json, sys, time
events = []
def watch(event, arguments):
    if event in ("open", "subprocess.Popen") or event.startswith("socket."):
        if not str(arguments[0]).startswith({str(HOUSE)!r}):
            events.append(f"{{event}} {{arguments[0]}}")
sys.addaudithook(watch)
start = time.perf_counter()
import recbandits
seconds = time.perf_counter() - start
print(json.dumps([seconds, events, sorted(sys.modules)]))
"""


def in_subprocess(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_is_quick_and_opens_nothing():
    """The best of three processes: the claim is about the package, not about what else the machine does."""
    imports = [json.loads(in_subprocess(WATCHED_IMPORT)) for _ in range(3)]
    assert min(seconds for seconds, _, _ in imports) < 0.1
    for _, events, modules in imports:
        assert events == []
        assert [name for name in modules if name.split(".")[0] in ("tensorflow", "numpy", "pandas")] == []


def room(path):
    return path.relative_to(HOUSE).with_suffix("").parts[0]


def imported_rooms(path):
    """The rooms that a module imports from, wherever in it the import is."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: import by the full name"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    inside = {name.split(".")[1] for name in names if name.startswith("recbandits.")}
    return {name for name in inside if (HOUSE / name).exists() or (HOUSE / f"{name}.py").exists()}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_room_imports_only_from_the_rooms_above_it(path):
    assert room(path) in ROOMS, f"say where the new room {room(path)!r} stands in the house"
    above = ROOMS[: ROOMS.index(room(path)) + 1]
    assert imported_rooms(path) <= set(above)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_module_is_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_importing_every_module_makes_no_cloud_client_and_no_connection():
    names = [".".join(["recbandits", *path.relative_to(HOUSE).with_suffix("").parts]) for path in MODULES]
    code = f"""
import importlib, json, sys
connections = []
sys.addaudithook(lambda event, arguments: connections.append(event) if event == "socket.connect" else None)
for name in {names!r}:
    if name != {SUBCLASSES_THE_SDK!r}:
        importlib.import_module(name.removesuffix(".__init__"))
cloud = [name for name in sys.modules if name.startswith("google.cloud.")]
importlib.import_module({SUBCLASSES_THE_SDK!r})
print(json.dumps([connections, cloud]))
"""
    assert json.loads(in_subprocess(code).splitlines()[-1]) == [[], []]
