"""Histograms of a training are read as they were written, and drawn with the numbers that they hold."""

import numpy as np
import pytest
import tensorflow as tf

from recbandits.plots.histograms import PERCENTILES, Histograms, bands, read_histograms, ridges


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
    found = read_histograms(directory)
    assert list(found) == ["weights"]
    assert found["weights"].steps.tolist() == [0, 1, 2, 3]
    for buckets, numbers in zip(found["weights"].buckets, values.values(), strict=True):
        count, _ = np.histogram(numbers, bins=200)
        np.testing.assert_array_equal(buckets[:, 2], count)


def test_percentiles_are_those_of_the_numbers(written):
    """To within a bucket, a two-hundredth of the range."""
    directory, values = written
    found = read_histograms(directory)["weights"].percentiles()
    for row, numbers in zip(found, values.values(), strict=True):
        np.testing.assert_allclose(row, np.percentile(numbers, PERCENTILES), atol=np.ptp(numbers) / 200)


def test_percentiles_and_shares_by_hand():
    """Three numbers in [0, 1], one in [1, 3]: a quarter are below 1/3, the median is 2/3, 7/8 are below 2."""
    part = Histograms(np.array([0]), [np.array([[0.0, 1.0, 3.0], [1.0, 3.0, 1.0]])])
    np.testing.assert_allclose(part.percentiles([25, 50, 75, 87.5]), [[1 / 3, 2 / 3, 1.0, 2.0]])
    np.testing.assert_allclose(part.share_below([-1.0, 0.5, 2.0, 5.0]), [[0.0, 3 / 8, 7 / 8, 1.0]])


def test_numbers_that_are_all_the_same_have_one_percentile():
    """TensorBoard puts them into a bucket without width, the last one."""
    part = Histograms(np.array([0]), [np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 64.0]])])
    np.testing.assert_allclose(part.percentiles([1, 50, 99]), [[0.5, 0.5, 0.5]])


def test_a_directory_without_histograms_is_refused(tmp_path):
    with pytest.raises(ValueError, match="directory must hold event files with histograms, found none"):
        read_histograms(tmp_path)


def test_bands_hold_the_percentiles(written):
    """The line is the median; the outer band reaches from the first percentile to the last."""
    part = read_histograms(written[0])["weights"]
    left, right = bands({"weights": part, "again": part}, "title").axes
    assert (left.get_title(), right.get_title()) == ("weights", "again")
    values = part.percentiles()
    np.testing.assert_allclose(left.lines[0].get_xydata(), np.column_stack([part.steps, values[:, 3]]))
    outer = left.collections[0].get_paths()[0].vertices
    assert outer[:, 1].min() == pytest.approx(values[0, 0])
    assert outer[:, 1].max() == pytest.approx(values[0, -1])
    assert len(left.collections) == 3


def test_ridges_rise_where_the_numbers_are(written):
    """Each line stands on its step, its weight is centred at 0, as that of the numbers; narrow ones are higher."""
    part = read_histograms(written[0])["weights"]
    (ax,) = ridges({"weights": part}).axes
    heights = []
    for step, line in zip(part.steps, ax.lines, strict=True):
        x, y = line.get_data()
        assert y.max() <= step
        assert np.average(x, weights=step - y) == pytest.approx(0, abs=0.05)
        heights.append(step - y.min())
    assert heights[0] < heights[1] < heights[2]
    assert ax.yaxis_inverted()


def test_of_many_steps_some_are_drawn_with_the_last_among_them():
    buckets = np.array([[0.0, 1.0, 3.0], [1.0, 2.0, 1.0]])
    part = Histograms(np.arange(31), [buckets] * 31)
    (ax,) = ridges({"weights": part}).axes
    assert ax.get_yticks().tolist() == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30]
    assert len(ax.lines) == 11
