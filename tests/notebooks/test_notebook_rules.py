"""The rules for every notebook of the repository."""

import ast
import functools
import io
import json
import re
import tokenize

import nbformat
import pytest

from tools import notebooks
from tools.links import broken_links
from tools.notebooks import code_cells, find_notebooks, markdown, solutions, tags
from tools.outputs import clean, complaints

read = functools.cache(notebooks.read)  # every rule reads every notebook, and changes none
NOTEBOOKS = find_notebooks()
SIZE_LIMIT = 1 << 20  # bytes
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def calls(source, *names):
    """The calls of these functions, however they are reached, in a piece of code."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [node for node in nodes if getattr(node.func, "id", getattr(node.func, "attr", None)) in names]


def test_names_are_unique():
    """Metrics are kept by name."""
    names = [path.stem for path in NOTEBOOKS]
    assert len(names) == len(set(names)) > 0


@each_notebook
def test_the_first_cell_says_what_it_takes(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"\*\*minutes:\*\* \S.* · \*\*cost:\*\* \S.* · \*\*needs:\*\* \S", first.source)
    assert re.search(r"\[!\[.+?\]\(.+?\)\]\(.+?\)", first.source), "a badge is missing"
    assert re.search(r"\]\([./]*README\.md", first.source), "the way back to the README is missing"


@each_notebook
def test_the_third_cell_holds_the_parameters_and_no_other_does(path):
    notebook = read(path)
    assert [number for number, cell in enumerate(notebook.cells, 1) if "parameters" in tags(cell)] == [3]
    source = notebook.cells[2].source
    values = {}
    for statement in ast.parse(source).body:
        assert isinstance(statement, ast.Assign), f"not a plain assignment: {ast.unparse(statement)}"
        (target,) = statement.targets
        values[target.id] = ast.literal_eval(statement.value)
    assert values["PROFILE"] == "quick"
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    commented = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    assert {statement.end_lineno for statement in ast.parse(source).body} <= commented, "a parameter has no comment"


@each_notebook
def test_there_are_at_most_20_code_cells_of_20_lines(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert len(cells) <= 20, "with the cell for Colab"
    assert {number: cell.source for number, cell in enumerate(cells, 1) if cell.source.count("\n") >= 20} == {}


@each_notebook
def test_code_is_plain_python_without_tricks(path):
    """No line magic or shell escape parses; what else is forbidden is looked for by name."""
    for cell in code_cells(read(path)):
        assert not calls(cell.source, "exec", "eval", "get_ipython", "system")
        assert not re.search(r"\bsys\.path\b|\bfrom sys import\b|\bpip\b.*\binstall\b", cell.source)


@each_notebook
def test_the_last_code_cell_records_metrics_under_the_name_of_the_notebook(path):
    (call,) = calls(code_cells(read(path))[-1].source, "record_metrics")
    assert ast.literal_eval(call.args[0]) == path.stem


@each_notebook
def test_the_exercises_have_solutions(path):
    """`test_notebook_execution.py` executes them."""
    text = markdown(read(path))
    assert len(solutions(read(path))) >= 1
    assert text.count("```python") == len(solutions(read(path))), "a block that is no solution belongs into a cell"
    assert text.count("<details>") == text.count("</details>") > 0


@each_notebook
def test_links_lead_somewhere(path):
    assert broken_links(markdown(read(path)), path) == []


@each_notebook
def test_outputs_are_there_and_may_be_committed(path):
    notebook = read(path)
    assert complaints(notebook) == []
    assert any(cell.outputs for cell in code_cells(notebook)), "make refresh has not been run"
    assert all(cell.execution_count for cell in code_cells(notebook))
    shown = json.dumps([cell.outputs for cell in code_cells(notebook)])
    for notice in ("NO MOVIELENS", "NO OPEN BANDIT"):
        assert notice not in shown, "the outputs were made on the synthetic set: run make refresh"


@each_notebook
def test_the_file_is_clean_and_small(path):
    """Written as `make refresh` writes it: no metadata but tags, cells numbered, keys sorted."""
    assert path.read_text(encoding="utf-8") == nbformat.writes(clean(read(path))) + "\n"
    assert path.stat().st_size <= SIZE_LIMIT


@each_notebook
def test_something_is_left_for_nbval_to_compare(path):
    assert any("nbval-check-output" in tags(cell) and cell.outputs for cell in code_cells(read(path)))


@each_notebook
def test_the_header_says_what_each_machine_on_google_cloud_costs(path):
    """Cells tagged `gcp` name them as "n2-standard-8", or as Cloud Build's "E2_HIGHCPU_8"."""
    cells = [cell.source for cell in code_cells(read(path)) if "gcp" in tags(cell)]
    machines = re.findall(r'"((?:[a-z]\d|[A-Z]\d)[-_][a-zA-Z]+[-_]\d+)"', "\n".join(cells))
    cost = re.search(r"\*\*cost:\*\* (.*?) · \*\*needs", read(path).cells[0].source)[1]
    assert [name for name in machines if name.lower().replace("_", "-") not in cost] == []
    assert not machines or re.search(r"US\$ \d+\.\d\d per hour.*\(\d{4}-\d{2}\)", cost)


@each_notebook
def test_no_google_cloud_is_imitated(path):
    """Its cells use the SDK's own objects; test_gcp_cells.py tests their requests."""
    assert "rehears" not in path.read_text(encoding="utf-8").lower()
