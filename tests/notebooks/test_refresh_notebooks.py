"""`make refresh` commits nothing that depends on the machine, and all notebooks or none."""

import base64

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools.draw_diagrams import DIAGRAMS
from tools.notebooks import ROOT, code_cells, find_notebooks, picture, read, tags
from tools.outputs import PICTURE_LIMIT, clean, complaints
from tools.refresh_notebooks import check_data, refresh, write_cover

OTHERS = {"scaling", "serving-profile", "playground", "playground-agents"}  # of benchmarks and the playground


def showing(*outputs):
    return new_notebook(cells=[new_code_cell("1", outputs=list(outputs))])


def text(content, name="stdout"):
    return new_output("stream", name=name, text=content)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (text("Warning: slow\n", name="stderr"), "writes to stderr: 'Warning: slow'"),
        (new_output("error", ename="KeyError", evalue="'x'"), "shows an error: KeyError: 'x'"),
        (text("wrote /home/anna/data\n"), "shows what differs between machines: '/home/a'"),
        (text(f"in {ROOT}/artifacts"), f"shows what differs between machines: '{ROOT}'"),
        (text("lib/python3.12/site-packages/x.py"), "shows what differs between machines: 'site-packages/'"),
        (
            new_output("execute_result", {"text/plain": "<A at 0x7f01cafe>"}),
            "shows what differs between machines: 'at 0x",
        ),
        (new_output("display_data", {"text/html": "<b>/tmp/x</b>"}), "shows what differs between machines: '/tmp/x'"),
        (new_output("display_data", {"image/png": "a" * (PICTURE_LIMIT + 1)}), "shows a picture of 300,001 bytes"),
    ],
)
def test_an_output_that_may_not_be_committed_is_named(output, sentence):
    (complaint,) = complaints(showing(text("fine"), output))
    assert complaint.startswith(f"code cell 1 {sentence}")


@pytest.mark.parametrize(
    "output",
    [
        text("gs://bucket/home/x and https://site.org/tmp/y and artifacts/tmp/z, 3/4 at 0xff"),
        new_output("display_data", {"image/png": "a/tmp/b" * 100}),
    ],
)
def test_ordinary_outputs_may_be_committed(output):
    assert complaints(showing(output)) == []


def test_cleaning_keeps_tags_and_outputs_and_nothing_else():
    cell = new_code_cell("1", execution_count=7, metadata={"tags": ["cover"], "execution": {"iopub": "now"}})
    cell.outputs = [new_output("execute_result", {"text/plain": "1"}, execution_count=7)]
    other = new_code_cell("2", metadata={"collapsed": True})
    notebook = new_notebook(cells=[cell, other], metadata={"widgets": {}, "papermill": {}})
    cleaned = clean(notebook)
    assert [dict(c.metadata) for c in cleaned.cells] == [{"tags": ["cover"]}, {}]
    assert [c.execution_count for c in cleaned.cells] == [1, 2]
    assert (cleaned.cells[0].outputs[0].data, cleaned.cells[0].outputs[0].execution_count) == ({"text/plain": "1"}, 1)
    assert sorted(cleaned.metadata) == ["kernelspec", "language_info"]
    assert clean(cleaned) == cleaned
    assert notebook.cells[0].execution_count == 7, "the original was changed"


def test_refresh_puts_new_outputs_in_place(tmp_path, write_notebook):
    source = write_notebook(tmp_path / "00-a.ipynb", ("print(6 * 7)", "nbval-check-output"))
    before = read(source)
    refresh([source], tmp_path / "build", root=tmp_path)
    after = read(source)
    assert [(c.id, c.source, tags(c)) for c in after.cells] == [(c.id, c.source, tags(c)) for c in before.cells]
    assert after.cells[2].outputs == [text("42\n")]
    assert source.read_text() == nbformat.writes(clean(after)) + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00-a.ipynb", "build"]


def test_refresh_changes_no_notebook_when_one_fails(tmp_path, write_notebook):
    good = write_notebook(tmp_path / "00-good.ipynb", "print(1)")
    noisy = write_notebook(tmp_path / "01-noisy.ipynb", "import sys\nprint('psst', file=sys.stderr)")
    broken = write_notebook(tmp_path / "02-broken.ipynb", "1 / 0")
    before = [path.read_text() for path in (good, noisy, broken)]
    with pytest.raises(
        ValueError, match="01-noisy: code cell 2 writes to stderr: 'psst'\n02-broken: failed in code cell 2"
    ):
        refresh([good, noisy, broken], tmp_path / "build", root=tmp_path)
    assert [path.read_text() for path in (good, noisy, broken)] == before


def test_refresh_without_movielens_is_refused(monkeypatch):
    monkeypatch.delenv("RECBANDITS_MOVIELENS", raising=False)
    with pytest.raises(ValueError, match="set RECBANDITS_MOVIELENS to its directory"):
        check_data()


def test_refresh_on_the_real_set_is_allowed(real_movielens):
    check_data()


def test_refresh_on_another_set_is_refused(monkeypatch, tmp_path):
    """A made-up set in the format of MovieLens 100K is not MovieLens 100K."""
    (tmp_path / "u.data").write_text("1\t1\t5\t881250949\n")
    (tmp_path / "u.item").write_text("1|A Film (1990)|01-Jan-1990||" + "|0" * 18 + "|1\n")
    (tmp_path / "u.user").write_text("1|24|M|writer|12345\n")
    monkeypatch.setenv("RECBANDITS_MOVIELENS", str(tmp_path))
    with pytest.raises(ValueError, match="make refresh needs MovieLens 100K, but RECBANDITS_MOVIELENS gave foreign"):
        check_data()


def test_the_picture_of_the_cover_is_put_where_a_readme_can_show_it(tmp_path):
    plain = new_code_cell("1", outputs=[new_output("display_data", {"image/png": "AAAA"})])
    cover = new_code_cell("2", metadata={"tags": ["cover"]})
    cover.outputs = [new_output("display_data", {"image/png": "iVBORw0KGgo="})]
    write_cover(new_notebook(cells=[plain]), tmp_path / "docs" / "plain.png")
    write_cover(new_notebook(cells=[plain, cover]), tmp_path / "docs" / "covered.png")
    assert [file.name for file in (tmp_path / "docs").iterdir()] == ["covered.png"]
    assert (tmp_path / "docs" / "covered.png").read_bytes() == b"\x89PNG\r\n\x1a\n"


def test_the_pictures_in_docs_are_those_of_the_notebooks():
    covered = {path.stem: picture(read(path)) for path in find_notebooks() if has_cover(path)}
    found = [path for path in (ROOT / "docs").glob("*.png") if path.stem not in {*DIAGRAMS, *OTHERS}]
    files = {path.stem: base64.b64encode(path.read_bytes()).decode() for path in found}
    assert files == {name: image.replace("\n", "") for name, image in covered.items()}


def has_cover(path):
    return any("cover" in tags(cell) for cell in code_cells(read(path)))
