"""The gate lets better candidates pass and stops what is worse, unsupported or unknown."""

import dataclasses
import json
import math
import re
import shutil
from datetime import timedelta

import numpy as np
import pytest
from true_policies import NOON, logged, policy, priced, sold

from recbandits.exploration import Exploration
from recbandits.loop import gate as module
from recbandits.loop.gate import Judgement, judge_log
from recbandits.loop.ingest import decisions_of, ingest
from recbandits.loop.settings import Gate, Guardrail, Settings
from recbandits.loop.simulated_users import STARS
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.records import Reward
from recbandits.serving.policy import load


@pytest.fixture(scope="module")
def log(world):
    """3,000 decisions of a policy that knows half of the taste."""
    return logged(world, policy(world, 0.5), 3000)


def test_a_candidate_that_knows_more_passes_and_its_difference_covers_the_truth(world, log):
    visits = log.user_id, log.candidates
    better, serving = policy(world, 1.0), policy(world, 0.5)
    found = judge_log(log, better, serving)
    truth = (world.value(better, visits) - world.value(serving, visits)).mean()
    assert found.passed
    assert found.low < truth < found.high
    assert found.why.startswith("Passed")
    assert (found.candidate, found.serving, found.decisions) == (better.version, serving.version, 3000)


def test_a_candidate_that_turns_movies_round_is_refused(world, log):
    found = judge_log(log, policy(world, -1.0), policy(world, 0.5))
    assert not found.passed
    assert found.why.startswith("Refused")


def test_the_same_policy_differs_by_exactly_nothing(world, log):
    """All weights are 1, shrunk to 1 / (1 + 1 / 100): 3,000 decisions are worth 3,000 / 1.01."""
    found = judge_log(log, policy(world, 0.5), policy(world, 0.5))
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.effective_sample_size == pytest.approx(3000 / 1.01)


def test_few_decisions_that_resemble_the_candidates_are_not_enough(world, log):
    found = judge_log(log.take(np.arange(90)), policy(world, 1.0), policy(world, 0.5), Gate(margin=5.0))
    assert not found.passed
    assert "needs 100 decisions of equal weight" in found.why
    assert judge_log(log, policy(world, 1.0), policy(world, 0.5), Gate(margin=5.0)).passed


def test_the_margin_is_what_the_lower_bound_must_reach(world, log):
    candidate, serving = policy(world, 0.45), policy(world, 0.5)
    low = judge_log(log, candidate, serving).low
    assert low < 0
    assert judge_log(log, candidate, serving, Gate(margin=-low + 1e-9)).passed
    assert not judge_log(log, candidate, serving, Gate(margin=-low - 1e-9)).passed


def test_a_candidate_that_never_does_what_was_logged_is_refused_with_a_sentence(world):
    """The log is of a greedy policy; the candidate turns it round and is greedy too: not one decision in common."""
    greedy = Exploration("greedy")
    log = logged(world, policy(world, 1.0, greedy), 200)
    found = judge_log(log, policy(world, -1.0, greedy), policy(world, 1.0, greedy))
    assert not found.passed
    assert "takes no action of this log" in found.why
    assert found.difference is None


@pytest.mark.parametrize("rows", [0, 3])
def test_hardly_any_decision_is_refused_with_a_sentence(world, log, rows):
    found = judge_log(log.take(np.arange(rows)), policy(world, 1.0), policy(world, 0.5))
    assert not found.passed
    assert f"must be of 5 users, got {rows}" in found.why


def test_a_candidate_whose_scores_are_not_numbers_does_not_pass(world, log):
    found = judge_log(log, policy(world, math.nan), policy(world, 0.5))
    assert not found.passed
    assert "must be finite" in found.why


def test_the_intervals_have_the_level_of_the_gate_and_the_page_says_so(world, log):
    """Quantiles 1.2816 for 80 % and 1.9600 for 95 %: widths in a ratio of 0.654, but for what skewness adds to both."""
    usual = judge_log(log, policy(world, 1.0), policy(world, 0.5))
    found = judge_log(log, policy(world, 1.0), policy(world, 0.5), Gate(level=0.8))
    widths = [made.high - made.low for made in (found, usual)]
    assert widths[0] / widths[1] == pytest.approx(0.654, abs=0.005)
    assert (found.level, usual.level) == (0.8, 0.95)
    assert "80 % interval" in found.why
    assert "intervals of 80 %." in found.html()
    assert "95 %" not in found.html()
    assert "intervals of 95 %." in usual.html()
    assert judge_log(log.take(np.arange(3)), policy(world, 1.0), policy(world, 0.5), Gate(level=0.8)).level == 0.8


@pytest.mark.parametrize("place", range(4))
def test_nothing_that_is_not_a_number_passes(place):
    """difference, low, high and effective sample size: with any of them unknown, the gate is shut."""
    numbers = [0.5, 0.4, 0.6, 1000.0]
    assert module._reason(*numbers, Gate())[0]
    numbers[place] = math.nan
    assert not module._reason(*numbers, Gate())[0]


def test_a_judgement_is_the_same_after_json_and_its_page_escapes_what_it_says(world, log):
    found = judge_log(log, policy(world, 1.0), policy(world, 0.5))
    assert Judgement.from_json(found.to_json()) == found
    page = dataclasses.replace(found, why="1 < 2 & 3").html()
    assert "1 &lt; 2 &amp; 3" in page
    assert f"{found.difference:.3f}" in page
    unknown = Judgement(False, "no", "a", "b")
    assert "not known" in unknown.html()
    assert json.loads(unknown.to_json())["difference"] is None


def test_a_policy_that_reads_numbers_of_candidates_is_judged_by_those_of_the_log(exported):
    """What prefers the dear loses; what reads no prices, other ones or other items cannot be judged by this log."""
    cheap, log = priced(-0.3), sold(priced(-0.3), 3000)
    assert judge_log(log, cheap, cheap).passed
    dear = judge_log(log, priced(0.3), cheap)
    assert not dear.passed
    assert dear.high < 0
    for others in (priced(0.0, ()), priced(0.0, ("stock",)), load(exported[0])):
        for candidate, serving in ((others, cheap), (cheap, others)):
            found = judge_log(log, candidate, serving)
            assert (found.passed, found.difference) == (False, None)
            assert re.match(
                "Refused: nothing can be said of it, (candidate.features must be|unknown item ids)", found.why
            )


def test_directories_are_judged_as_what_they_hold(exported, tmp_path):
    """Decisions of the first policy are ingested; the second is judged, in a model, by the held-out ones."""
    serving = load(exported[0])
    rng, users, items = np.random.default_rng(0), np.repeat(np.arange(1, 31), 20), ["101", "102", "103", "104", "105"]
    recommended = [serving.recommend({"age": user / 30}, items, rng=rng, user_id=f"{user}") for user in users]
    times = [NOON + timedelta(seconds=row) for row in range(len(users))]
    rewards = [Reward(made.event_id, time, rng.integers(1, 6)) for made, time in zip(recommended, times, strict=True)]
    warehouse = LocalWarehouse()
    warehouse.write([made.interaction(time) for made, time in zip(recommended, times, strict=True)] + rewards)
    ingest(warehouse, NOON, NOON + timedelta(hours=1), STARS, serving.features, tmp_path / "dataset")
    shutil.copytree(exported[1], tmp_path / "model" / "policy")
    found = module.judge(tmp_path / "dataset", tmp_path / "model", exported[0])
    held_out = decisions_of(tmp_path / "dataset", held_out=True)
    assert found == judge_log(held_out, load(exported[1]), serving)
    assert 0 < found.decisions == len(held_out) < len(users)


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        (Gate, {"margin": -0.1}, "margin"),
        (Gate, {"margin": math.nan}, "margin"),
        (Gate, {"estimator": "DM"}, "estimator"),
        (Gate, {"effective_sample_size": 0}, "effective_sample_size"),
        (Gate, {"level": 1.0}, "level"),
        (Guardrail, {"canary": 50}, "canary"),
        (Guardrail, {"holdback": 0}, "holdback"),
        (Guardrail, {"least": 1}, "least"),
        (Guardrail, {"most": 10}, "most"),
        (Guardrail, {"alpha": 0.0}, "alpha"),
        (Settings, {"candidates": 101}, "candidates"),
        (Settings, {"decisions": 0}, "decisions"),
        (Settings, {"holdout": 1.0}, "holdout"),
        (Settings, {"forgetting": 0.0}, "forgetting"),
        (Settings, {"never": 1.5}, "never"),
        (Settings, {"rate": 0.0}, "rate"),
        (Settings, {"join": None}, "join"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(kind, values, field):
    with pytest.raises(ValueError, match=f"{kind.__name__}: {field} must be"):
        kind(**({"join": STARS} if kind is Settings else {}) | values)
