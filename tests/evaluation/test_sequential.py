"""Confidence sequences: coverage at all looks together, and values by hand."""

import math

import numpy as np
import pytest

from recbandits.evaluation import sequential


def test_the_critical_value_is_the_boundary_of_a_normal_mixture():
    """For n = optimal_n = 1000: n rho^2 = 5.991 + log(6.991) = 7.936, hence sqrt(2 x 8.936 / 7.936 x log(59.8))."""
    known = -2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)
    expected = math.sqrt(2 * (known + 1) / known * math.log(math.sqrt(known + 1) / 0.05))
    assert sequential.critical_value(1000, 0.05, 1000) == pytest.approx(expected)
    assert expected == pytest.approx(3.035, abs=0.001)


def test_it_is_smallest_near_optimal_n_and_above_that_of_a_fixed_time():
    n = np.arange(10, 20_000)
    factor = sequential.critical_value(n, 0.05, 1000)
    assert 700 < n[factor.argmin()] < 1300
    assert (factor > 1.96).all()


def test_the_sequence_misses_the_mean_at_any_time_in_at_most_5_percent_of_runs():
    """400 runs of 1 + Binomial(4, 0.8), 2,000 looks each. With 1.96 standard errors, more than 30 % of runs miss."""
    rng, missed, naive = np.random.default_rng(0), 0, 0
    for _ in range(400):
        sequence = sequential.confidence_sequence(1 + rng.binomial(4, 0.8, 2000).astype(float))
        low, high, value = sequence.low[50:], sequence.high[50:], sequence.value[50:]
        missed += bool(((low > 4.2) | (high < 4.2)).any())
        once = (high - low) / 2 / sequential.critical_value(np.arange(51, 2001)) * 1.96
        naive += bool((np.abs(value - 4.2) > once).any())
    assert missed / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert naive / 400 > 0.3


def test_the_sequence_has_the_standard_error_of_the_observations_so_far():
    """1, 2, 3, 4: after the third the mean is 2 and its standard error 1 / sqrt(3)."""
    sequence = sequential.confidence_sequence([1.0, 2.0, 3.0, 4.0])
    assert np.isnan(sequence.value[0])
    assert sequence.value[2] == pytest.approx(2.0)
    assert sequence.high[2] - 2.0 == pytest.approx(sequential.critical_value(3) / math.sqrt(3))


def test_a_difference_of_equal_streams_excludes_zero_at_any_time_in_at_most_5_percent_of_runs():
    """Users differ in mean reward, are split at random and visit repeatedly; 12 looks at each of 200 splits."""
    rng, missed = np.random.default_rng(1), 0
    for _ in range(200):
        user_mean, canary = rng.normal(0, 0.4, 300), rng.random(300) < 0.2
        user = rng.integers(300, size=3000)
        reward, side = user_mean[user] + rng.normal(0, 1.2, 3000), canary[user]
        wrong = False
        for n in range(250, 3001, 250):
            streams = [(reward[:n][mine], user[:n][mine]) for mine in (side[:n], ~side[:n])]
            values, groups = zip(*streams, strict=True)
            interval = sequential.difference(*values, groups=groups)
            wrong |= not interval.low <= 0 <= interval.high
        missed += wrong
    assert missed / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_users_with_many_decisions_count_once():
    """Four users a side, each ten times with the same reward: the error is that of four numbers, not of forty."""
    once, other = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 2.0, 4.0, 4.0])
    users = np.arange(4)
    often = sequential.difference(np.repeat(once, 10), np.repeat(other, 10), groups=(np.repeat(users, 10),) * 2)
    error = (often.high - often.low) / 2 / sequential.critical_value(80)
    assert error == pytest.approx(math.sqrt(once.var(ddof=1) / 4 + other.var(ddof=1) / 4))


def test_fewer_than_two_observations_on_a_side_give_nan():
    assert all(map(math.isnan, sequential.difference([1.0], [1.0, 2.0])))
    assert all(map(math.isnan, sequential.difference([], [])))


@pytest.mark.parametrize(("options", "field"), [({"alpha": 0.0}, "alpha"), ({"optimal_n": 0}, "optimal_n")])
def test_invalid_parameters_are_refused(options, field):
    with pytest.raises(ValueError, match=f"{field} must be"):
        sequential.critical_value(10, **options)


def test_groups_without_a_label_for_every_observation_are_refused():
    with pytest.raises(ValueError, match="groups must label every observation, 2, got 1"):
        sequential.difference([1.0, 2.0], [1.0, 2.0], groups=([1], [1, 2]))
