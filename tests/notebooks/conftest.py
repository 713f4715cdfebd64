"""Throw-away notebooks for the tests of the machinery that runs notebooks."""

import nbformat
import pytest

RECORD = """from recbandits.report import record_metrics
record_metrics({name!r}, "none", profile=PROFILE, answer=42)"""


@pytest.fixture(scope="session")
def write_notebook():
    """A function that writes a notebook: parameters, then the given code cells, each a text or (text, tag)."""

    def write(path, *cells, record=True):
        cells = [('PROFILE = "quick"  # or "full"', "parameters"), *cells]
        cells += [RECORD.format(name=path.stem)] if record else []
        written = [nbformat.v4.new_markdown_cell(f"# The title of {path.stem}")]
        for cell in cells:
            source, *tags = [cell] if isinstance(cell, str) else cell
            written.append(nbformat.v4.new_code_cell(source, metadata={"tags": tags} if tags else {}))
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=written), path)
        return path

    return write
