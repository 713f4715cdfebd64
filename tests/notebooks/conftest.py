"""An environment without network access, and temporary notebooks for the tests of the tools."""

import os

import nbformat
import pytest

RECORD = """from recbandits.notebook import record_metrics
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


@pytest.fixture(scope="module")
def isolated(tmp_path_factory):
    """Set proxies that refuse, and remove credentials and settings; yield the empty home directory."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("GOOGLE_", "CLOUDSDK_", "RECBANDITS_")) and name != "RECBANDITS_MOVIELENS":
                patch.delenv(name)
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
            patch.setenv(name.upper(), "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, "127.0.0.1,localhost")
        patch.setenv("HOME", str(home))
        yield home
