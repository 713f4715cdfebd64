"""Every notebook runs as `make run` runs it, without network, account or home, to numbers that mean something."""

import tomllib
from pathlib import Path

import pytest

from tools.notebooks import find_notebooks
from tools.run_notebooks import run_all

NOTEBOOKS = find_notebooks()
EXPECTED = tomllib.loads(Path(__file__).with_name("expected.toml").read_text(encoding="utf-8"))
EXPECTATIONS = [(name, metric) for name, metrics in EXPECTED.items() for metric in metrics]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def results(isolated):
    """All notebooks, executed once, in order; dict from name to Result."""
    return {result.name: result for result in run_all(NOTEBOOKS, "quick", isolated / "build")}


@each_notebook
def test_it_runs(results, path):
    assert results[path.stem].problem == ""


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
