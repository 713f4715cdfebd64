"""Pictures of evaluations show the numbers of their tables."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from recbandits import plots
from recbandits.evaluation.intervals import mean_interval
from recbandits.plots.style import COLOURS, REFERENCE

TABLE = pd.DataFrame(
    {"value": [3.5, 3.8, np.nan], "low": [3.1, 3.7, np.nan], "high": [4.0, 3.9, np.nan]},
    index=["IPS", "SNIPS", "replay"],
)


def labels(axes):
    return {tick: text.get_text() for tick, text in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}


def test_every_estimate_is_a_dot_and_a_bar_from_end_to_end_in_the_order_of_the_table():
    (axes,) = plots.forest(TABLE, title="title", unit="points").axes
    assert [labels(axes)[y] for y in sorted(labels(axes), reverse=True)] == ["IPS", "SNIPS", "replay"]
    (bars,), (dots,) = axes.collections, axes.lines
    np.testing.assert_array_equal(dots.get_xdata(), TABLE["value"])
    np.testing.assert_array_equal([labels(axes)[y] for y in dots.get_ydata()], TABLE.index)
    for y, bar, (_, row) in zip(dots.get_ydata(), bars.get_segments()[:2], TABLE.iloc[:2].iterrows(), strict=False):
        np.testing.assert_array_equal(bar, [[row["low"], y], [row["high"], y]])
    assert np.isfinite([axes.get_xlim()]).all()
    assert axes.get_title() == "title"
    assert axes.get_xlabel() == "value of the policy [points]"
    assert plots.forest(TABLE, unit="points", quantity="regret").axes[0].get_xlabel() == "regret [points]"


def test_the_truth_is_a_line_through_all_of_them_with_its_number():
    (axes,) = plots.forest(TABLE, limits={"truth": 3.62, "log": 3.2}).axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["truth, 3.620", "log, 3.200"]
    np.testing.assert_array_equal(lines["truth, 3.620"].get_xdata(), [3.62, 3.62])
    assert lines["truth, 3.620"].get_linestyle() != lines["log, 3.200"].get_linestyle()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(lines)


NAMES = ["IPS", "IIPS", "RIPS"]
CASCADE = pd.DataFrame({"value": [0.8, 0.9, 0.7], "low": [0.5, 0.85, 0.6], "high": [1.1, 0.95, 0.75]}, index=NAMES)
CHOICE = CASCADE + 1
TRUTHS = {"cascade": 0.72, "choice": 1.72}


def drawn(axis):
    """(dot, low, high, colour) by estimator; only the first axis has the labels that all share."""
    labels = dict(
        zip(axis.get_yticks(), [text.get_text() for text in axis.figure.axes[0].get_yticklabels()], strict=True)
    )
    bars = {segment[0][1]: segment[:, 0] for lines in axis.collections for segment in lines.get_segments()}
    found = {}
    for line in axis.lines[1:]:
        for value, place in zip(line.get_xdata(), line.get_ydata(), strict=True):
            found[labels[place]] = (value, *bars[place], to_rgb(line.get_color()))
    return found


def test_each_click_model_has_its_truth_and_a_bar_for_every_estimator():
    fig = plots.by_click_model({"cascade": CASCADE, "choice": CHOICE}, TRUTHS, title="title")
    assert [axis.get_title() for axis in fig.axes] == ["cascade", "choice"]
    for axis, table, truth in zip(fig.axes, (CASCADE, CHOICE), TRUTHS.values(), strict=True):
        assert axis.lines[0].get_xdata() == [truth, truth]
        for name, (value, low, high, _) in drawn(axis).items():
            assert [value, low, high] == table.loc[name].tolist()
        assert len(drawn(axis)) == 3
    assert fig.get_suptitle() == "title"
    assert fig.get_supxlabel() == "value of the policy [clicks per slate]"


def test_an_interval_that_misses_the_truth_has_its_own_colour():
    """Only that of IIPS, 0.85 to 0.95, does not contain 0.72."""
    fig = plots.by_click_model({"cascade": CASCADE}, {"cascade": 0.72})
    colours = {name: row[3] for name, row in drawn(fig.axes[0]).items()}
    assert colours == {"IPS": to_rgb(COLOURS[0]), "IIPS": to_rgb(COLOURS[1]), "RIPS": to_rgb(COLOURS[0])}
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["truth", "contains the truth", "misses it"]


def test_an_estimate_without_an_interval_is_grey_and_says_so():
    table = CASCADE.assign(low=[np.nan, 0.85, 0.6], high=[np.nan, 0.95, 0.75])
    fig = plots.by_click_model({"cascade": table}, {"cascade": 0.72})
    dots = {line.get_xdata()[0]: line.get_color() for line in fig.axes[0].lines[1:]}
    assert dots == {0.7: COLOURS[0], 0.9: COLOURS[1], 0.8: REFERENCE}
    written = [text.get_text() for text in fig.legends[0].get_texts()]
    assert written == ["truth", "contains the truth", "misses it", "no interval"]


COLUMNS = ["ndcg", "ndcg_low", "ndcg_high", "novelty", "novelty_low", "novelty_high"]
METRICS = pd.DataFrame([[0.8, 0.75, 0.85, 2, 1, 3], [0.7, 0.6, 0.8, 3, 2.5, 3.5]], ["agent", "als"], COLUMNS)


def test_each_metric_has_an_axis_with_a_dot_and_a_bar_for_every_policy():
    fig = plots.metrics(METRICS, title="title")
    assert [axis.get_xlabel() for axis in fig.axes] == ["NDCG", "novelty"]
    assert [text.get_text() for text in fig.axes[0].get_yticklabels()] == ["agent", "als"]
    for axis, name in zip(fig.axes, ("ndcg", "novelty"), strict=True):
        (dots,), (bars,) = axis.lines, axis.collections
        np.testing.assert_array_equal(dots.get_xdata(), METRICS[name])
        assert dots.get_ydata()[0] > dots.get_ydata()[1]
        np.testing.assert_array_equal(
            [bar[:, 0] for bar in bars.get_segments()], METRICS[[f"{name}_low", f"{name}_high"]]
        )
    assert fig.get_suptitle() == "title"


@pytest.mark.parametrize(("reference", "place"), [("als", 3.0), (0, 0)])
def test_the_reference_is_a_line_through_all_policies(reference, place):
    (axis,) = plots.metrics(METRICS, names=["novelty"], reference=reference).axes
    assert (axis.lines[0].get_xdata()[0], axis.lines[0].get_linestyle()) == (place, "--")


SETTINGS = pd.DataFrame(
    {
        "diversity": [0.2, 0.6],
        "diversity_low": [0.1, 0.55],
        "diversity_high": [0.3, 0.65],
        "relevance": [0.9, 0.7],
        "relevance_low": [0.85, 0.6],
        "relevance_high": [0.95, 0.8],
    },
    index=pd.Index([0.0, 2.5], name="penalty"),
)
REFERENCES = pd.DataFrame({"diversity": [0.8], "relevance": [0.4]}, index=["random"])


def test_settings_are_joined_in_order_and_named_beside_their_dot():
    (axes,) = plots.trade_off(SETTINGS, REFERENCES, relevance="NDCG@5").axes
    (bars,) = axes.containers
    np.testing.assert_array_equal(np.transpose(bars.lines[0].get_data()), SETTINGS[["diversity", "relevance"]])
    across, along = (lines.get_segments() for lines in bars.lines[2])
    np.testing.assert_allclose(across[0][:, 0], [0.1, 0.3])
    np.testing.assert_allclose(along[1][:, 1], [0.6, 0.8])
    assert [text.get_text() for text in axes.texts] == ["0", "2.5"]
    assert axes.get_ylabel() == "NDCG@5"
    reference = next(line for line in axes.lines if line.get_label() == "random")
    np.testing.assert_array_equal(np.ravel(reference.get_data()), [0.8, 0.4])


TRUTH, SLOT = np.array([0.1, 0.3, 0.5]), np.array([3.0, 2.0, 1.0])
CORRECTIONS = {"naive": np.array([0.02, 0.12, 0.5]), "weighted": np.array([0.1, 0.3, 0.6])}
RUNS = pd.DataFrame(
    {
        "correction": ["naive"] * 4 + ["weighted"] * 4,
        "seed": [0, 1] * 4,
        "slot": [1, 1, 2, 2] * 2,
        "share": [1.0, 0.9, 0.4, 0.5, 1.1, 1.0, 0.9, 1.0],
    }
)


def test_every_item_is_a_dot_at_its_truth_and_estimate_in_the_colour_of_its_slot():
    fig = plots.against_truth(TRUTH, CORRECTIONS, SLOT, title="title")
    assert [axis.get_title() for axis in fig.axes[:2]] == ["naive", "weighted"]
    for axis, values in zip(fig.axes[:2], CORRECTIONS.values(), strict=True):
        (dots,) = axis.collections
        np.testing.assert_array_equal(dots.get_offsets(), np.column_stack([TRUTH, values]))
        np.testing.assert_array_equal(dots.get_array(), SLOT)
        assert axis.lines[0].get_slope() == 1
    assert fig.axes[0].get_ylim() == fig.axes[1].get_ylim()
    assert fig.axes[2].get_ylabel() == "mean slot in the log"


def test_dots_are_means_over_seeds_and_bars_their_intervals():
    """Shares 1.0 and 0.9 in slot 1, 0.4 and 0.5 in slot 2: means 0.95 and 0.45."""
    (axes,) = plots.by_slot(RUNS, examination=[1.0, 0.4]).axes
    naive, weighted = axes.containers
    np.testing.assert_allclose(naive.lines[0].get_ydata(), [0.95, 0.45])
    np.testing.assert_allclose(weighted.lines[0].get_ydata(), [1.05, 0.95])
    first = naive.lines[2][0].get_segments()[0]
    np.testing.assert_allclose(first[:, 1], mean_interval([1.0, 0.9])[1:])
    np.testing.assert_array_equal(naive.lines[0].get_xdata().round(), [1, 2])
    truth, look = axes.lines[:2]
    np.testing.assert_array_equal(truth.get_ydata(), [1, 1])
    np.testing.assert_array_equal(look.get_ydata(), [1.0, 0.4])


def test_no_two_of_many_corrections_look_the_same():
    """Colours are repeated after 8, markers after 7."""
    many = pd.concat([RUNS.assign(correction=f"{number}") for number in range(20)])
    (axes,) = plots.by_slot(many).axes
    looks = {(bars.lines[0].get_color(), bars.lines[0].get_marker()) for bars in axes.containers}
    assert len(looks) == len(axes.containers) == 20


PICTURES = {
    "forest": lambda: plots.forest(TABLE, limits={"truth": 3.62}, title="title"),
    "metrics": lambda: plots.metrics(METRICS, title="title"),
    "trade_off": lambda: plots.trade_off(SETTINGS, REFERENCES, title="title"),
    "against_truth": lambda: plots.against_truth(TRUTH, CORRECTIONS, SLOT, title="title"),
    "by_slot": lambda: plots.by_slot(RUNS, [1.0, 0.4], title="title"),
}


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
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
        (lambda: plots.forest(TABLE.iloc[:0]), "table must have at least one estimate to draw, got none"),
        (lambda: plots.by_click_model({"a": CASCADE}, {"b": 1.0}), r"models of truths must be .*'a'\], got \['b'\]"),
        (
            lambda: plots.by_click_model({"cascade": CASCADE, "choice": CHOICE.iloc[:1]}, TRUTHS),
            r"estimators of choice must be those of all, \['IPS', 'IIPS', 'RIPS'\], got \['IPS'\]",
        ),
        (lambda: plots.metrics(METRICS.iloc[:0]), "table must have at least one policy to draw, got none"),
        (lambda: plots.metrics(METRICS, names=["map"]), "names must be among ndcg, novelty, got 'map'"),
        (lambda: plots.metrics(METRICS, reference="random"), "reference must be one of agent, als, got 'random'"),
        (lambda: plots.trade_off(SETTINGS.iloc[:0]), "table must have at least one setting to draw, got none"),
        (lambda: plots.against_truth(TRUTH, {}, SLOT), "estimates must have at least one correction to draw, got none"),
        (lambda: plots.against_truth(TRUTH, {"naive": np.zeros(2)}, SLOT), r"shape of naive must be \[3\], got \[2\]"),
        (lambda: plots.by_slot(RUNS.iloc[:0]), "runs must have at least one row to draw, got none"),
    ],
)
def test_a_table_that_cannot_be_drawn_is_refused(draw, sentence):
    with pytest.raises(ValueError, match=sentence):
        draw()
