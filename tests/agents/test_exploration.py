"""Probabilities by hand, as properties, and against the frequency of draws."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from recbandits.agents import exploration

MASKED = -np.inf


def test_epsilon_greedy_gives_the_marginal_probability():
    """4 arms, one unavailable, best is arm 2, epsilon 0.3: 0.3 / 3 for each, and 0.7 more for the best."""
    p = exploration.epsilon_greedy(tf.constant([[1.0, MASKED, 5.0, 2.0]]), 0.3)
    np.testing.assert_allclose(p, [[0.1, 0.0, 0.8, 0.1]], rtol=1e-6)


def test_epsilon_greedy_shares_the_greedy_part_among_ties():
    """Two best arms of four, epsilon 0.2: 0.8 / 2 + 0.05 each."""
    p = exploration.epsilon_greedy(tf.constant([[3.0, 1.0, 3.0, 0.0]]), 0.2)
    np.testing.assert_allclose(p, [[0.45, 0.05, 0.45, 0.05]], rtol=1e-6)


def test_softmax_is_proportional_to_the_exponential():
    """Scores 0 and ln 4 at temperature 1: 1/5 and 4/5; at temperature 2: 1/3 and 2/3."""
    scores = tf.constant([[0.0, np.log(4.0), MASKED]], tf.float32)
    np.testing.assert_allclose(exploration.softmax(scores, 1.0), [[0.2, 0.8, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(exploration.softmax(scores, 2.0), [[1 / 3, 2 / 3, 0.0]], rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    scores=hnp.arrays(np.float32, (3, 5), elements=st.floats(-50, 50, width=32)),
    mask=hnp.arrays(bool, (3, 5)),
    epsilon=st.floats(0, 1),
)
def test_rows_sum_to_one_and_unavailable_arms_are_exactly_zero(scores, mask, epsilon):
    mask[:, 2] = True
    scores = np.where(mask, scores, MASKED).astype(np.float32)
    for p in (exploration.epsilon_greedy(scores, epsilon), exploration.softmax(scores, 0.5)):
        np.testing.assert_allclose(p.numpy().sum(axis=1), 1.0, rtol=1e-5)
        assert (p.numpy()[~mask] == 0.0).all()


@pytest.mark.parametrize("p", [[0.1, 0.0, 0.8, 0.1], [0.0, 1.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
def test_draws_have_the_frequency_of_the_probabilities(p):
    actions = exploration.draw(tf.constant([p] * 100_000, tf.float32), tf.constant([1, 2], tf.int64)).numpy()
    counts, expected = np.bincount(actions, minlength=4), 100_000 * np.array(p)
    assert (counts[expected == 0] == 0).all()
    possible = expected > 0
    if possible.sum() > 1:
        assert stats.chisquare(counts[possible], expected[possible]).pvalue > 1e-3


def test_a_stream_of_seeds_goes_on_where_its_variable_says():
    first = exploration.Draws(7)
    seeds = [tuple(first.next().numpy()) for _ in range(3)]
    assert len(set(seeds)) == 3
    second = exploration.Draws(0)
    second.variables[0].assign([7, 1])
    assert tuple(second.next().numpy()) == seeds[1]
