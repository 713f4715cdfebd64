"""The repository's notebooks, for the tools and the tests."""

import re
from fnmatch import fnmatch
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
COLAB = "colab"  # tag of the first code cell, which `tools.badges` writes


def find_notebooks(root=ROOT, patterns="*"):
    """Choose notebooks: those at the root first, then folder by folder, by number.

    Args:
      root: directory whose numbered notebooks, and those in its numbered folders, are looked at.
      patterns: shell patterns separated by spaces, each matched against the path from `root`, or else the name.

    Returns:
      list of pathlib.Path.

    Raises:
      ValueError: a pattern that matches nothing.
    """
    numbered = "[0-9][0-9]*.ipynb"  # others are a reader's own, or what papermill has written
    paths = [*sorted(root.glob(numbered)), *sorted(root.glob(f"[0-9][0-9]-*/**/{numbered}"))]
    paths = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    chosen = {path for pattern in patterns.split() for path in _matching(paths, root, pattern)}
    return [path for path in paths if path in chosen]


def _matching(paths, root, pattern):
    by_path = [path for path in paths if fnmatch(path.relative_to(root).as_posix(), pattern)]
    matching = by_path or [path for path in paths if fnmatch(path.stem, pattern)]
    if not matching:
        names = ", ".join(path.stem for path in paths) or "none"
        raise ValueError(f"NOTEBOOKS={pattern!r} matches no notebook; there are: {names}")
    return matching


def read(path):
    """The notebook in the current format's structure (nbformat 4)."""
    return nbformat.read(path, as_version=4)


def code_cells(notebook, solutions=False):
    """Its code cells, but those for Colab and of papermill, and without the solutions of `add_solutions`, or with."""
    added = {COLAB, "injected-parameters"} if solutions else {COLAB, "injected-parameters", "solution"}
    return [cell for cell in notebook.cells if cell.cell_type == "code" and not added & set(tags(cell))]


def solutions(notebook):
    """The Python blocks in the collapsed solutions of its exercises, list of text."""
    collapsed = re.findall(r"<summary>Solution</summary>(.*?)</details>", markdown(notebook), re.DOTALL)
    return [block for text in collapsed for block in re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)]


def add_solutions(notebook):
    """Append the solutions of the exercises as code cells, which continue the notebook."""
    cells = [nbformat.v4.new_code_cell(block, metadata={"tags": ["solution"]}) for block in solutions(notebook)]
    notebook.cells.extend(cells)
    return notebook


def tags(cell):
    return cell.metadata.get("tags", [])


def markdown(notebook):
    """The text of all its Markdown cells."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def title(notebook):
    """The first heading, without its marks."""
    return next((line[2:].strip() for line in markdown(notebook).splitlines() if line.startswith("# ")), "")


def picture(notebook):
    """The PNG in base64 that stands for the notebook: of the cell tagged `cover`, else the first; or None."""
    cells = sorted(code_cells(notebook), key=lambda cell: "cover" not in tags(cell))
    outputs = [output.get("data", {}) for cell in cells for output in cell.outputs]
    return next((data["image/png"] for data in outputs if "image/png" in data), None)
