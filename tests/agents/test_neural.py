"""Networks on contexts and arms: weights of examples, weight decay, and dot products."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import utils
from tf_agents.trajectories import trajectory

from recbandits.agents.agent import GLOBAL, PER_ARM
from recbandits.agents.neural import EncodedLinearModel, RewardNetwork
from recbandits.agents.parameters import EpsilonGreedy, NeuralLinUCB
from tests.variables import assert_values

SPEC = {GLOBAL: tf.TensorSpec([3], tf.float32), PER_ARM: tf.TensorSpec([2, 4], tf.float32)}


def models(network, spec=SPEC, weight_decay=0.0):
    options = {"layers": (8,), "learning_rate": 0.01, "weight_decay": weight_decay, "network": network}
    encoded = NeuralLinUCB(tikhonov=0.1, encoding=5, pretrain_steps=10, **options)
    return RewardNetwork(spec, 2, EpsilonGreedy(**options), seed=0), EncodedLinearModel(spec, 2, encoded, seed=0)


def experience(rows, seed=0):
    """Return the trajectory [batch, 1, ...] of some rows of three decisions."""
    rng = np.random.default_rng(seed)
    context, arm = (tf.constant(rng.normal(size=(3, size)), tf.float32) for size in (3, 4))
    parts = context, arm, tf.constant(rng.normal(size=3), tf.float32)
    context, arm, reward = (tf.gather(part, rows) for part in parts)
    info = utils.PerArmPolicyInfo(chosen_arm_features=arm)
    single = trajectory.single_step({GLOBAL: context}, tf.zeros_like(rows), info, reward, tf.ones_like(reward))
    return tf.nest.map_structure(lambda part: part[:, None], single)


@pytest.mark.parametrize("network", ["common_tower", "dot_product"])
def test_a_weight_of_2_is_an_example_twice_and_a_weight_of_0_is_none(network):
    """Weights 2, 0, 1 on three examples against the first one twice and the third one: the same mean over three."""
    for weighted, plain in zip(models(network), models(network), strict=True):
        loss = weighted.learn(experience([0, 1, 2]), tf.constant([2.0, 0.0, 1.0]))
        assert float(loss) == pytest.approx(float(plain.learn(experience([0, 0, 2]))), rel=1e-5)
        assert_values(weighted.variables, plain.variables, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("weight_decay", "kernel_factor"), [(0.0, 1.0), (20.0, 0.8)])
def test_kernels_decay_and_biases_do_not(weight_decay, kernel_factor):
    """Examples of weight 0 have no gradient: a step of 0.01 at decay 20 subtracts a fifth of the kernels."""
    for model in models("common_tower", weight_decay=weight_decay):
        trained = model.trainable_variables
        for variable in trained:
            variable.assign(tf.ones_like(variable))
        model.learn(experience([0, 1, 2]), tf.zeros([3]))
        for variable in trained:
            expected = kernel_factor if variable.shape.rank > 1 else 1.0
            np.testing.assert_allclose(variable, np.full(variable.shape, expected), rtol=1e-6, err_msg=variable.name)


def test_a_dot_product_scores_by_the_product_of_two_towers_and_may_be_negative():
    """Its encoding is that product before the sum; equal arms get equal scores."""
    reward, encoded = models("dot_product")
    rng = np.random.default_rng(0)
    features = {GLOBAL: tf.constant(rng.normal(size=(50, 3)), tf.float32)}
    features[PER_ARM] = tf.constant(rng.normal(size=(50, 2, 4)), tf.float32)
    encoder = encoded._network.encoder
    context, arms = (tower(features[part])[0] for tower, part in zip(encoder._towers, (GLOBAL, PER_ARM), strict=True))
    assert (context.shape, arms.shape) == ([50, 5], [50, 2, 5])
    np.testing.assert_allclose(encoded.encode(features), context.numpy()[:, None] * arms.numpy(), rtol=1e-5)
    assert reward.scores(features).shape == [50, 2]
    assert reward.scores(features).numpy().min() < 0
    doubled = features | {PER_ARM: tf.repeat(features[PER_ARM][:, :1], 2, axis=1)}
    np.testing.assert_allclose(*tf.unstack(reward.scores(doubled), axis=1), rtol=1e-5)


def test_a_dot_product_needs_arms_with_features():
    with pytest.raises(ValueError, match="network must be 'common_tower' where arms have no features"):
        models("dot_product", SPEC[GLOBAL])


@pytest.mark.parametrize("network", ["common_tower", "dot_product"])
@pytest.mark.parametrize("empty", [GLOBAL, PER_ARM])
def test_a_context_or_an_arm_may_have_no_features(network, empty):
    """Without columns of users the scale of the initial weights was a division by zero."""
    spec = SPEC | {empty: tf.TensorSpec([*SPEC[empty].shape[:-1], 0], tf.float32)}
    rng = np.random.default_rng(0)
    features = {part: tf.constant(rng.normal(size=(6, *spec[part].shape)), tf.float32) for part in spec}
    reward, encoded = models(network, spec)
    scores = reward.scores(features).numpy()
    assert np.isfinite(scores).all()
    assert np.isfinite(encoded.estimate(features)[0]).all()
    np.testing.assert_allclose(
        reward.scorer().scores(features[GLOBAL].numpy(), features[PER_ARM].numpy()), scores, atol=1e-6
    )
