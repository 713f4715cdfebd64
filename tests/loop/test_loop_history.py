"""What a loop did, told from its verdicts, and judged by a world whose taste is known."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recbandits.data import synthetic
from recbandits.evaluation import mean_interval
from recbandits.exploration import Exploration
from recbandits.loop import history
from recbandits.loop.simulated_users import SimulatedUsers

START = pd.Timestamp("2026-03-01", tz="UTC")
COLUMNS = ["time", "kind", "version", "against", "why", "difference", "low", "high"]
PROMOTED = (0, "deployed", "a", ""), (10, "deployed", "b", "a"), (15, "promoted", "b", "a")


def at(seconds):
    return START + timedelta(seconds=seconds)


def verdicts(*rows):
    filled = [(at(seconds), *told, "because", None, None, None) for seconds, *told in rows]
    return pd.DataFrame(filled, columns=COLUMNS)


def test_a_canary_serves_its_round_once_it_is_promoted():
    table = history.rounds_of(
        verdicts(
            *PROMOTED,
            (20, "refused", "c", "b"),
            (30, "deployed", "d", "b"),
            (35, "rolled back", "d", "b"),
            (40, "deployed", "e", "b"),
        ),
        at(45),
    )
    assert list(table["version"]) == ["a", "b", "b", "b", "b"]
    assert list(table["candidate"]) == ["a", "b", "c", "d", "e"]
    assert list(table["kind"]) == ["deployed", "deployed", "refused", "deployed", "deployed"]
    assert list(table["end"]) == [at(10), at(20), at(30), at(40), at(45)]


def test_what_turned_bad_after_its_promotion_gives_its_round_back():
    table = history.rounds_of(
        verdicts(
            *PROMOTED,
            (19, "rolled back", "b", "a"),
        ),
        at(20),
    )
    assert list(table["version"]) == ["a", "a"]


def test_a_verdict_of_the_guardrail_that_a_deployer_forestalled_changes_nothing():
    """It was about to take b back; then c was beside b already, and a, to which it would have gone, undeployed."""
    table = history.rounds_of(
        verdicts(
            *PROMOTED,
            (19, "rolled back", "b", "a"),
            (20, "deployed", "c", "b"),
        ),
        at(30),
    )
    assert list(table["version"]) == ["a", "b", "b"]


def test_without_a_verdict_there_is_no_round():
    assert history.rounds_of(verdicts(), at(0)).empty


@pytest.fixture(scope="module")
def world():
    return SimulatedUsers.make(synthetic.generate(), movies=20, rank=2)


class Taught:
    """A policy that knows the truth, or the opposite of it."""

    exploration = Exploration("greedy")

    def __init__(self, world, sign):
        self.world, self.sign = world, sign

    def scores(self, context, candidates):
        people = self.world.contexts(slice(None)).drop_duplicates().reset_index(names="row")
        users = context.merge(people, how="left")["row"].to_numpy()
        return self.sign * self.world.expected(users, self.world.find_items(candidates))


@pytest.fixture(scope="module")
def policies(world):
    return {"worst": Taught(world, -1), "best": Taught(world, 1)}


def test_a_policy_that_knows_the_truth_is_worth_the_oracle(world, policies):
    rounds = history.rounds_of(
        verdicts((0, "deployed", "worst", ""), (10, "deployed", "best", "worst"), (12, "promoted", "best", "worst")),
        at(20),
    )
    visits = world.visits(500, np.random.default_rng(0), 5)
    table = history.true_values(world, policies, rounds, visits, lambda _: 0.0).set_index(["round", "learner"])
    assert table.loc[(1, "learning"), "value"] == pytest.approx(table.loc[(1, "oracle"), "value"])
    assert table.loc[(0, "learning"), "gain"] == 0 == table.loc[(1, "frozen"), "gain"]
    spread = world.oracle_value(visits) - world.value(policies["worst"], visits)
    gain = history.improvement(world, policies, rounds, visits)
    assert gain.value == pytest.approx(spread.mean()) == table.loc[(1, "learning"), "gain"]
    assert gain == pytest.approx(mean_interval(spread))


def test_what_is_lost_is_counted_at_the_taste_of_the_time(world, policies):
    """The first half of the decisions is before the turn, the second after: two sums by hand."""
    users, items = world.visits(40, np.random.default_rng(1), 5)
    action, ids = items[:, 2], world.candidate_ids(items).tolist()
    times = [datetime(2026, 3, 1, 0, 0, second, tzinfo=UTC) for second in range(40)]
    shown = {"user_id": world.user_ids[users].tolist(), "candidates": ids, "action": [row[2] for row in ids]}
    decisions = pa.table({"time": times, **shown})
    table = history.regret_of(world, decisions, policies["best"], lambda time: float(time.second >= 20))
    halves = ((slice(0, 20), 0), (slice(20, 40), 1))
    shown = [world.expected(users[part], action[part, None], drift)[:, 0] for part, drift in halves]
    best = [world.expected(users[part], items[part], drift).max(axis=1) for part, drift in halves]
    np.testing.assert_allclose(table["expected"], np.concatenate(shown))
    np.testing.assert_allclose(table["oracle"], np.concatenate(best))
    np.testing.assert_allclose(table["frozen"][:20], best[0])
    assert (table["frozen"][20:] < table["oracle"][20:]).any()
