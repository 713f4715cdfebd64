"""Coverage, diversity and exposure by hand and by their definitions."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from recbandits.evaluation.catalogue_metrics import coverage, decile_exposure, intra_list_diversity


def test_coverage_is_the_share_of_the_catalogue_in_any_list():
    """Of 10, 20, 30 and 40, two are in lists; 99 is not in the catalogue and -1 is no item."""
    assert coverage(np.array([[10, 30], [30, -1], [99, 10]]), [40, 30, 20, 10]) == 0.5


def test_the_cosine_of_every_pair_counts_once():
    vectors = np.random.default_rng(0).normal(size=(20, 5, 3))
    similar = [np.mean([cosine_similarity(v)[i, j] for i, j in combinations(range(5), 2)]) for v in vectors]
    np.testing.assert_allclose(intra_list_diversity(vectors), 1 - np.array(similar), rtol=1e-12)


@pytest.mark.parametrize(
    ("vectors", "value"),
    [
        pytest.param([[1, 0], [2, 0], [5, 0]], 0.0, id="all alike"),
        pytest.param([[1, 0], [0, 3]], 1.0, id="nothing in common"),
        pytest.param([[1, 0], [-1, 0]], 2.0, id="opposites"),
        pytest.param([[1, 0], [1, 0], [0, 0]], 2 / 3, id="the zero vector has cosine 0"),
        pytest.param([[1, 0], [1, 0], [np.nan, np.nan]], 0.0, id="a short list"),
        pytest.param([[1, 0], [np.nan, np.nan]], np.nan, id="one item makes no pair"),
    ],
)
def test_diversity_by_hand(vectors, value):
    np.testing.assert_allclose(intra_list_diversity([vectors]), [value], atol=1e-12)


def test_each_slot_counts_for_the_decile_of_its_item():
    """Twenty items, id 100 the most popular: deciles of two; the second list is half as long."""
    popularity = pd.Series(np.arange(20, 0, -1), index=np.arange(100, 120)).sample(frac=1, random_state=0)
    shares = decile_exposure(np.array([[100, 101, 119, 104], [102, 103, -1, -1], [-1] * 4]), popularity)
    np.testing.assert_array_equal(shares[0], [0.5, 0, 0.25, 0, 0, 0, 0, 0, 0, 0.25])
    np.testing.assert_array_equal(shares[1], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    assert np.isnan(shares[2]).all()


def test_a_list_of_the_whole_catalogue_gives_every_decile_0_1():
    """1,000 items of which many are equally popular: deciles of 100 items nevertheless."""
    popularity = pd.Series(np.random.default_rng(1).integers(5, size=1000))
    np.testing.assert_allclose(decile_exposure(np.arange(1000)[None], popularity), np.full((1, 10), 0.1))


def test_invalid_inputs_are_refused():
    with pytest.raises(ValueError, match="catalogue must have at least one item"):
        coverage(np.array([[1]]), [])
    with pytest.raises(ValueError, match="popularity must have at least 10 items, got 3"):
        decile_exposure(np.array([[1]]), pd.Series([1, 2, 3]))
    with pytest.raises(ValueError, match="popularity must have every item shown, got none of item 99"):
        decile_exposure(np.array([[1, 99]]), pd.Series(np.ones(10)))
