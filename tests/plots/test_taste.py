"""The picture of disagreement: what arms pay over users, and whose best arm each one is."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from recbandits.plots.taste import disagreement

# Five users; means 2.2, 4, 3. The best arm is 0 for one user (a tie goes to the first), 1 for three, 2 for one.
REWARDS = np.array([[5.0, 5, 1], [1, 4, 2], [2, 4, 3], [2, 5, 4], [1, 2, 5]])
TITLES = ["Low", "High", "Middle"]
FROM_THE_BOTTOM = [0, 2, 1]


@pytest.fixture
def axes():
    return disagreement(REWARDS, TITLES).axes


def drawn(axes, label):
    return {line.get_label(): line for line in axes.lines}[label]


def test_arms_are_ordered_by_what_they_pay_on_average(axes):
    pay, _ = axes
    assert [tick.get_text() for tick in pay.get_yticklabels()] == ["Low", "Middle", "High"]
    np.testing.assert_allclose(drawn(pay, "mean").get_xydata(), [[2.2, 0], [3, 1], [4, 2]])


def test_the_median_and_the_spread_of_four_users_in_five_are_those_of_each_arm(axes):
    pay, _ = axes
    np.testing.assert_allclose(drawn(pay, "median").get_xydata(), [[2, 0], [3, 1], [4, 2]])
    (spread,) = pay.collections
    expected = [
        [(np.percentile(REWARDS[:, arm], share), y) for share in (10, 90)] for y, arm in enumerate(FROM_THE_BOTTOM)
    ]
    np.testing.assert_allclose(spread.get_segments(), expected)


def test_bars_are_the_shares_of_users_and_every_user_has_one_best_arm(axes):
    _, share = axes
    assert [bar.get_y() + bar.get_height() / 2 for bar in share.patches] == pytest.approx([0, 1, 2])
    assert [bar.get_width() for bar in share.patches] == pytest.approx([20, 20, 60])
    assert sum(bar.get_width() for bar in share.patches) == pytest.approx(100)


def test_shares_add_up_and_belong_to_their_arm_on_random_rewards():
    rewards = np.random.default_rng(0).normal(size=(500, 20))
    pay, share = disagreement(rewards, [f"movie {arm}" for arm in range(20)]).axes
    names = [tick.get_text() for tick in pay.get_yticklabels()]
    widths = {name: bar.get_width() for name, bar in zip(names, share.patches, strict=True)}
    assert sum(widths.values()) == pytest.approx(100)
    for arm in range(20):
        assert widths[f"movie {arm}"] == pytest.approx(100 * np.mean(rewards.argmax(axis=1) == arm))


def test_axes_and_marks_are_named_with_their_units(axes):
    pay, share = axes
    assert pay.get_xlabel() == "expected reward (rating)"
    assert share.get_xlabel().endswith("(%)")
    assert [text.get_text() for text in pay.get_legend().get_texts()] == ["80 % of users", "median", "mean"]


def test_long_titles_are_cut_and_short_ones_are_not():
    titles = ["x" * 32, "y" * 33, "short"]
    pay, _ = disagreement(REWARDS, titles).axes
    assert [tick.get_text() for tick in pay.get_yticklabels()] == ["x" * 32, "short", "y" * 30 + "…"]


def test_the_picture_is_closed_so_that_a_notebook_shows_it_once():
    before = plt.get_fignums()
    disagreement(REWARDS, TITLES)
    assert plt.get_fignums() == before
