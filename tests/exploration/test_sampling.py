"""Drawing for one user: the first place alone or whole slates, with probabilities that are exact."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbandits.exploration import Exploration
from recbandits.exploration.sampling import draw

SCORES = np.array([0.0, np.log(2.0), np.log(5.0)])


def in_turn(scores, slate, temperature):
    """Probability of each place given those above: its weight over the weights of what is left."""
    left, found = np.exp(np.asarray(scores, float) / temperature), []
    for place in slate:
        found.append(left[place] / left.sum())
        left[place] = 0.0
    return found


def test_the_weights_of_what_is_left_are_shared_out_place_by_place():
    """Weights 1, 2 and 5: (2, 0, 1) has 5/8, then 1/3, then what is left."""
    exploration, seeds = Exploration("plackett_luce", 1.0), iter(range(1000))
    slate = None
    while slate != [2, 0, 1]:
        slate, propensities = draw(exploration, SCORES, 3, next(seeds))
    np.testing.assert_allclose(propensities, [5 / 8, 1 / 3, 1.0])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_slates_are_drawn_as_often_as_the_product_of_their_propensities_says(k):
    """6,000 draws without a seed, at temperature 2: every slate within 5 standard deviations of its share."""
    exploration, drawn = Exploration("plackett_luce", 2.0), {}
    for _ in range(6_000):
        slate, propensities = draw(exploration, SCORES, k, None)
        drawn.setdefault(tuple(slate), []).append(np.prod(propensities))
    assert set(drawn) == set(permutations(range(3), k))
    for slate, probabilities in drawn.items():
        expected = np.prod(in_turn(SCORES, slate, 2.0))
        np.testing.assert_allclose(probabilities, expected)
        assert abs(len(probabilities) / 6_000 - expected) < 5 * np.sqrt(expected * (1 - expected) / 6_000)


def test_far_below_the_gaps_between_scores_the_lower_places_are_still_exact():
    """At temperature 0.001 movie 1 is certain; the other two are 0.001 apart, which are odds of e to 1."""
    exploration, seen = Exploration("plackett_luce", 0.001), {}
    for seed in range(40):
        slate, propensities = draw(exploration, np.array([0.0, 5.0, 0.001]), 2, seed)
        seen[tuple(slate)] = propensities
    np.testing.assert_allclose(seen[1, 2], [1.0, np.e / (1 + np.e)])
    np.testing.assert_allclose(seen[1, 0], [1.0, 1 / (1 + np.e)])


@given(
    scores=st.lists(st.floats(-5, 5), min_size=1, max_size=8),
    temperature=st.floats(0.05, 20),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_a_seed_gives_one_order_of_which_k_shows_the_beginning(scores, temperature, seed, data):
    exploration, k = Exploration("plackett_luce", temperature), data.draw(st.integers(1, len(scores)))
    slate, propensities = draw(exploration, np.array(scores), k, seed)
    whole = draw(exploration, np.array(scores), len(scores), seed)[0]
    assert slate == whole[:k]
    assert sorted(whole) == list(range(len(scores)))
    np.testing.assert_allclose(propensities, in_turn(scores, slate, temperature), rtol=1e-9)
    first = exploration.probabilities(np.array([scores]))[0, slate[0]]
    assert propensities[0] == pytest.approx(first, rel=1e-12)


@given(
    way=st.sampled_from([("greedy", 0.0), ("epsilon_greedy", 0.4), ("softmax", 0.7), ("inverse_gap", 3.0)]),
    scores=st.lists(st.floats(-5, 5), min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_any_other_exploration_draws_the_first_and_the_rest_is_certain(way, scores, seed, data):
    """The same first movie whatever k is, then descending scores, the first column on ties."""
    exploration, k = Exploration(*way), data.draw(st.integers(1, len(scores)))
    places, propensities = draw(exploration, np.array(scores), k, seed)
    first = draw(exploration, np.array(scores), 1, seed)
    assert (places[:1], propensities[:1]) == first
    assert propensities == [exploration.probabilities(np.array([scores]))[0, places[0]], *[1.0] * (k - 1)]
    others = sorted(set(range(len(scores))) - {places[0]}, key=lambda place: (-scores[place], place))
    assert places[1:] == others[: k - 1]


@pytest.mark.parametrize("way", [("greedy", 0.0), ("plackett_luce", 1.0)])
@pytest.mark.parametrize("k", [0, 4, 1.0, None])
def test_a_slate_has_from_one_place_to_one_for_each_candidate(way, k):
    with pytest.raises(ValueError, match="k must be a whole number from 1 to the number of candidates, 3, got"):
        draw(Exploration(*way), SCORES, k, 0)


@pytest.mark.parametrize("way", [("greedy", 0.0), ("plackett_luce", 1.0)])
def test_a_score_that_is_not_finite_draws_nothing(way):
    with pytest.raises(ValueError, match="the score of arm 1 must be finite, got nan"):
        draw(Exploration(*way), np.array([0.0, np.nan]), 2, 0)
