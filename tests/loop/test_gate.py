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

from benchmarks import gate as benchmark
from recbandits.exploration import Exploration
from recbandits.loop import gate as module
from recbandits.loop.gate import Judgement, judge_log, probabilities_of
from recbandits.loop.ingest import decisions_of, ingest, log_of
from recbandits.loop.settings import Gate, Guardrail, Settings
from recbandits.loop.simulated_users import STARS
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.records import Interaction, Reward, from_table
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


def test_a_candidate_that_is_significantly_worse_is_refused(world, log):
    found = judge_log(log, policy(world, 0.2), policy(world, 0.5), Gate(margin=0.0))
    assert (found.outcome, found.passed, found.missing) == ("refused", False, "")
    assert found.why.startswith("Refused: it is significantly worse than what serves")
    assert found.high < 0


def test_a_policy_that_does_not_vary_from_what_serves_is_held(world, log):
    """All weights are 1, and no interval has a width: no variance is no evidence."""
    found = judge_log(log, policy(world, 0.5), policy(world, 0.5))
    assert (found.difference, found.low, found.high) == pytest.approx((0.0, 0.0, 0.0))
    assert found.effective_sample_size == pytest.approx(3000)
    assert (found.outcome, found.missing) == ("held", "nothing varies, which is no evidence")


def test_few_decisions_that_resemble_the_candidates_are_not_enough(world, log):
    found = judge_log(log.take(np.arange(90)), policy(world, 1.0), policy(world, 0.5), Gate(margin=5.0))
    assert found.outcome == "held"
    assert re.fullmatch("the estimate of the candidate needs 100 decisions of equal weight, got [1-8].", found.missing)
    assert judge_log(log, policy(world, 1.0), policy(world, 0.5), Gate(margin=5.0)).passed


@pytest.mark.parametrize("name", ["the candidate", "what serves"])
def test_both_sides_need_rewarded_decisions(world, log, name):
    """Clicks of 30 users of 3,000: the side whose weights leave fewer of them is the one that the reason names."""
    clicks = dataclasses.replace(log, reward=(np.arange(3000) % 100 == 0).astype(float))
    policies = [policy(world, 0.6), policy(world, 0.5)]
    if name == "what serves":
        policies.reverse()
        clicks = dataclasses.replace(clicks, propensity=probabilities_of(policies[0], log)[range(3000), log.action])
    found = judge_log(clicks, *policies, Gate(rewarded_decisions=29.99))
    assert found.outcome == "held"
    assert re.fullmatch(f"the estimate of {name} needs 29.99 rewarded decisions of equal weight, got ..", found.missing)


def test_a_candidate_whose_decisions_the_log_does_not_have_is_held(world):
    """What serves is nearly greedy; 928 decisions of equal weight say how good the other 59 % of the candidate are."""
    serving = policy(world, 3.0, Exploration("softmax", 0.05))
    found = judge_log(logged(world, serving, 5000), policy(world, 0.5), serving, Gate(margin=5.0))
    assert found.outcome == "held"
    assert found.effective_sample_size > 900
    assert found.missing == "41% of the decisions of the candidate are not in the log"


def test_the_margin_is_a_share_of_what_serves_and_between_both_bounds_the_candidate_is_held(world, log):
    candidate, serving = policy(world, 0.45), policy(world, 0.5)
    found = judge_log(log, candidate, serving)
    value = found.serving_value[0]
    assert found.margin == pytest.approx(0.05 * value)
    assert found.low < found.high < 0
    for share, outcome in ((1 - 1e-9, "held"), (1 + 1e-9, "passed")):
        assert judge_log(log, candidate, serving, Gate(margin=-found.low / value * share)).outcome == outcome
    for share, outcome in ((1 - 1e-9, "refused"), (1 + 1e-9, "held")):
        assert judge_log(log, candidate, serving, Gate(margin=-found.high / value * share)).outcome == outcome


def test_intervals_count_users_and_not_decisions(world, log):
    """Each decision ten times, by the same user: the evidence is that of one, and so is the interval."""
    rows = np.repeat(np.arange(300), 10)
    parts = {
        name: getattr(log, name)[rows] for name in ("time", "user_id", "candidates", "mask", "action", "propensity")
    }
    parts |= {"reward": log.reward[rows], "pass_prob": log.pass_prob[rows], "context": log.context.iloc[rows]}
    often = dataclasses.replace(log, event_id=np.array([f"event {row}" for row in range(3000)], object), **parts)
    once, ten = (judge_log(each, policy(world, 1.0), policy(world, 0.5)) for each in (log.take(np.arange(300)), often))
    assert ten.high - ten.low == pytest.approx(once.high - once.low, rel=0.1)


def test_users_without_an_id_are_each_a_user_to_the_gate(world, log):
    """As 3,000 users with ids of their own, none of whom a policy has seen before."""
    named = [f"new {number}" for number in range(3000)]
    new = dataclasses.replace(log, user_ids=named, user_id=np.arange(3000))
    anonymous = dataclasses.replace(log, user_id=len(log.user_ids) + np.arange(3000))
    found = judge_log(anonymous, policy(world, 1.0), policy(world, 0.5))
    assert found.passed
    assert found == judge_log(new, policy(world, 1.0), policy(world, 0.5))


def test_a_candidate_that_never_does_what_was_logged_is_refused_with_a_sentence(world):
    """The log is of a greedy policy; the candidate turns it round and is greedy too: not one decision in common."""
    greedy = Exploration("greedy")
    log = logged(world, policy(world, 1.0, greedy), 200)
    found = judge_log(log, policy(world, -1.0, greedy), policy(world, 1.0, greedy))
    assert found.outcome == "held"
    assert "takes no action of this log" in found.missing
    assert found.difference is None


@pytest.mark.parametrize("rows", [0, 3])
def test_a_candidate_is_held_where_there_is_hardly_any_decision(world, log, rows):
    found = judge_log(log.take(np.arange(rows)), policy(world, 1.0), policy(world, 0.5))
    assert found.outcome == "held"
    assert found.missing == f"the held-out decisions must be of 5 users, got {rows}"


def test_a_candidate_whose_scores_are_not_numbers_does_not_pass(world, log):
    found = judge_log(log, policy(world, math.nan), policy(world, 0.5))
    assert found.outcome == "held"
    assert "must be finite" in found.missing


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
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_candidate_is_held_where_a_number_is_not_finite(place, value):
    """Difference, low, high and value of what serves."""
    numbers = [0.5, 0.4, 0.6, 0.1]
    assert module._missing_bounds(*numbers) == ""
    numbers[place] = value
    assert module._missing_bounds(*numbers) == "the interval of the difference is not finite"


@pytest.mark.parametrize("value", [1000.0, -1e9, 1e308])
def test_an_impossible_reward_changes_no_judgement(world, log, value):
    """It is reported of one more decision; the warehouse quarantines that for the gate as for everybody."""
    warehouse = LocalWarehouse()
    tables = log.take(np.arange(500)).to_tables("serving")
    kinds = (Interaction, Reward)
    records = [record for table, kind in zip(tables, kinds, strict=True) for record in from_table(table, kind)]
    span = NOON - timedelta(days=1), NOON + timedelta(days=1)

    def judgement():
        joined = log_of(warehouse.decisions(*span, **vars(STARS)))
        return judge_log(joined, policy(world, 1.0), policy(world, 0.5))

    warehouse.write(records)
    before = judgement()
    strange = dataclasses.replace(records[0], event_id="strange")
    warehouse.write([strange, Reward("strange", strange.time, value)])
    assert judgement() == before
    assert warehouse.counts(*span, **vars(STARS)).quarantined == 1


@pytest.mark.parametrize("traffic", [benchmark.STARS, benchmark.CLICKS], ids=lambda traffic: traffic.name)
def test_intervals_cover_the_truth_and_what_is_worse_by_the_margin_does_not_pass(world, traffic):
    """20 loops of the published benchmark: at most 4 miss and 2 of 10 pass, which 7 % and 5 % exceed once in 100."""
    loops = benchmark.simulate(world, traffic, range(20))
    known = loops[loops["evidence"]]
    assert len(known) >= 10
    assert ((known["low"] > known["truth"]) | (known["truth"] > known["high"])).sum() <= 4
    assert (known[known["truth"] <= -known["margin"]]["outcome"] == "passed").sum() <= 2


def test_a_judgement_is_the_same_after_json_and_its_page_escapes_what_it_says(world, log):
    found = judge_log(log, policy(world, 1.0), policy(world, 0.5))
    assert Judgement.from_json(found.to_json()) == found
    page = dataclasses.replace(found, why="1 < 2 & 3").html()
    assert "1 &lt; 2 &amp; 3" in page
    assert f"{found.difference:.3f}" in page
    unknown = Judgement("held", "no", "a", "b")
    assert "not known" in unknown.html()
    assert json.loads(unknown.to_json())["difference"] is None


def test_a_policy_that_reads_numbers_of_candidates_is_judged_by_those_of_the_log(exported):
    """What prefers the dear loses; what reads no prices, other ones or other items cannot be judged by this log."""
    cheap, log = priced(-0.3), sold(priced(-0.3), 3000)
    assert judge_log(log, priced(-0.31), cheap).passed
    dear = judge_log(log, priced(0.3), cheap)
    assert dear.outcome == "held"
    assert dear.high < 0
    for others in (priced(0.0, ()), priced(0.0, ("stock",)), load(exported[0])):
        for candidate, serving in ((others, cheap), (cheap, others)):
            found = judge_log(log, candidate, serving)
            assert (found.outcome, found.difference) == ("held", None)
            assert re.match(
                "it cannot be judged by this log, (candidate.features must|unknown item ids)", found.missing
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
        (Gate, {"estimator": "DRos"}, "estimator"),
        (Gate, {"rewarded_decisions": 0}, "rewarded_decisions"),
        (Gate, {"effective_sample_size": 0}, "effective_sample_size"),
        (Gate, {"level": 1.0}, "level"),
        (Guardrail, {"canary": 50}, "canary"),
        (Guardrail, {"holdback": 0}, "holdback"),
        (Guardrail, {"least": 1}, "least"),
        (Guardrail, {"most": 10}, "most"),
        (Guardrail, {"alpha": 0.0}, "alpha"),
        (Guardrail, {"ramp": 50}, "ramp"),
        (Guardrail, {"ramp": 19}, "ramp"),
        (Guardrail, {"settling": -1.0}, "settling"),
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
