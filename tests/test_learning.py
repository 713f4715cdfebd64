"""Pages state the results of their code blocks, and the indexes of the folders are complete."""

import pkgutil
import re

import numpy as np
import pytest

from benchmarks import pages
from tests.test_markdown import BLOCK, run_blocks
from tools.lock import ROOT
from tools.notebooks import find_notebooks, markdown, read

LEARNING = ROOT / "learning"
GLOSSARY = LEARNING / "glossary.md"
OVERVIEW = LEARNING / "tf-agents-overview.md"
INDEXES = sorted([LEARNING / "README.md", *ROOT.glob("0*/**/README.md")])
PAGES = sorted(set(LEARNING.glob("*.md")) - {LEARNING / "README.md"})
NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:\.\d+)?(?![\w])")


@pytest.fixture(scope="module")
def overview(tmp_path_factory):
    """Return the variables of the overview's code blocks at the end of the section about trajectories."""
    page = tmp_path_factory.mktemp("page") / OVERVIEW.name
    page.write_text(OVERVIEW.read_text(encoding="utf-8").split("\n## Agent\n")[0], encoding="utf-8")
    return run_blocks(page)


def rows(heading):
    """Cells of the table of the overview whose first column has this heading."""
    table = OVERVIEW.read_text(encoding="utf-8").split(f"\n| {heading} |")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def numbers(text):
    return [float(number) for number in NUMBER.findall(text)]


def test_the_table_of_expected_rewards_is_the_factorisation_with_the_best_arms_in_bold(overview):
    matrix = overview["tiny"].matrix()
    expected = np.vstack([matrix, matrix.mean(axis=0)])
    cells = [row[1:] for row in rows("expected reward")]
    np.testing.assert_allclose([numbers(" ".join(row).replace("*", "")) for row in cells], expected)
    assert [[cell.startswith("**") for cell in row].index(True) for row in cells] == expected.argmax(axis=1).tolist()


def test_the_table_of_the_trajectory_is_the_trajectory(overview):
    """All seven fields: shape and values, user by user."""
    table = {row[0].strip("`"): row[1:3] for row in rows("field")}
    assert sorted(table) == sorted(overview["experience"]._fields)
    for field, value in overview["experience"]._asdict().items():
        shape, values = table[field]
        if field == "policy_info":
            assert (shape, values) == ("", "")
        else:
            assert numbers(shape) == list(value.shape)
            np.testing.assert_allclose(numbers(values), value.numpy().ravel())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_number_in_the_text_stands_in_a_block(page):
    """Fractions and numbers of two digits or more; tables have tests of their own."""
    text = page.read_text(encoding="utf-8")
    known = {abs(number) for block in BLOCK.findall(text) for number in numbers(block.replace("_", ""))}
    text = pages.BLOCK.sub("", text)  # which tests/test_benchmarks.py compares with the records
    prose = re.sub(
        r"^\|.*$|^#.*$|\]\([^)]*\)|`[^`]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), flags=re.M
    )
    said = {abs(number) for number in numbers(prose.replace(",", "")) if number % 1 or abs(number) >= 10}
    assert len(said) > 5
    assert said <= known, f"{page.name} states {sorted(said - known)}, which no block computes"


def test_each_entry_of_the_glossary_has_an_anchor_of_its_own_and_names_code_that_exists():
    text = GLOSSARY.read_text(encoding="utf-8")
    assert re.findall(r"^- (?!<a id=)", text, flags=re.M) == []
    anchors = re.findall(r'^- <a id="([a-z-]+)"></a>\*\*[A-Z]', text, flags=re.M)
    assert len(anchors) == len(set(anchors)) > 60
    names = re.findall(r"`((?:[a-z_]+\.)+[A-Za-z_]+)`", text)
    assert len(names) > 20
    for name in names:
        pkgutil.resolve_name(f"recbandits.{name}")


@pytest.mark.parametrize("index", INDEXES, ids=lambda index: index.parent.name)
def test_an_index_lists_every_page_and_notebook_of_its_folder_by_its_name(index):
    listed = dict(
        reversed(link) for link in re.findall(r"^\| \[([^]]+)\]\(([^)]+)\)", index.read_text("utf-8"), flags=re.M)
    )
    notebooks = [path for path in find_notebooks() if index.parent in path.parents]  # in folders of its own as well
    files = {file.relative_to(index.parent).as_posix(): file for file in [*notebooks, *index.parent.glob("*.md")]}
    files.pop(index.name)
    assert sorted(listed) == sorted(files)
    for name, file in files.items():
        if file.suffix == ".md":
            title = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            assert listed[name] == title
        else:
            assert listed[name] == file.stem
            minutes = re.search(r"\*\*minutes:\*\* ([\w ]+) ·", markdown(read(file)))[1]
            assert f"| {minutes}" in index.read_text(encoding="utf-8")


def test_the_page_of_costs_has_a_price_for_every_machine_that_the_adapters_ask_for():
    from recbandits.platforms.gcp import images, models
    from recbandits.platforms.jobs import MACHINES

    page = (LEARNING / "google-cloud-costs.md").read_text(encoding="utf-8")
    builder = images.MACHINE.lower().replace("_", "-")
    for machine in (models.MACHINE["machine_type"], MACHINES["cpu"].type, builder):
        assert re.search(rf"^\| .*{machine}.* \| [\d.]+ \|", page, flags=re.M)
