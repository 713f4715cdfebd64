"""The exposure picture says what it is given."""

import numpy as np
import pandas as pd
import pytest

from recbandits.plots.exposure import exposure


def test_lines_are_cumulative_shares_over_movies_from_best_to_least_known():
    """Ratings 9, 5 and 1 for movies 30, 10 and 20: shown 30 twice, 20 once and an unknown one once."""
    known = pd.Series({10: 5, 20: 1, 30: 9})
    fig = exposure({"policy": np.array([30, 20, 30, 99]), "offered": np.array([10])}, known)
    policy, offered = fig.axes[0].lines
    share = dict(zip(policy.get_xdata(), policy.get_ydata(), strict=True))
    assert share == {0: 0, 1: 0.5, 3: 0.75, 4: 1}
    assert policy.get_color() != offered.get_color()
    assert [text.get_text() for text in fig.axes[0].get_legend().get_texts()] == ["policy", "offered"]


def test_a_policy_that_showed_nothing_is_refused():
    with pytest.raises(ValueError, match="greedy: at least one movie must have been shown"):
        exposure({"greedy": np.array([], int)}, pd.Series({1: 1}))
