"""The benchmarks measure what they say: the same users for all contenders, ratios within a round, tables as printed."""

import json
import re

import pytest

from benchmarks import pages
from benchmarks.simulation import stream
from recbandits.agents.parameters import BestFixedArm
from recbandits.environments import StationaryLinearEnvironment
from recbandits.training.online import simulate


def test_the_stream_of_the_peer_is_what_our_agent_meets():
    """The best fixed arm on the exported stream has the mean reward that `simulate` reports."""
    environment = StationaryLinearEnvironment(num_actions=4, batch_size=8)
    observations, rewards = stream(environment, steps=10)
    assert observations.shape == (10, 8, 5)
    arm = environment.theta(0).numpy()[:, 0].argmax()
    mean_reward = simulate(environment, BestFixedArm(), steps=10, points=1)["reward"].item()
    assert rewards[:, :, arm].mean() == pytest.approx(mean_reward, rel=1e-5)


def test_the_row_of_a_project_in_the_table_of_speeds_is_its_own(monkeypatch):
    rows = [{"project": name, "speed": speed, "ratio": speed + 1} for name, speed in (("here", 9), ("A", 3), ("B", 2))]
    monkeypatch.setattr(pages, "load", lambda _: {"date": "2026-01-01", "tables": {"": rows}})
    monkeypatch.setattr(pages, "SPEED", [("task", "any", 0, "speed", "speed", "ratio", "B")])
    assert "| task | 9 | B | 2 | 3 |" in pages.render("speed", 1)


@pytest.mark.parametrize("name", pages.PAGES)
def test_the_tables_of_a_page_are_the_records(name):
    """No number is typed: `make bench PROFILE=full` writes benchmarks/results/ and from there the pages."""
    text = (pages.ROOT / name).read_text(encoding="utf-8")
    assert pages.fill(text) == text


def test_a_number_that_was_typed_into_a_table_is_overwritten():
    text = (pages.ROOT / "README.md").read_text(encoding="utf-8")
    best = next(iter(pages.load("quality")["tables"].values()))[0]
    (regret,) = re.findall(r"^[\d.]+", list(best.values())[1])
    edited_text = text.replace(regret, "0.0001")
    assert edited_text != text
    assert pages.fill(edited_text) == text


def test_every_recorded_table_is_shown():
    texts = [(pages.ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("benchmarks.md", "scaling.md")]
    page_tables = [(name, int(number)) for text in texts for name, number in pages.BLOCK.findall(text)]
    records = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in pages.RESULTS.glob("*.json")}
    tables = [(name, number) for name in records for number in range(1, len(records[name]["tables"]) + 1)]
    assert set(tables) <= set(page_tables)
    assert len(page_tables) == len(set(page_tables))


def test_every_record_says_of_what_and_by_what_it_was_measured():
    """A record without these was not written by a benchmark."""
    names = ("data", "date", "profile", "python", "tensorflow", "tf-agents", "numpy", "machine", "cores", "load")
    for file in pages.RESULTS.glob("*.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        assert [*record] == [*names, "tables"], file.name
        assert record["profile"] == "full", file.name


def test_the_text_around_the_tables_states_no_result():
    """Digits are allowed in names (MovieLens 100K, 95 %, 02c) and in code, not as measurements."""
    page = (pages.ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\([^)]*\)|`[^`]*`", "", pages.BLOCK.sub("", page))
    text = text.replace("MovieLens 100K", "").replace("95 %", "")
    assert re.findall(r"\S*\d\S*", re.sub(r"\[0\d[a-z]", "", text)) == []
