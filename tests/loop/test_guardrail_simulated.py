"""The rates at which the guardrail promotes, rolls back and withdraws hundreds of simulated canaries."""

from collections import Counter

import numpy as np
import pytest
from true_policies import NOON

from benchmarks import gate as benchmark
from recbandits.loop.__main__ import settings_of
from recbandits.loop.canary import Experiment, compare, decide
from recbandits.loop.gate import predicted_values
from recbandits.loop.settings import Guardrail, Settings
from recbandits.loop.simulated_users import STARS

RUNS, USERS = 200, 2000
CLICKS = Guardrail(most=5000)


def upper_bound(share, runs=RUNS):
    """Return the share of the runs that is exceeded by a rate of `share` once in 700 times."""
    return share + 3 * np.sqrt(share * (1 - share) / runs)


def outcome(guardrail, rng, users, rewards, looks, covariates=None):
    """Decide on a canary: users are split at random, and `rewards` are those of either version, float [2, n]."""
    draw, share, start, columns = 100 * rng.random(users.max() + 1), guardrail.canary, 0, covariates
    for end in looks:
        stage = users[start:end]
        newest = draw[stage] < share  # no user leaves a version whose share grows
        sides = [newest, ~newest]
        values = [reward[start:end][side] for reward, side in zip(rewards, sides, strict=True)]
        columns = None if covariates is None else [covariates[start:end][side] for side in sides]
        trial = Experiment("newest", "other", share, NOON)
        evidence = compare(values, [stage[side] for side in sides], columns, trial, guardrail)
        kind, _ = decide(trial, evidence, guardrail)
        if kind == "ramped":
            share, start = guardrail.ramp, end
        elif kind is not None:
            return kind
    return "undecided"


def count_outcomes(factor, decisions=15_000, rate=0.05):
    """Count the outcomes of canaries with `factor` times the clicks, of users with different click rates."""
    kinds = Counter()
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        users, level = rng.integers(USERS, size=decisions), rng.beta(2, 2 / rate - 2, USERS)
        draw = rng.random(decisions)
        rewards = [(draw < share * level[users]).astype(float) for share in (factor, 1)]
        kinds[outcome(CLICKS, rng, users, rewards, range(1000, decisions + 1, 1000))] += 1
    return kinds


def test_a_canary_with_a_fifth_of_the_clicks_is_rolled_back_in_200_of_200():
    assert count_outcomes(0.2) == {"rolled back": 200}


def test_an_equal_canary_is_rolled_back_no_more_often_than_alpha_says():
    """It is withdrawn where 15,000 decisions of 5 clicks in 100 tell no loss of a tenth: they do in 4 runs of 100."""
    kinds = count_outcomes(1.0)
    assert kinds["rolled back"] / RUNS <= CLICKS.alpha
    assert kinds["withdrawn"] + kinds["promoted"] > 0.8 * RUNS
    assert (kinds["promoted"] + kinds["rolled back"]) / RUNS <= upper_bound(0.04)


def test_a_canary_that_is_worse_by_exactly_the_margin_is_seldom_decided_either_way():
    """Normal rewards of mean 1, 20 looks: each stage errs with probability alpha / 2 at most, and there are two."""
    guardrail, kinds = Guardrail(most=1500), Counter()
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        users, noise = rng.integers(USERS, size=4000), rng.normal(0, 1, 4000)
        mean = rng.normal(1, 0.3, USERS)[users]
        kinds[outcome(guardrail, rng, users, [mean - 0.1 + noise, mean + noise], range(200, 4001, 200))] += 1
    assert (kinds["promoted"] + kinds["rolled back"]) / RUNS <= guardrail.alpha


@pytest.mark.parametrize(
    ("settings", "decisions", "looks"),
    [(Settings(STARS), 2000, 4), (settings_of("quick"), 1100, 22)],  # of `make loop`: 22 seconds of visits
)
def test_a_truly_equal_canary_is_promoted_within_its_round_in_at_least_80_percent(users, settings, decisions, looks):
    """The policy's predictions are the covariate."""
    kinds = Counter()
    for seed in range(50):
        rng = np.random.default_rng(seed)
        serving = benchmark.make_policy(users, benchmark.draw_coefficients(users, 0.5, rng))
        log = benchmark.draw_log(users, serving, decisions, rng, benchmark.STARS.draw)
        covariates, ends = predicted_values(serving, log)[:, None], np.arange(1, looks + 1) * decisions // looks
        kinds[outcome(settings.guardrail, rng, log.user_id, [log.reward] * 2, ends, covariates)] += 1
    assert kinds["promoted"] >= 0.8 * 50


def test_a_few_users_with_most_decisions_are_no_evidence():
    """2 of 100 users have six in ten decisions, and the canary is worse by the margin: 0.3 of 3 stars."""
    kinds, weights = Counter(), np.repeat([0.3, 0.4 / 98], [2, 98])
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        users, level = rng.choice(100, 4000, p=weights), rng.normal(3, 1, 100)
        stars = level[users] + rng.normal(0, 1, 4000)
        kinds[outcome(Guardrail(), rng, users, [stars - 0.3, stars], range(200, 4001, 200))] += 1
    assert max(kinds["promoted"], kinds["rolled back"]) / RUNS <= upper_bound(0.05)
