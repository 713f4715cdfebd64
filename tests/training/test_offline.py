"""Training from logs: sums against closed forms, networks against known functions, and what must be refused."""

import gc
import itertools

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from recbandits.agents.factory import make_agent
from recbandits.data.examples import Examples, make_doubly_robust_examples, make_examples
from recbandits.environments.factorization import als
from recbandits.environments.synthetic import StationaryLinearEnvironment
from recbandits.training import epochs, offline
from recbandits.training.offline import Specs, fit, score_candidates
from recbandits.training.online import simulate
from tests.rating_tables import log_of_ids, rating_features
from tests.variables import assert_values, read_values

SIZE = 3  # features of a context, and of an arm
QUICK = {"learning_rate": 0.01, "layers": (16,)}


def make_data(n, seed=0, noise=0.1):
    """Rewards 1 + context . arm + noise."""
    rng = np.random.default_rng(seed)
    context, arm = (rng.normal(size=(n, SIZE)).astype(np.float32) for _ in range(2))
    reward = 1 + (context * arm).sum(axis=1) + noise * rng.normal(size=n)
    propensity, pass_prob = rng.uniform(0.1, 1.0, n), rng.uniform(0.5, 1.0, n)
    return Examples(
        context, arm, *(v.astype(np.float32) for v in (reward, propensity, pass_prob)), np.arange(n) + 10_000 * seed
    )


def build_agent(name, context=SIZE, arm=SIZE, seed=0, **values):
    return make_agent(name, Specs({"global": (context,), "per_arm": (2, arm)}), seed=seed, **values)


@pytest.mark.parametrize("weights", [None, "ips"])
def test_batches_of_any_size_give_the_closed_form_ridge_regression(weights):
    """The coefficients are (sum w x x^T + lambda I)^-1 sum w r x, w = 1 / (propensity pass_prob) with mean 1."""
    data = make_data(1000)
    x, w = np.hstack([data.context, data.arm]).astype(float), np.ones(1000)
    if weights:
        w = 1 / (data.propensity.astype(float) * data.pass_prob)
        w /= w.mean()
    covariance = (w[:, None] * x).T @ x
    theta = np.linalg.solve(covariance + 0.5 * np.eye(6), (w * data.reward) @ x)
    for batch_size in (96, 1000, 5000):
        agent = build_agent("linucb", tikhonov=0.5)
        fit(agent, data, batch_size=batch_size, weights=weights)
        np.testing.assert_allclose(agent.model.covariance[0], covariance, rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(agent.model.theta[0], theta, rtol=1e-3, atol=1e-4)
        assert agent.model.count.numpy() == pytest.approx(1000)


def test_the_loss_of_a_linear_agent_is_its_error_before_it_learnt():
    """First batch: nothing known, the error is the mean square of the rewards; then that of the first batch's theta."""
    data = make_data(60)
    x = np.hstack([data.context, data.arm]).astype(float)
    theta = np.linalg.solve(x[:40].T @ x[:40] + 0.001 * np.eye(6), data.reward[:40] @ x[:40])
    expected = (np.square(data.reward[:40]).sum() + np.square(data.reward[40:] - x[40:] @ theta).sum()) / 60
    assert fit(build_agent("linucb"), data, batch_size=40)["loss"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("network", ["common_tower", "dot_product"])
@pytest.mark.parametrize("name", ["epsilon_greedy", "neural_linucb"])
def test_networks_learn_what_no_linear_agent_can(name, network):
    """The reward's variance is 3, its noise 0.01; without their products 3 is the least error."""
    agent, data, validation = build_agent(name, network=network, **QUICK), make_data(4000), make_data(500, seed=1)
    history = fit(agent, data, epochs=10, batch_size=32, validation=validation)
    assert history["validation_mse"].iloc[-1] < 0.5
    assert history["stage"].tolist() == ["network"] * 10 + ["linear"] * (name == "neural_linucb")
    assert fit(build_agent("linucb"), data, validation=validation)["validation_mse"].item() > 2.0


def skewed(n, seed=0):
    """Reward x^2 of arms x in [0, 1]; of two candidates the larger is logged with probability 0.95."""
    rng = np.random.default_rng(seed)
    pair = np.sort(rng.uniform(size=(n, 2)), axis=1)
    larger = rng.random(n) < 0.95
    x = pair[np.arange(n), larger.astype(int)].astype(np.float32)
    propensity = np.where(larger, 0.95, 0.05).astype(np.float32)
    ones = np.ones(n, np.float32)
    return Examples(ones[:, None], x[:, None], x**2, propensity, ones, np.arange(n))


def filtered(n, seed=0):
    """The same arms, all with propensity 1, of which a record with arm x is kept with probability 0.1 + 0.9 x."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=n)
    x = x[rng.random(n) < 0.1 + 0.9 * x].astype(np.float32)
    ones = np.ones(len(x), np.float32)
    return Examples(ones[:, None], x[:, None], x**2, ones, 0.1 + 0.9 * x, np.arange(len(x)))


@pytest.mark.parametrize("data", [skewed(40_000), filtered(80_000)], ids=["skewed", "filtered"])
def test_importance_weights_fit_the_model_of_all_candidates_and_plain_regression_that_of_the_log(data):
    """The best line for x^2 with x uniform in [0, 1] is x - 1/6; where the log prefers large x it is steeper."""
    weighted, plain = build_agent("linucb", 1, 1), build_agent("linucb", 1, 1)
    fit(weighted, data, weights="ips")
    fit(plain, data)
    np.testing.assert_allclose(weighted.model.theta[0], [-1 / 6, 1.0], atol=0.03)
    assert np.abs(plain.model.theta[0] - [-1 / 6, 1.0]).min() > 0.05


def test_importance_weights_count_each_candidate_of_each_decision_once():
    """Four visits with one candidate, and four with three, whose propensities are 1/2, 1/4 and 1/4.

    Each action is as frequent as its propensity says. The weighted mean of the rewards is that of all four candidates.
    """
    reward = np.array([8, 8, 8, 8, 1, 1, 2, 5], np.float32)
    propensity = np.array([1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25], np.float32)
    columns = np.ones((8, 1), np.float32)
    data = Examples(columns, columns, reward, propensity, np.ones(8, np.float32), np.arange(8))
    assert np.average(reward, weights=epochs.weigh_examples(data, "ips")) == pytest.approx((8 + 1 + 2 + 5) / 4)


def test_networks_are_trained_with_the_same_weights():
    """A network without a hidden non-linearity to spare fits the line of all candidates closer when weighted."""
    x = np.linspace(0, 1, 101, dtype=np.float32)[:, None]
    error = {}
    for weights in (None, "ips"):
        agent = build_agent("epsilon_greedy", 1, 1, layers=(1,), learning_rate=0.01)
        fit(agent, skewed(20_000), epochs=5, batch_size=128, weights=weights)
        error[weights] = np.square(agent.policy.score_pairs(np.ones_like(x), x) - x[:, 0] ** 2).mean()
    assert error["ips"] < 0.8 * error[None]


@pytest.mark.parametrize("weights", [None, "ips"])
def test_the_validation_error_is_weighted_as_the_training(weights):
    agent, validation = build_agent("linucb"), make_data(300, seed=1)
    validation_mse = fit(agent, make_data(100), validation=validation, weights=weights)["validation_mse"].item()
    error = np.square(validation.reward - agent.policy.score_pairs(validation.context, validation.arm).numpy())
    inverse = 1 / (validation.propensity * validation.pass_prob) if weights else np.ones(300)
    assert validation_mse == pytest.approx((inverse * error).sum() / inverse.sum(), rel=1e-4)


def test_early_stopping_goes_back_to_the_best_epoch_even_when_it_is_interrupted_after_it(tmp_path, monkeypatch):
    """40 noisy examples are soon overfitted: the error on new ones falls, then rises.

    The best epoch is in the checkpoint: a new agent that resumes three epochs later ends as it was then.
    """
    data, validation = make_data(40, noise=2.0), make_data(500, seed=1)
    options = {"epochs": 80, "batch_size": 8, "validation": validation, "patience": 5}
    whole, interrupted, resumed = (build_agent("epsilon_greedy", **QUICK) for _ in range(3))
    history = fit(whole, data, **options)
    best = history["validation_mse"].idxmin()
    assert len(history) == best + 1 + 5 < 80
    best_error = np.square(validation.reward - whole.policy.score_pairs(validation.context, validation.arm)).mean()
    assert best_error == pytest.approx(history["validation_mse"].min(), rel=1e-5)
    calls, error = itertools.count(), epochs.mean_squared_error

    def until_three_after_the_best(*arguments):
        if next(calls) == best + 4:
            raise KeyboardInterrupt
        return error(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(epochs, "mean_squared_error", until_three_after_the_best)
        with pytest.raises(KeyboardInterrupt):
            fit(interrupted, data, checkpoints=tmp_path, **options)
    fit(resumed, data, checkpoints=tmp_path, **options)
    assert_values(read_values(resumed), read_values(whole))


def test_every_epoch_has_its_own_order_and_a_seed_fixes_all_of_them():
    agents = [build_agent("epsilon_greedy", **QUICK) for _ in range(3)]
    histories = [
        fit(agent, make_data(200), epochs=3, batch_size=64, seed=seed).drop(columns="seconds")
        for agent, seed in zip(agents, (5, 5, 6), strict=True)
    ]
    assert histories[0].equals(histories[1])
    assert not histories[0].equals(histories[2])
    assert_values(read_values(agents[0]), read_values(agents[1]))


def test_a_loss_that_is_not_finite_names_its_batch_and_is_undone():
    """Row 7 has a reward whose square is no float32; it is in the batch where the epoch's order puts it."""
    agent, data = build_agent("epsilon_greedy", **QUICK), make_data(100)
    fit(agent, data, epochs=2, batch_size=16)
    initial_values = read_values(agent)
    data.reward[7] = 1e30
    batch = np.flatnonzero(np.random.default_rng([0, 0]).permutation(100) == 7)[0] // 16 + 1
    with pytest.raises(FloatingPointError, match=f"epoch 1, batch {batch} of 7: loss and weights must stay finite"):
        fit(agent, data, epochs=2, batch_size=16)
    assert_values(read_values(agent), initial_values)


@pytest.mark.parametrize("patience", [None, 2])
def test_a_validation_error_that_is_not_finite_is_refused_and_the_epoch_undone(patience):
    """A context of 3e38 is a float32, and its score is not: with a patience, no epoch was ever better than another."""
    agent, validation = build_agent("epsilon_greedy", **QUICK), make_data(20, seed=1)
    initial_values = read_values(agent)
    validation.context[5] = 3e38
    with pytest.raises(FloatingPointError, match=r"^epoch 1: validation error must stay finite, got (nan|inf) "):
        fit(agent, make_data(100), epochs=4, validation=validation, patience=patience)
    assert_values(read_values(agent), initial_values)


def test_weights_that_the_last_batch_broke_are_undone_too():
    agent = build_agent("epsilon_greedy", layers=(4,), learning_rate=1e39)  # no float32
    initial_values = read_values(agent)
    with pytest.raises(FloatingPointError, match="epoch 1, batch 1 of 1: loss and weights must stay finite"):
        fit(agent, make_data(50), epochs=2)
    assert_values(read_values(agent), initial_values)


@pytest.mark.parametrize("name", ["linucb", "epsilon_greedy"])
def test_an_interrupted_epoch_is_undone_and_can_be_repeated(name, monkeypatch):
    """A keyboard interrupt after the last batch, before the events are noted: 100 decisions still count once."""

    def raise_interrupt(*arguments):
        raise KeyboardInterrupt

    agent, data = build_agent(name), make_data(100)
    initial_values = read_values(agent)
    with monkeypatch.context() as patch:
        patch.setattr(epochs, "mean_squared_error", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(agent, data, validation=data)
    assert_values(read_values(agent), initial_values)
    fit(agent, data)
    assert agent.train_step_counter.numpy() == 1


def test_a_matrix_that_cannot_be_inverted_leaves_nothing_half_learnt():
    """The second batch, all ones, makes A singular: 1 + 1e-30 is 1."""
    agent = build_agent("linucb", tikhonov=1e-30)
    initial_values, data = read_values(agent), make_data(2)
    data.context[:], data.arm[:] = [[1, 0, 0], [1, 1, 1]], [[0, 0, 0], [1, 1, 1]]
    with pytest.raises(FloatingPointError, match=r"^epoch 1: features and rewards must be finite, and where .* batch$"):
        fit(agent, data, batch_size=1)
    assert_values(read_values(agent), initial_values)


@pytest.mark.parametrize("name", ["linucb", "epsilon_greedy"])
def test_numbers_of_double_precision_are_learnt_as_those_of_single(name):
    data, results = make_data(50), []
    for kind in (np.float32, np.float64):
        agent = build_agent(name)
        fit(agent, Examples(*(part.astype(kind) for part in data[:5]), data.event))
        results.append(read_values(agent))
    assert_values(*results)


def test_a_linear_agent_learns_an_event_once(tmp_path):
    agent, data = build_agent("linucb"), make_data(100)
    with pytest.raises(ValueError, match="epochs must be 1, got 5: a linear model sums up evidence"):
        fit(agent, data, epochs=5)
    fit(agent, data)
    new_data = Examples(*(part[90:] for part in data))
    with pytest.raises(ValueError, match=r"examples must be new to a linear model, .*, got '10 of 10 events that"):
        fit(agent, new_data)
    path = tf.train.Checkpoint(agent=agent).write(str(tmp_path / "agent"))
    restored = build_agent("linucb")
    tf.train.Checkpoint(agent=restored).read(path)
    with pytest.raises(ValueError, match=r"examples must be new to a linear model, .*, got '10 of 10 events that"):
        fit(restored, new_data)
    fit(restored, make_data(100, seed=1))
    assert restored.model.count.numpy() == 200


def test_an_event_that_occurs_twice_is_refused():
    data = make_data(10)
    data.event[8] = data.event[2]
    with pytest.raises(ValueError, match="examples must be of different events, rows 2 and 8 are of the same one"):
        fit(build_agent("lints"), data)
    fit(build_agent("epsilon_greedy"), data)


def test_neural_linucb_trains_its_network_for_epochs_and_its_linear_model_once():
    agent = build_agent("neural_linucb", **QUICK)
    fit(agent, make_data(300), epochs=4, batch_size=64)
    assert agent.model.linear.count.numpy() == 300
    weights = [variable.numpy() for variable in agent.model.trainable_variables]
    with pytest.raises(ValueError, match="epochs must be 1, got 4: the network must stay as it is"):
        fit(agent, make_data(300, seed=1), epochs=4)
    with pytest.raises(ValueError, match=r"examples must be new to a linear model, .*, got '300 of 300 events that"):
        fit(agent, make_data(300))
    assert fit(agent, make_data(300, seed=1))["stage"].tolist() == ["linear"]
    assert agent.model.linear.count.numpy() == 600
    assert_values(agent.model.trainable_variables, weights)


def test_xla_gives_the_same_network():
    results = []
    for xla in (False, True):
        agent = build_agent("epsilon_greedy", **QUICK)
        fit(agent, make_data(200), epochs=2, batch_size=64, xla=xla)
        results.append(agent.policy.score_pairs(make_data(50).context, make_data(50).arm))
    np.testing.assert_allclose(*results, rtol=1e-3, atol=1e-4)


def count_graphs():
    """Count the graphs of TensorFlow's functions that are not garbage."""
    gc.collect()
    return sum(type(each) is FuncGraph for each in gc.get_objects())


def test_the_graph_of_a_training_and_its_examples_are_released_with_the_agent():
    before = count_graphs()
    fit(build_agent("epsilon_greedy", **QUICK), make_data(20))
    simulate(StationaryLinearEnvironment(per_arm=True), "epsilon_greedy", steps=2, points=1)
    assert count_graphs() == before


def test_training_prints_nothing_without_a_terminal(capfd):
    fit(build_agent("linucb"), make_data(10))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 2\*\*63 - 1, got -1"),
        ({"patience": 2}, "validation must be examples where there is a patience, got None"),
        ({"weights": "dr"}, "weights must be None or 'ips', got 'dr'"),
        ({"agent": "uniform"}, "agent must have a linear model or a network to learn from logs, got BanditAgent"),
        ({"examples": Examples(*(part[:0] for part in make_data(1)))}, "examples must be of at least one row, got 0"),
        ({"validation": make_data(5)._replace(arm=np.ones((5, 7)))}, r"arm of validation must be \[5, 3\], got"),
        (
            {"examples": make_data(3)._replace(reward=np.array([1, np.nan, 2]))},
            "row 1: reward of examples must be finite, got nan",
        ),
        (
            {"examples": make_data(2)._replace(propensity=np.array([0.5, 0]))},
            r"row 1: propensity of examples must be in \(0, 1\], got 0.0",
        ),
        (
            {"examples": make_data(2)._replace(event=np.arange(2, dtype=np.uint64))},
            "event must be int64, got dtype..uint64",
        ),
        ({"examples": make_data(2)._replace(event=np.arange(3))}, r"event of examples must be \[2\], got \[3\]"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_with_a_message(changes, message):
    arguments = {"agent": "linucb", "examples": make_data(5)} | changes
    with pytest.raises(ValueError, match=message):
        fit(build_agent(arguments.pop("agent")), **arguments)


def test_agents_without_arm_features_are_refused():
    with pytest.raises(ValueError, match="agent must be made for arms with features, as Specs describes them"):
        fit(make_agent("linucb", Plain()), make_data(5))


class Plain(Specs):
    """Specs of contexts alone."""

    def __init__(self):
        super().__init__({"global": (SIZE,), "per_arm": (2, SIZE)})

    def time_step_spec(self):
        spec = super().time_step_spec()
        return spec._replace(observation=spec.observation["global"])


USERS, CANDIDATES = np.array([7, 9]), np.array([[1, 2, 0], [3, 4, 1]])
MASK = np.array([[True, True, False], [True, True, True]])


@pytest.fixture
def movie_features():
    """Users 7 and 9 with 2 features, movies 1 to 4 with 2."""
    users = pd.DataFrame({"age": [1.0, 2.0], "bias": [0.0, 1.0]}, index=[7, 9])
    movies = pd.DataFrame({"year": [1.0, 2.0, 3.0, 4.0], "bias": [0.1, 0.2, 0.3, 0.4]}, [1, 2, 3, 4])
    return rating_features(users, movies)


@pytest.fixture
def log(movie_features):
    """User 7 chose movie 2 of 1 and 2 (and padding), user 9 movie 4 of 3, 4 and 1."""
    columns = {"propensity": np.array([0.5, 0.25]), "reward": np.array([4.0, 2.0]), "pass_prob": np.array([1.0, 0.5])}
    return log_of_ids(USERS, CANDIDATES, movie_features, MASK, action=np.array([1, 1]), **columns)


def test_scores_are_the_predictions_for_any_number_of_pairs_per_call(movie_features, monkeypatch):
    """Coefficients 1, 10, 100, 1000 on age, bias, year, bias: user 9, movie 4 scores 2 + 10 + 400 + 400."""
    agent = make_agent("linucb", Specs(movie_features.spec(3)))
    agent.model.theta.assign([[1.0, 10.0, 100.0, 1000.0]])
    expected = [[201.0, 401.0, -np.inf], [612.0, 812.0, 212.0]]
    for model in (agent, agent.policy):
        np.testing.assert_allclose(
            score_candidates(model, movie_features, USERS, CANDIDATES, MASK), expected, rtol=1e-6
        )
    monkeypatch.setattr(offline, "PAIRS_PER_CALL", 1)
    np.testing.assert_allclose(score_candidates(agent, movie_features, USERS, CANDIDATES, MASK), expected, rtol=1e-6)
    np.testing.assert_allclose(score_candidates(agent, movie_features, [9], [[3, 4, 1]]), expected[1:], rtol=1e-6)


@pytest.mark.parametrize(
    ("users", "candidates", "mask", "message"),
    [
        ([7, 9, 7], [[1, 2]], None, r"shape of candidates must be \[3, k\], got \[1, 2\]"),
        ([7], [[]], None, "number of candidates must be at least 1, got 0"),
        ([7], [[1, 2]], [[True]], r"shape of mask must be \[1, 2\], got \[1, 1\]"),
    ],
)
def test_shapes_that_do_not_fit_together_are_refused(users, candidates, mask, message, movie_features):
    factors = als(pd.DataFrame({"user_id": [7], "movie_id": [1], "rating": [5.0]}), rank=0)
    agent = make_agent("linucb", Specs(movie_features.spec(3)))
    for model, features in ((factors, None), (agent, movie_features)):
        with pytest.raises(ValueError, match=message):
            score_candidates(model, features, users, candidates, mask)


def test_factorisations_are_scored_by_ids_and_two_baselines_are_among_them():
    """User and item bias is rank 0; the global mean is rank 0 with an infinite penalty on the biases."""
    ratings = pd.DataFrame({"user_id": [7, 7, 9], "movie_id": [1, 2, 1], "rating": [5.0, 3.0, 1.0]})
    mean = score_candidates(
        als(ratings, rank=0, bias_regularization=np.inf), None, [7, 9], [[1, 2], [2, 0]], [[1, 1], [1, 0]]
    )
    np.testing.assert_allclose(mean, [[3.0, 3.0], [3.0, -np.inf]])
    biases = score_candidates(als(ratings, rank=0, bias_regularization=0), None, [7, 9], [[1, 2], [1, 2]])
    np.testing.assert_allclose(biases, [[5.0, 3.0], [1.0, -1.0]], atol=0.05)


def test_doubly_robust_rewards_correct_the_chosen_candidate_alone(movie_features, log):
    """Rewards q + (reward - q) / propensity: 3 + (4 - 3) / 0.5 = 5 and 1 + (2 - 1) / 0.25 = 5; padding is left out."""
    q = np.array([[2.0, 3.0, np.nan], [0.5, 1.0, 1.5]])
    rows = make_doubly_robust_examples(log, movie_features.features, q)
    np.testing.assert_allclose(rows.reward, [2.0, 5.0, 0.5, 5.0, 1.5])
    np.testing.assert_array_equal(rows.context, movie_features.encode_users([7, 7, 9, 9, 9]))
    np.testing.assert_array_equal(rows.arm, movie_features.encode_movies([1, 2, 3, 4, 1]))
    np.testing.assert_array_equal(rows.propensity, 1.0)
    np.testing.assert_array_equal(rows.pass_prob, [1.0, 1.0, 0.5, 0.5, 0.5])
    assert len(set(rows.event)) == 5
    np.testing.assert_array_equal(rows.event[[1, 3]], make_examples(log, movie_features.features).event)
