"""The picture of the slotting transform shows the numbers of the items, the slate and its reward."""

import numpy as np

from recbandits.plots.slotting import slotting


def test_slots_show_the_features_of_their_items_and_each_line_leads_from_one_to_the_other():
    """Items 0 to 3 with two features each; the slate (2, 0) shows items 2 and 0, in that order."""
    arms = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [-6.0, 7.0]])
    fig = slotting({"global": np.array([1.0, 2.0, 3.0]), "per_arm": arms}, [2, 0], [0.0, 1.0])
    images = {ax.get_title(): np.asarray(ax.images[0].get_array()) for ax in fig.axes if ax.images}
    assert list(images) == ["global [3]", "per_arm [4, 2]", "per_arm [2, 2]", "reward\n[2]"]
    np.testing.assert_array_equal(images["per_arm [4, 2]"], arms)
    np.testing.assert_array_equal(images["per_arm [2, 2]"], [[4, 5], [0, 1]])
    np.testing.assert_array_equal(images["reward\n[2]"], [[0], [1]])
    ends = [(line.xy1[1], line.xy2[1]) for line in fig.artists]
    assert ends == [(2, 0), (0, 1)]


def test_colours_mean_the_same_before_and_after():
    """The largest feature by size, 7, is not in the slate: the scale is that of all items."""
    arms = np.array([[0.0, 1.0], [2.0, 3.0], [-7.0, 5.0]])
    fig = slotting({"global": np.array([1.0]), "per_arm": arms}, [1], [2.5])
    scales = {ax.get_title(): ax.images[0].get_clim() for ax in fig.axes if ax.images}
    assert scales["per_arm [3, 2]"] == scales["per_arm [1, 2]"] == (-7, 7)
    (reward,) = (ax for ax in fig.axes if ax.get_title().startswith("reward"))
    assert [text.get_text() for text in reward.texts] == ["2.5"]
