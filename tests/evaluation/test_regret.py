"""Totals, summaries, differences and curves of simulated runs, by hand."""

import numpy as np
import pandas as pd
import pytest

from recbandits.evaluation import mean_interval, regret


def runs():
    """Two agents, two seeds, windows of 10 and 30 interactions."""
    rows = []
    for agent, shift in (("a", 0.0), ("b", 1.0)):
        for seed, level in ((0, 2.0), (1, 6.0)):
            rows.append((agent, seed, 10, level + shift, 3.0, 0.5))
            rows.append((agent, seed, 40, level - 2.0 + shift, 4.0, 0.1))
    columns = ["agent", "seed", "interactions", "regret", "reward", "suboptimal"]
    return pd.DataFrame(rows, columns=columns)


def test_totals_weight_windows_by_their_interactions():
    """Agent a, seed 0: (10 * 2 + 30 * 0) / 40 = 0.5; reward (10 * 3 + 30 * 4) / 40 = 3.75."""
    totals = regret.totals(runs())
    assert totals.loc[("a", 0), "regret"] == pytest.approx(0.5)
    assert totals.loc[("a", 0), "reward"] == pytest.approx(3.75)
    assert totals.loc[("a", 0), "suboptimal"] == pytest.approx(0.2)
    assert totals.loc[("b", 1), "regret"] == pytest.approx(5.5)


@pytest.mark.parametrize("order", [[7, 6, 5, 4, 3, 2, 1, 0], [1, 4, 7, 0, 2, 5, 6, 3]])
def test_totals_are_the_same_for_rows_in_any_order(order):
    """Labels of rows may occur twice, as those of two tables do that were put together."""
    expected = regret.totals(runs())
    shuffled = runs().iloc[order].set_index(pd.Index([0, 1] * 4))
    totals = regret.totals(shuffled)
    assert totals.index.tolist() == list(dict.fromkeys(zip(shuffled["agent"], shuffled["seed"], strict=True)))
    pd.testing.assert_frame_equal(totals.sort_index(), expected)
    pd.testing.assert_frame_equal(regret.summary(shuffled).sort_index(), regret.summary(runs()))
    np.testing.assert_allclose(regret.difference(shuffled, "b", "a"), regret.difference(runs(), "b", "a"))


@pytest.mark.parametrize("wrong", [10, 0, np.nan])
def test_a_number_of_interactions_that_gives_no_window_is_refused(wrong):
    """The first row of the run has 10 interactions."""
    wrong_runs = runs()
    wrong_runs["interactions"] = wrong_runs["interactions"].mask(wrong_runs.index == 3, wrong)
    with pytest.raises(ValueError, match=r"row \d: interactions must be positive, and different within a run"):
        regret.totals(wrong_runs)


def test_the_summary_keeps_the_order_and_gives_bounds():
    table = regret.summary(runs())
    assert table.index.tolist() == ["a", "b"]
    np.testing.assert_allclose(
        table.loc["a", ["regret", "regret_low", "regret_high"]], mean_interval([0.5, 4.5]), rtol=1e-12
    )


def test_the_regret_of_the_greedy_policy_is_summarised_where_it_was_measured():
    """Half the regret of the agent: agent a, seed 0: (10 * 1 + 30 * 0) / 40 = 0.25."""
    runs_with_greedy_regret = runs().assign(greedy_regret=runs()["regret"] / 2)
    assert regret.totals(runs_with_greedy_regret).loc[("a", 0), "greedy_regret"] == pytest.approx(0.25)
    columns = regret.summary(runs_with_greedy_regret).columns
    assert columns.drop(regret.summary(runs()).columns).tolist() == [
        "greedy_regret",
        "greedy_regret_low",
        "greedy_regret_high",
    ]


def test_differences_are_paired_by_seed():
    """The differences are 1.0 and 1.5, although the seeds differ by 4."""
    changed = runs()
    changed.loc[(changed["agent"] == "b") & (changed["seed"] == 1), "regret"] += 0.5
    np.testing.assert_allclose(regret.difference(changed, "b", "a"), mean_interval([1.0, 1.5]))


def test_a_difference_that_is_the_same_for_all_seeds_has_no_interval():
    value, low, high = regret.difference(runs(), "b", "a")
    assert value == pytest.approx(1.0)
    assert np.isnan([low, high]).all()


def test_a_regret_that_is_not_known_makes_what_is_computed_from_it_unknown():
    """It is in one window of one seed: neither of them is left out of a mean."""
    incomplete_runs = runs()
    incomplete_runs.loc[0, "regret"] = np.nan
    assert np.isnan(regret.totals(incomplete_runs)["regret"]).tolist() == [True, False, False, False]
    table = regret.summary(incomplete_runs)
    assert table.loc["a", ["regret", "regret_low", "regret_high"]].isna().all()
    np.testing.assert_allclose(table.loc["a", "reward"], regret.summary(runs()).loc["a", "reward"])
    np.testing.assert_allclose(table.loc["b"], regret.summary(runs()).loc["b"])
    assert np.isnan(regret.difference(incomplete_runs, "a", "b")).all()
    curve = regret.curve(incomplete_runs, "regret").set_index(["agent", "interactions"])
    assert curve.isna().all(axis=1).tolist() == [True, False, False, False]
    np.testing.assert_allclose(curve.loc[("a", 40)], mean_interval([0.0, 4.0]))


def test_agents_without_common_seeds_cannot_be_compared():
    unequal_runs = runs().query("not (agent == 'b' and seed == 1)")
    with pytest.raises(ValueError, match="'b' and 'a' must have the same seeds"):
        regret.difference(unequal_runs, "b", "a")
