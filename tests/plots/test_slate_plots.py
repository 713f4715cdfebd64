"""The picture of slate estimators shows every interval, the truth, and which intervals miss it."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from recbandits.plots.slates import by_click_model
from recbandits.plots.style import COLOURS

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
    fig = by_click_model({"cascade": CASCADE, "choice": CHOICE}, TRUTHS, title="title", unit="clicks")
    assert [axis.get_title() for axis in fig.axes] == ["cascade", "choice"]
    for axis, table, truth in zip(fig.axes, (CASCADE, CHOICE), TRUTHS.values(), strict=True):
        assert axis.lines[0].get_xdata() == [truth, truth]
        for name, (value, low, high, _) in drawn(axis).items():
            assert [value, low, high] == table.loc[name].tolist()
        assert len(drawn(axis)) == 3
    assert fig.get_suptitle() == "title"
    assert fig.get_supxlabel() == "value of the policy (clicks)"


def test_an_interval_that_misses_the_truth_is_told_by_its_colour():
    """Only that of IIPS, 0.85 to 0.95, does not hold 0.72; without an interval, nothing is missed."""
    fig = by_click_model({"cascade": CASCADE}, {"cascade": 0.72})
    colours = {name: row[3] for name, row in drawn(fig.axes[0]).items()}
    assert colours == {"IPS": to_rgb(COLOURS[0]), "IIPS": to_rgb(COLOURS[1]), "RIPS": to_rgb(COLOURS[0])}
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == ["truth", "holds the truth", "misses it"]
    alone = by_click_model({"cascade": CASCADE.assign(low=np.nan, high=np.nan)}, {"cascade": 0.72})
    assert [text.get_text() for text in alone.legends[0].get_texts()] == ["truth", "holds the truth"]


def test_rows_are_in_the_order_of_the_table():
    (axis,) = by_click_model({"cascade": CASCADE}, {"cascade": 0.72}).axes
    places = {text.get_text(): place for place, text in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)}
    assert sorted(places, key=places.get, reverse=True) == NAMES


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match=r"tables and truths must be of the same click models, got .*cascade.*choice"):
        by_click_model({"cascade": CASCADE}, {"choice": 1.0})
    with pytest.raises(ValueError, match="tables and truths must be of the same click models"):
        by_click_model({}, {})
    with pytest.raises(ValueError, match="choice must have the estimators IPS, IIPS, RIPS, got IPS"):
        by_click_model({"cascade": CASCADE, "choice": CHOICE.iloc[:1]}, TRUTHS)
