"""The gate passes better candidates and stops those that are worse, unsupported or unknown."""

import dataclasses
import itertools
import json
import math
import re
from datetime import timedelta

import numpy as np
import pytest
from scipy import stats
from true_policies import NOON, policy, price_log, price_policy

from benchmarks import gate as benchmark
from recbandits.evaluation import estimators
from recbandits.exploration import Exploration
from recbandits.loop import gate as gate_module
from recbandits.loop.gate import Judgement, judge_log, probabilities_of
from recbandits.loop.ingest import log_of
from recbandits.loop.settings import Gate, Guardrail, Settings
from recbandits.loop.simulated_users import STARS
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.records import Interaction, Reward, from_table
from recbandits.serving.policy import load


def draw_log(users, serving, n):
    """Draw a log of n decisions of a policy, rewarded by `SimulatedUsers.rate`."""
    return benchmark.draw_log(users, serving, n, np.random.default_rng(0), users.rate, candidates=5)


@pytest.fixture(scope="module")
def log(users):
    """3,000 decisions of a policy with half of the true weights of the factors."""
    return draw_log(users, policy(users, 0.5), 3000)


def test_a_better_candidate_passes_and_its_interval_covers_the_truth(users, log):
    visits = log.user_id, log.candidates
    better, serving = policy(users, 1.0), policy(users, 0.5)
    judgement = judge_log(log, better, serving)
    truth = (users.value(better, visits) - users.value(serving, visits)).mean()
    assert judgement.passed
    assert judgement.low < truth < judgement.high
    assert judgement.why.startswith("Passed")
    assert (judgement.candidate, judgement.serving, judgement.decisions) == (better.version, serving.version, 3000)


def test_a_candidate_that_is_significantly_worse_is_refused(users, log):
    judgement = judge_log(log, policy(users, 0.2), policy(users, 0.5), Gate(margin=0.0))
    assert (judgement.outcome, judgement.passed, judgement.missing) == ("refused", False, "")
    assert judgement.why.startswith("Refused: it is significantly worse than the serving policy")
    assert judgement.high < 0


def test_a_candidate_equal_to_the_serving_policy_is_held(users, log):
    """All weights are 1, and no interval has a width: no variance is no evidence."""
    judgement = judge_log(log, policy(users, 0.5), policy(users, 0.5))
    assert (judgement.difference, judgement.low, judgement.high) == pytest.approx((0.0, 0.0, 0.0))
    assert judgement.effective_sample_size == pytest.approx(3000)
    assert (judgement.outcome, judgement.missing) == ("held", "nothing varies, which is no evidence")


def test_few_decisions_that_resemble_the_candidates_are_not_enough(users, log):
    judgement = judge_log(log.take(np.arange(90)), policy(users, 1.0), policy(users, 0.5), Gate(margin=5.0))
    assert judgement.outcome == "held"
    assert re.fullmatch(
        "the estimate of the candidate needs 100 decisions of equal weight, got [1-8].", judgement.missing
    )
    assert judge_log(log, policy(users, 1.0), policy(users, 0.5), Gate(margin=5.0)).passed


@pytest.mark.parametrize("name", ["the candidate", "the serving policy"])
def test_both_sides_need_rewarded_decisions(users, log, name):
    """Clicks of 30 users of 3,000: the side whose weights leave fewer of them is the one that the reason names."""
    clicks = dataclasses.replace(log, reward=(np.arange(3000) % 100 == 0).astype(float))
    policies = [policy(users, 0.6), policy(users, 0.5)]
    if name == "the serving policy":
        policies.reverse()
        clicks = dataclasses.replace(clicks, propensity=probabilities_of(policies[0], log)[range(3000), log.action])
    judgement = judge_log(clicks, *policies, Gate(rewarded_decisions=29.99))
    assert judgement.outcome == "held"
    assert re.fullmatch(
        f"the estimate of {name} needs 29.99 rewarded decisions of equal weight, got ..", judgement.missing
    )


def test_a_candidate_whose_decisions_the_log_does_not_have_is_held(users):
    """The serving policy is nearly greedy; 928 decisions of equal weight support 59 % of the candidate."""
    serving = policy(users, 3.0, Exploration("softmax", 0.05))
    judgement = judge_log(draw_log(users, serving, 5000), policy(users, 0.5), serving, Gate(margin=5.0))
    assert judgement.outcome == "held"
    assert judgement.effective_sample_size > 900
    assert judgement.missing == "41% of the decisions of the candidate are not in the log"


def test_decisions_are_missing_where_the_mean_weight_is_below_0_95_by_two_standard_errors():
    """The standard error by hand: a record of pass_prob p counts 1 / p, and the error depends on the mean weight."""
    rng, gate, n = np.random.default_rng(0), Gate(), 1000
    pass_prob, weight = rng.choice([0.5, 1.0], n), rng.uniform(0.5, 1.4, n)
    value = estimators.ips(rng.normal(size=n), np.full(n, 0.5), weight / 2, pass_prob=pass_prob)
    for errors, missing in ((1.9, False), (2.1, True)):
        mean_weight = 0.95
        for _ in range(20):
            deviations = (weight - mean_weight) / pass_prob
            mean_weight = 0.95 - errors * deviations.std() / (1 / pass_prob).mean() / math.sqrt(n)
        low = dataclasses.replace(value, mean_weight=mean_weight)
        enough = dataclasses.replace(value, mean_weight=1.0)
        for values, name in (((low, enough), "the candidate"), ((enough, low), "the serving policy")):
            expected = f"{1 - mean_weight:.0%} of the decisions of {name} are not in the log" if missing else ""
            assert gate_module._missing_evidence(values, gate) == expected


@pytest.mark.parametrize("estimator", ["SNDR", "DR"])
def test_a_log_of_which_a_part_was_kept_lacks_the_same_decisions(users, estimator):
    """The share in the log is a mean over all decisions, of which a kept one stands for 1 / pass_prob."""
    serving = policy(users, 3.0, Exploration("softmax", 0.05))
    log = draw_log(users, serving, 5000)
    pass_prob = np.random.default_rng(1).uniform(0.4, 0.6, 5000)
    kept = np.flatnonzero(np.random.default_rng(0).random(5000) < pass_prob)
    thinned = dataclasses.replace(log.take(kept), pass_prob=pass_prob[kept])
    judgement = judge_log(thinned, policy(users, 0.5), serving, Gate(margin=5.0, estimator=estimator))
    assert judgement.outcome == "held"
    assert re.fullmatch("4.% of the decisions of the candidate are not in the log", judgement.missing)


def test_the_margin_is_a_share_of_what_serves_and_between_both_bounds_the_candidate_is_held(users, log):
    candidate, serving = policy(users, 0.45), policy(users, 0.5)
    judgement = judge_log(log, candidate, serving)
    value = judgement.serving_value[0]
    assert judgement.margin == pytest.approx(0.05 * value)
    assert judgement.low < judgement.high < 0
    for share, outcome in ((1 - 1e-9, "held"), (1 + 1e-9, "passed")):
        assert judge_log(log, candidate, serving, Gate(margin=-judgement.low / value * share)).outcome == outcome
    for share, outcome in ((1 - 1e-9, "refused"), (1 + 1e-9, "held")):
        assert judge_log(log, candidate, serving, Gate(margin=-judgement.high / value * share)).outcome == outcome


def test_intervals_count_users_and_not_decisions(users, log):
    """Each decision ten times, by the same user: the evidence is that of one, and so is the interval."""
    rows = np.repeat(np.arange(300), 10)
    parts = {
        name: getattr(log, name)[rows] for name in ("time", "user_id", "candidates", "mask", "action", "propensity")
    }
    parts |= {"reward": log.reward[rows], "pass_prob": log.pass_prob[rows], "context": log.context.iloc[rows]}
    repeated = dataclasses.replace(log, event_id=np.array([f"event {row}" for row in range(3000)], object), **parts)
    once, ten = (
        judge_log(each, policy(users, 1.0), policy(users, 0.5)) for each in (log.take(np.arange(300)), repeated)
    )
    assert ten.high - ten.low == pytest.approx(once.high - once.low, rel=0.1)


def test_the_interval_has_the_degrees_of_freedom_of_the_users_that_its_error_rests_on():
    """Four of 100 users have nearly all of the variance: sum(s^2)^2 / sum(s^4) is about 4, not 99."""
    rewards = np.concatenate([[3.0, -3.0, 2.0, -2.0], np.linspace(-0.1, 0.1, 96)])
    estimate, users = estimators.ips(rewards, np.ones(100), np.ones(100)), np.arange(100)
    squares = (rewards - rewards.mean()) ** 2
    freedom = squares.sum() ** 2 / (squares @ squares)
    assert 3 < freedom < 4.5
    factor = stats.t.ppf(0.975, freedom) / stats.t.ppf(0.975, 99)
    low, high = gate_module._interval(estimate, 0.95, users)
    assert high - low == pytest.approx(factor * np.ptp(estimate.interval(groups=users)))


def test_users_without_an_id_are_each_a_user_to_the_gate(users, log):
    """As 3,000 users with ids of their own, none of whom a policy has seen before."""
    named = [f"new {number}" for number in range(3000)]
    new = dataclasses.replace(log, user_ids=named, user_id=np.arange(3000))
    anonymous = dataclasses.replace(log, user_id=len(log.user_ids) + np.arange(3000))
    judgement = judge_log(anonymous, policy(users, 1.0), policy(users, 0.5))
    assert judgement.passed
    assert judgement == judge_log(new, policy(users, 1.0), policy(users, 0.5))


def test_a_candidate_that_never_does_what_was_logged_is_refused_with_a_message(users):
    """The log is of a greedy policy; the candidate is greedy by the opposite scores: no decision in common."""
    greedy = Exploration("greedy")
    log = draw_log(users, policy(users, 1.0, greedy), 200)
    judgement = judge_log(log, policy(users, -1.0, greedy), policy(users, 1.0, greedy))
    assert judgement.outcome == "held"
    assert "takes no action of this log" in judgement.missing
    assert judgement.difference is None


@pytest.mark.parametrize("rows", [0, 3])
def test_a_candidate_is_held_where_there_are_too_few_decisions(users, log, rows):
    judgement = judge_log(log.take(np.arange(rows)), policy(users, 1.0), policy(users, 0.5))
    assert judgement.outcome == "held"
    assert judgement.missing.endswith(f"as much as those of 5 users with equally many each, got {rows:.1f}")


def test_a_candidate_is_held_where_one_user_has_most_decisions(users, log):
    """Half of the decisions are worth 1 / 0.25 = 4 users at most, however many have the others."""
    one_user = dataclasses.replace(log, user_id=np.where(np.arange(len(log)) % 2, 0, log.user_id))
    judgement = judge_log(one_user, policy(users, 0.2), policy(users, 0.5), Gate(margin=0.0))
    assert judgement.outcome == "held"
    assert "5 users with equally many each" in judgement.missing


def test_a_candidate_whose_scores_are_not_numbers_does_not_pass(users, log):
    judgement = judge_log(log, policy(users, math.nan), policy(users, 0.5))
    assert judgement.outcome == "held"
    assert "must be finite" in judgement.missing


def test_the_intervals_have_the_level_of_the_gate_and_the_page_says_so(users, log):
    """Quantiles 1.2816 for 80 % and 1.9600 for 95 %: widths in a ratio of 0.654, but for what skewness adds to both."""
    default = judge_log(log, policy(users, 1.0), policy(users, 0.5))
    judgement = judge_log(log, policy(users, 1.0), policy(users, 0.5), Gate(level=0.8))
    widths = [each.high - each.low for each in (judgement, default)]
    assert widths[0] / widths[1] == pytest.approx(0.654, abs=0.005)
    assert (judgement.level, default.level) == (0.8, 0.95)
    assert "80 % interval" in judgement.why
    assert "intervals of 80 %." in judgement.html()
    assert "95 %" not in judgement.html()
    assert "intervals of 95 %." in default.html()
    assert judge_log(log.take(np.arange(3)), policy(users, 1.0), policy(users, 0.5), Gate(level=0.8)).level == 0.8


def test_a_candidate_is_held_where_a_number_is_not_finite():
    """Difference, low, high and value of the serving policy."""
    assert gate_module._missing_bounds(0.5, 0.4, 0.6, 0.1) == ""
    for position, value in itertools.product(range(4), (math.nan, math.inf, -math.inf)):
        numbers = [0.5, 0.4, 0.6, 0.1]
        numbers[position] = value
        assert gate_module._missing_bounds(*numbers) == "the interval of the difference is not finite", numbers


def test_an_impossible_reward_changes_no_judgement(users, log):
    """It is reported of one more decision; the warehouse quarantines that for every reader."""
    warehouse = LocalWarehouse()
    tables = log.take(np.arange(500)).to_tables("serving")
    kinds = (Interaction, Reward)
    records = [record for table, kind in zip(tables, kinds, strict=True) for record in from_table(table, kind)]
    span = NOON - timedelta(days=1), NOON + timedelta(days=1)

    def judgement():
        joined = log_of(warehouse.decisions(*span, STARS))
        return judge_log(joined, policy(users, 1.0), policy(users, 0.5))

    warehouse.write(records)
    before = judgement()
    strange = dataclasses.replace(records[0], event_id="strange")
    warehouse.write([strange, Reward("strange", strange.time, -1e9)])
    assert judgement() == before
    assert warehouse.counts(*span, STARS).quarantined == 1


@pytest.mark.parametrize("traffic", [benchmark.STARS, benchmark.CLICKS], ids=lambda traffic: traffic.name)
def test_intervals_cover_the_truth_and_what_is_worse_by_the_margin_does_not_pass(users, traffic):
    """20 loops of the published benchmark: at most 4 miss and 2 of 10 pass, which 7 % and 5 % exceed once in 100."""
    loops = benchmark.simulate(users, traffic, range(20))
    decisive = loops[loops["evidence"]]
    assert len(decisive) >= 10
    assert ((decisive["low"] > decisive["truth"]) | (decisive["truth"] > decisive["high"])).sum() <= 4
    assert (decisive[decisive["truth"] <= -decisive["margin"]]["outcome"] == "passed").sum() <= 2


def test_a_judgement_is_the_same_after_json_and_its_page_escapes_text(users, log):
    judgement = judge_log(log, policy(users, 1.0), policy(users, 0.5))
    assert Judgement.from_json(judgement.to_json()) == judgement
    page = dataclasses.replace(judgement, why="1 < 2 & 3").html()
    assert "1 &lt; 2 &amp; 3" in page
    assert f"{judgement.difference:.3f}" in page
    unknown = Judgement("held", "no", "a", "b")
    assert "not known" in unknown.html()
    assert json.loads(unknown.to_json())["difference"] is None


def test_a_policy_that_reads_numbers_of_candidates_is_judged_by_those_of_the_log(exported):
    """A policy that prefers high prices loses; one with other features or items cannot be judged by this log."""
    cheap, log = price_policy(-0.3), price_log(price_policy(-0.3), 3000)
    assert judge_log(log, price_policy(-0.31), cheap).passed
    expensive = judge_log(log, price_policy(0.3), cheap)
    assert expensive.outcome == "held"
    assert expensive.high < 0
    for others in (price_policy(0.0, ()), price_policy(0.0, ("stock",)), load(exported[0])):
        for candidate, serving in ((others, cheap), (cheap, others)):
            judgement = judge_log(log, candidate, serving)
            assert (judgement.outcome, judgement.difference) == ("held", None)
            assert re.match(
                "it cannot be judged by this log, (candidate.features must|unknown item ids)", judgement.missing
            )


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Gate, "margin", -0.1),
        (Gate, "estimator", "DRos"),
        (Gate, "rewarded_decisions", 0),
        (Gate, "effective_sample_size", 0),
        (Gate, "level", 1.0),
        (Guardrail, "canary", 50),
        (Guardrail, "holdback", 0),
        (Guardrail, "least", 1),
        (Guardrail, "most", 10),
        (Guardrail, "alpha", 0.0),
        (Guardrail, "ramp", 50),
        (Guardrail, "ramp", 19),
        (Guardrail, "settling", -1.0),
        (Settings, "candidates", 101),
        (Settings, "decisions", 0),
        (Settings, "holdout", 1.0),
        (Settings, "forgetting", 0.0),
        (Settings, "never", 1.5),
        (Settings, "rate", 0.0),
        (Settings, "join", None),
    ],
)
def test_a_setting_outside_its_range_is_refused_by_name(kind, field, value):
    with pytest.raises(ValueError, match=f"{kind.__name__}: {field} must be"):
        kind(**({"join": STARS} if kind is Settings else {}) | {field: value})
