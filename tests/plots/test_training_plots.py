"""Pictures of training show the numbers of profiles, event files and observations."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from recbandits import plots
from recbandits.plots.training import PERCENTILES, Histograms


def test_a_bar_of_a_step_is_made_of_its_parts():
    """Step 1: 3 ms of waiting, 1 of computing, 2 of the rest; the bars end at 3, 4 and 6."""
    slow = pd.DataFrame({"input": [3.0, 4.0], "compute": [1.0, 1.0], "other": [2.0, 1.0], "total": 6.0}, index=[1, 2])
    fig = plots.step_times({"slow": slow, "fast": slow / 10})
    panels = fig.axes
    ends = [bars[0].get_y() + bars[0].get_height() for bars in panels[0].containers]
    assert ends == [3.0, 4.0, 6.0]
    assert panels[0].get_ylim() == panels[1].get_ylim()
    assert [panel.get_title().split("\n")[0] for panel in panels] == ["slow", "fast"]
    assert "median 0.6 ms" in panels[1].get_title()
    assert fig.legends[0].texts[0].get_text() == "waiting for input"


def test_what_an_example_costs_is_written_at_the_end_of_its_bar():
    table = pd.DataFrame({"waiting": [8.0, np.nan], "the rest": [2.0, 0.5]}, index=["before", "after"])
    (axes,) = plots.time_per_example(table).axes
    assert [text.get_text() for text in axes.texts] == ["10.0", "0.5"]
    assert [text.xy for text in axes.texts] == [(10.0, 1), (0.5, 0)]
    assert dict(zip(axes.get_yticks(), (label.get_text() for label in axes.get_yticklabels()), strict=True)) == {
        1: "before",
        0: "after",
    }


def test_elapsed_time_adds_the_epochs_up():
    graph = pd.DataFrame({"epoch": [1, 2, 3], "seconds": [1.0, 0.5, 0.5]})
    (axes,) = plots.elapsed({"graph": graph, "XLA": graph.assign(seconds=[3.0, 0.1, 0.1])}).axes
    first, second = axes.get_lines()
    assert first.get_ydata().tolist() == [0, 1.0, 1.5, 2.0]
    assert second.get_ydata() == pytest.approx([0, 3.0, 3.1, 3.2])
    assert axes.get_xlim()[0] == axes.get_ylim()[0] == 0


def test_the_longest_operations_have_bars_and_the_others_share_one():
    """Of 10 ms: 5, 3, and 2 of two others; 50 %, 30 %, 20 %."""
    table = pd.DataFrame({"count": [4, 2000, 1, 1], "ms": [5.0, 3.0, 1.5, 0.5]}, index=["MatMul", "Add", "Mul", "Sub"])
    (axes,) = plots.operations(table, most=2).axes
    assert [bar.get_width() for bar in axes.containers[0]] == [5.0, 3.0, 2.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["MatMul", "Add", "2 others"]
    assert [text.get_text() for text in axes.texts] == ["50%, 4 calls", "30%, 2,000 calls", "20%"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(directory, values by step): 5,000 normal numbers that grow narrower, and a scalar that is no histogram."""
    directory, rng = tmp_path_factory.mktemp("events"), np.random.default_rng(0)
    values = {step: rng.normal(scale=1 / (step + 1), size=5000) for step in range(4)}
    writer = tf.summary.create_file_writer(str(directory))
    for step, numbers in values.items():
        with writer.as_default(step):
            tf.summary.histogram("weights", numbers, buckets=200)
            tf.summary.scalar("loss", 1.0 / (step + 1))
    writer.close()
    return directory, values


def test_what_was_written_is_read(written):
    directory, values = written
    found = plots.read_histograms(directory)
    assert list(found) == ["weights"]
    assert found["weights"].steps.tolist() == [0, 1, 2, 3]
    for buckets, numbers in zip(found["weights"].buckets, values.values(), strict=True):
        count, _ = np.histogram(numbers, bins=200)
        np.testing.assert_array_equal(buckets[:, 2], count)


def test_percentiles_are_those_of_the_numbers(written):
    """To within a bucket, a two-hundredth of the range."""
    directory, values = written
    found = plots.read_histograms(directory)["weights"].percentiles()
    for row, numbers in zip(found, values.values(), strict=True):
        np.testing.assert_allclose(row, np.percentile(numbers, PERCENTILES), atol=np.ptp(numbers) / 200)


def test_percentiles_and_shares_by_hand():
    """Three numbers in [0, 1], one in [1, 3]: a quarter are below 1/3, the median is 2/3, 7/8 are below 2."""
    part = Histograms(np.array([0]), [np.array([[0.0, 1.0, 3.0], [1.0, 3.0, 1.0]])])
    np.testing.assert_allclose(part.percentiles([25, 50, 75, 87.5]), [[1 / 3, 2 / 3, 1.0, 2.0]])
    np.testing.assert_allclose(part.share_below([-1.0, 0.5, 2.0, 5.0]), [[0.0, 3 / 8, 7 / 8, 1.0]])
    # TensorBoard puts numbers that are all the same into a bucket without width, the last one.
    part = Histograms(np.array([0]), [np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 64.0]])])
    np.testing.assert_allclose(part.percentiles([1, 50, 99]), [[0.5, 0.5, 0.5]])


def test_bands_hold_the_percentiles(written):
    """The line is the median; the outer band reaches from the first percentile to the last."""
    part = plots.read_histograms(written[0])["weights"]
    left, right = plots.bands({"weights": part, "again": part}, "title").axes
    assert (left.get_title(), right.get_title()) == ("weights", "again")
    values = part.percentiles()
    np.testing.assert_allclose(left.lines[0].get_xydata(), np.column_stack([part.steps, values[:, 3]]))
    outer = left.collections[0].get_paths()[0].vertices
    assert outer[:, 1].min() == pytest.approx(values[0, 0])
    assert outer[:, 1].max() == pytest.approx(values[0, -1])
    assert len(left.collections) == 3


def test_ridges_rise_where_the_numbers_are(written):
    """Each line stands on its step, its weight is centred at 0, as that of the numbers; narrow ones are higher."""
    part = plots.read_histograms(written[0])["weights"]
    (ax,) = plots.ridges({"weights": part}).axes
    heights = []
    for step, line in zip(part.steps, ax.lines, strict=True):
        x, y = line.get_data()
        assert y.max() <= step
        assert np.average(x, weights=step - y) == pytest.approx(0, abs=0.05)
        heights.append(step - y.min())
    assert heights[0] < heights[1] < heights[2]
    assert ax.yaxis_inverted()


def test_slots_show_the_features_of_their_items_and_each_line_leads_from_one_to_the_other():
    """Items 0 to 3 with two features each; the slate (2, 0) shows items 2 and 0, in that order."""
    arms = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [-6.0, 7.0]])
    fig = plots.slotting({"global": np.array([1.0, 2.0, 3.0]), "per_arm": arms}, [2, 0], [0.0, 1.0])
    images = {ax.get_title(): np.asarray(ax.images[0].get_array()) for ax in fig.axes if ax.images}
    assert list(images) == ["global [3]", "per_arm [4, 2]", "per_arm [2, 2]", "reward\n[2]"]
    np.testing.assert_array_equal(images["per_arm [4, 2]"], arms)
    np.testing.assert_array_equal(images["per_arm [2, 2]"], [[4, 5], [0, 1]])
    np.testing.assert_array_equal(images["reward\n[2]"], [[0], [1]])
    ends = [(line.xy1[1], line.xy2[1]) for line in fig.artists]
    assert ends == [(2, 0), (0, 1)]
    scales = [ax.images[0].get_clim() for ax in fig.axes if ax.get_title().startswith("per_arm")]
    assert scales == [(-7, 7)] * 2  # that of all items, of which the largest feature is not in the slate
