"""Monitors say nothing while all is well, and a sentence when propensities, rewards, contexts or the join are not."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from true_policies import NOON, policy

from recbandits.loop import monitors
from recbandits.plots.loop import drift as drift_plot
from recbandits.records import arrow_schema
from recbandits.records.records import Interaction

EDGES = [NOON, NOON + timedelta(hours=1), NOON + timedelta(hours=2)]


def decided(world, decider, n=2000, seed=0, drift=0.0, start=NOON, missing=0.1):
    """Decisions within the hour after `start`, as a warehouse joins them; rewards come after 2 seconds."""
    rng = np.random.default_rng(seed)
    users, movies = world.visits(n, rng, 5)
    made = decider.decide(users, movies, rng=rng)
    row = np.arange(n)
    rewards = world.rate(world.expected(users, movies, drift)[row, made.action], rng)
    silent = rng.random(n) < missing
    bundle, times = world.bundle(), [start + timedelta(seconds=3600 * number / n) for number in range(n)]
    columns = {
        "event_id": [f"{seed}/{number}" for number in range(n)],
        "time": times,
        "policy_version": [decider.version] * n,
        "user_id": users,
        "context": bundle.context(bundle.user_features(users)).astype(float).tolist(),
        "candidates": movies.tolist(),
        "action": movies[row, made.action],
        "propensity": made.propensity,
        "pass_prob": np.ones(n),
    }
    late = [None if none else time + timedelta(seconds=2) for time, none in zip(times, silent, strict=True)]
    table = pa.table(columns, schema=arrow_schema(Interaction))
    table = table.append_column("reward", pa.array(np.where(silent, 1.0, rewards)))
    return table.append_column("reward_time", pa.array(late, pa.timestamp("us", "UTC")))


@pytest.fixture(scope="module")
def served(world):
    return policy(world, 0.8)


@pytest.fixture(scope="module")
def decisions(world, served):
    later = decided(world, served, seed=1, start=EDGES[1])
    return pa.concat_tables([decided(world, served), later])


def test_right_propensities_have_ratios_about_1_and_no_alarm(decisions, served):
    (row,) = monitors.propensities(decisions, {served.version: served}).itertuples()
    assert row.low < 1 < row.high
    assert (row.decisions, row.differing, row.alarm) == (4000, 0.0, "")
    assert row.smallest == pc.min(decisions["propensity"]).as_py()


def test_uniform_decisions_have_a_ratio_of_exactly_1(decisions):
    place = decisions.schema.get_field_index("propensity")
    even = decisions.set_column(place, "propensity", pa.array(np.full(4000, 0.2)))
    (row,) = monitors.propensities(even, floor=0.2).itertuples()
    assert (row.ratio, row.smallest, row.at_floor) == pytest.approx((1.0, 0.2, 1.0))
    assert np.isnan(row.differing)


def test_a_short_log_of_a_sharp_policy_is_no_reason_for_an_alarm(world):
    """Of 60 right logs of 120 decisions at most one or two in twenty may be called wrong; most have a ratio below 1."""
    sharp = policy(world, 3.0)
    rows = [
        monitors.propensities(decided(world, sharp, n=120, seed=seed), {sharp.version: sharp}).iloc[0]
        for seed in range(60)
    ]
    assert np.mean([row["ratio"] < 1 for row in rows]) > 0.6
    assert np.mean([row["alarm"] != "" for row in rows]) < 0.1


def test_actions_that_were_drawn_otherwise_than_logged_raise_an_alarm(world, served):
    """Actions of another policy, with the propensities that this one has for them: nothing differs but the mean."""
    flat = policy(world, 0.0)
    table = decided(world, flat)
    log = monitors.log_of(table)
    own = served.exploration.probabilities(served.scores(log.user_id, log.candidates, log.mask), log.mask)
    columns = {"propensity": own[np.arange(len(log)), log.action], "policy_version": [served.version] * len(log)}
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    (row,) = monitors.propensities(table, {served.version: served}).itertuples()
    assert row.differing == 0
    assert row.low > 1
    assert "are not those of its decisions" in row.alarm


def test_propensities_that_are_twice_as_small_as_they_should_be_raise_an_alarm(decisions, served):
    """The mean of 1 / (k p) is then 2; and nothing that was logged is what the policy gives."""
    place = decisions.schema.get_field_index("propensity")
    wrong = decisions.set_column(place, "propensity", pc.divide(decisions["propensity"], 2.0))
    (without,) = monitors.propensities(wrong).itertuples()
    assert without.ratio == pytest.approx(2, abs=0.3)
    assert "are not those of its decisions" in without.alarm
    (known,) = monitors.propensities(wrong, {served.version: served}).itertuples()
    assert known.differing > 0.99
    assert "other propensities than its own" in known.alarm


def test_without_drift_nothing_is_said(decisions, served):
    table = monitors.drift(decisions, EDGES, {served.version: served})
    assert table["decisions"].tolist() == [2000, 2000]
    assert table["alarm"].tolist() == ["", ""]
    assert (table["low"] < table["reward"]).all()
    assert (table[["psi_reward", "psi_context"]] < monitors._LARGE).all(axis=None)


def test_when_taste_turns_reward_and_error_say_so(world, served):
    turned = decided(world, served, seed=1, start=EDGES[1], drift=1.0, n=4000)
    table = monitors.drift(pa.concat_tables([decided(world, served, n=4000), turned]), EDGES, {served.version: served})
    assert table["alarm"][0] == ""
    assert "Rewards have fallen" in table["alarm"][1]
    assert "errs more than at first" in table["alarm"][1]
    assert table["reward"][1] < table["low"][0]
    assert table["psi_context"][1] < table["psi_context_limit"][1]


def test_rewards_that_rise_are_no_alarm(world):
    flat, good = policy(world, 0.0), policy(world, 1.0)
    table = monitors.drift(
        pa.concat_tables([decided(world, flat), decided(world, good, 2000, 1, start=EDGES[1])]), EDGES
    )
    assert table["low"][1] > table["high"][0]
    assert table["psi_reward"][1] > table["psi_reward_limit"][1]
    assert table["alarm"].tolist() == ["", ""]


def test_a_log_without_contexts_has_no_index_of_them_and_all_else(decisions, served):
    """`BanditLog.to_tables` writes empty contexts; here also one hour of other features than in the first."""
    log = monitors.log_of(decisions)
    table, rewards = log.to_tables(served.version)
    table = table.append_column("reward", rewards["value"]).append_column("reward_time", rewards["time"])
    found = monitors.drift(table, EDGES, {served.version: served})
    expected = monitors.drift(decisions, EDGES, {served.version: served})
    contexts = ["psi_context", "psi_context_limit"]
    assert found[contexts].isna().all(axis=None)
    pd.testing.assert_frame_equal(found.drop(columns=contexts), expected.drop(columns=contexts))
    assert len(drift_plot(found).axes) == 3
    mixed = pa.concat_tables([decisions.slice(0, 2000), table.slice(2000).select(decisions.column_names)])
    assert np.isnan(monitors.drift(mixed, EDGES)["psi_context"].tolist()).tolist() == [False, True]


def test_decisions_that_no_policy_can_score_by_ids_are_watched_all_the_same(decisions, served):
    """Every second decision is for somebody without an id; of the first one the user is new, of the third an item."""
    users = [None if row % 2 else user for row, user in enumerate(decisions["user_id"].to_pylist())]
    lists = [
        [-5, *others[1:]] if row == 2 else others for row, others in enumerate(decisions["candidates"].to_pylist())
    ]
    columns = {"user_id": pa.array([-5, *users[1:]]), "candidates": pa.array(lists)}
    columns["action"] = pa.array(
        [lists[2][1] if row == 2 else arm for row, arm in enumerate(decisions["action"].to_pylist())]
    )
    table = decisions
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    policies = {served.version: served}
    (row,) = monitors.propensities(table, policies).itertuples()
    (expected,) = monitors.propensities(decisions, policies).itertuples()
    assert (row.decisions, row.ratio, row.differing, row.alarm) == (4000, expected.ratio, 0.0, "")
    assert 0.5 < (row.high - row.low) / (expected.high - expected.low) < 2, "as many decisions, half of the variances"
    assert monitors.drift(table, EDGES, policies)["alarm"].tolist() == ["", ""]
    nobody = table.set_column(table.schema.get_field_index("user_id"), "user_id", pa.nulls(4000, pa.int64()))
    (row,) = monitors.propensities(nobody, policies).itertuples()
    assert np.isnan(row.differing)


def test_when_other_users_come_the_context_says_so(world, served):
    """In the second hour only users whose first number of the context is above its median come."""
    later = decided(world, served, seed=1, start=EDGES[1], n=4000)
    bias = np.array(later["context"].to_pylist())[:, 1]
    later = later.filter(pa.array(bias > np.median(bias)))
    table = monitors.drift(pa.concat_tables([decided(world, served), later]), EDGES)
    assert "The context has shifted" in table["alarm"][1]
    assert np.isnan(table["error"]).all()


def test_the_stability_index_is_what_a_hand_computes():
    """Counts 30, 10 and 10, 30 with half a count each: p = 30.5 / 41, q = 10.5 / 41; twice (p - q) log(p / q)."""
    index, freedom = monitors._index(np.array([30, 10]), np.array([10, 30]))
    assert index == pytest.approx(2 * (20 / 41) * np.log(30.5 / 10.5))
    assert freedom == 1


def test_alike_samples_stay_below_the_limit_19_times_in_20():
    """300 pairs of samples of 500 and 800 stars: the index exceeds its limit in about 5 % of them."""
    rng, above = np.random.default_rng(0), 0
    for _ in range(300):
        first, now = (rng.binomial(4, 0.7, n)[:, None].astype(float) for n in (500, 800))
        index, limit = monitors._shift(first, now, monitors._values)
        above += index > limit
    assert above / 300 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_the_join_is_seen_by_its_lag_and_by_what_is_missing(world, served):
    first, second = decided(world, served), decided(world, served, seed=1, start=EDGES[1], missing=0.5)
    table = monitors.joins(pa.concat_tables([first, second]), EDGES)
    assert table["lag"].tolist() == [2.0, 2.0]
    assert table["missing"].tolist() == [part["reward_time"].null_count / 2000 for part in (first, second)]
    assert table["alarm"][0] == ""
    assert "of the decisions have no reward, surely more than 20%" in table["alarm"][1]
    assert (table["low"] < table["missing"]).all()


def test_a_period_without_decisions_is_left_out(decisions, served):
    edges = [*EDGES, NOON + timedelta(hours=3)]
    assert len(monitors.drift(decisions, edges)) == len(monitors.joins(decisions, edges)) == 2
