"""Intervals against SciPy and their own promise, totals and differences by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recbandits.evaluation import regret


def runs():
    """Two agents, two seeds, windows of 10 and 30 interactions."""
    rows = []
    for agent, shift in (("a", 0.0), ("b", 1.0)):
        for seed, level in ((0, 2.0), (1, 6.0)):
            rows.append((agent, seed, 10, level + shift, 3.0, 0.5))
            rows.append((agent, seed, 40, level - 2.0 + shift, 4.0, 0.1))
    columns = ["agent", "seed", "interactions", "regret", "reward", "suboptimal"]
    return pd.DataFrame(rows, columns=columns)


def test_the_interval_is_students():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    expected = stats.t.interval(0.9, 3, loc=values.mean(), scale=stats.sem(values))
    mean, low, high = regret.mean_interval(values, 0.9)
    np.testing.assert_allclose((mean, low, high), (3.5, *expected))


def test_the_interval_covers_the_mean_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 5))
    bounds = np.array([regret.mean_interval(sample) for sample in samples])
    covered = np.mean((bounds[:, 1] <= 3.0) & (bounds[:, 2] >= 3.0))
    assert covered == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 4000))


def test_one_run_has_no_interval():
    mean, low, high = regret.mean_interval([2.0])
    assert mean == 2.0
    assert np.isnan(low)
    assert np.isnan(high)


def test_totals_weigh_windows_by_their_interactions():
    """Agent a, seed 0: (10 * 2 + 30 * 0) / 40 = 0.5; reward (10 * 3 + 30 * 4) / 40 = 3.75."""
    totals = regret.totals(runs())
    assert totals.loc[("a", 0), "regret"] == pytest.approx(0.5)
    assert totals.loc[("a", 0), "reward"] == pytest.approx(3.75)
    assert totals.loc[("a", 0), "suboptimal"] == pytest.approx(0.2)
    assert totals.loc[("b", 1), "regret"] == pytest.approx(5.5)


def test_the_summary_keeps_the_order_and_gives_bounds():
    table = regret.summary(runs())
    assert table.index.tolist() == ["a", "b"]
    np.testing.assert_allclose(
        table.loc["a", ["regret", "regret_low", "regret_high"]], regret.mean_interval([0.5, 4.5]), rtol=1e-12
    )


def test_a_difference_on_common_seeds_is_as_sharp_as_the_seeds_agree():
    """B is exactly 1 worse than a on every seed, however much the seeds differ."""
    np.testing.assert_allclose(regret.difference(runs(), "b", "a"), (1.0, 1.0, 1.0))


def test_agents_without_common_seeds_cannot_be_compared():
    lonely = runs().query("not (agent == 'b' and seed == 1)")
    with pytest.raises(ValueError, match="'b' and 'a' must have the same seeds"):
        regret.difference(lonely, "b", "a")


def test_curves_have_an_interval_at_each_point():
    curve = regret.curve(runs(), "regret").set_index(["agent", "interactions"])
    np.testing.assert_allclose(curve.loc[("a", 40)], regret.mean_interval([0.0, 4.0]))
