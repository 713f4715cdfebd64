"""Every notebook runs as `make run` runs it, without network, account or home, to numbers that mean something."""

import tomllib
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import IPyNbFile

from tools.notebooks import COLAB, code_cells, find_notebooks, read, tags
from tools.run_notebooks import run_all

NOTEBOOKS = find_notebooks()
EXPECTED = tomllib.loads(Path(__file__).with_name("expected.toml").read_text(encoding="utf-8"))
EXPECTATIONS = [(name, metric) for name, metrics in EXPECTED.items() for metric in metrics]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
ANY_DATA_SHOWS_NOTHING = {"01-tf-agents-basics", "02g-bring-your-own-data"}  # each output depends on the data


@pytest.fixture(scope="module")
def results(isolated):
    """All notebooks with the solutions of their exercises, executed once, in order; dict from name to Result."""
    return {result.name: result for result in run_all(NOTEBOOKS, "quick", isolated / "build", solutions=True)}


@each_notebook
def test_it_runs(results, path):
    assert results[path.stem].problem == ""


@pytest.mark.parametrize(("name", "metric"), EXPECTATIONS)
def test_its_metrics_are_in_range(results, name, metric):
    data, expected = results[name].record["data"], EXPECTED[name][metric]
    source = "any" if "any" in expected else "synthetic" if data.startswith("synthetic") else "real"
    low, high = expected[source]
    assert low <= results[name].metrics[metric] <= high, f"on {data}: {expected['meaning']}"


@each_notebook
def test_its_committed_metrics_are_in_range(path):
    """They come from MovieLens 100K."""
    (table,) = (output.data["text/plain"] for output in code_cells(read(path))[-1].outputs if "data" in output)
    committed = dict(line.split() for line in table.splitlines()[2:])
    ranges = {metric: expected.get("real", expected.get("any")) for metric, expected in EXPECTED[path.stem].items()}
    assert {
        metric: committed[metric]
        for metric, (low, high) in ranges.items()
        if not low <= float(committed[metric]) <= high
    } == {}


@each_notebook
def test_tagged_cells_show_what_is_committed(results, path, request):
    """On MovieLens 100K all of them, as the committed outputs were made from it; on the synthetic set some."""
    executed, data = results[path.stem].notebook, results[path.stem].record.get("data", "")
    assert executed is not None, results[path.stem].problem
    tag = "any-data" if data.startswith("synthetic") else "nbval-check-output"
    assert differences(path, executed, request.session, tag) == []


@each_notebook
def test_cells_that_show_the_same_on_any_data_are_compared_by_nbval_too(path):
    compared = [tags(cell) for cell in code_cells(read(path)) if "any-data" in tags(cell)]
    assert all("nbval-check-output" in names for names in compared)
    assert compared or path.stem in ANY_DATA_SHOWS_NOTHING


def differences(committed, executed, session, tag="nbval-check-output"):
    """List the differences that nbval finds in the outputs of the cells with a tag, without executing them."""
    file, found = IPyNbFile.from_parent(session, path=committed), []
    file.compare_outputs = False  # of cells without a tag
    items = [item for item in file.collect() if COLAB not in tags(item.cell)]
    for item, copy in zip(items, code_cells(executed), strict=True):
        if tag in tags(item.cell) and not item.compare_outputs(copy.outputs, item.cell.outputs):
            found.append("\n".join([item.cell.source, *item.comparison_traceback]))
    return found


def test_an_output_that_changed_is_found(write_notebook, tmp_path, request):
    """Of two cells that show something else now, the one that is tagged is reported."""
    cells = ("print(1)", "nbval-check-output"), "print(2)", ("print(3)", "nbval-check-output")
    source = write_notebook(tmp_path / "00-a.ipynb", *cells)
    committed, executed = read(source), read(source)
    for notebook, shift in ((committed, 0), (executed, 10)):
        for number, cell in enumerate(code_cells(notebook)[1:4], 1):
            text = f"{number + (shift if number < 3 else 0)}\n"
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    nbformat.write(committed, source)
    found = differences(source, executed, request.session)
    assert [text.splitlines()[0] for text in found] == ["print(1)"]


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
