"""Monitors raise alarms on wrong propensities, shifted rewards or contexts and a broken join, and on nothing else."""

import json
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats
from true_policies import NOON, policy, price_log, price_policy

from recbandits.loop import monitors
from recbandits.loop.gate import probabilities_of
from recbandits.plots.loop import drift as drift_plot
from recbandits.records import to_table

EDGES = [NOON, NOON + timedelta(hours=1), NOON + timedelta(hours=2)]


def draw_decisions(users, policy, n=2000, seed=0, drift=0.0, start=NOON, missing=0.1):
    """Draw decisions within the hour after `start`, as a warehouse joins them; rewards come after 2 seconds."""
    rng = np.random.default_rng(seed)
    rows, items = visits = users.visits(n, rng, 5)
    choices = policy.decide(users.contexts(rows), users.candidate_ids(items), rng=rng)
    rewards = users.rate(users.expected(rows, items, drift)[np.arange(n), choices.action], rng)
    silent = rng.random(n) < missing
    ids, versions = [f"{seed}/{number}" for number in range(n)], [policy.version] * n
    times = [start + timedelta(seconds=3600 * number / n) for number in range(n)]
    table = to_table(users.interactions(visits, ids, times, versions, choices.action, choices.propensity))
    reward_times = [None if none else time + timedelta(seconds=2) for time, none in zip(times, silent, strict=True)]
    return join(table, pa.array(np.where(silent, 1.0, rewards)), pa.array(reward_times, pa.timestamp("us", "UTC")))


def join(table, rewards, times):
    """Add the rewards and their times to a table of decisions, as a warehouse does."""
    table = table.append_column("reward", rewards)
    return table.append_column("reward_time", times)


def with_columns(table, **columns):
    """Return the table with other values in some columns."""
    for name, values in columns.items():
        position = table.schema.get_field_index(name)
        table = table.set_column(position, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    return table


@pytest.fixture(scope="module")
def serving(users):
    return policy(users, 0.8)


@pytest.fixture(scope="module")
def decisions(users, serving):
    later = draw_decisions(users, serving, seed=1, start=EDGES[1])
    return pa.concat_tables([draw_decisions(users, serving), later])


def test_right_propensities_have_ratios_about_1_and_no_alarm(decisions, serving):
    (row,) = monitors.propensities(decisions, {serving.version: serving}).itertuples()
    assert row.low < 1 < row.high
    assert (row.decisions, row.differing, row.alarm) == (4000, 0.0, "")
    assert row.smallest == pc.min(decisions["propensity"]).as_py()


def test_uniform_decisions_have_a_ratio_of_exactly_1(decisions):
    even = with_columns(decisions, propensity=np.full(4000, 0.2))
    (row,) = monitors.propensities(even).itertuples()
    assert (row.ratio, row.smallest) == pytest.approx((1.0, 0.2))
    assert np.isnan(row.differing)


def test_a_short_log_of_a_sharp_policy_is_no_reason_for_an_alarm(users):
    """Of 60 right logs of 120 decisions none is called wrong, though most have a ratio below 1."""
    sharp = policy(users, 3.0)
    rows = [
        monitors.propensities(draw_decisions(users, sharp, n=120, seed=seed), {sharp.version: sharp}).iloc[0]
        for seed in range(60)
    ]
    assert np.mean([row["ratio"] < 1 for row in rows]) > 0.6
    assert [row["alarm"] for row in rows if row["alarm"]] == []


def test_the_power_is_the_error_that_would_be_found_with_probability_0_8(users):
    """The error is 0.84 standard errors above the half width, which is 3.29 of them: the spread of 100 right ratios."""
    flat = policy(users, 0.3)
    rows = pd.concat(
        monitors.propensities(draw_decisions(users, flat, n=1000, seed=seed), {flat.version: flat})
        for seed in range(100)
    )
    half = (rows["high"] - rows["ratio"]).mean()
    stated = rows["power"].str.extract("^Propensities that are wrong by (.*)% would be found with probability 0.8.$")[0]
    quantile = stats.norm.ppf(0.9995)
    assert stated.astype(float).mean(skipna=False) / 100 == pytest.approx(
        half * (1 + stats.norm.ppf(0.8) / quantile), abs=0.005
    )
    assert half / quantile == pytest.approx(rows["ratio"].std(), rel=0.25)


def test_without_power_the_monitor_says_so(users, serving, decisions):
    """60 decisions of a sharp policy; and a uniform one, whose mean of 1 / (k p) cannot vary with the actions."""
    sharp = policy(users, 3.0)
    even = with_columns(decisions, propensity=np.full(4000, 0.2))
    for table, policies in ((draw_decisions(users, sharp, n=60), {sharp.version: sharp}), (even, None)):
        (row,) = monitors.propensities(table, policies).itertuples()
        assert row.power.startswith("No power")
        assert row.alarm == ""


def test_contexts_that_are_empty_or_that_the_policy_cannot_read_are_accepted(decisions, serving):
    policies = {serving.version: serving}
    for context in ("{}", '{"strange": 1}'):
        changed = with_columns(decisions, context=[context] * 4000)
        assert monitors.propensities(changed, policies)["decisions"].tolist() == [4000]
        assert monitors.drift(changed, EDGES, policies)["decisions"].tolist() == [2000, 2000]
    strange = monitors.propensities(changed, policies)
    assert strange["differing"].isna().all()
    assert len(monitors.propensities(decisions.slice(0, 0), policies)) == 0


def test_actions_drawn_with_other_probabilities_than_logged_raise_an_alarm(users, serving):
    """Actions of another policy, with the propensities that this one has for them: nothing differs but the mean."""
    flat = policy(users, 0.0)
    table = draw_decisions(users, flat)
    log = monitors.log_of(table)
    propensity = probabilities_of(serving, log)[np.arange(len(log)), log.action]
    table = with_columns(table, propensity=propensity, policy_version=[serving.version] * len(log))
    (row,) = monitors.propensities(table, {serving.version: serving}).itertuples()
    assert row.differing == 0
    assert row.low > 1
    assert " is not 1: " in row.alarm


def test_propensities_that_are_twice_as_small_as_they_should_be_raise_an_alarm(decisions, serving):
    """The mean of 1 / (k p) is then 2, and no logged propensity is that of the policy."""
    wrong = with_columns(decisions, propensity=decisions["propensity"].to_numpy() / 2)
    (without_policy,) = monitors.propensities(wrong).itertuples()
    assert without_policy.ratio == pytest.approx(2, abs=0.3)
    assert " is not 1: " in without_policy.alarm
    (with_policy,) = monitors.propensities(wrong, {serving.version: serving}).itertuples()
    assert with_policy.differing > 0.99
    assert "other propensities than its own" in with_policy.alarm


def test_decisions_that_were_kept_with_different_probabilities_count_accordingly(users):
    """All of the best rewards, and a tenth of the others: good actions, which are more probable, are kept more often.

    The plain mean of the kept ones is 0.81; of all decisions of the log it is 1.
    """
    flat = policy(users, 0.3)
    table = draw_decisions(users, flat, n=8000)
    pass_prob = np.where(table["reward"].to_numpy() >= 5, 1.0, 0.1)
    kept = np.random.default_rng(1).random(8000) < pass_prob
    thinned = with_columns(table.filter(pa.array(kept)), pass_prob=pass_prob[kept])
    (row,) = monitors.propensities(thinned, {flat.version: flat}).itertuples()
    (expected,) = monitors.propensities(table, {flat.version: flat}).itertuples()
    assert row.ratio == pytest.approx(1.0, abs=0.1)
    assert (row.differing, row.alarm) == (0.0, "")
    assert row.high - row.low > 1.5 * (expected.high - expected.low)


def test_without_drift_there_is_no_alarm(decisions, serving):
    table = monitors.drift(decisions, EDGES, {serving.version: serving})
    assert table["decisions"].tolist() == [2000, 2000]
    assert table["alarm"].tolist() == ["", ""]
    assert (table["low"] < table["reward"]).all()
    assert (table[["psi_reward", "psi_context"]] < monitors._LARGE).all(axis=None)


def test_drift_counts_users_and_not_decisions(decisions, serving):
    """Each decision five times, by the same user: intervals and limits are those of one."""
    parts = []
    for visit in range(5):
        ids = [[f"{name} {row}" for row in range(4000)] for name in (f"event {visit}", "user")]
        parts.append(with_columns(decisions, event_id=ids[0], user_id=ids[1]))
    once, repeated = (
        monitors.drift(pa.concat_tables(p), EDGES, {serving.version: serving}) for p in (parts[:1], parts)
    )
    names = ["reward", "low", "high", "error", "error_low", "error_high", "psi_reward_limit", "psi_context_limit"]
    np.testing.assert_allclose(repeated[names], once[names])
    anonymous = monitors.drift(with_columns(pa.concat_tables(parts), user_id=[None] * 20_000), EDGES)
    assert (anonymous["high"] - anonymous["low"] < 0.5 * (once["high"] - once["low"])).all()


def test_preference_drift_raises_alarms_of_reward_and_error(users, serving):
    drifted = draw_decisions(users, serving, seed=1, start=EDGES[1], drift=1.0, n=4000)
    table = monitors.drift(
        pa.concat_tables([draw_decisions(users, serving, n=4000), drifted]), EDGES, {serving.version: serving}
    )
    assert table["alarm"][0] == ""
    assert "Rewards have fallen" in table["alarm"][1]
    assert "errs more than at first" in table["alarm"][1]
    assert table["reward"][1] < table["low"][0]
    assert table["psi_context"][1] < table["psi_context_limit"][1]


def test_rewards_that_rise_are_no_alarm(users):
    flat, good = policy(users, 0.0), policy(users, 1.0)
    table = monitors.drift(
        pa.concat_tables([draw_decisions(users, flat), draw_decisions(users, good, 2000, 1, start=EDGES[1])]), EDGES
    )
    assert table["low"][1] > table["high"][0]
    assert table["psi_reward"][1] > table["psi_reward_limit"][1]
    assert table["alarm"].tolist() == ["", ""]


def test_a_log_without_contexts_has_no_index_of_them_and_all_else(decisions):
    """In the second hour of another log there are none any more: that is a shift."""
    empty = with_columns(decisions, context=["{}"] * 4000)
    actual, expected = (monitors.drift(table, EDGES) for table in (empty, decisions))
    contexts = ["psi_context", "psi_context_limit"]
    assert actual[contexts].isna().all(axis=None)
    pd.testing.assert_frame_equal(actual.drop(columns=contexts), expected.drop(columns=contexts))
    assert len(drift_plot(actual).axes) == 3
    for parts in ((decisions, empty), (empty, decisions)):
        mixed = pa.concat_tables([parts[0].slice(0, 2000), parts[1].slice(2000)])
        assert "The context has shifted" in monitors.drift(mixed, EDGES)["alarm"][1]


def test_users_without_an_id_and_decisions_among_unknown_items_are_monitored(decisions, serving):
    """Every second decision is for a user without an id, the first for a new one; of the third an item is new."""
    users = [None if row % 2 else user for row, user in enumerate(decisions["user_id"].to_pylist())]
    lists, actions = decisions["candidates"].to_pylist(), decisions["action"].to_pylist()
    lists[2], actions[2] = ["another", *lists[2][1:]], lists[2][1]
    table = with_columns(decisions, user_id=["new", *users[1:]], candidates=lists, action=actions)
    policies = {serving.version: serving}
    (row,) = monitors.propensities(table, policies).itertuples()
    (expected,) = monitors.propensities(decisions, policies).itertuples()
    assert (row.decisions, row.ratio, row.differing, row.alarm) == (4000, expected.ratio, 0.0, "")
    assert row.high - row.low == pytest.approx(expected.high - expected.low, rel=0.01)
    assert monitors.drift(table, EDGES, policies)["alarm"].tolist() == ["", ""]
    others = with_columns(decisions, candidates=[[f"new {item}" for item in items] for items in lists])
    others = with_columns(others, action=[items[0] for items in others["candidates"].to_pylist()])
    (row,) = monitors.propensities(others, policies).itertuples()
    assert np.isnan(row.differing)


def contexts(decisions, *hours):
    """Return the decisions with other contexts: functions of a random generator, one for each hour."""
    rng = np.random.default_rng(0)
    return with_columns(decisions, context=[json.dumps(hour(rng)) for hour in hours for _ in range(2000)])


def device(tv, missing=0.0):
    def draw(rng):
        return {"device": None if rng.random() < missing else ("tv" if rng.random() < tv else "phone")}

    return draw


def level(size, start=0):
    return lambda rng: {"city": f"city {start + rng.integers(size)}"}


@pytest.mark.parametrize(
    ("hours", "shifted"),
    [
        ((device(0.5), device(0.5)), False),
        ((device(0.5), device(0.9)), True),
        ((device(0.5, missing=0.1), device(0.5, missing=0.1)), False),
        ((device(0.5, missing=0.1), device(0.5, missing=0.6)), True),
        ((level(1500), level(1500)), False),
        ((level(20), level(20, start=15)), True),
        ((lambda rng: {"kids": bool(rng.random() < 0.2)}, lambda rng: {"kids": bool(rng.random() < 0.6)}), True),
        ((lambda rng: {"age": rng.normal()}, lambda rng: {"age": rng.normal()}), False),
        ((lambda rng: {"age": rng.normal()}, lambda rng: {"age": rng.normal() + 1}), True),
        ((lambda rng: {"age": 5}, lambda rng: {"age": 5.0}), False),
    ],
)
def test_a_column_of_any_kind_that_shifts_raises_the_alarm_and_no_other(decisions, hours, shifted):
    table = monitors.drift(contexts(decisions, *hours), EDGES)
    assert ["The context has shifted" in alarm for alarm in table["alarm"]] == [False, shifted]


def test_a_policy_that_reads_numbers_of_candidates_is_monitored():
    """Its propensities and errors need the prices of the moment, which are in the log."""
    seller = price_policy(-0.3)
    decisions, rewards = price_log(seller, 400).to_tables(seller.version)
    table, policies = join(decisions, rewards["value"], rewards["time"]), {seller.version: seller}
    (row,) = monitors.propensities(table, policies).itertuples()
    assert (row.decisions, row.differing, row.alarm) == (400, 0.0, "")
    periods = monitors.drift(table, EDGES, policies)
    assert periods["alarm"].tolist() == [""]
    assert periods["error"][0] == pytest.approx(0.0, abs=1e-9)


def test_other_users_raise_an_alarm_of_the_context(users, serving):
    """In the second hour only users whose bias is above its median come."""
    later = draw_decisions(users, serving, seed=1, start=EDGES[1], n=4000)
    bias = np.array([json.loads(context)["bias"] for context in later["context"].to_pylist()])
    later = later.filter(pa.array(bias > np.median(bias)))
    table = monitors.drift(pa.concat_tables([draw_decisions(users, serving), later]), EDGES)
    assert "The context has shifted" in table["alarm"][1]
    assert np.isnan(table["error"]).all()


def test_the_stability_index_equals_one_computed_by_hand():
    """Counts 30, 10 and 10, 30 with half a count each: p = 30.5 / 41, q = 10.5 / 41; twice (p - q) log(p / q)."""
    index, freedom = monitors._index(np.array([[30, 10], [10, 30]]))
    assert index == pytest.approx(2 * (20 / 41) * np.log(30.5 / 10.5))
    assert freedom == 1


def test_alike_samples_stay_below_the_limit_19_times_in_20():
    """300 pairs of samples of 500 and 800 stars: the index exceeds its limit in about 5 % of them."""
    rng, exceeded = np.random.default_rng(0), 0
    for _ in range(300):
        reference, sample = (pd.DataFrame({"stars": rng.binomial(4, 0.7, n).astype(float)}) for n in (500, 800))
        index, limit = monitors._shift(reference, sample)
        exceeded += index > limit
    assert abs(exceeded / 300 - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 300)


def test_alike_samples_of_a_few_users_stay_below_the_limit():
    """300 pairs of samples of 60 users with eight decisions each, in whose plan nothing changes but the users."""
    rng, exceeded, user = np.random.default_rng(0), 0, np.repeat(np.arange(60), 8)
    for _ in range(300):
        reference, sample = (pd.DataFrame({"plan": rng.choice(list("abcd"), 60)[user]}) for _ in range(2))
        index, limit = monitors._shift(reference, sample, (user, user))
        exceeded += index > limit
    assert abs(exceeded / 300 - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 300)


def test_the_join_is_monitored_by_its_lag_and_its_missing_rewards(users, serving):
    first, second = draw_decisions(users, serving), draw_decisions(users, serving, seed=1, start=EDGES[1], missing=0.5)
    table = monitors.joins(pa.concat_tables([first, second]), EDGES)
    assert table["lag"].tolist() == [2.0, 2.0]
    assert table["missing"].tolist() == [part["reward_time"].null_count / 2000 for part in (first, second)]
    assert table["alarm"][0] == ""
    shares = [f"{share:.1%}" for share in table["missing"]]
    expected = f"{shares[1]} of the decisions have no reward, significantly more than {shares[0]}."
    assert table["alarm"].tolist() == ["", expected]
    assert (table["low"] < table["missing"]).all()


def test_a_share_of_missing_rewards_that_stays_raises_no_alarm(users, serving):
    """Nine in ten users never click."""
    periods = [draw_decisions(users, serving, seed=seed, start=EDGES[seed], missing=0.9) for seed in (0, 1)]
    table = monitors.joins(pa.concat_tables(periods), EDGES)
    assert (table["missing"] > 0.8).all()
    assert not table["alarm"].any()


def test_a_period_without_decisions_is_left_out(decisions, serving):
    edges = [*EDGES, NOON + timedelta(hours=3)]
    assert len(monitors.drift(decisions, edges)) == len(monitors.joins(decisions, edges)) == 2
