"""Plackett-Luce by hand, against enumeration and the frequency of draws; NumPy as TensorFlow."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tf_agents.bandits.policies.ranking_policy import NoPenaltyPlackettLuce

from recbandits import exploration
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


def test_each_slot_is_a_share_of_what_is_left():
    """Weights 1, 2, 3, 4 and the slate (3, 0, 2): 4/10, then 1/6, then 3/5."""
    np.testing.assert_allclose(pl.propensities(LOGITS, np.array([[3, 0, 2]])), [[4 / 10, 1 / 6, 3 / 5]])
    np.testing.assert_allclose(pl.conditional(LOGITS, np.array([[3, 0]])), [[0.0, 2 / 5, 3 / 5, 0.0]])
    np.testing.assert_allclose(pl.conditional(LOGITS, np.zeros((1, 0), int)), [[0.1, 0.2, 0.3, 0.4]])


def test_an_unavailable_item_takes_no_share():
    """Without the item of weight 4: (2, 0) has 3/6 and 1/3; in the second slot item 0 stands with 2/6/4 + 3/6/3."""
    np.testing.assert_allclose(pl.propensities(LOGITS, np.array([[2, 0]]), MASK), [[3 / 6, 1 / 3]])
    np.testing.assert_allclose(pl.conditional(LOGITS, np.array([[2]]), MASK), [[1 / 3, 2 / 3, 0.0, 0.0]])
    p = pl.position_probabilities(LOGITS, 2, MASK)[0]
    np.testing.assert_allclose(p[0], [1 / 6, 2 / 6, 3 / 6, 0.0], atol=1e-12)
    assert p[1, 0] == pytest.approx(2 / 6 / 4 + 3 / 6 / 3, abs=1e-12)
    assert (p[:, 3] == 0.0).all()


@pytest.mark.parametrize(("items", "slots"), [(6, 6), (7, 3), (5, 1), (2, 2), (1, 1)])
@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0, 100.0, 1000.0])
def test_position_probabilities_are_those_of_all_slates_added_up(items, slots, spread):
    """Also where one item is e^1000 times as likely as another; several rows at once."""
    logits = spread * np.random.default_rng(items).normal(size=(3, items))
    found = pl.position_probabilities(logits, slots)
    for row, p in zip(logits, found, strict=True):
        np.testing.assert_allclose(p, enumerated(row, slots), rtol=0, atol=1e-11)


def test_a_temperature_near_zero_costs_neither_memory_nor_precision():
    """Logits of up to 1e12, two of them tied at the top: these share the first two slots, the others follow in order.

    Without an end to the gaps between them, the axis of times would have 1e13 nodes.
    """
    logits = np.array([[0.0, 1e12, -5e11, 1e12, 3e11], [0.0, 1.0, 2.0, 3.0, 1e12]])
    found = pl.position_probabilities(logits, 4, np.array([[True] * 5, [True, True, True, False, True]]))
    half = [0.0, 0.5, 0.0, 0.5, 0.0]
    np.testing.assert_allclose(found[0], [half, half, np.eye(5)[4], np.eye(5)[0]], atol=1e-12)
    np.testing.assert_allclose(found[1], enumerated(np.array([0.0, 1.0, 2.0, -1e6, 100.0]), 4), atol=1e-12)


def test_position_probabilities_of_many_items_keep_their_sums():
    """60 items: every slot is taken by one item, and over all 60 slots every item stands somewhere once."""
    logits = np.random.default_rng(0).normal(size=(2, 60)) * 2
    p = pl.position_probabilities(logits, 60)
    np.testing.assert_allclose(p.sum(axis=2), 1.0, atol=1e-11)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-11)
    np.testing.assert_allclose(p[:, :10], pl.position_probabilities(logits, 10), atol=1e-11)
    np.testing.assert_allclose(pl.position_probabilities(np.zeros((1, 60)), 60), 1 / 60, atol=1e-12)


def test_a_slates_own_position_probabilities_are_the_same_numbers():
    logits = np.random.default_rng(1).normal(size=(40, 30)) * 3
    slate = pl.sample(logits, 8, np.random.default_rng(2).random(logits.shape))
    every = pl.position_probabilities(logits, 8)
    expected = np.take_along_axis(every, slate[:, :, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(pl.position_propensities(logits, slate), expected, rtol=1e-8, atol=1e-13)
    np.testing.assert_allclose(pl.position_propensities(LOGITS, np.array([[2, 0]]), MASK)[0, 0], 3 / 6, atol=1e-12)


def _repeat(mask, n):
    return None if mask is None else np.repeat(mask, n, axis=0)


@pytest.mark.parametrize("mask", [None, MASK])
def test_slates_are_drawn_as_often_as_the_product_of_their_propensities_says(mask):
    """100,000 draws of 2 out of 4 items, or out of 3: chi-square over all slates."""
    n, generator = 100_000, np.random.default_rng(3)
    drawn = pl.sample(np.repeat(LOGITS, n, axis=0), 2, generator.random((n, 4)), _repeat(mask, n))
    every = slates(4 if mask is None else 3, 2)
    counts = [(drawn == slate).all(axis=1).sum() for slate in every]
    p = pl.propensities(np.repeat(LOGITS, len(every), axis=0), every, _repeat(mask, len(every)))
    p = p.prod(axis=1)
    assert p.sum() == pytest.approx(1.0)
    assert stats.chisquare(counts, n * p).pvalue > 1e-3


def test_slots_hold_items_as_often_as_position_probabilities_say():
    n = 100_000
    drawn = pl.sample(np.repeat(LOGITS, n, axis=0), 3, np.random.default_rng(4).random((n, 4)))
    for column, p in zip(drawn.T, pl.position_probabilities(LOGITS, 3)[0], strict=True):
        assert stats.chisquare(np.bincount(column, minlength=4), n * p / p.sum()).pvalue > 1e-3


def test_low_temperatures_neither_overflow_nor_lose_the_small_probabilities():
    """Logits 2000, 1000, 0: the lower slots are certain, where TF-Agents takes the exponential and gets no number."""
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


def test_its_exploration_gives_the_first_slot():
    """Scores 0 and ln 4 at temperature 2: 1/3 and 2/3, as the softmax."""
    scores = np.log([[1.0, 4.0]])
    first = exploration.Exploration("plackett_luce", 2.0).probabilities(scores)
    np.testing.assert_allclose(first, [[1 / 3, 2 / 3]])
    np.testing.assert_allclose(first, pl.position_probabilities(scores / 2.0, 1)[:, 0], atol=1e-12)
    with pytest.raises(ValueError, match="temperature must be positive and finite, got 0"):
        exploration.Exploration("plackett_luce", 0.0)


@pytest.mark.parametrize("kind", [np.array, tf.constant])
@pytest.mark.parametrize(
    ("slate", "message"),
    [
        ([[0, 0]], r"row 0: slate must hold different available items, got \[0 0\]"),
        ([[0, 4]], r"row 0: slate must hold different available items, got \[0 4\]"),
        ([[-1, 0]], r"row 0: slate must hold different available items, got \[-1  0\]"),
        ([[3, 0]], r"row 0: slate must hold different available items, got \[3 0\]"),
        ([0, 1], r"slate must have the shape \[1, slots\], got \(2,\)"),
    ],
)
def test_slates_that_cannot_be_are_refused(kind, slate, message):
    for ask in (pl.propensities, pl.conditional):
        with pytest.raises(ValueError, match=message):
            ask(kind(LOGITS), kind(slate), kind(MASK))


def test_more_slots_than_items_are_refused():
    for ask in (lambda: pl.sample(LOGITS, 4, np.full((1, 4), 0.5), MASK), lambda: pl.position_probabilities(LOGITS, 5)):
        with pytest.raises(ValueError, match=r"row 0: there must be at least [45] items, got [34]"):
            ask()
    with pytest.raises(ValueError, match="the score of arm 1 must be finite, got nan"):
        pl.position_probabilities([[0.0, np.nan]], 1)


def test_numpy_input_does_not_load_tensorflow():
    code = """
import sys, numpy as np
from recbandits.exploration import plackett_luce
from recbandits.agents.ranking import parameters, slotting
plackett_luce.sample(np.ones((2, 3)), 2, np.random.default_rng(0).random((2, 3)))
slotting.slotted({"global": np.ones((2, 1)), "per_arm": np.ones((2, 3, 4))}, np.array([[0, 1], [2, 0]]))
print("tensorflow" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
