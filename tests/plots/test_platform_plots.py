"""Pictures of platforms show names, sizes and trials."""

import pandas as pd
import pytest

from recbandits import plots
from recbandits.config import Config
from recbandits.platforms.jobs import Choice, Float, Job, Study, Trial
from recbandits.plots.style import GREY_TEXT

CONFIG = Config(project="movie-lab-42", region="europe-west4", prefix="team-a", version="v2")


def test_the_picture_holds_every_name():
    (axes,) = plots.resource_names(CONFIG).axes
    written = "".join(text.get_text() for text in axes.texts)
    for name in (CONFIG.bucket, CONFIG.dataset, CONFIG.image("train"), CONFIG.account("train"), CONFIG.endpoint):
        assert name in written


def test_the_largest_part_is_on_top_with_its_share():
    (axes,) = plots.sizes(pd.Series({"tensorflow": 1500.0, "pyarrow": 150.0}), total=3000.0).axes
    assert [bar.get_width() for bar in axes.patches] == [1500.0, 150.0]
    assert axes.patches[0].get_y() > axes.patches[1].get_y()
    assert [text.get_text() for text in axes.texts] == ["1,500 MB, 50%", "150 MB, 5%"]


def test_a_step_that_is_repeated_says_so():
    table = pd.DataFrame({"the lock": [True, True], "the code": [False, True]}, index=["RUN pip", "COPY src"])
    (axes,) = plots.rebuilds(table).axes
    assert [text.get_text() for text in axes.texts] == ["repeated", "cached", "repeated", "repeated"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["RUN pip", "COPY src"]
    assert axes.get_ylim() == pytest.approx((2, 0)), "the first step is on top"
    assert axes.texts[1].get_color() == GREY_TEXT


def test_programs_are_compared_panel_by_panel():
    first, second = plots.footprints(
        pd.DataFrame({"seconds": [3.0, 0.5], "MB": [800, 120]}, index=["train", "serve"])
    ).axes
    assert [bar.get_width() for bar in first.patches] == [3.0, 0.5]
    assert [text.get_text() for text in second.texts] == ["800", "120"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["train", "serve"]
    assert (first.get_xlabel(), second.get_xlabel()) == ("seconds", "MB")


STUDY = Study(Job("search"), {"alpha": Float(0.01, 10.0, log=True), "layers": Choice(("8", "64,32"))})
TRIALS = [
    Trial(0, "succeeded", {"alpha": 0.1, "layers": "8"}, 4.0, interval=(3.9, 4.1)),
    Trial(1, "succeeded", {"alpha": 1.0, "layers": "64,32"}, 4.5),
    Trial(2, "failed", {"alpha": 5.0, "layers": "8"}, None, "it exploded"),
]


def labels(fig):
    return [text.get_text() for text in fig.legends[0].get_texts()]


def test_the_best_trial_is_ringed_and_named():
    fig = plots.trials(STUDY, TRIALS, "alpha", references={"random": 3.5})
    (axes,) = fig.axes
    assert axes.get_xscale() == "log"
    assert labels(fig) == ["random, 3.500", "best, 4.500", "failed"]
    rings = [line for line in axes.lines if line.get_markersize() == 15]
    assert [line.get_xydata().tolist() for line in rings] == [[[1.0, 4.5]]]


def test_the_smallest_is_best_where_it_is():
    fig = plots.trials(Study(Job("search"), STUDY.parameters, maximise=False), TRIALS, "alpha")
    assert labels(fig) == ["best, 4.000", "failed"]


def test_points_and_intervals_are_drawn():
    axes = plots.trials(STUDY, TRIALS, "alpha").axes[0]
    points, interval = axes.collections[-1], axes.collections[0]
    assert points.get_offsets().tolist() == [[0.1, 4.0], [1.0, 4.5]]
    assert interval.get_segments()[0].tolist() == [[0.1, 3.9], [0.1, 4.1]]


def test_failures_are_crosses_on_the_lower_edge_and_leave_the_scale_alone():
    failures = [Trial(number, "failed", {"alpha": alpha}, None, "no") for number, alpha in ((2, 5.0), (3, 0.05))]
    (axes,), (without,) = (plots.trials(STUDY, [*TRIALS[:2], *rest], "alpha").axes for rest in (failures, []))
    (crosses,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert crosses.get_xydata().tolist() == [[5.0, 0.0], [0.05, 0.0]]
    lower_edge = axes.transAxes.transform((0, 0))[1]
    assert crosses.get_transform().transform((5.0, 0.0))[1] == pytest.approx(lower_edge)
    assert axes.get_ylim() == without.get_ylim()
    assert axes.get_xlim()[0] < 0.05 < 5.0 < axes.get_xlim()[1]


def test_texts_have_a_colour_and_a_marker_each_and_numbers_a_colour_bar():
    fig = plots.trials(STUDY, TRIALS, "alpha", by="layers")
    assert labels(fig)[:2] == ["layers 64,32", "layers 8"]
    circle, square = [dots.get_paths()[0].vertices for dots in fig.axes[0].collections[-2:]]
    assert circle.shape != square.shape
    assert len(plots.trials(STUDY, TRIALS, "alpha", by="alpha").axes) == 2


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="parameter must be one of alpha, layers, got 'gamma'"):
        plots.trials(STUDY, TRIALS, "gamma")
    with pytest.raises(ValueError, match="study search must have at least one trial that succeeded to draw, got none"):
        plots.trials(STUDY, TRIALS[2:], "alpha")
