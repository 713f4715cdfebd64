"""The commands of docs/notebooks.md run as they are written there, and find `.venv` in the place of this Python."""

import re
import shlex
import subprocess
import sys

import nbformat
import pytest

from recbandits.config import Config
from tools.lock import ROOT
from tools.notebooks import code_cells, find_notebooks, read

PAGE = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
STEPS = ROOT / "04-pipelines" / "01-step_by_step_sdk_tf_agents_bandit" / "01-train_deploy_mab.ipynb"


def commands(program):
    """Return (folder, arguments) of each command on the page that starts a program of `.venv`."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S):
        folder = ROOT
        for line in block.splitlines():
            if line.startswith("cd "):
                folder = ROOT / line.removeprefix("cd ")
            elif f"/{program} " in line:
                found.append((folder, shlex.split(line.split(f"/{program} ")[1])))
    return found


@pytest.fixture
def run(isolated, tmp_path, monkeypatch):
    """Function that runs a module of Python in a folder; nothing is written to the checkout."""
    monkeypatch.setenv("RECBANDITS_CONFIG", str(Config(artifacts=str(tmp_path)).write(tmp_path / "recbandits.toml")))

    def run(folder, *arguments):
        done = subprocess.run([sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return run


@pytest.mark.parametrize("number", [0, 1], ids=["from the root", "from its folder"])
def test_papermill_runs_a_notebook(run, tmp_path, number):
    folder, (source, target, *parameters) = commands("papermill")[number]
    assert (folder == ROOT, parameters) == (number == 0, ["-p", "PROFILE", "quick"])
    run(folder, "papermill", source, str(tmp_path / target), *parameters, "-k", "python3")
    assert all(cell.execution_count for cell in code_cells(read(tmp_path / target)))


def test_papermill_from_the_root_finds_what_is_beside_the_notebook(run, tmp_path):
    """04-01 imports `src` and runs its tests by relative paths. What follows these cells is left out for time."""
    notebook = read(STEPS)
    last = max(place for place, cell in enumerate(notebook.cells) if "pytest" in cell.source and "src/" in cell.source)
    notebook.cells = notebook.cells[: last + 1]
    nbformat.write(notebook, tmp_path / "first-cells.ipynb")
    run(ROOT, "papermill", str(tmp_path / "first-cells.ipynb"), str(tmp_path / "out.ipynb"), "-k", "python3")
    assert "passed" in code_cells(read(tmp_path / "out.ipynb"))[-1].outputs[0].text


def test_nbval_collects_every_notebook_and_compares_one(run):
    ((folder, (_, program, *options)),) = commands("python")
    assert (folder, program, options) == (ROOT, "pytest", ["--nbval-lax", "*.ipynb", "0*/"])
    everything = [str(path) for pattern in options[1:] for path in ROOT.glob(pattern.rstrip("/"))]
    quiet = ["-p", "no:cacheprovider", "-q"]
    collected = run(ROOT, "pytest", *options[:1], *everything, "--collect-only", *quiet)
    missing = [path for path in find_notebooks() if f"{path.relative_to(ROOT).as_posix()}::" not in collected]
    assert missing == []
    assert " passed" in run(ROOT, "pytest", *options[:1], "00-env-setup.ipynb", *quiet)
