"""Every notebook runs as `make run` runs it, without network, account or home, to numbers that mean something."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tools.lock import ROOT
from tools.notebooks import find_notebooks
from tools.run_notebooks import run_all

NOTEBOOKS = find_notebooks()
EXPECTED = tomllib.loads(Path(__file__).with_name("expected.toml").read_text(encoding="utf-8"))
EXPECTATIONS = [(name, metric) for name, metrics in EXPECTED.items() for metric in metrics]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def isolate(patch, home):
    """Make every way out lead nowhere: proxies that refuse, no credentials, an empty home, no settings of ours."""
    for name in os.environ:
        if name.startswith(("GOOGLE_", "CLOUDSDK_", "RECBANDITS_")) and name != "RECBANDITS_MOVIELENS":
            patch.delenv(name)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        patch.setenv(name, "http://127.0.0.1:9")
        patch.setenv(name.upper(), "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        patch.setenv(name, "127.0.0.1,localhost")
    patch.setenv("HOME", str(home))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """All notebooks, executed once, in order; dict from name to Result."""
    folder = tmp_path_factory.mktemp("notebooks")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        return {result.name: result for result in run_all(NOTEBOOKS, "quick", folder / "build")}


@pytest.mark.xdist_group("papermill")
@each_notebook
def test_it_runs(results, path):
    assert results[path.stem].problem == ""


@pytest.mark.xdist_group("papermill")
@pytest.mark.parametrize(("name", "metric"), EXPECTATIONS)
def test_its_metrics_are_in_range(results, name, metric):
    data = results[name].record["data"]
    source = "any" if data == "none" else "synthetic" if data.startswith("synthetic") else "real"
    low, high = EXPECTED[name][metric][source]
    assert low <= results[name].metrics[metric] <= high, f"on {data}: {EXPECTED[name][metric]['meaning']}"


@each_notebook
def test_something_is_expected_of_it(path):
    assert EXPECTED.get(path.stem), f"expected.toml says nothing about {path.stem}"


@pytest.mark.parametrize(("name", "metric"), EXPECTATIONS)
def test_no_range_contains_the_trivial_answer(name, metric):
    expected = EXPECTED[name][metric]
    ranges = [expected[source] for source in ("any", "real", "synthetic") if source in expected]
    assert ranges
    assert set(expected) - {"any", "real", "synthetic"} == {"trivial", "meaning"}
    assert [(low, high) for low, high in ranges if not low <= high or low <= expected["trivial"] <= high] == []


@pytest.mark.xdist_group("nbval")
@each_notebook
def test_its_committed_outputs_are_what_it_shows(real_movielens, path, tmp_path, monkeypatch):
    """Nbval executes it and compares the cells tagged `nbval-check-output` with what is committed."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("RECBANDITS_CONFIG", str(tmp_path / "recbandits.toml"))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-cell-timeout",
        "300",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run([*command, path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
