"""Training from slates: sums against closed forms, networks against TF-Agents' own loop, and what must be refused."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recbandits.agents.factory import make_agent
from recbandits.data.examples import Examples
from recbandits.data.slates import SlateExamples
from recbandits.data.trajectories import gather_rows
from recbandits.environments import SyntheticRankingEnvironment
from recbandits.plots import read_histograms
from recbandits.training import epochs
from recbandits.training.experience import convert_examples
from recbandits.training.offline import Specs, fit
from tests.variables import assert_values, read_values

SIZE, SLOTS = 3, 4
QUICK = {"learning_rate": 0.01, "layers": (16,)}


def make_data(n, seed=0, noise=0.1):
    """Rewards 1 + context . arm + noise, of slates."""
    rng = np.random.default_rng(seed)
    context, arm = rng.normal(size=(n, SIZE)), rng.normal(size=(n, SLOTS, SIZE))
    reward = 1 + np.einsum("nd,nsd->ns", context, arm) + noise * rng.normal(size=(n, SLOTS))
    return SlateExamples(*(part.astype(np.float32) for part in (context, arm, reward)), np.arange(n) + 10_000 * seed)


def build_agent(name="ranking", feedback="score_vector", seed=0, **values):
    shapes = {"global": (SIZE,), "per_arm": (2 * SLOTS, SIZE)}
    return make_agent(name, Specs(shapes, SLOTS, feedback), seed=seed, **values)


def predicted(agent, data):
    context = np.repeat(data.context, SLOTS, axis=0)
    return agent.policy.score_pairs(context, data.arm.reshape(-1, SIZE)).numpy().reshape(-1, SLOTS)


@pytest.mark.parametrize("feedback", ["score_vector", "cascading"])
def test_a_linear_agent_sums_up_the_slots_that_count(feedback):
    """A score vector counts in all slots; of a cascade the slots above the click have reward 0, those below none."""
    data = make_data(100)
    reward, counts = data.reward.astype(float), np.ones((100, SLOTS))
    if feedback == "cascading":
        before = np.cumsum(data.reward > 0, axis=1) - (data.reward > 0)
        counts, reward = (before == 0).astype(float), np.where((before == 0) & (reward > 0), reward, 0)
    x = np.concatenate([np.repeat(data.context[:, None], SLOTS, axis=1), data.arm], axis=2).astype(float)
    covariance = np.einsum("nsi,ns,nsj->ij", x, counts, x)
    theta = np.linalg.solve(covariance + 0.5 * np.eye(2 * SIZE), np.einsum("nsi,ns->i", x, counts * reward))
    for batch_size in (7, 500):
        agent = build_agent("cascading_linucb", feedback, tikhonov=0.5)
        fit(agent, data, batch_size=batch_size)
        np.testing.assert_allclose(agent.model.covariance[0], covariance, rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(agent.model.theta[0], theta, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("network", ["common_tower", "dot_product"])
def test_networks_learn_from_slates_what_no_linear_agent_can(network):
    """The reward's variance is 3, its noise 0.01; without their products 3 is the least error."""
    agent, linear = build_agent(network=network, **QUICK), build_agent("cascading_linucb")
    history = fit(agent, make_data(1500), epochs=10, batch_size=16, validation=make_data(200, seed=1))
    assert history["validation_mse"].iloc[-1] < 0.5
    assert fit(linear, make_data(1500), validation=make_data(200, seed=1))["validation_mse"].item() > 2.0


@pytest.mark.parametrize("options", [{}, {"position_bias": "inverse_propensity"}])
def test_an_epoch_in_one_graph_is_the_loop_over_batches(options):
    """70 slates in batches of 16, the last one of 6, in the order of seed 5; the losses are averaged over slates."""
    agent, reference, data = build_agent(**QUICK, **options), build_agent(**QUICK, **options), make_data(70)
    history = fit(agent, data, batch_size=16, seed=5)
    order, parts = np.random.default_rng([5, 0]).permutation(70), convert_examples(reference, data)
    batches = [order[start : start + 16] for start in range(0, 70, 16)]
    losses = [reference.train(gather_rows(parts, tf.constant(batch, tf.int32))).loss for batch in batches]
    assert history["loss"].item() == pytest.approx(np.average(losses, weights=[len(b) for b in batches]), rel=1e-5)
    assert_values(read_values(agent), read_values(reference), rtol=1e-4, atol=1e-5)


def test_slates_reach_the_agent_as_its_environment_would_send_them():
    """The trajectory has the structure, the shapes and the types of the agent's training data."""
    for feedback in ("score_vector", "cascading"):
        environment = SyntheticRankingEnvironment(2 * SLOTS, SLOTS, 5, batch_size=2, feedback=feedback)
        shapes = {name: tuple(spec.shape) for name, spec in environment.observation_spec().items()}
        specs = Specs(shapes, SLOTS, feedback)
        assert specs.action_spec().shape == environment.action_spec().shape
        assert int(specs.action_spec().maximum) == int(environment.action_spec().maximum)
        agent, size = make_agent("ranking", specs), shapes["per_arm"][1]
        expected = tf.nest.map_structure(lambda spec: (spec.shape, spec.dtype), environment.time_step_spec())
        actual = tf.nest.map_structure(lambda spec: (spec.shape, spec.dtype), specs.time_step_spec())
        assert actual == expected
        data = SlateExamples(
            np.zeros((2, *shapes["global"])), np.zeros((2, SLOTS, size)), np.zeros((2, SLOTS)), np.arange(2)
        )
        inputs = gather_rows(convert_examples(agent, data), [0, 1])
        tf.nest.assert_same_structure(inputs, agent.training_data_spec)
        for tensor, spec in zip(tf.nest.flatten(inputs), tf.nest.flatten(agent.training_data_spec), strict=True):
            assert (tensor.shape, tensor.dtype) == ([2, 1, *spec.shape], spec.dtype)


def test_the_validation_error_is_the_loss_with_the_targets_of_the_feedback():
    """Scores s: mean (r - s)^2 of all slots; of a cascade the target is -1 above the click, nothing below it counts."""
    data, validation = make_data(60), make_data(90, seed=1)
    agent = build_agent(**QUICK)
    validation_mse = fit(agent, data, validation=validation)["validation_mse"].item()
    assert validation_mse == pytest.approx(np.square(predicted(agent, validation) - validation.reward).mean(), rel=1e-4)
    agent = build_agent(feedback="cascading", **QUICK)
    validation_mse = fit(agent, data, validation=validation)["validation_mse"].item()
    pleases = validation.reward > 0
    counts = np.cumsum(pleases, axis=1) - pleases == 0
    error = np.square(predicted(agent, validation) - np.where(pleases, validation.reward, -1.0))
    assert validation_mse == pytest.approx(error[counts].mean(), rel=1e-4)


def test_an_interrupted_training_ends_as_one_that_was_not(tmp_path, monkeypatch):
    """Interrupted in its third epoch of five, resumed by a new agent: the same weights, and each summary once.

    An agent that reads the same numbers as another feedback does not go on from there.
    """
    data, options = make_data(60), {"epochs": 5, "batch_size": 16, "validation": make_data(20, seed=1)}
    whole, interrupted, resumed = (build_agent(feedback="cascading", **QUICK) for _ in range(3))
    expected = fit(whole, data, **options)
    calls, error = itertools.count(), epochs.mean_squared_error
    options |= {"checkpoints": tmp_path / "checkpoints", "tensorboard": tmp_path / "events"}

    def until_the_third(*arguments):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return error(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(epochs, "mean_squared_error", until_the_third)
        with pytest.raises(KeyboardInterrupt):
            fit(interrupted, data, **options)
    history = fit(resumed, data, **options)
    assert_values(resumed.variables, whole.variables)
    assert history.drop(columns="seconds").equals(expected.drop(columns="seconds"))
    for histograms in read_histograms(tmp_path / "events").values():
        assert histograms.steps.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="belong to another training"):
        fit(build_agent(feedback="score_vector", **QUICK), data, **options)


def test_histograms_hold_the_variables_and_the_gradients_of_every_epoch(tmp_path):
    """The last bias is added to every score: the gradient of its mean squared error is twice the mean error."""
    data, plain, agent = make_data(50), build_agent(**QUICK), build_agent(**QUICK)
    start = 2 * (predicted(agent, data) - data.reward).mean()
    fit(agent, data, epochs=3, batch_size=16, tensorboard=tmp_path)
    fit(plain, data, epochs=3, batch_size=16)
    assert_values(agent.variables, plain.variables)
    histograms = read_histograms(tmp_path)
    names = [f"{tower} {part}" for tower in ("context 1", "arm 1", "head 1", "head 2") for part in ("kernel", "bias")]
    assert sorted(histograms) == sorted(f"{kind}/{name}" for kind in ("variables", "gradients") for name in names)
    for name, variable in zip(names, agent.model.network.trainable_variables, strict=True):
        last = histograms[f"variables/{name}"].buckets[-1]
        nonempty_buckets = last[last[:, 2] > 0]
        assert last[:, 2].sum() == np.size(variable)
        low, high = np.min(variable), np.max(variable)
        np.testing.assert_allclose([nonempty_buckets[0, 0], nonempty_buckets[-1, 1]], [low, high], rtol=1e-5, atol=1e-6)
    end = 2 * (predicted(agent, data) - data.reward).mean()
    gradient = histograms["gradients/head 2 bias"].percentiles([50])
    np.testing.assert_allclose(gradient[[0, -1], 0], [start, end], rtol=1e-4, atol=1e-4)


def test_agents_that_choose_one_arm_have_the_same_summaries(tmp_path):
    """Twice the mean error again; a linear agent has its curves alone."""
    slates = make_data(50)
    ones = np.ones(50, np.float32)
    data = Examples(slates.context, slates.arm[:, 0], slates.reward[:, 0], ones, ones, slates.event)
    specs = Specs({"global": (SIZE,), "per_arm": (5, SIZE)})
    agent, linear = make_agent("epsilon_greedy", specs, **QUICK), make_agent("linucb", specs)
    for epochs_of_a_training in (3, 2):  # the curves are those of the second one alone
        fit(agent, data, epochs=epochs_of_a_training, tensorboard=tmp_path / "network")
    error = agent.policy.score_pairs(data.context, data.arm).numpy() - data.reward
    gradient = read_histograms(tmp_path / "network")["gradients/head 2 bias"].percentiles([50])
    np.testing.assert_allclose(gradient[-1, 0], 2 * error.mean(), rtol=1e-4, atol=1e-4)
    events = EventAccumulator(str(tmp_path / "network"), purge_orphaned_data=False).Reload()
    assert [event.step for event in events.Tensors("loss")] == [1, 2]
    fit(linear, data, tensorboard=tmp_path / "linear")
    with pytest.raises(ValueError, match="directory must have at least one event file with histograms"):
        read_histograms(tmp_path / "linear")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"weights": "ips"}, "weights must be None for an agent that ranks, which weighs slots itself, got 'ips'"),
        ({"reward": np.zeros((5, 3))}, {}, r"shape of reward of examples must be \[5, 4\], got \[5, 3\]"),
        ({"arm": np.zeros((5, SLOTS, 2), np.float32)}, {}, r"arm of examples must be \[5, 4, 3\], got \[5, 4, 2\]"),
        ({"reward": np.full((5, SLOTS), np.nan)}, {}, "row 0, column 0: reward of examples must be finite, got nan"),
        ({"event": np.arange(5.0)}, {}, "examples: event must be int64, got dtype..float64"),
    ],
)
def test_slates_that_do_not_fit_the_agent_are_refused(change, options, message):
    with pytest.raises(ValueError, match=message):
        fit(build_agent(), make_data(5)._replace(**change), **options)


def test_ratings_are_no_cascade():
    """All of them are positive, so that the first movie of every list would be the one that was clicked."""
    rated = make_data(5)
    rated = rated._replace(reward=1 + abs(rated.reward))
    with pytest.raises(ValueError, match="examples: reward must be 0 where nothing was clicked"):
        fit(build_agent(feedback="cascading"), rated)
    fit(build_agent(), rated)


def test_each_kind_of_agent_has_its_kind_of_examples():
    slates, ones = make_data(5), np.ones(5, np.float32)
    single = Examples(slates.context, slates.arm[:, 0], slates.reward[:, 0], ones, ones, slates.event)
    with pytest.raises(ValueError, match=r"examples must be SlateExamples for an agent that ranks, got .*Examples"):
        fit(build_agent(), single)
    with pytest.raises(ValueError, match=r"validation must be SlateExamples for an agent that ranks, got .*Examples"):
        fit(build_agent(), slates, validation=single)
    bandit = make_agent("linucb", Specs({"global": (SIZE,), "per_arm": (5, SIZE)}))
    with pytest.raises(ValueError, match=r"examples must be Examples for an agent that chooses one arm, got .*Slate"):
        fit(bandit, slates)
    with pytest.raises(ValueError, match="agent must have a linear model or a network to learn from logs"):
        fit(build_agent("random_ranking"), slates)


@pytest.mark.parametrize(
    ("slots", "feedback", "message"),
    [
        (5, "score_vector", r"num_slots must be in \[1, 4\], below the number of items, got 5"),
        (2, "clicks", "feedback must be one of score_vector, cascading, got 'clicks'"),
    ],
)
def test_specs_of_slates_that_cannot_be_are_refused(slots, feedback, message):
    with pytest.raises(ValueError, match=message):
        Specs({"global": (3,), "per_arm": (5, 2)}, slots, feedback)
