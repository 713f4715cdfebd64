"""The picture of a canary shows whom it serves and what they get."""

import numpy as np
import pandas as pd
import pytest

from recbandits.plots.canary import canary


def visits(rows):
    return pd.DataFrame(rows, columns=["share", "user_id", "canary", "reward"])


def test_users_are_sorted_by_when_they_joined_and_rewards_averaged_by_version():
    """User 2 joins at 10 %, user 3 at 50 %, user 1 never; 4.5 of user 1 and 3 of user 3 are 3.75, each user once."""
    fig = canary(
        visits(
            [
                *[(10, 1, False, 4.0), (10, 1, False, 5.0), (10, 2, True, 2.0), (10, 3, False, 3.0)],
                *[(50, 1, False, 4.0), (50, 2, True, 1.0), (50, 3, True, 3.0)],
            ]
        )
    )
    left, right = fig.axes
    np.testing.assert_array_equal(left.collections[0].get_array(), [[1, 0, 0], [1, 1, 0]])
    assert [label.get_text() for label in left.get_yticklabels()] == ["10 %", "50 %"]
    old, new = (container.lines[0].get_ydata().astype(float) for container in right.containers)
    np.testing.assert_allclose(old, [3.75, 4.0])
    np.testing.assert_allclose(new, [2.0, 2.0])


def test_before_there_is_a_canary_only_the_old_version_is_drawn():
    fig = canary(visits([(0, 1, False, 4.0), (0, 2, False, 5.0)]))
    assert len(fig.axes[1].containers) == 1


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([(10, 1, True, 1.0), (10, 1, False, 1.0)], "user 1 must get one version, got both at 10 %"),
        ([(10, 1, True, 1.0), (20, 2, True, 1.0)], "the same users must come at every share"),
    ],
)
def test_a_split_that_is_none_is_refused(rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        canary(visits(rows))
