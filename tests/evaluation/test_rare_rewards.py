"""Intervals of rare rewards, of logs in which nothing varies and of correlated records: by hand and by coverage."""

import numpy as np
import pytest
from scipy import stats

from recbandits.evaluation import difference, estimators, off_policy, slates, tabulate
from recbandits.records.log import Log

METHODS = ["normal", "bootstrap", "bernstein"]


def estimate_mean(rewards):
    rewards = np.asarray(rewards, float)
    return estimators.ips(rewards, np.ones(len(rewards)), np.ones(len(rewards)))


def compute_misses(bounds, truth):
    """Return whether there is an interval, and whether there is one that does not contain the truth."""
    low, high = np.array(bounds).T
    return ~np.isnan(low), (low > truth) | (high < truth)


def assert_coverage(bounds, truth):
    """Check that at most 7 % of all logs miss the truth, and of those with an interval where half of them have one.

    Returns:
      The share of the logs that have an interval: one without misses nothing.
    """
    has_interval, is_miss = compute_misses(bounds, truth)
    assert is_miss.mean() <= 0.07
    assert has_interval.mean() < 0.5 or is_miss[has_interval].mean() <= 0.07
    return has_interval.mean()


@pytest.mark.parametrize("method", METHODS)
def test_a_log_without_a_click_has_no_interval(method):
    """500 decisions; half of such logs come from click rates above 0.0014."""
    log = np.zeros(500), np.full(500, 0.5), np.full(500, 0.5)
    other = np.tile([0.2, 0.8], 250)
    pair = [estimators.snips(*log), estimators.snips(*log[:2], other)]
    dr_estimate = estimators.dr(*log[:2], other, np.zeros(500), np.linspace(0, 0.1, 500))
    for estimate in (estimate_mean(log[0]), *pair, difference(*pair), dr_estimate):
        assert estimate.rewarded_decisions == 0
        assert np.isnan(estimate.interval(method)).all()


@pytest.mark.parametrize("method", METHODS)
def test_three_equal_records_have_no_interval(method):
    estimate = estimators.snips([1.0, 1.0, 1.0], [0.5, 0.2, 0.1], [0.1, 0.5, 0.3])
    assert estimate.value == pytest.approx(1)
    assert np.isnan(estimate.interval(method)).all()
    assert np.isnan(estimators.direct_method([0.1] * 3).interval(method)).all()


def test_a_declared_range_bounds_a_log_without_a_click():
    """Bernstein without variance: 7 log(4 / 0.05) / (3 x 499)."""
    low, high = estimate_mean(np.zeros(500)).interval("bernstein", span=1.0)
    assert high == -low == pytest.approx(7 * np.log(80) / (3 * 499))


def test_bernstein_with_a_declared_range_covers_rare_rewards():
    """One reward in 200 is 1, logs of 100: most logs have none."""
    rewards = np.random.default_rng(0).random((500, 100)) < 0.005
    has_interval, is_miss = compute_misses(
        [estimate_mean(row).interval("bernstein", span=1.0) for row in rewards], 0.005
    )
    assert has_interval.all()
    assert is_miss.mean() <= 0.05


def test_rewarded_decisions_by_hand():
    """Weights 2, 1, 1, 0: effective size 16 / 6; half of the weight is that of the one reward that is not 0."""
    log = [1.0, 0.0, 0.0, 1.0], [0.25, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.0]
    for estimator in (estimators.ips, estimators.snips):
        assert estimator(*log).rewarded_decisions == pytest.approx(4 / 3)
    assert estimators.ips(*log, pass_prob=[0.5, 1, 1, 1]).rewarded_decisions == pytest.approx(4 / 6 * 36 / 18)
    assert np.isnan(estimators.direct_method([1.0, 0.0]).rewarded_decisions)
    assert tabulate({"IPS": estimators.ips(*log)}).loc["IPS", "rewarded_decisions"] == pytest.approx(4 / 3)


def test_rewarded_decisions_of_a_difference_are_those_in_which_the_policies_differ():
    """Weights 1, 1, 1 and 1, 1.5, 0.5: the first record does not tell the policies apart, the second has the click."""
    log = np.array([5.0, 1.0, 5.0, 5.0]), np.full(4, 0.5)
    pair = [estimators.ips(*log, np.array(target)) for target in ([0.5] * 4, [0.5, 0.75, 0.25, 0.25])]
    assert difference(*pair).rewarded_decisions == pytest.approx(1 / 3 * 3)
    assert difference(pair[0], estimators.direct_method(log[0])).rewarded_decisions == pytest.approx(1)


def test_twenty_rewarded_decisions_of_equal_weight_have_an_interval():
    """Clicks in decisions that the target does not take do not count."""
    for clicks, expected in ((19, False), (20, True)):
        rewards = np.repeat([1.0, 0.0, 1.0], [clicks, 2000, 50])
        log = rewards, np.full(len(rewards), 0.1), np.repeat([1.0, 0.0], [len(rewards) - 50, 50])
        estimates = [estimators.ips(*log), estimators.snips(*log), estimators.dr(*log, rewards * 0.1, rewards * 0.1)]
        for estimate in estimates:
            assert estimate.rewarded_decisions == pytest.approx(clicks)
            assert np.isfinite(estimate.interval()).all() == expected


def test_rewards_without_a_majority_have_intervals_from_two_records_on():
    """Stars vary: nothing is rare, and all decisions count."""
    estimate = estimate_mean([4.0, 5.0, 3.0, 4.0])
    assert estimate.rewarded_decisions == 4
    expected = stats.t.interval(0.95, 3, loc=4.0, scale=stats.sem([4.0, 5.0, 3.0, 4.0]))
    np.testing.assert_allclose(estimate.interval(), expected)


def test_a_difference_is_not_certain_where_policies_differ_in_decisions_without_a_click():
    rewards, propensity = np.repeat([1.0, 0.0], [50, 450]), np.full(500, 0.5)
    first = np.full(500, 0.5)
    second = np.where(np.arange(500) < 50, 0.5, np.tile([0.4, 0.6], 250))
    pair = [estimators.snips(rewards, propensity, target) for target in (first, second)]
    assert np.isfinite([estimate.interval() for estimate in pair]).all()
    assert np.isnan(difference(*pair).interval()).all()
    assert difference(pair[0], pair[0]).interval() == (0.0, 0.0)


@pytest.mark.parametrize("rate", [0.0005, 0.005, 0.02])
@pytest.mark.parametrize("n", [500, 2000, 20_000])
def test_intervals_of_click_rates_cover(rate, n):
    """An interval for every number of clicks that 1,000 logs have."""
    clicks = np.random.default_rng(1).binomial(n, rate, 1000)
    bounds = {x: estimate_mean(np.repeat([1.0, 0.0], [x, n - x])).interval() for x in np.unique(clicks)}
    assert_coverage([bounds[x] for x in clicks], rate)
    assert (compute_misses([bounds[x] for x in clicks], rate)[0] == (clicks >= 20)).all()


def test_the_bootstrap_of_a_click_rate_covers():
    rewards = np.random.default_rng(0).random((200, 1500)) < 0.02
    assert assert_coverage([estimate_mean(row).interval("bootstrap", resamples=200) for row in rewards], 0.02) > 0.9


def draw_clicks(actions, skew, rate, n, replications, sharp=False):
    """Draw logs of a policy that prefers some of the actions by exp(skew x normal).

    Yields:
      (value of a target policy, its difference to the log's), at first the truth, then dicts of estimates for each log.
    """
    generator = np.random.default_rng(actions)
    expected = generator.beta(2, 6, actions)
    expected *= rate / expected.mean()
    logging_policy, target = (np.exp(scale * generator.normal(size=actions)) for scale in (skew, 1.0))
    if sharp:
        target = 0.1 / actions + 0.9 * (np.arange(actions) == expected.argmax())
    logging_policy, target = logging_policy / logging_policy.sum(), target / target.sum()
    model = 0.2 * expected + 0.8 * expected.mean()
    yield target @ expected, (target - logging_policy) @ expected
    for _ in range(replications):
        action = generator.choice(actions, n, p=logging_policy)
        reward = (generator.random(n) < expected[action]).astype(float)
        estimates = []
        for policy in (target, logging_policy):
            log = reward, logging_policy[action], policy[action]
            arguments = *log, model[action], np.full(n, policy @ model)
            estimates.append(
                {
                    "IPS": estimators.ips(*log),
                    "SNIPS": estimators.snips(*log),
                    "DR": estimators.dr(*arguments),
                    "DRos": estimators.dr_os(*arguments),
                    "DRos 100": estimators.dr_os(*arguments, 100.0),
                }
            )
        yield (
            estimates[0],
            {name: difference(estimates[0][name], estimates[1][name]) for name in estimates[0]},
        )


@pytest.mark.parametrize(
    ("actions", "skew", "rate", "n", "sharp", "shares"),
    [
        (10, 0.0, 0.02, 3000, False, (1.0, 1.0)),
        (34, 2.0, 0.02, 5000, False, (0.0, 0.0)),
        (34, 0.0, 0.02, 10_000, True, (0.16, 1.0)),
    ],
)
def test_intervals_of_policies_and_of_differences_cover_rare_clicks(actions, skew, rate, n, sharp, shares):
    """Without the rule, up to 13 % of the intervals of the most skewed log miss: those that lack its heavy clicks.

    `shares` of the logs have an interval of the value and of the difference.
    """
    logs = draw_clicks(actions, skew, rate, n, 200, sharp)
    truths, logs = next(logs), list(logs)
    for name in ("IPS", "SNIPS", "DR", "DRos"):
        for truth, share, log_estimates in zip(truths, shares, zip(*logs, strict=True), strict=True):
            found = assert_coverage([estimates[name].interval() for estimates in log_estimates], truth)
            assert found == pytest.approx(share, abs=0.05), name


@pytest.mark.parametrize("actions", [10, 80])
def test_the_fitted_shrinkage_covers_as_dr_does_where_a_fixed_one_does_not(actions):
    """A click in 175, a uniform log, and a policy that takes one action in nine decisions of ten."""
    logs = draw_clicks(actions, 0.0, 1 / 175, 20_000, 100, sharp=True)
    (_, truth), logs = next(logs), list(logs)
    has_interval, is_miss = {}, {}
    for name in ("DR", "DRos", "DRos 100"):
        has_interval[name], is_miss[name] = compute_misses([gap[name].interval() for _, gap in logs], truth)
    assert is_miss["DRos"].mean() <= max(0.07, is_miss["DR"].mean() + 0.02)
    assert is_miss["DRos 100"].mean() > 0.1
    errors = {name: np.std([gap[name].value for _, gap in logs]) for name in ("DR", "DRos")}
    assert errors["DRos"] <= 1.001 * errors["DR"]


def test_the_fitted_shrinkage_by_hand():
    """Weights 1 and 3: (1 + 27)^2 / (1 + 81); a record of pass_prob a half counts twice, and its square four times."""
    log = [1.0, 2.0], [0.5, 0.25], [0.5, 0.75], [0.0, 0.0], [0.0, 0.0]
    expected = estimators.dr_os(*log, 784 / 82)
    assert estimators.dr_os(*log).value == expected.value
    weighted = estimators.dr_os(*log, 55**2 / (1 + 4 * 81), pass_prob=[1.0, 0.5])
    assert estimators.dr_os(*log, pass_prob=[1.0, 0.5]).value == pytest.approx(weighted.value)


@pytest.mark.parametrize("weights", [[1.0, 1000.0], np.geomspace(0.1, 100, 50), [2.0, 2.0]])
def test_the_fitted_shrinkage_has_the_least_bound_of_the_error_and_halves_no_weight(weights):
    """The bound is mean(v^2) / n + mean(w - v)^2; to first order in 1 / shrinkage, hence 10 %."""
    weights = np.asarray(weights)
    n, zeros = len(weights), np.zeros(len(weights))
    propensity = 1 / weights.max() / 2

    def shrink(shrinkage):
        log = zeros, np.full(n, propensity), weights * propensity, zeros, zeros
        return estimators.dr_os(*log, shrinkage).weights[0]

    def bound(v):
        return (v @ v) / n**2 + (weights - v).mean() ** 2

    minimum = min(bound(shrink(shrinkage)) for shrinkage in weights.max() ** 2 * np.geomspace(0.01, 1000, 200))
    assert bound(shrink(None)) <= 1.1 * minimum
    assert (shrink(None) >= weights / 2 * (1 - 1e-12)).all()


def draw_users(replications, users=120, size=15):
    """Rewards of users who differ, each with as many decisions: mean 0, [replications, users x size]."""
    generator = np.random.default_rng(0)
    level = generator.normal(0, 0.7, (replications, users, 1))
    return (level + generator.normal(size=(replications, users, size))).reshape(replications, -1)


USER = np.repeat(np.arange(120), 15)


def test_intervals_of_users_cover_where_those_of_their_decisions_do_not():
    weight = np.random.default_rng(1).choice([0.5, 1.0], 1800)
    estimates = [estimators.snips(row, np.ones(1800), weight) for row in draw_users(400)]
    assert compute_misses([one.interval() for one in estimates], 0.0)[1].mean() > 0.3
    assert compute_misses([one.interval(groups=USER) for one in estimates], 0.0)[1].mean() <= 0.07
    resampled = [one.interval("bootstrap", groups=USER) for one in estimates[:200]]
    assert compute_misses(resampled, 0.0)[1].mean() <= 0.07


def test_the_variance_of_groups_is_that_of_their_sums():
    """Liang and Zeger 1986 with G / (G - 1): sums of groups of the deviations from the mean 3 are -3, 0 and 3."""
    estimate = estimate_mean([1.0, 2.0, 3.0, 4.0, 5.0])
    expected = stats.t.interval(0.95, 2, loc=3.0, scale=np.sqrt(3 / 2 * 18) / 5)
    np.testing.assert_allclose(estimate.interval(groups=["a", "a", "b", "c", "c"]), expected)
    np.testing.assert_allclose(estimate.interval(groups=np.arange(5)), estimate.interval())
    assert np.isnan(estimate.interval(groups=np.zeros(5))).all()
    with pytest.raises(ValueError, match=r"shape of groups must be \[5\], got \[3\]"):
        estimate.interval(groups=[1, 2, 3])


def test_a_user_with_many_clicks_is_one_rewarded_group():
    """100 clicks of one user and one of each of 18 others are 19 users: no interval. 20 users have one."""
    for others, expected in ((18, False), (19, True)):
        user = np.repeat(np.arange(200), 100)
        reward = np.zeros(20_000)
        reward[:100] = 1
        reward[100 : 100 * (others + 1) : 100] = 1
        estimate = estimate_mean(reward)
        assert np.isfinite(estimate.interval()).all()
        assert np.isfinite(estimate.interval(groups=user)).all() == expected


def test_a_table_of_a_log_has_the_intervals_of_its_users():
    log = Log(
        event_id=np.arange(1800).astype(str),
        time=np.full(1800, np.datetime64("2026-01-01", "us")),
        user_id=USER,
        candidates=np.tile([7, 8], (1800, 1)),
        mask=np.ones((1800, 2), bool),
        action=np.tile([0, 1], 900),
        propensity=np.full(1800, 0.5),
        reward=draw_users(1)[0],
        pass_prob=np.ones(1800),
    )
    target = np.tile([0.8, 0.2], (1800, 1))
    table = off_policy.tabulate(off_policy.estimates(log, target, names=["SNIPS"]), groups=USER)
    expected = off_policy.estimates(log, target)["SNIPS"].interval(groups=USER)
    np.testing.assert_array_equal(table.loc["SNIPS", ["low", "high"]].astype(float), expected)
    decision_table = off_policy.evaluate(log, target, names=["SNIPS"])
    assert np.ptp(expected) > 1.3 * np.ptp(decision_table.loc["SNIPS", ["low", "high"]].astype(float))


@pytest.mark.parametrize("self_normalised", [False, True])
def test_slates_without_a_click_have_no_interval(self_normalised):
    """A slate with two clicks is one rewarded slate."""
    propensity, target = np.full((500, 2), 0.5), np.full((500, 2), 0.4)
    for clicked, expected in ((0, False), (19, False), (20, True)):
        reward = np.zeros((500, 2))
        reward[:clicked] = 1
        for estimator in (slates.slate_ips, slates.item_position_ips, slates.reward_interaction_ips):
            estimate = estimator(reward, propensity, target, self_normalised=self_normalised)
            assert estimate.rewarded_decisions == pytest.approx(clicked)
            assert np.isfinite(estimate.interval()).all() == expected
