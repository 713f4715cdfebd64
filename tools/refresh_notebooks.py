"""Make the committed outputs: execute notebooks on MovieLens 100K in the quick profile, clean them, put them in place.

Nothing is written unless every chosen notebook passed and its outputs may be committed. The picture of a cell tagged
`cover` is put into docs/, where a page can show it.
"""

import argparse
import base64
import os
import sys

import nbformat

from recbandits.checks import write_text
from recbandits.data import movielens
from tools.notebooks import ROOT, code_cells, find_notebooks, picture, read, tags
from tools.outputs import clean, complaints
from tools.run_notebooks import run_all, sole_run


def check_data():
    """Refuse anything but the real MovieLens 100K.

    Raises:
      ValueError: RECBANDITS_MOVIELENS is not set or names something else.
    """
    if not os.environ.get("RECBANDITS_MOVIELENS"):
        raise ValueError("make refresh needs MovieLens 100K: set RECBANDITS_MOVIELENS to its directory")
    data = movielens.load(offline=True)
    if not data.is_real:
        raise ValueError(f"make refresh needs MovieLens 100K, but RECBANDITS_MOVIELENS gave {data.source}")


def refreshed(source, executed):
    """A notebook with the outputs of its executed copy, cleaned.

    Args:
      source: the notebook, nbformat 4 structure.
      executed: its executed copy, with the cells that papermill put in.

    Returns:
      nbformat 4 structure.

    Raises:
      ValueError: an output that may not be committed.
    """
    for cell, copy in zip(code_cells(source), code_cells(executed), strict=True):
        cell.outputs = copy.outputs
    problems = complaints(source)
    if problems:
        raise ValueError("; ".join(problems))
    return clean(source)


def refresh(sources, build, root=ROOT):
    """Execute notebooks and replace them by themselves with new outputs: all of them, or none when one fails.

    They run one after the other, so that none measures the time of another.

    Args:
      sources: list of pathlib.Path under `root`.
      build: directory for the run.
      root: of the repository.

    Raises:
      ValueError: a notebook that failed, or an output that may not be committed, one line each.
    """
    problems, written = [], {}
    for source, result in zip(sources, run_all(sources, "quick", build, root, workers=1), strict=True):
        try:
            if result.problem:
                raise ValueError(result.problem)
            written[source] = refreshed(read(source), result.notebook)
        except ValueError as error:
            problems.append(f"{result.name}: {error}")
    if problems:
        raise ValueError("\n".join([*problems, "No notebook was changed."]))
    for source, notebook in written.items():
        write_text(source, nbformat.writes(notebook) + "\n")
        write_cover(notebook, root / "docs" / f"{source.stem}.png")


def write_cover(notebook, file):
    """Put the picture of the cell tagged `cover` into a file; a notebook without such a cell has none."""
    if any("cover" in tags(cell) for cell in code_cells(notebook)):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(base64.b64decode(picture(notebook)))


def main():
    parser = argparse.ArgumentParser(description="Make the committed outputs of the notebooks.")
    parser.add_argument("--notebooks", default="*", help="shell patterns for paths or names, apart by spaces")
    options = parser.parse_args()
    try:
        check_data()
        with sole_run(ROOT / "build" / "refresh"):
            refresh(find_notebooks(patterns=options.notebooks), ROOT / "build" / "refresh")
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: no notebook was changed.")


if __name__ == "__main__":
    main()
