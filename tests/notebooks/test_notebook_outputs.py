"""The committed outputs of every notebook are what it shows, on MovieLens 100K, from which they were made."""

import subprocess
import sys

import pytest

from tools.notebooks import ROOT, find_notebooks

NBVAL = ["--nbval-lax", "--nbval-cell-timeout=300", "-p", "no:cacheprovider", "-q"]


@pytest.mark.parametrize("path", find_notebooks(), ids=lambda path: path.stem)
def test_tagged_cells_show_what_is_committed(real_movielens, isolated, path, monkeypatch):
    """Nbval executes all cells and compares the outputs of those tagged `nbval-check-output`."""
    monkeypatch.setenv("RECBANDITS_CONFIG", str(isolated / "recbandits.toml"))
    done = subprocess.run([sys.executable, "-m", "pytest", *NBVAL, path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
