"""The pictures of what clicks teach show the numbers that they are given."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from recbandits.evaluation.regret import mean_interval
from recbandits.plots import position_bias

TRUTH, SLOT = np.array([0.1, 0.3, 0.5]), np.array([3.0, 2.0, 1.0])
LEARNT = {"naive": np.array([0.02, 0.12, 0.5]), "weighted": np.array([0.1, 0.3, 0.6])}
RUNS = pd.DataFrame(
    {
        "correction": ["naive"] * 4 + ["weighted"] * 4,
        "seed": [0, 1] * 4,
        "slot": [1, 1, 2, 2] * 2,
        "share": [1.0, 0.9, 0.4, 0.5, 1.1, 1.0, 0.9, 1.0],
    }
)


def test_every_item_is_a_dot_at_its_truth_and_estimate_in_the_colour_of_its_slot():
    fig = position_bias.against_truth(TRUTH, LEARNT, SLOT, title="title")
    assert [axis.get_title() for axis in fig.axes[:2]] == ["naive", "weighted"]
    for axis, values in zip(fig.axes[:2], LEARNT.values(), strict=True):
        (dots,) = axis.collections
        np.testing.assert_array_equal(dots.get_offsets(), np.column_stack([TRUTH, values]))
        np.testing.assert_array_equal(dots.get_array(), SLOT)
        assert axis.lines[0].get_slope() == 1
    assert fig.axes[0].get_ylim() == fig.axes[1].get_ylim()
    assert fig.axes[2].get_ylabel() == "mean slot in the log"


def test_dots_are_means_over_seeds_and_bars_their_intervals():
    """Shares 1.0 and 0.9 in slot 1, 0.4 and 0.5 in slot 2: means 0.95 and 0.45."""
    (axes,) = position_bias.by_slot(RUNS, examination=[1.0, 0.4]).axes
    naive, weighted = axes.containers
    np.testing.assert_allclose(naive.lines[0].get_ydata(), [0.95, 0.45])
    np.testing.assert_allclose(weighted.lines[0].get_ydata(), [1.05, 0.95])
    first = naive.lines[2][0].get_segments()[0]
    np.testing.assert_allclose(first[:, 1], mean_interval([1.0, 0.9])[1:])
    np.testing.assert_array_equal(naive.lines[0].get_xdata().round(), [1, 2])
    truth, look = axes.lines[:2]
    np.testing.assert_array_equal(truth.get_ydata(), [1, 1])
    np.testing.assert_array_equal(look.get_ydata(), [1.0, 0.4])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: position_bias.against_truth(TRUTH, LEARNT, SLOT, title="title"),
        lambda: position_bias.by_slot(RUNS, [1.0, 0.4], title="title"),
    ],
)
def test_a_picture_is_closed_and_laid_out_without_a_warning(draw):
    before = plt.get_fignums()
    figure = draw()
    assert plt.get_fignums() == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="learnt must be at least one correction to draw, got none"):
        position_bias.against_truth(TRUTH, {}, SLOT)
    with pytest.raises(ValueError, match="naive: must have one number for each of 3 items"):
        position_bias.against_truth(TRUTH, {"naive": np.zeros(2)}, SLOT)
    with pytest.raises(ValueError, match="runs must have at least one row to draw, got none"):
        position_bias.by_slot(RUNS.iloc[:0])
