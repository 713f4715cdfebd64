"""The policy that served in each round, by the verdicts, and its expected reward."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from recbandits.data import synthetic
from recbandits.evaluation import mean_interval
from recbandits.exploration import Exploration
from recbandits.loop.page import gain_sentence, rounds_of, true_values
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS, SimulatedUsers

START = pd.Timestamp("2026-03-01", tz="UTC")
COLUMNS = ["time", "kind", "version", "against", "why", "difference", "low", "high"]
PROMOTED = (0, "deployed", "a", ""), (10, "deployed", "b", "a"), (15, "promoted", "b", "a")


def time_at(seconds):
    return START + timedelta(seconds=seconds)


def verdicts(*rows):
    rows = [(time_at(seconds), *values, "because", None, None, None) for seconds, *values in rows]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_a_canary_serves_its_round_once_it_is_promoted():
    table = rounds_of(
        verdicts(
            *PROMOTED,
            (20, "refused", "c", "b"),
            (30, "deployed", "d", "b"),
            (35, "rolled back", "d", "b"),
            (40, "deployed", "e", "b"),
        ),
        time_at(45),
    )
    assert list(table["version"]) == ["a", "b", "b", "b", "b"]
    assert list(table["candidate"]) == ["a", "b", "c", "d", "e"]
    assert list(table["kind"]) == ["deployed", "deployed", "refused", "deployed", "deployed"]
    assert list(table["end"]) == [time_at(10), time_at(20), time_at(30), time_at(40), time_at(45)]


def test_what_turned_bad_after_its_promotion_gives_its_round_back():
    table = rounds_of(verdicts(*PROMOTED, (19, "rolled back", "b", "a")), time_at(20))
    assert list(table["version"]) == ["a", "a"]


def test_a_withdrawn_canary_leaves_the_round_to_its_predecessor_and_a_held_candidate_starts_one():
    table = rounds_of(
        verdicts(
            (0, "deployed", "a", ""), (10, "deployed", "b", "a"), (15, "withdrawn", "b", "a"), (20, "held", "c", "a")
        ),
        time_at(30),
    )
    assert list(table["version"]) == ["a", "a", "a"]
    assert list(table["kind"]) == ["deployed", "deployed", "held"]


def test_a_verdict_of_the_guardrail_that_a_deployer_forestalled_changes_nothing():
    """It was about to take b back; then c was beside b already, and a, to which it would have gone, undeployed."""
    table = rounds_of(verdicts(*PROMOTED, (19, "rolled back", "b", "a"), (20, "deployed", "c", "b")), time_at(30))
    assert list(table["version"]) == ["a", "b", "b"]


def test_without_a_verdict_there_is_no_round():
    assert rounds_of(verdicts(), time_at(0)).empty


@pytest.fixture(scope="module")
def users():
    return SimulatedUsers.of(Settings(STARS, movies=20, rank=2), synthetic.generate())


class Scripted:
    """A policy that knows the truth, or the opposite of it."""

    exploration = Exploration("greedy")

    def __init__(self, users, sign):
        self.users, self.sign = users, sign

    def scores(self, context, candidates):
        contexts = self.users.contexts(slice(None)).drop_duplicates().reset_index(names="row")
        rows = context.merge(contexts, how="left")["row"].to_numpy()
        return self.sign * self.users.expected(rows, self.users.find_items(candidates))


@pytest.fixture(scope="module")
def policies(users):
    return {"worst": Scripted(users, -1), "best": Scripted(users, 1)}


def test_the_value_of_a_policy_that_knows_the_truth_is_that_of_the_oracle(users, policies):
    rounds = rounds_of(
        verdicts((0, "deployed", "worst", ""), (10, "deployed", "best", "worst"), (12, "promoted", "best", "worst")),
        time_at(20),
    )
    visits = users.visits(500, np.random.default_rng(0), 5)
    table = true_values(users, policies, rounds, visits, lambda _: 0.0).set_index(["round", "learner"])
    assert table.loc[(1, "learning"), "value"] == pytest.approx(table.loc[(1, "oracle"), "value"])
    assert table.loc[(0, "learning"), "gain"] == 0 == table.loc[(1, "frozen"), "gain"]
    spread = users.oracle_value(visits) - users.value(policies["worst"], visits)
    gain = table.loc[(1, "learning"), ["gain", "gain_low", "gain_high"]].astype(float)
    assert tuple(gain) == pytest.approx(mean_interval(spread))
    sentence = gain_sentence(table.reset_index(), rounds)
    interval = f"{gain['gain_low']:+.3f} to {gain['gain_high']:+.3f}"
    assert sentence.startswith("After 1 re-trainings best serves.")
    assert sentence.endswith(f"{gain['gain']:+.3f}, 95 % interval {interval}.")
