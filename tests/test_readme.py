"""The README: its length, its two tracks, its block of code and its commands are what the repository has."""

import re

import pytest

from tests.test_markdown import BLOCK
from tools.lock import ROOT
from tools.notebooks import find_notebooks, markdown, read

README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = {path.relative_to(ROOT).as_posix(): path for path in find_notebooks()}
ROW = re.compile(r"^\| \[([\w-]+)\]\((\S+\.ipynb)\) \| .+ \| ([\w ]+) \|$", re.M)


def track(name):
    """Return (text, path, minutes) of each notebook of a track."""
    return ROW.findall(README.split(f"\n### {name}\n")[1].split("\n#")[0])


def test_it_has_at_most_150_lines_two_pictures_and_two_generated_tables():
    assert len(README.splitlines()) <= 150
    assert README.count("![") == 2
    assert re.findall(r"^<!-- bench (\w+)", README, re.M) == ["quality", "speed"]


def test_it_says_how_to_install_and_where_the_extras_are_listed():
    commands = re.findall(r"`(pip install [^`]+)`", README)
    assert commands == ["pip install .", 'pip install ".[serve]"']
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    assert all(f"\n{command} " in page for command in commands)
    assert "](docs/installation.md#install)" in README


def test_bandits_come_first_and_every_notebook_is_in_one_track():
    assert README.index("### Bandits") < README.index("### Operations")
    paths = [path for name in ("Bandits", "Operations") for _, path, _ in track(name)]
    assert sorted(paths) == sorted(NOTEBOOKS)
    folders = [path[:2] for _, path, _ in track("Bandits")]
    assert folders == sorted(folders)


@pytest.mark.parametrize("name", ["Bandits", "Operations"])
def test_rows_have_the_names_of_the_notebooks_and_the_minutes_of_their_headers(name):
    for text, path, minutes in track(name):
        assert text == NOTEBOOKS[path].stem
        assert f"**minutes:** {minutes} · " in markdown(read(NOTEBOOKS[path])), path


def test_the_package_is_shown_in_ten_lines_that_read_files_of_ones_own_and_with_imports_in_at_most_15():
    (block,) = BLOCK.findall(README)
    lines = [line for line in block.splitlines() if line]
    assert len(lines) <= 15
    assert len([line for line in lines if not line.startswith(("import ", "from "))]) == 10
    assert "pd.read_csv(" in block
    assert "Log.from_frame(" in block


def test_only_these_layers_import_tf_agents():
    """As the README says: environments, agents, training, and the writers of trajectories and SavedModels."""
    package = ROOT / "src" / "recbandits"
    importing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"^\s*(from|import) tf_agents", path.read_text(encoding="utf-8"), re.M)
    }
    elsewhere = {path for path in importing if path.split("/")[0] not in ("environments", "agents", "training")}
    assert elsewhere == {"data/trajectories.py", "serving/saved_model.py"}


def test_the_page_on_installation_lists_the_commands_of_the_makefile():
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    commands = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert sorted(re.findall(r"^\| `make ([a-z]+)", page, re.M)) == sorted(set(commands) - {"help"})
