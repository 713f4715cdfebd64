"""Simulated logs of a uniform random policy, logs in files, and their import into the warehouse."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from recbandits.loop.ingest import import_log, read_log, write_log
from recbandits.loop.simulate import simulate_log
from recbandits.loop.simulated_users import STARS
from recbandits.platforms.local.warehouse import LocalWarehouse

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
END = START + timedelta(seconds=60)
LONG = replace(STARS, window=1e6)


@pytest.fixture(scope="module")
def log(users):
    return simulate_log(users, 2000, START, seed=3)


@pytest.fixture(scope="module")
def imported(log):
    warehouse = LocalWarehouse()
    return warehouse, import_log(warehouse, *log)


def find_users(users, frame):
    return users.user_ids.get_indexer(frame["user_id"])


def expected_ratings(users, frame):
    return users.expected(find_users(users, frame), users.find_items(frame[["action"]]))[:, 0]


def test_simulated_decisions_are_uniform_and_their_propensities_say_so(imported):
    """2,000 decisions among 10: each position about 200 times, and each with propensity 0.1."""
    warehouse, summary = imported
    frame = warehouse.decisions(START, END, LONG).to_pandas()
    assert summary["decisions"] == len(frame) == frame["event_id"].nunique() == 2000
    last = START + timedelta(seconds=60 * 1999 / 2000, microseconds=1)
    assert (summary["start"], summary["end"]) == (START.isoformat(), last.isoformat())
    assert set(frame["policy_version"]) == {"uniform"}
    assert set(frame["propensity"]) == {0.1}
    positions = [list(row.candidates).index(row.action) for row in frame.itertuples()]
    assert np.abs(np.bincount(positions, minlength=10) - 200).max() < 4 * np.sqrt(180)
    assert frame["time"].diff().dropna().unique().tolist() == [timedelta(milliseconds=30)]


def test_simulated_rewards_are_those_of_the_users_of_the_decisions(users, imported):
    """The mean of stars less their true means is within four standard errors, 1 / sqrt(1,800), of 0."""
    frame = imported[0].decisions(START, END, replace(LONG, default=np.pi)).to_pandas()
    rewarded = frame[frame["reward_time"].notna()]
    assert len(rewarded) == pytest.approx(0.9 * 2000, abs=60)
    expected = expected_ratings(users, rewarded)
    error = rewarded["reward"].to_numpy() - expected
    assert abs(error.mean()) < 4 / np.sqrt(1800)
    assert np.corrcoef(rewarded["reward"], expected)[0, 1] > 0.3


def test_silence_pulls_the_mean_towards_the_default_by_its_share_alone(users, imported):
    """Mean delay 1 s, window 1 s: 0.9 (1 - exp(-1)) = 57 % are answered, for every action; the others count as 1."""
    frame = imported[0].decisions(START, END, replace(STARS, window=1.0)).to_pandas()
    truth = expected_ratings(users, frame)
    answered = 0.9 * (1 - np.exp(-1.0))
    assert frame["reward_time"].notna().mean() == pytest.approx(answered, abs=4 * 0.5 / np.sqrt(2000))
    error = frame["reward"].to_numpy() - (answered * truth + (1 - answered) * 1.0)
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(2000)


def test_logged_contexts_are_those_of_requests(users, imported):
    frame = imported[0].decisions(START, END, LONG).to_pandas().head(50)
    logged = pd.DataFrame(frame["context"].map(json.loads).tolist())
    pd.testing.assert_frame_equal(logged, users.contexts(find_users(users, frame)), check_exact=True)


def test_importing_again_has_no_further_effect(log, imported):
    warehouse, summary = imported
    before = warehouse.snapshot(START, END)
    assert summary["written"] == summary["decisions"] + summary["rewards"]
    assert import_log(warehouse, *log) == summary | {"written": 0}
    assert warehouse.snapshot(START, END) == before


def test_other_arguments_simulate_other_events(users):
    """Six times 20: no decision is taken for another one, so none gets the reward of another."""
    warehouse, start = LocalWarehouse(), START + timedelta(seconds=1)
    for change in ({}, {"seed": 4}, {"n": 21}, {"candidates": 5}, {"start": start}, {"seconds": 30.0}):
        import_log(warehouse, *simulate_log(users, **{"n": 20, "start": START, "seed": 3} | change))
    counts = warehouse.counts(START, END + timedelta(seconds=1), LONG)
    assert counts.joined + counts.defaulted == warehouse.state()["interactions"]["rows"] == 121


def test_an_empty_simulation_is_refused(users):
    with pytest.raises(ValueError, match="n must be a whole number of at least 1, got 0"):
        simulate_log(users, 0, START)
    with pytest.raises(ValueError, match="seconds must be positive and finite, got 0"):
        simulate_log(users, 5, START, seconds=0.0)


def test_an_invalid_log_is_refused_with_the_name_of_the_file(log, tmp_path):
    with pytest.raises(ValueError, match=r"log must be a directory with interactions\.parquet and rewards\.parquet"):
        read_log(tmp_path)
    write_log(tmp_path, *log)
    (tmp_path / "rewards.parquet").write_text("event_id,value")
    with pytest.raises(ValueError, match=r"rewards\.parquet"):
        read_log(tmp_path)


def test_a_log_without_decisions_or_with_an_invalid_row_is_refused(log):
    interactions, rewards = log
    with pytest.raises(ValueError, match="log must be of at least one decision, got 'none'"):
        import_log(LocalWarehouse(), interactions.slice(0, 0), rewards)
    broken = interactions.set_column(7, "propensity", [[0.0] * 2000])
    with pytest.raises(ValueError, match="row 0: propensity must be"):
        import_log(LocalWarehouse(), broken, rewards)
