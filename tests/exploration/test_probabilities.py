"""Exploration probabilities: by hand, as properties, against frequencies of draws, NumPy against TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from recbandits import exploration
from tests.commands import run_python

MASK = np.array([[True, False, True, True]])
METHODS = {
    "epsilon_greedy": (exploration.epsilon_greedy, 0.3),
    "softmax": (exploration.softmax, 0.5),
    "inverse_gap": (exploration.inverse_gap, 4.0),
}
each_method = pytest.mark.parametrize(("method", "value"), METHODS.values(), ids=METHODS)


def test_epsilon_greedy_gives_the_marginal_probability():
    """4 arms, one masked, best is arm 2, epsilon 0.3: 0.3 / 3 for each, and 0.7 more for the best."""
    p = exploration.epsilon_greedy(np.array([[1.0, 9.0, 5.0, 2.0]]), MASK, 0.3)
    np.testing.assert_allclose(p, [[0.1, 0.0, 0.8, 0.1]])


def test_epsilon_greedy_shares_the_greedy_part_among_ties():
    """Two best arms of four, epsilon 0.2: 0.8 / 2 + 0.05 each."""
    p = exploration.epsilon_greedy(np.array([[3.0, 1.0, 3.0, 0.0]]), None, 0.2)
    np.testing.assert_allclose(p, [[0.45, 0.05, 0.45, 0.05]])


def test_softmax_is_proportional_to_the_exponential():
    """Scores 0 and ln 4 at temperature 1: 1/5 and 4/5; at temperature 2: 1/3 and 2/3."""
    scores, mask = np.array([[0.0, np.log(4.0), 7.0]]), np.array([[True, True, False]])
    np.testing.assert_allclose(exploration.softmax(scores, mask, 1.0), [[0.2, 0.8, 0.0]])
    np.testing.assert_allclose(exploration.softmax(scores, mask, 2.0), [[1 / 3, 2 / 3, 0.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_of_large_scores_and_small_temperatures_does_not_overflow(dtype):
    with np.errstate(over="ignore"):
        p = exploration.softmax(np.array([[1e30, -1e30, 1e30]], dtype), None, 1e-30)
    np.testing.assert_array_equal(p, [[0.5, 0.0, 0.5]])


def test_inverse_gap_follows_the_distance_from_the_best():
    """Best 3; gaps 1 and 2 with 3 arms and gamma 7: 1/10 and 1/17, and the best has the rest."""
    p = exploration.inverse_gap(np.array([[2.0, 9.0, 3.0, 1.0]]), MASK, 7.0)
    np.testing.assert_allclose(p, [[1 / 10, 0.0, 1 - 1 / 10 - 1 / 17, 1 / 17]])


def test_inverse_gap_shares_the_rest_among_ties():
    """Two best of three, gap 1, gamma 2: 1/5, and half of 4/5 each."""
    p = exploration.inverse_gap(np.array([[1.0, 1.0, 0.0]]), None, 2.0)
    np.testing.assert_allclose(p, [[0.4, 0.4, 0.2]])


@pytest.mark.parametrize("temperature", [1e-40, 1e-46, 1e-300])
@pytest.mark.parametrize("convert", [np.asarray, tf.constant])
def test_temperatures_that_are_no_float32_are_greedy(convert, temperature):
    scores = convert(np.array([[0.5, 2.0, 1.9]], np.float32))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(exploration.softmax(scores, None, temperature), [[0.0, 1.0, 0.0]])


@each_method
def test_a_single_available_action_has_probability_1_and_equal_scores_are_uniform(method, value):
    alone = np.array([[False, True, False, False]])
    np.testing.assert_array_equal(method(np.array([[1.0, 2.0, 3.0, 4.0]]), alone, value), [[0.0, 1.0, 0.0, 0.0]])
    np.testing.assert_allclose(method(np.ones((1, 4)), MASK, value), [[1 / 3, 0.0, 1 / 3, 1 / 3]])


SCORES = hnp.arrays(np.float32, (3, 5), elements=st.floats(-50, 50, width=32))
# TensorFlow takes a gap below 1e-38 for a tie, NumPy does not
HUNDREDTHS = hnp.arrays(np.int16, (3, 5), elements=st.integers(-5000, 5000)).map(lambda n: (n / 100).astype("float32"))
MASKS = hnp.arrays(bool, (3, 5)).map(lambda mask: mask | (np.arange(5) == 2))


@each_method
@settings(max_examples=50, deadline=None)
@given(scores=SCORES, mask=MASKS, hidden=st.sampled_from([np.nan, np.inf, -np.inf, 1e9]))
def test_rows_are_distributions_in_the_order_of_the_scores(method, value, scores, mask, hidden):
    """An unavailable action has probability exactly 0 for any score; higher scores never have less."""
    p = method(np.where(mask, scores, hidden).astype(np.float32), mask, value)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-5)
    assert (p[~mask] == 0.0).all()
    assert (p >= 0).all()
    for row in range(3):
        order = np.argsort(scores[row, mask[row]])
        assert (np.diff(p[row, mask[row]][order]) >= -1e-6).all()


@each_method
@settings(max_examples=25, deadline=None)
@given(scores=HUNDREDTHS, mask=MASKS)
def test_numpy_and_tensorflow_agree_in_a_graph_and_outside(method, value, scores, mask):
    expected = method(scores, mask, value)
    assert isinstance(expected, np.ndarray)
    in_graph = GRAPHS[method](scores, mask)
    assert in_graph.dtype == tf.float32
    np.testing.assert_allclose(in_graph, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(in_graph.numpy()[~mask], 0.0)
    np.testing.assert_allclose(method(tf.constant(scores), tf.constant(mask), value), expected, rtol=1e-5, atol=1e-7)
    everything = np.ones_like(mask)
    np.testing.assert_allclose(
        method(tf.constant(scores), None, value), method(scores, everything, value), rtol=1e-5, atol=1e-7
    )


def graph(method, value):
    """The method with its parameter as a tensor, for batches of any shape."""
    shapes = [tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None, None], tf.bool)]
    return tf.function(lambda scores, mask: method(scores, mask, tf.constant(value)), input_signature=shapes)


GRAPHS = {method: graph(method, value) for method, value in METHODS.values()}


@each_method
def test_samples_have_the_frequency_of_the_probabilities(method, value):
    """100,000 draws, chi-square test against the propensities."""
    p = method(np.array([[1.0, 9.0, 1.5, 0.5]]), MASK, value)
    drawn = exploration.sample(np.repeat(p, 100_000, axis=0), np.random.default_rng(1))
    counts = np.bincount(drawn, minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[MASK[0]], 100_000 * p[MASK]).pvalue > 1e-3


def test_an_action_of_probability_zero_is_never_drawn():
    """A uniform draw just below 1 gives the last possible action, in spite of rounding, and 0 the first."""
    p = np.array([[0.1, 0.2, 0.7, 0.0], [0.0, 1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3, 0.0]])
    np.testing.assert_array_equal(exploration.invert_cdf(p, np.full(3, np.nextafter(1.0, 0.0))), [2, 1, 2])
    np.testing.assert_array_equal(exploration.invert_cdf(p, np.zeros(3)), [0, 1, 0])
    np.testing.assert_array_equal(exploration.sample(p[:, ::-1].astype(np.float32), np.random.default_rng(0))[1], 2)


@pytest.mark.parametrize("p", [[0.5, 0.4], [1.5, -0.5], [np.nan, 1.0]])
def test_rows_that_are_not_distributions_are_refused(p):
    with pytest.raises(ValueError, match="row 1: probabilities must be 0 or more and sum to 1"):
        exploration.sample([[0.5, 0.5], p], np.random.default_rng(0))


@pytest.mark.parametrize("kind", [np.array, tf.constant])
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epsilon_greedy", 1.1, r"epsilon must be in \[0, 1\], got 1.1"),
        ("epsilon_greedy", float("nan"), r"epsilon must be in \[0, 1\], got nan"),
        ("softmax", 0.0, "temperature must be positive and finite, got 0.0"),
        ("softmax", "0.5", "temperature must be positive and finite, got '0.5'"),
        ("inverse_gap", float("inf"), "gamma must be positive and finite, got inf"),
    ],
)
def test_parameters_outside_their_range_are_refused(kind, name, value, message):
    with pytest.raises(ValueError, match=message):
        METHODS[name][0](kind([[1.0, 2.0]]), None, value)


@pytest.mark.parametrize("kind", [np.array, tf.constant])
@pytest.mark.parametrize(
    ("scores", "mask", "message"),
    [
        ([[1.0, 2.0]], [[True, True, True]], r"one shape, \[batch, actions\], got \(1, 2\) and \(1, 3\)"),
        ([1.0, 2.0], None, r"one shape, \[batch, actions\], got \(2,\) and \(2,\)"),
        ([[1.0, 2.0], [1.0, 2.0]], [[True, False], [False, False]], "row 1: mask must be True for an action"),
        ([[1.0, 2.0], [1.0, np.nan]], None, "row 1, column 1: scores must be finite where actions are available"),
    ],
)
def test_invalid_scores_and_masks_are_refused(kind, scores, mask, message):
    for method, value in METHODS.values():
        with pytest.raises(ValueError, match=message):
            method(kind(scores), mask if mask is None else kind(mask), value)


def test_numpy_input_does_not_load_tensorflow():
    code = """
import sys, numpy as np
from recbandits import exploration
exploration.epsilon_greedy(np.ones((2, 3)), None, 0.1)
exploration.plackett_luce.sample(np.ones((2, 3)), 2, np.full((2, 3), 0.5))
print("tensorflow" in sys.modules)
"""
    assert run_python(code) == "False\n"
