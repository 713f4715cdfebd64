"""The picture of what diversity costs shows the numbers of its table."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from recbandits.plots import diversity

TABLE = pd.DataFrame(
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
    (axes,) = diversity.trade_off(TABLE, REFERENCES, relevance="NDCG@5").axes
    (bars,) = axes.containers
    np.testing.assert_array_equal(np.transpose(bars.lines[0].get_data()), TABLE[["diversity", "relevance"]])
    across, along = (lines.get_segments() for lines in bars.lines[2])
    np.testing.assert_allclose(across[0][:, 0], [0.1, 0.3])
    np.testing.assert_allclose(along[1][:, 1], [0.6, 0.8])
    assert [text.get_text() for text in axes.texts] == ["0", "2.5"]
    assert axes.get_ylabel() == "NDCG@5"
    reference = next(line for line in axes.lines if line.get_label() == "random")
    np.testing.assert_array_equal(np.ravel(reference.get_data()), [0.8, 0.4])


def test_a_picture_is_closed_and_laid_out_without_a_warning():
    before = plt.get_fignums()
    figure = diversity.trade_off(TABLE, REFERENCES, title="title")
    assert plt.get_fignums() == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="table must have at least one setting to draw, got none"):
        diversity.trade_off(TABLE.iloc[:0])
