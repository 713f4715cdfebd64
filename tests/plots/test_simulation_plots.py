"""Pictures of simulations show the numbers of `evaluation.regret`, of the rewards and of the decisions."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from recbandits import plots
from recbandits.evaluation.regret import curve, summary
from recbandits.plots.style import REFERENCE

# Grey, and not by chance: no agent has it.
AGENTS = {"LinUCB": 0.5, "random": 3.0, "LinTS": 1.0, "best fixed arm": 2.0}
REFERENCES = ["random", "best fixed arm"]
UNITS = {
    "cumulative_regret": "rating points",
    "regret": "rating points",
    "reward": "rating points",
    "suboptimal": "share",
}


def runs(seeds=3):
    """Made-up runs of four agents that differ by agent, seed and window."""
    rows = []
    for agent, level in AGENTS.items():
        for seed in range(seeds):
            lost = 0.0
            for window, interactions in enumerate([10, 40, 100]):
                value = level * (1 + 0.1 * seed) / (1 + window)
                lost += value * [10, 30, 60][window]
                rows.append((agent, seed, interactions, value, 5 - value, value / 5, lost))
    return pd.DataFrame(
        rows, columns=["agent", "seed", "interactions", "regret", "reward", "suboptimal", "cumulative_regret"]
    )


def with_greedy():
    """The runs, with a regret of the greedy policy of half the regret of the agent."""
    return runs().assign(greedy_regret=lambda table: table["regret"] / 2)


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def vertices(band):
    return {tuple(point) for path in band.get_paths() for point in path.vertices.round(9)}


@pytest.fixture(params=[plots.curves, plots.totals], ids=["curves", "totals"])
def draw(request):
    return request.param


@pytest.mark.parametrize("column", ["cumulative_regret", "reward"])
def test_lines_are_the_means_of_the_curve_in_the_order_of_the_runs(column):
    (axes,) = plots.curves(runs(), column).axes
    points = curve(runs(), column)
    assert list(lines(axes)) == list(AGENTS)
    for agent, line in lines(axes).items():
        expected = points.loc[points["agent"] == agent, ["interactions", "mean"]]
        np.testing.assert_allclose(line.get_xydata(), expected)


def test_bands_are_the_intervals_of_the_curve_in_the_colour_of_their_line():
    (axes,) = plots.curves(runs(), "regret", REFERENCES).axes
    points = curve(runs(), "regret").round(9)
    for band, (agent, line) in zip(axes.collections, lines(axes).items(), strict=True):
        expected = points[points["agent"] == agent]
        edges = {(row.interactions, bound) for row in expected.itertuples() for bound in (row.low, row.high)}
        assert vertices(band) == edges
        assert to_hex(band.get_facecolor()) == to_hex(line.get_color())
        assert 0 < band.get_facecolor()[0, 3] < 0.5


def test_one_seed_has_a_line_and_no_band():
    (axes,) = plots.curves(runs(seeds=1)).axes
    assert len(axes.lines) == 4
    assert not any(vertices(band) for band in axes.collections)


def test_references_are_grey_and_each_dashed_in_its_own_way_behind_solid_coloured_agents_with_a_marker_each():
    (axes,) = plots.curves(runs(), references=REFERENCES).axes
    drawn = lines(axes)
    references, agents = [drawn[label] for label in REFERENCES], [drawn["LinUCB"], drawn["LinTS"]]
    assert {to_hex(line.get_color()) for line in references} == {REFERENCE}
    assert len({line.get_linestyle() for line in references} - {"-"}) == 2
    assert {line.get_linestyle() for line in agents} == {"-"}
    assert len({line.get_marker() for line in agents}) == 2
    assert {line.get_marker() for line in references} == {"None"}
    assert len({to_hex(line.get_color()) for line in agents} - {REFERENCE}) == 2
    assert max(line.get_zorder() for line in references) < min(line.get_zorder() for line in agents)


def test_limits_are_dotted_across_the_picture_at_their_value():
    (axes,) = plots.curves(runs(), "regret", limits={"published": 0.7, "goal": 0.1}).axes
    drawn = lines(axes)
    assert drawn["goal"].get_ydata() == [0.1, 0.1]
    assert drawn["published"].get_ydata() == [0.7, 0.7]
    assert drawn["goal"].get_xdata() == [0, 1]  # of the width
    assert drawn["goal"].get_transform() == axes.get_yaxis_transform(which="grid")
    assert drawn["goal"].get_linestyle() not in ("-", *(drawn[label].get_linestyle() for label in REFERENCES))


def test_a_logarithmic_axis_has_the_positive_values_at_full_height():
    """Regrets from 0.17 to 3.6: the axis begins below the smallest and ends above the largest, and is not at 0."""
    (axes,) = plots.curves(runs(), "regret", log=True).axes
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    low, high = axes.get_ylim()
    assert axes.get_yscale() == "log"
    assert 0 < low <= values.min() < values.max() <= high
    assert low > values.min() / 10


@pytest.mark.parametrize("column", UNITS)
def test_axes_say_what_they_show_and_in_which_unit(column):
    (axes,) = plots.curves(runs(), column, title="four agents").axes
    assert axes.get_xlabel() == "interactions"
    assert UNITS[column] in axes.get_ylabel()
    assert ("per interaction" in axes.get_ylabel()) == (column == "regret")
    assert axes.get_title() == "four agents"
    assert axes.get_ylim()[0] < 0, "a curve at zero would be hidden by the axis"


def rows(axes):
    """The label of each vertical position."""
    return dict(zip(axes.get_yticks(), (tick.get_text() for tick in axes.get_yticklabels()), strict=True))


@pytest.mark.parametrize("column", ["regret", "reward"])
def test_totals_have_the_best_on_top_whether_more_or_less_is_better(column):
    (axes,) = plots.totals(runs(), column).axes
    labels = rows(axes)
    assert [labels[y] for y in sorted(labels, reverse=True)] == ["LinUCB", "LinTS", "best fixed arm", "random"]
    low, high = axes.get_ylim()
    assert low < min(labels) <= max(labels) < high
    assert UNITS[column] in axes.get_xlabel()
    assert "95 % interval over seeds" in axes.get_xlabel()


def test_totals_have_a_marker_and_its_number_at_the_mean_and_a_bar_from_end_to_end():
    column, table = "regret", summary(runs())
    (axes,) = plots.totals(runs(), column, title="totals").axes
    labels = rows(axes)
    markers = {labels[line.get_ydata()[0]]: line for line in axes.lines if line.get_marker() == "o"}
    bars = {labels[line.get_ydata()[0]]: line for line in axes.lines if line.get_marker() != "o"}
    assert not axes.figure.legends
    numbers = {labels[text.xy[1]]: text.get_text() for text in axes.texts}
    assert markers.keys() == bars.keys() == numbers.keys() == AGENTS.keys()
    for agent, row in table.iterrows():
        assert markers[agent].get_xdata() == row[column]
        np.testing.assert_allclose(bars[agent].get_xdata(), row[[f"{column}_low", f"{column}_high"]])
        assert numbers[agent] == f"{row[column]:.3f}"
    assert axes.get_title() == "totals"


def test_a_diamond_marks_the_regret_of_the_greedy_policy_of_agents_that_are_no_references():
    figure = plots.totals(with_greedy(), references=REFERENCES, log=True)
    (axes,) = figure.axes
    labels = rows(axes)
    diamonds = {
        labels[round(line.get_ydata()[0])]: line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"
    }
    expected = summary(runs())["regret"] / 2
    assert diamonds == pytest.approx({agent: expected[agent] for agent in ("LinUCB", "LinTS")})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["greedy policy", "policy that explores"]
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[0] > 0.01


def test_a_picture_is_closed_so_that_a_notebook_shows_it_once(draw):
    before = plt.get_fignums()
    draw(runs())
    with pytest.raises(ValueError, match=r"column must be one of .*, got 'regrett'"):
        draw(runs(), "regrett")
    assert plt.get_fignums() == before


def test_a_picture_can_be_laid_out_without_a_warning(draw):
    figure = draw(runs(), references=REFERENCES, title="title")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


def test_a_reference_that_is_no_agent_is_refused(draw):
    with pytest.raises(ValueError, match="references must be among the agents, got 'oracle'"):
        draw(runs(), references=["oracle"])


def test_rewards_below_zero_are_not_cut_off_and_the_unit_can_be_another(draw):
    shifted = runs().assign(reward=lambda table: table["reward"] - 6)
    (axes,) = draw(shifted, "reward", unit="points").axes
    along = "get_ydata" if draw is plots.curves else "get_xdata"
    drawn = [value for line in axes.lines for value in getattr(line, along)()]
    low, high = axes.get_ylim() if draw is plots.curves else axes.get_xlim()
    assert low < min(drawn) < 0
    assert max(drawn) < high
    assert "mean reward [points]" in (axes.get_ylabel() if draw is plots.curves else axes.get_xlabel())


# Five users; means 2.2, 4, 3. The best arm is 0 for one user (a tie goes to the first), 1 for three, 2 for one.
REWARDS = np.array([[5.0, 5, 1], [1, 4, 2], [2, 4, 3], [2, 5, 4], [1, 2, 5]])
TITLES = ["Low", "y" * 33, "Middle"]


def test_arms_have_mean_median_spread_and_the_share_of_users_whose_best_they_are_ordered_by_mean():
    pay, share = plots.disagreement(REWARDS, TITLES).axes
    assert [tick.get_text() for tick in pay.get_yticklabels()] == ["Low", "Middle", "y" * 30 + "…"]
    np.testing.assert_allclose(lines(pay)["mean"].get_xydata(), [[2.2, 0], [3, 1], [4, 2]])
    np.testing.assert_allclose(lines(pay)["median"].get_xydata(), [[2, 0], [3, 1], [4, 2]])
    (spread,) = pay.collections
    expected = [[(np.percentile(REWARDS[:, arm], tenth), y) for tenth in (10, 90)] for y, arm in enumerate([0, 2, 1])]
    np.testing.assert_allclose(spread.get_segments(), expected)
    assert [bar.get_width() for bar in share.patches] == pytest.approx([20, 20, 60])


def test_lines_are_cumulative_shares_over_movies_from_best_to_least_known():
    """Ratings 9, 5 and 1 for movies 30, 10 and 20: shown 30 twice, 20 once and an unknown one once."""
    known = pd.Series({10: 5, 20: 1, 30: 9})
    fig = plots.exposure({"policy": np.array([30, 20, 30, 99]), "offered": np.array([10])}, known)
    policy, offered = fig.axes[0].lines
    share = dict(zip(policy.get_xdata(), policy.get_ydata(), strict=True))
    assert share == {0: 0, 1: 0.5, 3: 0.75, 4: 1}
    assert policy.get_color() != offered.get_color()
    assert policy.get_linestyle() != offered.get_linestyle()
    assert [text.get_text() for text in fig.axes[0].get_legend().get_texts()] == ["policy", "offered"]


def test_a_policy_that_showed_nothing_is_refused():
    with pytest.raises(ValueError, match="actions of greedy must have at least one decision to draw, got none"):
        plots.exposure({"greedy": np.array([], int)}, pd.Series({1: 1}))
