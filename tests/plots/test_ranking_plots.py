"""Pictures of rankings show the numbers of their tables, and the shares of the tenths with their intervals."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from recbandits.evaluation.regret import mean_interval
from recbandits.plots.ranking import by_decile, metrics

COLUMNS = ["ndcg", "ndcg_low", "ndcg_high", "novelty", "novelty_low", "novelty_high"]
TABLE = pd.DataFrame([[0.8, 0.75, 0.85, 2, 1, 3], [0.7, 0.6, 0.8, 3, 2.5, 3.5]], ["agent", "als"], COLUMNS)
SHARES = np.random.default_rng(0).dirichlet(np.arange(10, 0, -1), 30)


def test_each_metric_has_an_axis_with_a_dot_and_a_bar_for_every_policy():
    fig = metrics(TABLE, title="title")
    assert [axis.get_xlabel() for axis in fig.axes] == ["NDCG", "novelty"]
    assert [text.get_text() for text in fig.axes[0].get_yticklabels()] == ["agent", "als"]
    for axis, name in zip(fig.axes, ("ndcg", "novelty"), strict=True):
        (dots,), (bars,) = axis.lines, axis.collections
        np.testing.assert_array_equal(dots.get_xdata(), TABLE[name])
        assert dots.get_ydata()[0] > dots.get_ydata()[1]
        np.testing.assert_array_equal(
            [bar[:, 0] for bar in bars.get_segments()], TABLE[[f"{name}_low", f"{name}_high"]]
        )
    assert fig.get_suptitle() == "title"


def test_metrics_are_drawn_as_asked():
    assert [axis.get_xlabel() for axis in metrics(TABLE, names=["novelty"]).axes] == ["novelty"]


@pytest.mark.parametrize(("reference", "places"), [("als", [0.7, 3.0]), (0, [0, 0])])
def test_the_reference_is_a_line_through_all_policies(reference, places):
    lines = [axis.lines[0] for axis in metrics(TABLE, reference=reference).axes]
    assert [line.get_xdata()[0] for line in lines] == places
    assert {line.get_linestyle() for line in lines} == {"--"}


def test_tenths_have_the_mean_share_of_the_lists_with_its_interval():
    (axes,) = by_decile({"agent": SHARES, "als": np.full((5, 10), 0.1)}).axes
    agent, als = axes.containers
    expected = np.array([mean_interval(tenth) for tenth in SHARES.T])
    np.testing.assert_allclose(agent.lines[0].get_ydata(), expected[:, 0])
    bars = np.array([segment[:, 1] for segment in agent.lines[2][0].get_segments()])
    np.testing.assert_allclose(bars, expected[:, 1:])
    np.testing.assert_array_equal(np.round(als.lines[0].get_xdata()), np.arange(1, 11))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["all alike", "agent", "als"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.1, 0.1])


def test_empty_lists_have_no_share():
    (axes,) = by_decile({"agent": np.vstack([SHARES, np.full((2, 10), np.nan)])}).axes
    np.testing.assert_allclose(axes.containers[0].lines[0].get_ydata(), SHARES.mean(axis=0))


@pytest.mark.parametrize("draw", [lambda: metrics(TABLE, title="title"), lambda: by_decile({"agent": SHARES}, "title")])
def test_a_picture_is_closed_and_laid_out_without_a_warning(draw):
    before = plt.get_fignums()
    figure = draw()
    assert plt.get_fignums() == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda: metrics(TABLE.iloc[:0]), "table must have at least one policy to draw, got none"),
        (lambda: metrics(TABLE, names=["map"]), "names must be among ndcg, novelty, got 'map'"),
        (lambda: metrics(TABLE, reference="random"), "reference must be one of agent, als, got 'random'"),
        (lambda: by_decile({}), "exposure must have at least one policy to draw, got none"),
        (lambda: by_decile({"agent": np.ones(10)}), r"agent: exposure must have the shape \[n, 10\], got \[10\]"),
    ],
)
def test_nothing_to_draw_is_refused(draw, sentence):
    with pytest.raises(ValueError, match=sentence):
        draw()
