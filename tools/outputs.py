"""Outputs of a notebook that may be committed."""

import copy
import re

from nbformat import from_dict

from tools.notebooks import COLAB, ROOT, code_cells, tags

PICTURE_LIMIT = 300_000  # bytes of base64, at 144 dpi
PRIVATE = re.compile(
    rf"{re.escape(str(ROOT))}|(?<![\w.~-])/(?:home|root|tmp|Users|private|mnt|var/folders|var/tmp)/\w|\bsite-packages/"
)
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def clean(notebook):
    """The notebook as it is committed: cells, tags and outputs stay, what depends on the machine or the moment goes.

    Args:
      notebook: nbformat 4 structure; left as it is.

    Returns:
      Another one, whose code cells are numbered 1, 2, ...; the cell for Colab has no number.
    """
    notebook = copy.deepcopy(notebook)
    notebook.metadata = from_dict(NOTEBOOK_METADATA)
    for cell in notebook.cells:
        cell.metadata = from_dict({"tags": tags(cell)} if tags(cell) else {})
        if COLAB in tags(cell):
            cell.execution_count = None
    for number, cell in enumerate(code_cells(notebook), 1):
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
    return notebook


def complaints(notebook):
    """Why the outputs of a notebook may not be committed.

    Args:
      notebook: nbformat 4 structure.

    Returns:
      list of sentences, empty when all is well.
    """
    problems = []
    for number, cell in enumerate(code_cells(notebook), 1):
        problems += [f"code cell {number} {problem}" for output in cell.outputs if (problem := _problem(output))]
    return problems


def _problem(output):
    """The rest of a sentence about one output, or None."""
    if output.output_type == "error":
        return f"shows an error: {output.ename}: {output.evalue}"
    if output.get("name") == "stderr":
        return f"writes to stderr: {output.text.splitlines()[0]!r}"
    for kind, content in {"text": output.get("text", ""), **output.get("data", {})}.items():
        if kind.startswith("image/") and len(content) > PICTURE_LIMIT:
            return f"shows a picture of {len(content):,} bytes, above {PICTURE_LIMIT:,}: make it smaller"
        if kind != "image/png" and (match := PRIVATE.search(str(content)) or ADDRESS.search(str(content))):
            return f"shows what differs between machines: {match.group()!r}"
    return None
