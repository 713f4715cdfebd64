"""Plackett-Luce slates: by hand, against enumeration and frequencies of draws, NumPy against TensorFlow."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tf_agents.bandits.policies.ranking_policy import NoPenaltyPlackettLuce

from recbandits.exploration import Exploration, draw_slate
from recbandits.exploration import plackett_luce as pl

LOGITS = np.log([[1.0, 2.0, 3.0, 4.0]])
MASK = np.array([[True, True, True, False]])


def slates(items, slots):
    return np.array(list(itertools.permutations(range(items), slots)))


def enumerated(logits, slots):
    """Position probabilities [slots, items] by adding up all slates."""
    every = slates(len(logits), slots)
    p = pl.propensities(np.repeat(logits[None], len(every), axis=0), every).prod(axis=1)
    return np.stack([np.bincount(column, weights=p, minlength=len(logits)) for column in every.T])


def test_each_slot_is_drawn_from_the_weights_of_the_remaining_items():
    """Weights 1, 2, 3, 4 and the slate (3, 0, 2): 4/10, then 1/6, then 3/5."""
    np.testing.assert_allclose(pl.propensities(LOGITS, np.array([[3, 0, 2]])), [[4 / 10, 1 / 6, 3 / 5]])
    np.testing.assert_allclose(pl.conditional(LOGITS, np.array([[3, 0]])), [[0.0, 2 / 5, 3 / 5, 0.0]])
    np.testing.assert_allclose(pl.conditional(LOGITS, np.zeros((1, 0), int)), [[0.1, 0.2, 0.3, 0.4]])


def test_an_unavailable_item_has_no_weight():
    """Without the item of weight 4: (2, 0) has 3/6 and 1/3; item 0 is in the second slot with 2/6/4 + 3/6/3."""
    np.testing.assert_allclose(pl.propensities(LOGITS, np.array([[2, 0]]), MASK), [[3 / 6, 1 / 3]])
    np.testing.assert_allclose(pl.conditional(LOGITS, np.array([[2]]), MASK), [[1 / 3, 2 / 3, 0.0, 0.0]])
    p = pl.position_probabilities(LOGITS, 2, MASK)[0]
    np.testing.assert_allclose(p[0], [1 / 6, 2 / 6, 3 / 6, 0.0], atol=1e-12)
    assert p[1, 0] == pytest.approx(2 / 6 / 4 + 3 / 6 / 3, abs=1e-12)
    assert (p[:, 3] == 0.0).all()


@pytest.mark.parametrize(("items", "slots"), [(6, 6), (7, 3), (1, 1)])
@pytest.mark.parametrize("spread", [0.1, 10.0, 1000.0])
def test_position_probabilities_are_sums_over_all_slates(items, slots, spread):
    """Also where one item is e^1000 times as likely as another; several rows at once."""
    logits = spread * np.random.default_rng(items).normal(size=(3, items))
    probabilities = pl.position_probabilities(logits, slots)
    for row, p in zip(logits, probabilities, strict=True):
        np.testing.assert_allclose(p, enumerated(row, slots), rtol=0, atol=1e-11)


def test_a_temperature_near_zero_needs_no_more_memory_and_keeps_the_precision():
    """Logits of up to 1e12, two of them tied at the top: these share the first two slots, the others follow in order.

    Without the limit on gaps between logits, the axis of times would have 1e13 nodes.
    """
    logits = np.array([[0.0, 1e12, -5e11, 1e12, 3e11], [0.0, 1.0, 2.0, 3.0, 1e12]])
    probabilities = pl.position_probabilities(logits, 4, np.array([[True] * 5, [True, True, True, False, True]]))
    half = [0.0, 0.5, 0.0, 0.5, 0.0]
    np.testing.assert_allclose(probabilities[0], [half, half, np.eye(5)[4], np.eye(5)[0]], atol=1e-12)
    np.testing.assert_allclose(probabilities[1], enumerated(np.array([0.0, 1.0, 2.0, -1e6, 100.0]), 4), atol=1e-12)


def test_position_probabilities_of_many_items_keep_their_sums():
    """60 items: every slot has one item, and over all 60 slots every item appears once."""
    logits = np.random.default_rng(0).normal(size=(2, 60)) * 2
    p = pl.position_probabilities(logits, 60)
    np.testing.assert_allclose(p.sum(axis=2), 1.0, atol=1e-11)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-11)
    np.testing.assert_allclose(p[:, :10], pl.position_probabilities(logits, 10), atol=1e-11)
    np.testing.assert_allclose(pl.position_probabilities(np.zeros((1, 60)), 60), 1 / 60, atol=1e-12)


def test_equal_rows_have_the_probabilities_of_one_of_them_and_those_that_they_have_beside_another_row():
    row, other = np.random.default_rng(2).normal(size=(2, 1, 9))
    equal = np.repeat(row, 300, axis=0)
    p = pl.position_probabilities(equal, 4)
    np.testing.assert_array_equal(p, np.repeat(pl.position_probabilities(row, 4), 300, axis=0))
    beside = pl.position_probabilities(np.concatenate([equal, other]), 4)[:-1]
    np.testing.assert_allclose(p, beside, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(pl.position_propensities(np.zeros((300, 9)), np.tile([3, 0, 8], (300, 1))), 1 / 9)


def test_position_propensities_are_entries_of_position_probabilities():
    logits = np.random.default_rng(1).normal(size=(40, 30)) * 3
    slate = pl.sample(logits, 8, np.random.default_rng(2).random(logits.shape))
    every = pl.position_probabilities(logits, 8)
    expected = np.take_along_axis(every, slate[:, :, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(pl.position_propensities(logits, slate), expected, rtol=1e-8, atol=1e-13)
    np.testing.assert_allclose(pl.position_propensities(LOGITS, np.array([[2, 0]]), MASK)[0, 0], 3 / 6, atol=1e-12)


def _repeat(mask, n):
    return None if mask is None else np.repeat(mask, n, axis=0)


@pytest.mark.parametrize("mask", [None, MASK])
def test_slates_have_the_frequency_of_the_product_of_their_propensities(mask):
    """100,000 draws of 2 out of 4 items, or out of 3: chi-square over all slates."""
    n, generator = 100_000, np.random.default_rng(3)
    drawn = pl.sample(np.repeat(LOGITS, n, axis=0), 2, generator.random((n, 4)), _repeat(mask, n))
    every = slates(4 if mask is None else 3, 2)
    counts = [(drawn == slate).all(axis=1).sum() for slate in every]
    p = pl.propensities(np.repeat(LOGITS, len(every), axis=0), every, _repeat(mask, len(every)))
    p = p.prod(axis=1)
    assert p.sum() == pytest.approx(1.0)
    assert stats.chisquare(counts, n * p).pvalue > 1e-3


def test_items_have_the_frequency_of_position_probabilities_in_every_slot():
    n = 100_000
    drawn = pl.sample(np.repeat(LOGITS, n, axis=0), 3, np.random.default_rng(4).random((n, 4)))
    for column, p in zip(drawn.T, pl.position_probabilities(LOGITS, 3)[0], strict=True):
        assert stats.chisquare(np.bincount(column, minlength=4), n * p / p.sum()).pvalue > 1e-3


def test_low_temperatures_neither_overflow_nor_lose_the_small_probabilities():
    """Logits 2000, 1000, 0: where TF-Agents takes the exponential of the logits and gets NaN."""
    logits, slate = np.array([[2000.0, 1000.0, 0.0, -1.0]]), np.array([[0, 1, 2, 3]])
    np.testing.assert_allclose(pl.propensities(logits, slate), [[1.0, 1.0, 1 / (1 + np.exp(-1)), 1.0]])
    assert pl.propensities(logits, np.array([[3, 2, 1, 0]]))[0, 2] == 0.0
    np.testing.assert_allclose(pl.position_probabilities(logits, 3)[0, 2, 2], 1 / (1 + np.exp(-1)), atol=1e-12)
    theirs = NoPenaltyPlackettLuce(None, 4, tf.constant(logits, tf.float32))
    assert np.isnan(theirs.log_prob(tf.constant(slate)).numpy()).all()


def test_numpy_and_tensorflow_agree_in_a_graph_and_outside():
    generator = np.random.default_rng(5)
    logits, uniforms, mask = (
        generator.normal(size=(20, 7)) * 4,
        generator.random((20, 7)),
        generator.random((20, 7)) < 0.7,
    )
    mask[:, :3] = True
    expected = pl.sample(logits, 3, uniforms, mask)

    def both(logits, uniforms, mask):
        slate = pl.sample(logits, 3, uniforms, mask)
        return slate, pl.propensities(logits, slate, mask), pl.conditional(logits, slate[:, :2], mask)

    tensors = [tf.constant(part) for part in (logits, uniforms, mask)]
    for slate, propensity, conditional in (both(*tensors), tf.function(both, autograph=False)(*tensors)):
        np.testing.assert_array_equal(slate, expected)
        np.testing.assert_allclose(propensity, pl.propensities(logits, expected, mask), rtol=1e-9)
        np.testing.assert_allclose(conditional, pl.conditional(logits, expected[:, :2], mask), rtol=1e-9, atol=1e-300)


def test_the_probabilities_of_its_exploration_are_those_of_the_first_slot():
    """Scores 0 and ln 4 at temperature 2: 1/3 and 2/3, as the softmax."""
    scores = np.log([[1.0, 4.0]])
    first = Exploration("plackett_luce", 2.0).probabilities(scores)
    np.testing.assert_allclose(first, [[1 / 3, 2 / 3]])
    np.testing.assert_allclose(first, pl.position_probabilities(scores / 2.0, 1)[:, 0], atol=1e-12)
    with pytest.raises(ValueError, match="temperature must be positive and finite, got 0"):
        Exploration("plackett_luce", 0.0)


@pytest.mark.parametrize("kind", [np.array, tf.constant])
@pytest.mark.parametrize(
    ("slate", "message"),
    [
        ([[0, 0]], r"row 0: slate must be of different available items, got \[0 0\]"),
        ([[-1, 0]], r"row 0: slate must be of different available items, got \[-1  0\]"),
        ([[3, 0]], r"row 0: slate must be of different available items, got \[3 0\]"),
        ([0, 1], r"shape of slate must be \[1, slots\], got \[2\]"),
    ],
)
def test_invalid_slates_are_refused(kind, slate, message):
    for function in (pl.propensities, pl.conditional):
        with pytest.raises(ValueError, match=message):
            function(kind(LOGITS), kind(slate), kind(MASK))


def test_more_slots_than_items_are_refused():
    for call in (
        lambda: pl.sample(LOGITS, 4, np.full((1, 4), 0.5), MASK),
        lambda: pl.position_probabilities(LOGITS, 5),
    ):
        with pytest.raises(ValueError, match=r"row 0: number of items must be at least [45], got [34]"):
            call()
    with pytest.raises(ValueError, match="row 0, column 1: scores must be finite where actions are available, got nan"):
        pl.position_probabilities([[0.0, np.nan]], 1)


# slates for one user

SCORES = np.array([0.0, np.log(2.0), np.log(5.0)])


def propensities_one_by_one(scores, slate, temperature):
    """Probability of each item given those above: its weight over the weights of the remaining items."""
    remaining, propensities = np.exp(np.asarray(scores, float) / temperature), []
    for item in slate:
        propensities.append(remaining[item] / remaining.sum())
        remaining[item] = 0.0
    return propensities


@pytest.mark.parametrize("k", [1, 2, 3])
def test_slates_without_a_seed_have_the_frequency_of_their_propensities(k):
    """6,000 draws at temperature 2: every slate within 5 standard deviations of its probability."""
    exploration, drawn = Exploration("plackett_luce", 2.0), {}
    for _ in range(6_000):
        slate, propensities = draw_slate(exploration, SCORES, k, None)
        drawn.setdefault(tuple(slate), []).append(np.prod(propensities))
    assert set(drawn) == set(itertools.permutations(range(3), k))
    for slate, probabilities in drawn.items():
        expected = np.prod(propensities_one_by_one(SCORES, slate, 2.0))
        np.testing.assert_allclose(probabilities, expected)
        assert abs(len(probabilities) / 6_000 - expected) < 5 * np.sqrt(expected * (1 - expected) / 6_000)


def test_at_temperatures_far_below_the_gaps_the_lower_slots_are_exact():
    """At temperature 0.001 item 1 is first; the scores of the other two differ by 0.001, which are odds of e to 1."""
    exploration, by_slate = Exploration("plackett_luce", 0.001), {}
    for seed in range(40):
        slate, propensities = draw_slate(exploration, np.array([0.0, 5.0, 0.001]), 2, seed)
        by_slate[tuple(slate)] = propensities
    np.testing.assert_allclose(by_slate[1, 2], [1.0, np.e / (1 + np.e)])
    np.testing.assert_allclose(by_slate[1, 0], [1.0, 1 / (1 + np.e)])


lists_of_scores = st.lists(st.floats(-5, 5), min_size=1, max_size=8)


@given(scores=lists_of_scores, temperature=st.floats(0.05, 20), seed=st.integers(0, 2**32), data=st.data())
def test_a_shorter_slate_of_one_seed_is_the_beginning_of_a_longer_one(scores, temperature, seed, data):
    exploration, k = Exploration("plackett_luce", temperature), data.draw(st.integers(1, len(scores)))
    slate, propensities = draw_slate(exploration, np.array(scores), k, seed)
    longest = draw_slate(exploration, np.array(scores), len(scores), seed)[0]
    assert slate == longest[:k]
    assert sorted(longest) == list(range(len(scores)))
    np.testing.assert_allclose(propensities, propensities_one_by_one(scores, slate, temperature), rtol=1e-9)
    first = exploration.probabilities(np.array([scores]))[0, slate[0]]
    assert propensities[0] == pytest.approx(first, rel=1e-12)


@given(
    method=st.sampled_from([("greedy", 0.0), ("epsilon_greedy", 0.4), ("softmax", 0.7), ("inverse_gap", 3.0)]),
    scores=lists_of_scores,
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_any_other_exploration_draws_the_first_item_and_sorts_the_rest(method, scores, seed, data):
    """The same first item for every k, then descending scores, the first column on ties."""
    exploration, k = Exploration(*method), data.draw(st.integers(1, len(scores)))
    slate, propensities = draw_slate(exploration, np.array(scores), k, seed)
    first = draw_slate(exploration, np.array(scores), 1, seed)
    assert (slate[:1], propensities[:1]) == first
    assert propensities == [exploration.probabilities(np.array([scores]))[0, slate[0]], *[1.0] * (k - 1)]
    others = sorted(set(range(len(scores))) - {slate[0]}, key=lambda item: (-scores[item], item))
    assert slate[1:] == others[: k - 1]


@pytest.mark.parametrize("method", [("greedy", 0.0), ("plackett_luce", 1.0)])
@pytest.mark.parametrize(
    ("scores", "k", "sentence"),
    [
        *[(SCORES, k, "k must be a whole number from 1 to the number of candidates, 3,") for k in (0, 4, None)],
        (np.array([0.0, np.nan]), 2, "row 0, column 1: scores must be finite where actions are available, got nan"),
    ],
)
def test_invalid_sizes_and_scores_are_refused(method, scores, k, sentence):
    with pytest.raises(ValueError, match=sentence):
        draw_slate(Exploration(*method), scores, k, 0)
