"""What the picture of a study shows."""

import pytest

from recbandits.platforms import PlatformError
from recbandits.platforms.jobs import Choice, Float, Job, Study, Trial
from recbandits.plots.tuning import trials

STUDY = Study(Job("search"), {"alpha": Float(0.01, 10.0, log=True), "layers": Choice(("8", "64,32"))})
TRIALS = [
    Trial(0, "succeeded", {"alpha": 0.1, "layers": "8"}, 4.0, interval=(3.9, 4.1)),
    Trial(1, "succeeded", {"alpha": 1.0, "layers": "64,32"}, 4.5),
    Trial(2, "failed", {"alpha": 5.0, "layers": "8"}, None, "it exploded"),
]


def labels(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_the_best_trial_is_ringed_and_named():
    fig = trials(STUDY, TRIALS, "alpha", references={"random": 3.5})
    (axes,) = fig.axes
    assert axes.get_xscale() == "log"
    assert labels(fig) == ["random, 3.500", "best, 4.500"]
    rings = [line for line in axes.lines if line.get_markersize() == 15]
    assert [line.get_xydata().tolist() for line in rings] == [[[1.0, 4.5]]]


def test_the_smallest_is_best_where_it_is():
    fig = trials(Study(Job("search"), STUDY.parameters, maximise=False), TRIALS, "alpha")
    assert labels(fig) == ["best, 4.000"]


def test_points_intervals_and_failures_are_drawn():
    axes = trials(STUDY, TRIALS, "alpha").axes[0]
    points, interval = axes.collections[-1], axes.collections[0]
    assert points.get_offsets().tolist() == [[0.1, 4.0], [1.0, 4.5]]
    assert interval.get_segments()[0].tolist() == [[0.1, 3.9], [0.1, 4.1]]
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "x"] == [5.0]


def test_texts_are_coloured_by_the_legend_and_numbers_by_a_bar():
    assert labels(trials(STUDY, TRIALS, "alpha", by="layers"))[:2] == ["layers 64,32", "layers 8"]
    assert len(trials(STUDY, TRIALS, "alpha", by="alpha").axes) == 2


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="parameter must be one of alpha, layers, got 'gamma'"):
        trials(STUDY, TRIALS, "gamma")
    with pytest.raises(PlatformError, match="study search must have a trial that succeeded"):
        trials(STUDY, TRIALS[2:], "alpha")
