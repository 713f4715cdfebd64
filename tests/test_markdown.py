"""Every Markdown file: its Python blocks run, in order and in one namespace, and its links lead somewhere."""

import re

import pytest

from tests.videos import write_tables
from tools.links import anchors, broken_links, markdown_files
from tools.lock import ROOT

FILES = markdown_files(ROOT)
BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.M | re.S)


def run_blocks(path):
    """Execute the Python blocks of a Markdown file; tracebacks name its own lines. Returns the namespace."""
    text, namespace = path.read_text(encoding="utf-8"), {"__name__": path.stem}
    for block in BLOCK.finditer(text):
        lines_above = text.count("\n", 0, block.start(1))
        exec(compile("\n" * lines_above + block[1], path, "exec"), namespace)
    return namespace


def is_run_here(path):
    """Return False for pages without blocks, and for those that test_copy.py and test_contributing.py run."""
    return path.name not in ("copy.md", "CONTRIBUTING.md") and BLOCK.search(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [*filter(is_run_here, FILES)], ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECBANDITS_CONFIG", str(tmp_path / "recbandits.toml"))
    write_tables(tmp_path, n=1000)  # the files of a reader, which README.md and docs/data.md read
    run_blocks(path)


def test_links_lead_somewhere():
    broken = {str(path): broken_links(path.read_text(encoding="utf-8"), path) for path in FILES}
    assert {path: links for path, links in broken.items() if links} == {}


def test_blocks_share_a_namespace_and_an_error_names_the_line_of_the_file(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\ntext\n```console\n$ x = 5\n```\n```python\ny = x + 1\n```\n")
    assert run_blocks(page)["y"] == 2
    page.write_text("text\n\n```python\nassert False\n```\n")
    with pytest.raises(AssertionError) as error:
        run_blocks(page)
    assert error.traceback[-1].lineno + 1 == 4


def test_links_to_missing_files_and_headings_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One `two`, *three*\n<a id='here'></a>\n```\n# no heading\n```\n## Ünder_score – dash\n")
    assert anchors(page) == {"one-two-three", "here", "ünder_score--dash"}
    good = "[a](page.md) ![b](page.md#here) [c](#one-two-three) [d](https://nowhere.invalid) <img src='page.md'>"
    bad = "[a](missing.md) [b](page.md#no-heading) [c](#nowhere) <img src='missing.png'>"
    assert broken_links(good, page) == []
    assert broken_links(bad, page) == ["missing.md", "page.md#no-heading", "#nowhere", "missing.png"]
