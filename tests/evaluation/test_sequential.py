"""Confidence sequences: coverage at all looks together, and values by hand."""

import math

import numpy as np
import pytest

from recbandits.evaluation import sequential


def test_the_critical_value_is_the_boundary_of_a_normal_mixture():
    """For n = optimal_n = 1000: n rho^2 = 5.991 + log(6.991) = 7.936, hence sqrt(2 x 8.936 / 7.936 x log(59.8))."""
    log_term = -2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)
    expected = math.sqrt(2 * (log_term + 1) / log_term * math.log(math.sqrt(log_term + 1) / 0.05))
    assert sequential.critical_value(1000, 0.05, 1000) == pytest.approx(expected)
    assert expected == pytest.approx(3.035, abs=0.001)


def test_it_is_smallest_near_optimal_n_and_above_that_of_a_fixed_time():
    n = np.arange(10, 20_000)
    factor = sequential.critical_value(n, 0.05, 1000)
    assert 700 < n[factor.argmin()] < 1300
    assert (factor > 1.96).all()


def test_the_critical_value_is_exceeded_at_any_time_in_at_most_5_percent_of_runs():
    """400 means of 1 + Binomial(4, 0.8), 2,000 looks each. Above 1.96 standard errors, there are more than 30 %."""
    n = np.arange(1, 2001)
    observed = 1 + np.random.default_rng(0).binomial(4, 0.8, (400, 2000)).astype(float)
    mean = observed.cumsum(axis=1) / n
    variance = ((observed**2).cumsum(axis=1) / n - mean**2) * n / np.maximum(n - 1, 1)
    errors = (np.abs(mean - 4.2) / np.sqrt(variance / n + 1e-12))[:, 50:]
    assert (errors > sequential.critical_value(n[50:])).any(axis=1).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert (errors > 1.96).any(axis=1).mean() > 0.3


def test_a_difference_of_equal_streams_excludes_zero_at_any_time_in_at_most_5_percent_of_runs():
    """Users differ in mean reward, are split at random and visit repeatedly; 12 looks at each of 200 splits."""
    rng, misses = np.random.default_rng(1), 0
    for _ in range(200):
        user_mean, canary = rng.normal(0, 0.4, 300), rng.random(300) < 0.2
        user = rng.integers(300, size=3000)
        reward, side = user_mean[user] + rng.normal(0, 1.2, 3000), canary[user]
        wrong = False
        for n in range(250, 3001, 250):
            streams = [(reward[:n][in_group], user[:n][in_group]) for in_group in (side[:n], ~side[:n])]
            values, groups = zip(*streams, strict=True)
            interval = sequential.difference(*values, groups=groups)
            wrong |= not interval.low <= 0 <= interval.high
        misses += wrong
    assert misses / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_with_covariates_zero_is_still_excluded_in_at_most_5_percent_of_runs_and_intervals_are_narrower():
    """Users with a mean reward that a covariate knows in part; 8 looks at each of 200 splits."""
    rng, misses, widths = np.random.default_rng(2), 0, []
    for _ in range(200):
        user_mean, canary = rng.normal(0, 1, 300), rng.random(300) < 0.3
        user = rng.integers(300, size=2000)
        reward, side = user_mean[user] + rng.normal(0, 1, 2000), canary[user]
        predictor = 3 * user_mean[user] + rng.normal(0, 1, 2000)
        columns = np.stack([predictor, np.ones(2000)], axis=1)  # a constant adds nothing
        wrong = False
        for n in range(250, 2001, 250):
            pairs = [[part[:n][in_group] for in_group in (side[:n], ~side[:n])] for part in (reward, user, columns)]
            plain, adjusted = (
                sequential.difference(*pairs[0], groups=pairs[1], covariates=x) for x in (None, pairs[2])
            )
            wrong |= not adjusted.low <= 0 <= adjusted.high
            widths.append((adjusted.high - adjusted.low) / (plain.high - plain.low))
        misses += wrong
    assert misses / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    assert np.median(widths) < 0.6


def test_rare_rewards_have_no_narrower_interval_by_covariates_before_there_are_enough():
    clicks, covariate = np.repeat([1.0, 0.0], [5, 495]), np.linspace(0, 1, 500)[:, None]
    assert all(map(math.isnan, sequential.difference(clicks, clicks, covariates=(covariate, covariate))[1:]))


def test_users_with_many_decisions_count_once():
    """Eight users a side, each ten times with the same reward: the error is that of eight numbers, not of eighty."""
    values, other = np.repeat([1.0, 2.0, 3.0, 4.0], 2), np.repeat([2.0, 2.0, 4.0, 4.0], 2)
    users = np.arange(8)
    estimate = sequential.difference(np.repeat(values, 10), np.repeat(other, 10), groups=(np.repeat(users, 10),) * 2)
    error = (estimate.high - estimate.low) / 2 / sequential.critical_value(160)
    assert error == pytest.approx(math.sqrt(values.var(ddof=1) / 8 + other.var(ddof=1) / 8))


def test_streams_without_variation_have_no_interval():
    """Two sides without a click, and 19 clicks on both together; with 20 there is one."""
    for clicks, expected in ((0, False), (19, False), (20, True)):
        first = np.repeat([1.0, 0.0], [clicks // 2, 500 - clicks // 2])
        second = np.repeat([1.0, 0.0], [clicks - clicks // 2, 2000 - clicks + clicks // 2])
        interval = sequential.difference(first, second)
        assert interval.value == pytest.approx(first.mean() - second.mean())
        assert np.isfinite([interval.low, interval.high]).all() == expected


def test_a_side_without_a_click_has_the_variance_of_both():
    """0 of 1,000 and 50 of 1,000: variance 0.025 x 0.975 of an observation, as in a test for equal rates."""
    interval = sequential.difference(np.zeros(1000), np.repeat([1.0, 0.0], [50, 950]))
    half_width = sequential.critical_value(2000) * math.sqrt(0.025 * 0.975 * 2000 / 1999 * 2 / 1000)
    assert interval.high == pytest.approx(-0.05 + half_width)
    assert interval.high < 0
    same = sequential.difference(np.full(1000, 5.0), np.full(1000, 3.0))
    assert 0 < same.low < 2 < same.high


def test_a_canary_with_few_clicks_by_chance_is_seldom_significantly_worse():
    """Both sides have a click in 100; 400 times with 10 looks of a tenth of the decisions. Without the rule, 26 %."""
    generator, alarms = np.random.default_rng(0), 0
    for _ in range(400):
        first, second = generator.random(1000) < 0.01, generator.random(9000) < 0.01
        looks = (sequential.difference(first[: 100 * k], second[: 900 * k]) for k in range(1, 11))
        alarms += any(not (look.low <= 0 <= look.high) and np.isfinite(look.low) for look in looks)
    assert alarms / 400 <= 0.05


def test_few_groups_on_a_side_or_a_few_with_most_observations_give_nan():
    """Sizes 4, 4, 1, 1, 1, 1 are worth 144 / 36 = 4 groups of equal size, and 2, 2, 1, 1, 1, 1 are 64 / 12 = 5.3."""
    many = np.random.default_rng(0).normal(size=50)
    for sizes, expected in (([], False), ([1] * 4, False), ([4, 4, 1, 1, 1, 1], False), ([2, 2, 1, 1, 1, 1], True)):
        group = np.repeat(np.arange(len(sizes)), np.array(sizes, int))
        for sides in ((many[: len(group)], many), (many, many[: len(group)])):
            labels = [group if len(side) == len(group) else np.arange(50) for side in sides]
            assert np.isfinite(sequential.difference(*sides, groups=labels)).all() == expected
    assert all(map(math.isnan, sequential.difference([], [])))


@pytest.mark.parametrize(("options", "field"), [({"alpha": 0.0}, "alpha"), ({"optimal_n": 0}, "optimal_n")])
def test_invalid_parameters_are_refused(options, field):
    with pytest.raises(ValueError, match=f"{field} must be"):
        sequential.critical_value(10, **options)


def test_groups_without_a_label_for_every_observation_are_refused():
    with pytest.raises(ValueError, match=r"shape of groups must be \[2\], got \[1\]"):
        sequential.difference([1.0, 2.0], [1.0, 2.0], groups=([1], [1, 2]))
