"""The linear model against a NumPy oracle, against itself in other batches, and against TF-Agents' own agents."""

from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tf_agents.bandits.agents import lin_ucb_agent
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from recbandits.agents.factory import make_agent
from recbandits.agents.linear import LinearModel, make_linear_agent
from recbandits.agents.parameters import LinUCB
from recbandits.environments import StationaryLinearEnvironment
from recbandits.environments.factorization import svd
from recbandits.environments.movielens import MovieLensEnvironment
from recbandits.evaluation.regret import totals
from recbandits.training.online import simulate
from tests.variables import assert_values


def oracle(batches, size, models, tikhonov, gamma=1.0):
    """A, b, count, theta and inverse Cholesky factors in float64 by the definition, one interaction at a time."""
    A, b, count = np.zeros((models, size, size)), np.zeros((models, size)), np.zeros(models)
    for x, action, reward in batches:
        A, b, count = gamma * A, gamma * b, gamma * count
        for row, arm, value in zip(x, action, reward, strict=True):
            A[arm] += np.outer(row, row)
            b[arm] += value * row
            count[arm] += 1
    matrix = A + tikhonov * np.eye(size)
    return {
        "covariance": A,
        "response": b,
        "count": count,
        "factor": np.linalg.inv(np.linalg.cholesky(matrix)),
        "theta": np.linalg.solve(matrix, b[:, :, None])[:, :, 0],
    }


def batches(seed, sizes, size, models):
    generator = np.random.default_rng(seed)
    return [
        (generator.normal(size=(n, size)), generator.integers(models, size=n), generator.normal(size=n)) for n in sizes
    ]


def train(model, data):
    for x, action, reward in data:
        model.update(tf.constant(x, tf.float32), tf.constant(action, tf.int32), tf.constant(reward, tf.float32))
    return model


def assert_state(model, expected):
    """Equal to the precision of float32, in which a batch is given."""
    for name, value in expected.items():
        tolerance = 1e-5 if name in ("factor", "theta") else 2e-6
        np.testing.assert_allclose(getattr(model, name), value, rtol=tolerance, atol=tolerance, err_msg=name)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    models=st.sampled_from([1, 4]),
    gamma=st.sampled_from([1.0, 0.9]),
)
def test_statistics_equal_the_oracle_after_any_sequence_of_batches(seed, sizes, models, gamma):
    data = batches(seed, sizes, size=3, models=models)
    model = train(LinearModel(3, models, tikhonov=0.5, gamma=gamma), data)
    assert_state(model, oracle(data, 3, models, 0.5, gamma))


def test_estimates_are_theta_x_and_the_width_of_the_ellipsoid():
    """One arm, A = diag(3, 0), tikhonov 1, b = [4, 0]: theta = [1, 0]; for x = [2, 1], x^T inv x = 4/4 + 1/1 = 2."""
    model = LinearModel(2, 1, tikhonov=1.0)
    rows = np.array([[1.0, 0.0]] * 3, np.float32)
    model.update(tf.constant(rows), tf.zeros(3, tf.int32), tf.constant([2.0, 1.0, 1.0]))
    mean, width = model.estimate(tf.constant([[2.0, 1.0]]))
    np.testing.assert_allclose(mean, [[2.0]], rtol=1e-6)
    np.testing.assert_allclose(width, [[np.sqrt(2.0)]], rtol=1e-6)
    shared_mean, shared_width = model.estimate(tf.constant([[[2.0, 1.0], [0.0, 0.0]]]))
    np.testing.assert_allclose(shared_mean, [[2.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(shared_width, [[np.sqrt(2.0), 0.0]], rtol=1e-6)


def test_widths_of_many_arms_which_are_computed_in_blocks_are_those_of_each_arm():
    """57 arms are blocks of 28 and 29; the widths are x^T (A + tikhonov I)^-1 x by the definition."""
    data = batches(0, [500, 300], size=4, models=57)
    x = np.random.default_rng(1).normal(size=(33, 4))
    matrix = oracle(data, 4, 57, 0.5)["covariance"] + 0.5 * np.eye(4)
    expected = np.sqrt(np.einsum("bi,aij,bj->ba", x, np.linalg.inv(matrix), x))
    _, width = train(LinearModel(4, 57, tikhonov=0.5), data).estimate(tf.constant(x, tf.float32))
    np.testing.assert_allclose(width, expected, rtol=1e-5)


def test_it_chooses_as_tf_agents_linucb_on_well_conditioned_data():
    """The same 500 interactions for both; the same actions on 1,000 contexts, except for arms that are nearly tied."""
    environment = StationaryLinearEnvironment(num_actions=6, context_size=4, batch_size=500)
    linucb = make_agent("linucb", environment, alpha=1.0, tikhonov=1.0)
    reference = lin_ucb_agent.LinearUCBAgent(
        environment.time_step_spec(), environment.action_spec(), alpha=1.0, tikhonov_weight=1.0, dtype=tf.float32
    )
    batch = environment.batch()
    action = tf.range(500) % 6
    reward = batch.expected(action)
    for agent in (linucb, reference):
        experience = trajectory.single_step(
            batch.observation, action, agent.collect_policy.info_spec, reward, tf.ones(500)
        )
        agent.train(tf.nest.map_structure(lambda tensor: tensor[:, None], experience))
    environment = StationaryLinearEnvironment(num_actions=6, context_size=4, batch_size=1000, seed=5)
    time_step = environment.reset()
    scores = np.sort(linucb.collect_policy.scores(time_step.observation, tf.constant([0, 0])).numpy(), axis=1)
    clear = scores[:, -1] - scores[:, -2] > 1e-3
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(
        linucb.collect_policy.action(time_step).action.numpy()[clear],
        reference.collect_policy.action(time_step).action.numpy()[clear],
    )


def test_the_first_of_tied_arms_is_served_a_random_one_collects_and_a_masked_arm_never():
    """Of 9,000 rows with three masks each arm that ties gets its share, within 5 standard errors."""
    spec = (tensor_spec.TensorSpec([2], tf.float32), tensor_spec.BoundedTensorSpec([3], tf.int32, 0, 1))

    class Specs:
        def time_step_spec(self):
            return ts.time_step_spec(spec)

        def action_spec(self):
            return tensor_spec.BoundedTensorSpec([], tf.int32, 0, 2)

    agent = make_agent("linucb", Specs())
    masks = tf.constant([[1, 1, 1], [0, 1, 1], [0, 0, 1]] * 3000)
    observation = (tf.ones([9000, 2]), masks)
    time_step = ts.restart(observation, batch_size=9000)
    np.testing.assert_array_equal(agent.policy.action(time_step).action[:3], [0, 1, 2])
    expected = np.array([[1 / 3, 1 / 3, 1 / 3], [0, 1 / 2, 1 / 2], [0, 0, 1]])
    np.testing.assert_allclose(agent.collect_policy.probabilities(observation)[:3], expected, rtol=1e-6)
    action = agent.collect_policy.action(time_step).action.numpy().reshape(3000, 3)
    shares = np.array([(action == arm).mean(axis=0) for arm in range(3)]).T
    np.testing.assert_allclose(shares, expected, atol=5 * np.sqrt(0.25 / 3000))
    assert (shares[expected == 0] == 0).all()


@pytest.mark.parametrize(
    ("arms", "size", "batch"), [(2, 1, 1), (20, 20, 33), (57, 20, 100), (100, 20, 128), (1682, 9, 33)]
)
def test_arms_without_data_have_the_same_score_to_the_bit(arms, size, batch):
    """Else rounding would break the tie, and the same arm might win it in every row."""
    x = np.random.default_rng(arms).normal(size=(batch, size)).astype(np.float32)
    mean, width = LinearModel(size, arms, tikhonov=0.001).estimate(tf.constant(x))
    assert (np.ptp(mean, axis=1) == 0).all()
    assert (np.ptp(width, axis=1) == 0).all()


def test_scoring_in_float32_reaches_the_regret_of_a_float64_reference(movielens):
    """Ill-conditioned on purpose (tikhonov 0.001): LinUCB in plain NumPy on the same 2 streams of 10,000 users.

    Both take the first of tied arms, so that no draw makes a difference.
    """
    environment = MovieLensEnvironment(svd(movielens.ratings, rank=20, num_movies=20), num_actions=20, batch_size=8)
    specs = environment.time_step_spec(), environment.action_spec()
    regret = [
        simulate(environment, make_linear_agent(*specs, random_ties=False), 1250, [seed], points=1)["regret"].item()
        for seed in range(2)
    ]
    reference = [reference_regret(environment, seed, LinUCB(), steps=1250) for seed in range(2)]
    assert np.mean(regret) == pytest.approx(np.mean(reference), rel=0.02)


def reference_regret(environment, seed, parameters, steps):
    """Mean expected regret of LinUCB in NumPy and float64, written down from the definition."""
    environment.restart(seed)
    size = environment.observation_spec().shape[0]
    A = np.stack([parameters.tikhonov * np.eye(size)] * environment.num_actions)
    b, inverse = np.zeros((environment.num_actions, size)), np.linalg.inv(A)
    read, regret = tf.function(lambda: environment.batch()[:3:2]), 0.0
    for _ in range(steps):
        x, expected = (tensor.numpy().astype(float) for tensor in read())
        theta = np.einsum("kij,kj->ki", inverse, b)
        width = np.sqrt(np.einsum("ni,kij,nj->nk", x, inverse, x))
        action = (x @ theta.T + parameters.alpha * width).argmax(axis=1)
        reward = expected[np.arange(len(x)), action]
        regret += (expected.max(axis=1) - reward).mean()
        for row, arm, value in zip(x, action, reward, strict=True):
            A[arm] += np.outer(row, row)
            b[arm] += value * row
        played_arms = np.unique(action)
        inverse[played_arms] = np.linalg.inv(A[played_arms])
        environment.advance()
    return regret / steps


def test_linucb_with_default_parameters_solves_the_zero_filled_environment(real_movielens):
    """Average regret over the first 10,000 interactions: at most 0.08, where uniform has 3.7 and alpha 10 has 0.34."""
    environment = MovieLensEnvironment(
        svd(real_movielens.ratings, rank=20, num_movies=20), num_actions=20, batch_size=8
    )
    agents = {"default": LinUCB(), "alpha 10": LinUCB(alpha=10.0)}
    regret = totals(simulate(environment, agents, steps=1250, seeds=range(5), points=1))["regret"]
    assert regret["default"].mean() <= 0.08
    assert regret["alpha 10"].mean() > 0.25


def exact_widths(contexts, x, tikhonov):
    """sqrt(x^T (A + tikhonov I)^-1 x) in rational arithmetic: float32 numbers are fractions."""
    rows = [[Fraction(float(value)) for value in row] for row in contexts]
    matrix = [
        [sum(row[i] * row[j] for row in rows) + (i == j) * Fraction(tikhonov) for j in range(3)] for i in range(3)
    ]
    (a, b, c), (d, e, f), (g, h, i) = matrix
    adjugate = [
        [e * i - f * h, c * h - b * i, b * f - c * e],
        [f * g - d * i, a * i - c * g, c * d - a * f],
        [d * h - e * g, b * g - a * h, a * e - b * d],
    ]
    determinant = a * adjugate[0][0] + b * adjugate[1][0] + c * adjugate[2][0]
    squares = []
    for row in x:
        values = [Fraction(float(value)) for value in row]
        product = [sum(entry * value for entry, value in zip(line, values, strict=True)) for line in adjugate]
        squares.append(float(sum(v * p for v, p in zip(values, product, strict=True)) / determinant))
    return np.sqrt(squares)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_widths_of_collinear_features_are_those_of_exact_arithmetic(scale):
    """Features [1, p, 1.19 p], a price without and with tax: x^T inverse x in float32 was 0 for 98 % of the inputs."""
    price = scale * np.random.default_rng(0).random(400)
    x = np.stack([np.ones(400), price, 1.19 * price], axis=1).astype(np.float32)
    for models in (1, 2):
        model = train(LinearModel(3, models, 0.001), [(part, np.zeros(20), np.zeros(20)) for part in np.split(x, 20)])
        inputs = tf.constant(x[:50] if models > 1 else x[None, :50])
        width = model.estimate(inputs)[1].numpy()
        width = width[:, 0] if models > 1 else width[0]
        np.testing.assert_allclose(width, exact_widths(x, x[:50], 0.001), rtol=1e-2)


@pytest.mark.parametrize(
    ("x", "reward", "tikhonov"),
    [
        ([1e6, 1e6, 1.0], 1.0, 0.001),
        ([1e20, 1e20, 1.0], 1.0, 0.001),
        ([1.0, np.nan, 1.0], 1.0, 1.0),
        ([1.0, 1.0, 1.0], np.inf, 1.0),
    ],
)
@pytest.mark.parametrize("models", [1, 2])
def test_a_batch_that_the_model_cannot_learn_is_refused_and_changes_nothing(x, reward, tikhonov, models):
    model = train(LinearModel(3, models, tikhonov), [([[1.0, 1.0, 1.0]], [0], [1.0])])
    before = [variable.numpy() for variable in model.variables]
    with pytest.raises(tf.errors.InvalidArgumentError, match="features and rewards must be finite"):
        train(model, [([x, x], [0, 0], [1.0, reward])])
    assert_values(model.variables, before)


def test_features_of_any_size_are_learnt_where_they_are_not_collinear():
    """Two features of 1e-3 and 1e15 in turn: each has the width of ridge regression on it alone."""
    x = np.diag([1e-3, 1e15])
    model = train(LinearModel(2, 1, 0.001), [(x, [0, 0], [0.0, 0.0])] * 3)
    width = model.estimate(tf.constant(x[None], tf.float32))[1]
    np.testing.assert_allclose(width, [[np.sqrt(1e-6 / (3e-6 + 1e-3)), np.sqrt(1 / 3)]], rtol=1e-5)
