import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from recbandits.loop.generate import generate
from recbandits.platforms.local.warehouse import LocalWarehouse

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
END = START + timedelta(seconds=60)


@pytest.fixture(scope="module")
def generated(world):
    warehouse = LocalWarehouse()
    return warehouse, generate(world, warehouse, 2000, START, seed=3)


def true_means(world, frame):
    return world.expected(world.find_users(frame["user_id"]), world.find_items(frame[["action"]]))[:, 0]


def test_the_first_decisions_are_uniform_and_say_so(world, generated):
    """2,000 decisions among 10: each place about 200 times, and each with propensity 0.1."""
    warehouse, summary = generated
    table = warehouse.decisions(START, END, 1e6, 1.0)
    frame = table.to_pandas()
    assert summary["decisions"] == len(frame) == frame["event_id"].nunique() == 2000
    assert (summary["start"], summary["end"]) == (START.isoformat(), END.isoformat())
    assert set(frame["policy_version"]) == {"uniform"}
    assert set(frame["propensity"]) == {0.1}
    places = [list(row.candidates).index(row.action) for row in frame.itertuples()]
    assert np.abs(np.bincount(places, minlength=10) - 200).max() < 4 * np.sqrt(180)
    assert frame["time"].diff().dropna().unique().tolist() == [timedelta(milliseconds=30)]


def test_rewards_are_what_the_people_of_the_decisions_think(world, generated):
    """The mean of stars less their true means is within four standard errors, 1 / sqrt(1,800), of 0."""
    frame = generated[0].decisions(START, END, 1e6, np.pi).to_pandas()
    answered = frame[frame["reward_time"].notna()]
    assert len(answered) == pytest.approx(0.9 * 2000, abs=60)
    expected = true_means(world, answered)
    error = answered["reward"].to_numpy() - expected
    assert abs(error.mean()) < 4 / np.sqrt(1800)
    assert np.corrcoef(answered["reward"], expected)[0, 1] > 0.3


def test_silence_pulls_the_mean_towards_the_default_by_its_share_alone(world, generated):
    """Mean delay 1 s, window 1 s: 0.9 (1 - exp(-1)) = 57 % are answered, whatever was shown; the others count as 1."""
    frame = generated[0].decisions(START, END, 1.0, 1.0).to_pandas()
    truth = true_means(world, frame)
    answered = 0.9 * (1 - np.exp(-1.0))
    assert frame["reward_time"].notna().mean() == pytest.approx(answered, abs=4 * 0.5 / np.sqrt(2000))
    error = frame["reward"].to_numpy() - (answered * truth + (1 - answered) * 1.0)
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(2000)


def test_contexts_are_what_a_policy_will_see(world, generated):
    frame = generated[0].decisions(START, END, 1e6, 1.0).to_pandas().head(50)
    logged = pd.DataFrame(frame["context"].map(json.loads).tolist())
    pd.testing.assert_frame_equal(logged, world.contexts(world.find_users(frame["user_id"])), check_exact=True)


def test_generating_again_has_no_further_effect(world, generated):
    warehouse, first = generated
    before = warehouse.snapshot(START, END)
    assert first["written"] == first["decisions"] + first["rewards"]
    assert generate(world, warehouse, 2000, START, seed=3) == first | {"written": 0}
    assert warehouse.snapshot(START, END) == before


def test_whatever_else_is_asked_for_makes_other_events(world):
    """Six times 20: no decision is taken for another one, so none gets the reward of another."""
    warehouse, start = LocalWarehouse(), START + timedelta(seconds=1)
    for changed in ({}, {"seed": 4}, {"n": 21}, {"candidates": 5}, {"start": start}, {"seconds": 30.0}):
        generate(world, warehouse, **{"n": 20, "start": START, "seed": 3} | changed)
    counts = warehouse.counts(START, END + timedelta(seconds=1), 1e6)
    assert counts.joined + counts.defaulted == warehouse.state()["interactions"]["rows"] == 121


@pytest.mark.parametrize(("n", "seconds"), [(0, 1.0), (5, 0.0), (5, -1.0)])
def test_nothing_to_generate_is_refused(world, n, seconds):
    with pytest.raises(ValueError, match=f"n must be at least 1 and seconds positive, got {n} and {seconds}"):
        generate(world, LocalWarehouse(), n, START, seconds=seconds)
