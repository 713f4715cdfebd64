"""Scorers by hand, for one arm each and for lists of arms, in NumPy and in TensorFlow, and back from a file."""

import io

import numpy as np
import pytest
import tensorflow as tf

from recbandits.agents.factory import make_agent
from recbandits.serving.scorer import Scorer, linear_head
from recbandits.training.offline import Specs


def layer(kernel, bias):
    return np.array(kernel, np.float32), np.array(bias, np.float32)


MODELS = {
    "linear": Scorer("concat", "relu", (), (), (linear_head(np.array([[2, 3, 5]], np.float32)),)),
    "concat": Scorer(
        "concat",
        "relu",
        (layer([[1, -1]], [0, 0]),),
        (layer([[1], [1]], [-1]),),
        (layer([[1], [1], [10]], [1]), layer([[2]], [3])),
    ),
    "product": Scorer(
        "product",
        "elu",
        (layer([[1, -1]], [0, 0]),),
        (layer([[1, 0], [0, 1]], [0, 1]),),
        (linear_head(np.ones((1, 2), np.float32)),),
    ),
}
CONTEXT, ARMS = np.array([[2.0]], np.float32), np.array([[[1.0, 4.0], [-3.0, 1.0]]], np.float32)
SCORES = {
    "linear": [2 * 2 + 3 * 1 + 5 * 4, 2 * 2 - 3 * 3 + 5 * 1],
    "concat": [2 * (2 + 0 + 10 * 4 + 1) + 3, 2 * (2 + 0 + 0 + 1) + 3],
    "product": [2 * 1 + np.expm1(-2) * 5, 2 * np.expm1(-3) + np.expm1(-2) * 2],
}


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_the_arithmetic_of_the_layers(name):
    """Context 2; relu gives (2, 0), elu (2, exp(-2) - 1); the arms are (1, 4) and (-3, 1)."""
    model = MODELS[name]
    np.testing.assert_allclose(model.scores(CONTEXT, ARMS), [SCORES[name]], rtol=1e-6)
    np.testing.assert_allclose(model.scores(np.repeat(CONTEXT, 2, axis=0), ARMS[0]), SCORES[name], rtol=1e-6)
    tensors = model.scores(tf.constant(CONTEXT), tf.constant(ARMS), getattr(tf.nn, model.activation))
    np.testing.assert_allclose(tensors.numpy(), [SCORES[name]], rtol=1e-6)
    assert model.scores(CONTEXT, ARMS).dtype == np.float32


def test_arms_without_features_have_an_output_each():
    """relu(2, -2) = (2, 0), times (1, 7), (3, 7), (5, 7), plus 0, 1, 0."""
    head = (layer([[1, -1]], [0, 0]), layer([[1, 3, 5], [7, 7, 7]], [0, 1, 0]))
    model = Scorer("none", "relu", (), (), head)
    np.testing.assert_array_equal(model.scores(CONTEXT), [[2, 7, 10]])


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_is_the_same(name):
    file = io.BytesIO()
    MODELS[name].save(file)
    file.seek(0)
    restored = Scorer.load(file)
    assert (restored.join, restored.activation) == (MODELS[name].join, MODELS[name].activation)
    np.testing.assert_array_equal(restored.scores(CONTEXT, ARMS), MODELS[name].scores(CONTEXT, ARMS))


@pytest.mark.parametrize("name", ["linucb", "epsilon_greedy", "neural_linucb"])
def test_a_scorer_keeps_its_scores_when_the_agent_learns(name):
    agent = make_agent(name, Specs({"global": (1,), "per_arm": (2, 2)}))
    scorer = agent.policy.scorer()
    before = scorer.scores(CONTEXT, ARMS)
    for variable in agent.model.variables:
        if variable.dtype == tf.float32:
            variable.assign(tf.ones_like(variable))
    np.testing.assert_array_equal(scorer.scores(CONTEXT, ARMS), before)
    assert (agent.policy.scorer().scores(CONTEXT, ARMS) != before).any()
    assert agent.collect_policy.scorer() is None
