"""Every agent by name: it learns, respects masks, is reproducible; unsuitable values are refused."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tf_agents.policies import policy_saver
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from recbandits.agents import parameters
from recbandits.agents.agent import GLOBAL, PER_ARM
from recbandits.agents.factory import NAMES, make_agent
from recbandits.environments import StationaryLinearEnvironment
from recbandits.training.online import simulate
from tests.variables import assert_values

LEARNERS = ["linucb", "lints", "epsilon_greedy", "boltzmann", "squarecb", "neural_linucb", "exp3_mixture"]
QUICK = {name: {"learning_rate": 0.01} for name in ("epsilon_greedy", "boltzmann", "squarecb")}
QUICK["neural_linucb"] = {"learning_rate": 0.01, "pretrain_steps": 100}


def make_environment(**options):
    return StationaryLinearEnvironment(**({"num_actions": 5, "context_size": 3, "batch_size": 16} | options))


@pytest.mark.parametrize("per_arm", [False, True])
def test_agents_end_far_below_the_regret_of_the_best_fixed_arm_and_of_uniform_and_the_oracle_has_none(per_arm):
    """Last of 4 windows, users and noise in common; masks, noise and both kinds of observation at once."""
    environment = make_environment(per_arm=per_arm, available=0.8, reward_noise=0.1)
    runs = simulate(environment, {name: NAMES[name](**QUICK.get(name, {})) for name in NAMES}, steps=400, points=4)
    last = runs[runs["step"] == 400].set_index("agent")["regret"]
    assert last["oracle"] == 0.0 < last["best_fixed_arm"] < last["uniform"]
    assert (last[LEARNERS] < 0.25 * last["uniform"]).all(), last
    assert (last[LEARNERS] < 0.75 * last["best_fixed_arm"]).all(), last


@pytest.mark.parametrize("name", ["lints", "exp3_mixture"])
def test_masked_arms_are_never_played_by_agents_without_probabilities(name):
    environment = make_environment(available=0.3, batch_size=500, per_arm=True)
    agent = make_agent(name, environment)
    time_step = environment.reset()
    for policy in (agent.policy, agent.collect_policy):
        action = policy.action(time_step).action.numpy()
        assert time_step.observation[1].numpy()[np.arange(500), action].all()


def test_weights_depend_on_their_seed_alone():
    weights = []
    for global_seed, seed in ((1, 5), (2, 5), (1, 6)):
        tf.random.set_seed(global_seed)
        weights.append(make_agent("epsilon_greedy", make_environment(), seed=seed).model.network.variables[0].numpy())
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.allclose(weights[0], weights[2])


def test_policies_give_the_features_of_the_chosen_arm_as_tf_agents_expects():
    environment = make_environment(per_arm=True)
    agent = make_agent("linucb", environment)
    time_step = environment.reset()
    step = agent.collect_policy.action(time_step)
    expected = time_step.observation[PER_ARM].numpy()[np.arange(16), step.action]
    np.testing.assert_array_equal(step.info.chosen_arm_features, expected)
    assert set(agent.training_data_spec.observation) == {GLOBAL}


@pytest.mark.parametrize("name", ["epsilon_greedy", "neural_linucb", "exp3_mixture"])  # the last one of LinUCB
def test_a_saved_policy_acts_as_the_agent(name, tmp_path):
    environment = make_environment(per_arm=True)
    agent = make_agent(name, environment)
    simulate(environment, agent, steps=20)
    policy_saver.PolicySaver(agent.policy).save(str(tmp_path / "policy"))
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    observation = environment.batch().observation
    time_step = ts.restart(observation, batch_size=16)
    for _ in range(2):  # the saved mixture continues the agent's stream of seeds
        np.testing.assert_array_equal(loaded.action(time_step).action, agent.policy.action(time_step).action)


def test_exp3_favours_the_better_agent():
    """LinUCB against a mixture member that learns nothing (tikhonov so large that it always plays arm 0)."""
    environment = make_environment()
    constant_agent = parameters.LinUCB(alpha=0.0, tikhonov=1e12)
    mixture = parameters.Exp3Mixture(agents=(parameters.LinUCB(), constant_agent), gamma=0.1, reward_range=(-5.0, 5.0))
    agent = make_agent(mixture, environment)
    simulate(environment, agent, steps=300)
    assert agent.probabilities[0] > 0.9


def test_pretraining_ends_after_its_steps_and_the_linear_model_takes_over():
    environment = make_environment()
    agent = make_agent("neural_linucb", environment, pretrain_steps=5)
    simulate(environment, agent, steps=5)
    assert agent.model.linear.count.numpy().sum() == 0
    weights = [variable.numpy() for variable in agent.model.trainable_variables]
    simulate(environment, agent, steps=4, seeds=[1])
    assert agent.model.linear.count.numpy().sum() == 4 * 16
    assert_values(weights, agent.model.trainable_variables)


def count_draws(policy, observation, times):
    """Count the draws of each arm for each user, int [users, arms]; baselines know the users of one batch only."""

    @tf.function(autograph=False)
    def act():
        action = tf.map_fn(lambda _: policy.action(ts.restart(observation, 2)).action, tf.range(times))
        return tf.transpose(action)

    return np.stack([np.bincount(actions, minlength=5) for actions in act().numpy()])


@pytest.mark.parametrize("name", ["linucb", "boltzmann", "neural_linucb", "uniform", "best_fixed_arm", "oracle"])
def test_probabilities_are_the_frequencies_of_the_actions(name):
    """A trained agent acts 10,000 times for 2 users: chi-square for each of them, collecting and serving."""
    environment = make_environment(available=0.6, batch_size=2)
    agent = make_agent(name, environment)
    simulate(environment, agent, steps=30)
    batch = environment.batch()
    for policy in (agent.collect_policy, agent.policy):
        p = policy.probabilities(batch.observation).numpy().astype(float)
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-5)
        mask = batch.mask.numpy()
        assert (p[~mask] == 0.0).all()
        if name == "uniform":
            np.testing.assert_allclose(p, mask / mask.sum(axis=1, keepdims=True), rtol=1e-5)
        for count, expected in zip(count_draws(policy, batch.observation, 10_000), 10_000 * p, strict=True):
            assert (count[expected == 0] == 0).all()
            possible = expected > 0
            if possible.sum() > 1:
                expected = expected[possible] * (10_000 / expected.sum())
                assert stats.chisquare(count[possible], expected).pvalue > 1e-4


def test_propensities_are_the_formula_when_collecting_and_0_or_1_when_serving():
    """Epsilon 0.3 with 5 arms: 0.76 on the best and 0.06 on the others."""
    environment = make_environment()
    agent = make_agent("epsilon_greedy", environment, epsilon=0.3)
    observation = environment.batch().observation
    collect_probabilities = np.sort(agent.collect_policy.probabilities(observation).numpy(), axis=1)
    np.testing.assert_allclose(collect_probabilities, [[0.06] * 4 + [0.76]] * 16, rtol=1e-5)
    greedy_probabilities = np.sort(agent.policy.probabilities(observation).numpy(), axis=1)
    np.testing.assert_array_equal(greedy_probabilities, [[0.0] * 4 + [1.0]] * 16)


@pytest.mark.parametrize(("name", "agent_name"), [("lints", "LinTS"), ("exp3_mixture", "the EXP3 mixture")])
def test_propensities_without_a_formula_are_refused(name, agent_name):
    environment = make_environment()
    agent = make_agent(name, environment)
    with pytest.raises(ValueError, match=f"{agent_name} has no exact propensities, .* explore around the estimates"):
        agent.collect_policy.probabilities(environment.batch().observation)
    if name == "lints":  # which serves by its estimates
        assert (agent.policy.probabilities(environment.batch().observation).numpy().max(axis=1) == 1.0).all()


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("linucb", {"tikhonov": 0.0}, "LinUCB: tikhonov must be positive and finite, got 0.0"),
        ("linucb", {"alpha": -1.0}, "LinUCB: alpha must be 0 or more and finite, got -1.0"),
        ("lints", {"gamma": 0.0}, r"LinTS: gamma must be in \(0, 1\], got 0.0"),
        ("epsilon_greedy", {"epsilon": 1.1}, r"EpsilonGreedy: epsilon must be in \[0, 1\], got 1.1"),
        ("boltzmann", {"temperature": 0.0}, "Boltzmann: temperature must be positive and finite, got 0.0"),
        ("squarecb", {"gamma": 0.0}, "SquareCB: gamma must be positive and finite, got 0.0"),
        ("squarecb", {"network": "tower"}, "SquareCB: network must be one of common_tower, dot_product, got 'tower'"),
        ("neural_linucb", {"encoding": 2.5}, "NeuralLinUCB: encoding must be a whole number of at least 1, got 2.5"),
        ("neural_linucb", {"pretrain_steps": 2.5}, "pretrain_steps must be a whole number of at least 0, got 2.5"),
        ("linucb", {"alpha": "x"}, "alpha must be 0 or more and finite, got 'x'"),
        ("boltzmann", {"layers": 64}, "layers must be a tuple of positive whole numbers, got 64"),
        ("exp3_mixture", {"agents": (parameters.LinUCB(),)}, "agents must be two or more LinUCB or LinTS"),
        ("exp3_mixture", {"agents": None}, "Exp3Mixture: agents must be two or more LinUCB or LinTS, got None"),
        ("exp3_mixture", {"reward_range": 5}, r"Exp3Mixture: reward_range must be \(lowest, highest\), .*, got 5"),
        ("exp3_mixture", {"reward_range": ("a", "b")}, r"Exp3Mixture: reward_range must be .*, got \('a', 'b'\)"),
        ("exp3_mixture", {"reward_range": (1.0, 1.0)}, "lowest below highest"),
        ("exp3_mixture", {"reward_range": (0.0, float("inf"))}, "finite, with lowest below highest"),
        ("linucb", {"alfa": 1.0}, "parameter of linucb must be one of alpha, tikhonov, .*, got 'alfa'"),
        ("lin_ucb", {}, "agent must be one of linucb, lints, .*, got 'lin_ucb'"),
        (parameters.LinUCB(), {"alpha": 1.0}, "parameters must come with a name"),
        ("linucb", {"seed": -1}, r"seed must be a whole number from 0 to 2\*\*63 - 1, got -1"),
        (42, {}, "agent must be a name .* or parameters of one, got 42"),
    ],
)
def test_unsuitable_parameters_are_refused(name, values, message):
    with pytest.raises(ValueError, match=message):
        make_agent(name, make_environment(), **values)


def test_an_oracle_needs_an_environment_that_knows_its_rewards():
    class Specs:
        time_step_spec = make_environment().time_step_spec
        action_spec = make_environment().action_spec

    with pytest.raises(ValueError, match="the environment of Oracle must be one of recbandits"):
        make_agent("oracle", Specs())


VECTOR, ACTION = tensor_spec.TensorSpec([4], tf.float32), tensor_spec.BoundedTensorSpec([], tf.int32, 0, 4)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (VECTOR, tensor_spec.BoundedTensorSpec([], tf.int32, 1, 4), "actions must be single int32 numbers from 0"),
        (VECTOR, tensor_spec.BoundedTensorSpec([2], tf.int32, 0, 4), "actions must be single int32 numbers from 0"),
        (tensor_spec.TensorSpec([], tf.float32), ACTION, "the shape of an observation must be"),
        ({"user": VECTOR}, ACTION, r"must be 'global' \[context\], or that .* got {'user': \[4\]}"),
        ({GLOBAL: VECTOR, PER_ARM: tensor_spec.TensorSpec([7, 2], tf.float32)}, ACTION, r"'per_arm' \[5, features\]"),
    ],
)
def test_an_environment_that_does_not_fit_is_refused(observation, action, message):
    class Specs:
        def time_step_spec(self):
            return ts.time_step_spec(observation)

        def action_spec(self):
            return action

    with pytest.raises(ValueError, match=message):
        make_agent("linucb", Specs())


def test_a_mask_without_any_arm_is_refused_in_and_outside_a_graph():
    agent = make_agent("linucb", make_environment(available=0.5))
    time_step = ts.restart((tf.ones([2, 4]), tf.constant([[1, 0, 0, 0, 0], [0] * 5])), batch_size=2)
    for act in (agent.policy.action, tf.function(agent.policy.action, autograph=False)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="a mask must leave an arm"):
            act(time_step)


def test_serving_does_not_change_the_actions_of_collecting():
    environment = make_environment()
    time_step = environment.reset()
    serving, other = (make_agent("lints", environment, seed=1) for _ in range(2))
    for _ in range(3):
        serving.policy.action(time_step)
    for _ in range(3):
        np.testing.assert_array_equal(
            serving.collect_policy.action(time_step).action, other.collect_policy.action(time_step).action
        )


def test_a_seed_makes_one_action_reproducible():
    environment = make_environment(batch_size=200)
    agent, time_step = make_agent("uniform", environment), environment.reset()
    first, again, other, free = (
        agent.collect_policy.action(time_step, seed=seed).action.numpy() for seed in (5, 5, 6, None)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != free).any()


@pytest.mark.parametrize(
    ("per_arm", "observation", "message"),
    [
        (False, tf.ones([2, 7]), r"observation 'global' must have shape \[batch, 4\], got \[2, 7\]"),
        (
            True,
            {GLOBAL: tf.ones([2, 3]), PER_ARM: tf.ones([2, 9, 6])},
            r"observation 'per_arm' must have shape \[batch, 5, 6\], got \[2, 9, 6\]",
        ),
    ],
)
def test_observations_of_another_shape_are_refused(per_arm, observation, message):
    agent = make_agent("linucb", make_environment(per_arm=per_arm))
    with pytest.raises(ValueError, match=message):
        agent.policy.action(ts.restart(observation, batch_size=2))


def test_observations_of_float64_are_refused_by_name():
    """They failed as a product of matrices of two types when the agent was asked for its first action."""
    spec = {"global": tensor_spec.TensorSpec([3], tf.float64, "global"), "per_arm": tensor_spec.TensorSpec([2, 4])}

    class Specs:
        def time_step_spec(self):
            return ts.time_step_spec(spec)

        def action_spec(self):
            return tensor_spec.BoundedTensorSpec([], tf.int32, 0, 1)

    with pytest.raises(ValueError, match="observations must be float32, got \"'global' of float64\""):
        make_agent("linucb", Specs())


def test_scores_and_probabilities_take_observations_of_any_number_type():
    agent = make_agent("epsilon_greedy", make_environment())
    observation = make_environment().batch().observation
    expected = agent.collect_policy.probabilities(observation)
    for same in (tf.cast(observation, tf.float64), observation.numpy(), observation.numpy().astype(float)):
        np.testing.assert_array_equal(agent.collect_policy.probabilities(same), expected)
