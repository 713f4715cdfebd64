"""Intervals of means: against SciPy, by their coverage, and in tables of policies."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recbandits.evaluation import intervals, sequential
from recbandits.evaluation.estimators import ips
from recbandits.evaluation.intervals import group_intervals, mean_interval, tabulate_differences, tabulate_means


def test_the_interval_is_students():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    expected = stats.t.interval(0.9, 3, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose(mean_interval(values, 0.9), (3.5, *expected))
    np.testing.assert_allclose(intervals.half_width(values.var(ddof=1), 4, 0.9), expected[1] - 3.5)


def test_the_interval_covers_the_mean_with_the_probability_of_its_level():
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 5))
    bounds = np.array([mean_interval(sample) for sample in samples])
    covered = np.mean((bounds[:, 1] <= 3.0) & (bounds[:, 2] >= 3.0))
    assert covered == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 4000))


def test_one_value_has_no_interval_and_no_value_no_mean():
    np.testing.assert_array_equal(mean_interval([2.0]), [2.0, np.nan, np.nan])
    np.testing.assert_array_equal(mean_interval([]), [np.nan] * 3)


def test_an_interval_counts_the_groups_of_observations_that_are_not_independent():
    """Each value seven times is no more evidence than once; groups of one are independent observations."""
    values = np.random.default_rng(0).normal(size=11)
    once = mean_interval(values, 0.9)
    np.testing.assert_allclose(mean_interval(np.repeat(values, 7), 0.9, np.repeat(np.arange(11), 7)), once)
    np.testing.assert_allclose(mean_interval(values, 0.9, list("kjihgfedcba")), once)
    assert np.isnan(mean_interval([1.0, 2.0], groups=["a", "a"])[1:]).all()
    assert np.isnan(mean_interval([], groups=[])).all()


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
@pytest.mark.parametrize("make", [list, pd.Series, lambda labels: np.array(labels, object)])
def test_a_label_that_is_missing_is_refused(make, missing):
    """Decisions without a user would be those of one user; an array makes the text "nan" of NaN among texts."""
    groups, values = make(["a", "b", missing, "c", missing]), np.arange(5.0)
    calls = (
        lambda: mean_interval(values, groups=groups),
        lambda: ips(values, np.ones(5), np.ones(5)).interval(groups=groups),
        lambda: sequential.difference(values, values, groups=(list("abcde"), groups)),
    )
    sentence = "row 2: groups must be a label, one of its own for each decision without a user, got "
    for call in calls:
        with pytest.raises(ValueError, match=sentence):
            call()


def test_numbers_and_times_are_labels_unless_they_are_missing():
    values = np.arange(3.0)
    times = np.array(["2026-01-01", "2026-01-02", "2026-01-01"], "datetime64[ns]")
    numbers = np.array([0.0, 1.0, 0.0])
    for groups, missing in ((times, np.datetime64("NaT")), (numbers, np.nan)):
        np.testing.assert_allclose(mean_interval(values, groups=groups), mean_interval(values, groups=[0, 1, 0]))
        groups[1] = missing
        with pytest.raises(ValueError, match="row 1: groups must be a label, "):
            mean_interval(values, groups=groups)
    with pytest.raises(ValueError, match=r"shape of groups must be \[3\], got \[2\]"):
        mean_interval(values, groups=[0, 1])


@pytest.mark.parametrize("level", [0, 1, 95, np.nan])
def test_a_level_that_is_no_fraction_is_refused(level):
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), got"):
        mean_interval([1.0, 2.0, 3.0], level)


def test_rare_observations_of_few_groups_have_no_interval():
    """40 clicks among 400 decisions, of 40 users or of ten."""
    clicks = np.arange(400) % 10 == 0
    few = np.where(clicks, np.arange(400) // 40, np.arange(400))
    assert np.isfinite(mean_interval(clicks, groups=np.arange(400))).all()
    assert np.isnan(mean_interval(clicks, groups=few)[1:]).all()


def test_groups_have_the_same_intervals():
    values = pd.Series(np.random.default_rng(0).normal(size=11))
    labels = np.repeat(["b", "a", "c"], [7, 3, 1])
    table = group_intervals(values.groupby(labels, sort=False), 0.9)
    assert table.index.tolist() == ["b", "a", "c"]
    np.testing.assert_allclose(table, [mean_interval(values[labels == label], 0.9) for label in table.index])


def metrics():
    """Two policies and the same four users; the first metric is undefined for one of them."""
    first = pd.DataFrame({"ndcg": [0.2, 0.4, np.nan, 0.9], "map": [0.1, 0.1, 0.2, 0.2]})
    second = pd.DataFrame({"ndcg": [0.1, 0.2, np.nan, 0.6], "map": [0.1, 0.3, 0.2, 0.2]})
    return {"a": first, "b": second}


def test_a_table_has_the_mean_of_each_metric_over_the_users_that_have_one():
    table = tabulate_means(metrics(), level=0.9)
    expected = mean_interval([0.1, 0.2, 0.6], 0.9)
    np.testing.assert_allclose(table.loc["b", ["ndcg", "ndcg_low", "ndcg_high"]].astype(float), expected)
    assert table.loc["a", "ndcg"] == pytest.approx(0.5)
    assert list(table.index) == ["a", "b"]
    assert tabulate_means({"a": pd.DataFrame({"mrr": [np.nan, np.nan]})}).iloc[0].isna().all()


def test_differences_are_paired_by_user():
    """Over the three users with both values: 0.1, 0.2 and 0.3."""
    table = tabulate_differences(metrics(), "b")
    assert list(table.index) == ["a"]
    np.testing.assert_allclose(table[["ndcg", "ndcg_low", "ndcg_high"]].iloc[0], mean_interval([0.1, 0.2, 0.3]))


def test_paired_intervals_are_narrower_where_users_differ_more_than_policies():
    generator = np.random.default_rng(7)
    users = generator.normal(size=200)
    first, second = pd.DataFrame({"ndcg": users + 0.1}), pd.DataFrame({"ndcg": users})
    tables = {"a": first + generator.normal(0, 0.01, (200, 1)), "b": second}
    paired, means = tabulate_differences(tables, "b").iloc[0], tabulate_means(tables)
    assert paired["ndcg_low"] > 0
    assert means.loc["a", "ndcg_low"] < means.loc["b", "ndcg_high"]


def test_an_unknown_baseline_and_tables_of_other_users_are_refused():
    with pytest.raises(ValueError, match="baseline must be one of a, b, got 'c'"):
        tabulate_differences(metrics(), "c")
    with pytest.raises(ValueError, match="'a' and 'b' must be measured on the same lists to be compared"):
        tabulate_differences({"a": metrics()["a"], "b": metrics()["b"].iloc[:3]}, "b")


def test_a_value_that_is_not_known_makes_the_mean_unknown():
    """One user of policy "b" has no value where policy "a" has one: it is not left out of the mean."""
    values = pd.Series([1.0, 2.0, np.nan, 5.0, 6.0])
    table = group_intervals(values.groupby([0, 0, 0, 1, 1]))
    assert table.loc[0].isna().all()
    np.testing.assert_allclose(table.loc[1], mean_interval([5.0, 6.0]))
    tables = metrics()
    tables["b"].loc[3, "ndcg"] = np.nan
    for table in (tabulate_means(tables), tabulate_differences(tables, "a")):
        assert table.loc["b", ["ndcg", "ndcg_low", "ndcg_high"]].isna().all()
        assert np.isfinite(table.loc["b", "map"])
    assert tabulate_means(tables).loc["a", "ndcg"] == pytest.approx(0.5)


@pytest.mark.parametrize("rare", [0, 1, 19])
def test_values_of_which_fewer_than_20_are_rare_have_no_interval(rare):
    """No click in 500 is no proof that there are none: half of such samples come from rates above 0.0014."""
    values = np.repeat([0.0, 1.0], [500 - rare, rare])
    for changed in (values, 1 - values, 3.0 + values):
        value, low, high = mean_interval(changed)
        assert value == changed.mean()
        assert np.isnan([low, high]).all()
    low, high = mean_interval(np.repeat([0.0, 1.0], [480, 20]))[1:]
    assert 0 < low < 0.04 < high


def test_rounding_is_no_variation():
    assert np.isnan(mean_interval([1.0, 1.0 - 1e-16, 1.0 + 2e-16])[1:]).all()


@pytest.mark.parametrize("rate", [0.0005, 0.02])
@pytest.mark.parametrize("n", [500, 20_000])
def test_intervals_of_rare_values_cover_the_mean(rate, n):
    """At most 7 % of 1,000 samples, and of those with an interval where it is at least half of them, miss the rate."""
    clicks = np.random.default_rng(0).binomial(n, rate, 1000)
    bounds = {x: mean_interval(np.repeat([1.0, 0.0], [x, n - x]))[1:] for x in np.unique(clicks)}
    low, high = np.array([bounds[x] for x in clicks]).T
    has_interval, is_miss = ~np.isnan(low), (low > rate) | (high < rate)
    assert is_miss.mean() <= 0.07
    assert has_interval.mean() < 0.5 or is_miss[has_interval].mean() <= 0.07
    assert (has_interval == (clicks >= 20)).all()
