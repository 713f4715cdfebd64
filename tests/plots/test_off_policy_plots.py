"""Pictures of estimates show the numbers of their table, and of weights how few records carry them."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from recbandits.evaluation.estimators import ips
from recbandits.plots import off_policy

TABLE = pd.DataFrame(
    {"value": [3.5, 3.8, np.nan], "low": [3.1, 3.7, np.nan], "high": [4.0, 3.9, np.nan]},
    index=["IPS", "SNIPS", "replay"],
)


def labels(axes):
    return {tick: text.get_text() for tick, text in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}


def test_every_estimate_is_a_dot_and_a_bar_from_end_to_end_in_the_order_of_the_table():
    (axes,) = off_policy.forest(TABLE, title="title", unit="points").axes
    assert [labels(axes)[y] for y in sorted(labels(axes), reverse=True)] == ["IPS", "SNIPS", "replay"]
    (bars,), (dots,) = axes.collections, axes.lines
    np.testing.assert_array_equal(dots.get_xdata(), TABLE["value"])
    np.testing.assert_array_equal([labels(axes)[y] for y in dots.get_ydata()], TABLE.index)
    for y, bar, (_, row) in zip(dots.get_ydata(), bars.get_segments()[:2], TABLE.iloc[:2].iterrows(), strict=False):
        np.testing.assert_array_equal(bar, [[row["low"], y], [row["high"], y]])
    assert np.isfinite([axes.get_xlim()]).all()
    assert axes.get_title() == "title"
    assert axes.get_xlabel() == "value of the policy (points)"


def test_the_truth_is_a_line_through_all_of_them_with_its_number():
    (axes,) = off_policy.forest(TABLE, limits={"truth": 3.62, "log": 3.2}).axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["truth 3.620", "log 3.200"]
    np.testing.assert_array_equal(lines["truth 3.620"].get_xdata(), [3.62, 3.62])
    assert lines["truth 3.620"].get_linestyle() != lines["log 3.200"].get_linestyle()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(lines)


def test_the_heaviest_records_come_first():
    """Weights 3, 1, 0, 0: a quarter of the records carries three quarters of the weight, half of them all of it."""
    estimate = ips([1.0] * 4, [0.25] * 4, [0.0, 0.75, 0.0, 0.25])
    (axes,) = off_policy.concentration({"policy": estimate}).axes
    diagonal, curve = axes.lines
    np.testing.assert_array_equal(diagonal.get_data(), [[0, 1], [0, 1]])
    carried = dict(zip(curve.get_xdata().round(6), curve.get_ydata(), strict=True))
    np.testing.assert_allclose([carried[x] for x in (0, 0.25, 0.5, 1)], [0, 0.75, 1, 1])
    assert curve.get_label() == "policy: as 2 of 4"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: off_policy.forest(TABLE, limits={"truth": 3.62}, title="title"),
        lambda: off_policy.concentration({"policy": ips([1.0, 2.0], [0.5, 0.5], [0.9, 0.1])}, title="title"),
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
    with pytest.raises(ValueError, match="table must have at least one estimate to draw, got none"):
        off_policy.forest(TABLE.iloc[:0])
    with pytest.raises(ValueError, match="estimates must be at least one"):
        off_policy.concentration({})
    with pytest.raises(ValueError, match="from logs with records, to have weights to draw"):
        off_policy.concentration({"policy": ips([], [], [])})
