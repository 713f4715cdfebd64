"""Coverage and diversity by hand and by their definitions."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from recbandits.evaluation.catalogue_metrics import coverage, intra_list_diversity


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


def test_an_empty_catalogue_is_refused():
    with pytest.raises(ValueError, match="catalogue must have at least one item"):
        coverage(np.array([[1]]), [])
