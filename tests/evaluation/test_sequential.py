"""Confidence sequences cover at all looks together, and say what a hand can compute."""

import math

import numpy as np
import pytest

from recbandits.evaluation import sequential


def test_the_widening_is_the_boundary_of_a_normal_mixture():
    """With n = tightest = 1000, n rho^2 = 5.991 + log(6.991) = 7.936, and it is sqrt(2 x 8.936 / 7.936 x log(59.8))."""
    known = -2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)
    expected = math.sqrt(2 * (known + 1) / known * math.log(math.sqrt(known + 1) / 0.05))
    assert sequential.widening(1000, 0.05, 1000) == pytest.approx(expected)
    assert expected == pytest.approx(3.035, abs=0.001)


def test_it_is_tightest_about_where_it_is_asked_to_be():
    n = np.arange(10, 20_000)
    factor = sequential.widening(n, 0.05, 1000)
    assert 700 < n[factor.argmin()] < 1300
    assert (factor > 1.96).all()


def test_looking_at_every_observation_errs_in_at_most_a_twentieth_of_the_runs():
    """400 runs of 1 + Binomial(4, 0.8), 2,000 looks each. Whoever takes 1.96 instead errs in a good third of them."""
    rng, missed, naive = np.random.default_rng(0), 0, 0
    for _ in range(400):
        found = sequential.running(1 + rng.binomial(4, 0.8, 2000).astype(float))
        low, high, value = found.low[50:], found.high[50:], found.value[50:]
        missed += bool(((low > 4.2) | (high < 4.2)).any())
        once = (high - low) / 2 / sequential.widening(np.arange(51, 2001)) * 1.96
        naive += bool((np.abs(value - 4.2) > once).any())
    assert missed / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert naive / 400 > 0.3


def test_the_running_mean_has_the_standard_error_of_what_was_seen():
    """1, 2, 3, 4: after the third the mean is 2 and its standard error 1 / sqrt(3)."""
    found = sequential.running([1.0, 2.0, 3.0, 4.0])
    assert np.isnan(found.value[0])
    assert found.value[2] == pytest.approx(2.0)
    assert found.high[2] - 2.0 == pytest.approx(sequential.widening(3) / math.sqrt(3))


def test_a_difference_of_alike_streams_is_rarely_surely_other_than_zero():
    """Users with tastes of their own are split by a coin and come again and again; 12 looks at each of 200 splits."""
    rng, missed = np.random.default_rng(1), 0
    for _ in range(200):
        taste, canary = rng.normal(0, 0.4, 300), rng.random(300) < 0.2
        user = rng.integers(300, size=3000)
        reward, side = taste[user] + rng.normal(0, 1.2, 3000), canary[user]
        wrong = False
        for n in range(250, 3001, 250):
            streams = [(reward[:n][mine], user[:n][mine]) for mine in (side[:n], ~side[:n])]
            values, groups = zip(*streams, strict=True)
            found = sequential.difference(*values, groups=groups)
            wrong |= not found.low <= 0 <= found.high
        missed += wrong
    assert missed / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_users_who_come_often_count_as_users_and_not_as_decisions():
    """Four users a side, each ten times with the same reward: the error is that of four numbers, not of forty."""
    once, other = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 2.0, 4.0, 4.0])
    users = np.arange(4)
    often = sequential.difference(np.repeat(once, 10), np.repeat(other, 10), groups=(np.repeat(users, 10),) * 2)
    error = (often.high - often.low) / 2 / sequential.widening(80)
    assert error == pytest.approx(math.sqrt(once.var(ddof=1) / 4 + other.var(ddof=1) / 4))


def test_too_little_to_compare_is_not_a_number_on_both_sides():
    assert all(map(math.isnan, sequential.difference([1.0], [1.0, 2.0])))
    assert all(map(math.isnan, sequential.difference([], [])))


@pytest.mark.parametrize(("options", "field"), [({"alpha": 0.0}, "alpha"), ({"tightest": 0}, "tightest")])
def test_settings_that_cannot_be_are_refused(options, field):
    with pytest.raises(ValueError, match=f"{field} must be"):
        sequential.widening(10, **options)


def test_groups_label_every_observation():
    with pytest.raises(ValueError, match="groups must label every observation, 2, got 1"):
        sequential.difference([1.0, 2.0], [1.0, 2.0], groups=([1], [1, 2]))
