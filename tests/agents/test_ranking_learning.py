"""Ranking agents that learn from slates: TF-Agents' losses, a NumPy oracle, and position bias in closed form."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.bandits.agents import ranking_agent
from tf_agents.bandits.networks import global_and_arm_feature_network as networks

from recbandits.agents.agent import GLOBAL, PER_ARM
from recbandits.agents.factory import make_agent
from tests.agents.slate_specs import Specs, experience
from tests.variables import assert_values

FEEDBACK = ("score_vector", "cascading")


def decisions(specs, n, seed=0):
    """Observation, slates and feedback of n users, with clicks at random and some slates without any."""
    generator = np.random.default_rng(seed)
    slate = generator.permuted(np.tile(np.arange(specs.items, dtype=np.int32), (n, 1)), axis=1)[:, : specs.slots]
    if not isinstance(specs.reward, dict):
        clicks = (generator.random(slate.shape) < 0.4).astype(np.float32)
        return specs.observation(n, seed), slate, tf.constant(clicks)
    index = generator.integers(0, specs.slots + 1, n).astype(np.int32)
    value = np.where(index < specs.slots, 1.0, 0.0).astype(np.float32)
    return specs.observation(n, seed), slate, {"chosen_index": tf.constant(index), "chosen_value": tf.constant(value)}


def make_tf_agents_agent(specs, agent, **options):
    """TF-Agents' agent with a network that starts as the one of an agent of ours, and the same optimiser."""
    spec = specs.time_step_spec()
    network = networks.create_feed_forward_common_tower_network(spec.observation, (8,), (8,), (8,))
    network.create_variables()
    for variable, value in zip(network.variables, agent.model.network.variables, strict=True):
        variable.assign(value)
    model = ranking_agent.FeedbackModel["CASCADING" if isinstance(specs.reward, dict) else "SCORE_VECTOR"]
    optimizer = tf.keras.optimizers.Adam(0.01)
    return ranking_agent.RankingAgent(
        spec, specs.action_spec(), network, optimizer, feedback_model=model, enable_summaries=False, **options
    )


def ranking(specs, **options):
    return make_agent("ranking", specs, layers=(8,), learning_rate=0.01, **options)


@pytest.mark.parametrize(
    ("bias", "positive_only", "feedback"),
    [
        ("none", False, "score_vector"),
        ("none", False, "cascading"),
        ("base", False, "score_vector"),
        ("exponent", False, "cascading"),
        ("base", True, "score_vector"),
        ("exponent", True, "score_vector"),
    ],
)
def test_it_learns_as_tf_agents_ranking_agent_from_the_same_slates(bias, positive_only, feedback):
    """Losses and variables after each of three steps; slates of the first step have weights of their own."""
    specs = Specs(feedback=feedback)
    learner = ranking(specs, position_bias=bias, severity=1.7, positive_only=positive_only)
    kind = None if bias == "none" else bias
    other = make_tf_agents_agent(
        specs,
        learner,
        positional_bias_type=kind,
        positional_bias_severity=1.7,
        positional_bias_positive_only=positive_only,
    )
    learner_spec, other_spec = (tf.nest.flatten(agent.training_data_spec) for agent in (learner, other))
    assert [(part.shape, part.dtype) for part in learner_spec] == [(part.shape, part.dtype) for part in other_spec]
    for step in range(3):
        batch = experience(*decisions(specs, 16, step))
        weights = None if step or positive_only else tf.linspace(0.5, 2.0, 16)
        losses = learner.loss(batch, weights).loss, learner.train(batch, weights).loss
        np.testing.assert_allclose(losses, [other.train(batch, weights).loss] * 2, rtol=1e-5)
        assert_values(learner.model.network.variables, other._scoring_network.variables, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bias", ["base", "exponent"])
def test_weighing_positives_only_leaves_the_slots_below_a_click_without_weight(bias):
    """The loss written down: errors down to the click, whose own is weighed."""
    specs = Specs(feedback="cascading")
    agent = ranking(specs, position_bias=bias, severity=1.7, positive_only=True, non_click_score=-0.5)
    observation, slate, feedback = decisions(specs, 32)
    batch, index = experience(observation, slate, feedback), feedback["chosen_index"].numpy()[:, None]
    score = agent.model.scores(tf.nest.map_structure(lambda part: part[:, 0], batch.observation)).numpy()
    slots = np.arange(3)
    target = np.where(slots == index, 1.0, np.where(slots < index, -0.5, 0.0))
    bias_weight = (slots + 1) ** 1.7 if bias == "base" else 1.7**slots
    weight = np.where(slots == index, bias_weight, slots < index) * np.linspace(0.5, 2.0, 32)[:, None]
    expected = (weight * (target - score) ** 2).sum() / weight.sum()
    sample = tf.constant(np.linspace(0.5, 2.0, 32), tf.float32)
    np.testing.assert_allclose(agent.loss(batch, sample).loss, expected, rtol=1e-5)


ATTRACTION, FIRST, SEVERITY = np.array([0.3, 0.6]), np.array([0.75, 0.25]), 1.3
EXAMINATION = np.array([1.0, 2.0**-SEVERITY])


def all_clicks():
    """Every slate of 2 items and every outcome with its probability: item 0 stands first three times in four."""
    slates, clicks, weights = [], [], []
    for slate, share in (((0, 1), FIRST[0]), ((1, 0), FIRST[1])):
        p = EXAMINATION * ATTRACTION[list(slate)]
        for outcome in itertools.product((0.0, 1.0), repeat=2):
            slates.append(slate)
            clicks.append(outcome)
            weights.append(share * np.prod(np.where(outcome, p, 1 - p)))
    return np.array(slates, np.int32), np.array(clicks, np.float32), np.array(weights, np.float32)


P = np.stack([FIRST, 1 - FIRST], axis=1)  # [items, slots]: where each item stands
EXAMINED = P @ EXAMINATION
SCORES = {
    ("none", False): EXAMINED * ATTRACTION,
    ("base", False): ATTRACTION / (P @ (1 / EXAMINATION)),
    ("base", True): ATTRACTION / (1 + ATTRACTION - ATTRACTION * EXAMINED),
    ("inverse_propensity", False): ATTRACTION,
}


@pytest.mark.parametrize(("bias", "positive_only"), SCORES)
def test_scores_under_position_bias_and_its_corrections_are_those_of_the_closed_form(bias, positive_only):
    """A network for 2 items, trained on the exact distribution of clicks, ends at the closed form.

    Attraction 0.3 and 0.6, examination 1 and 0.41: without correction 0.256 and 0.333, with weights 0.221 and 0.287,
    with weights of clicks alone 0.287 and 0.474; only the inverse propensity gives 0.3 and 0.6.
    """
    specs = Specs(items=3, slots=2, context=1, arm=2)
    agent = make_agent(
        "ranking", specs, layers=(8,), learning_rate=0.02, position_bias=bias, positive_only=positive_only
    )
    slate, clicks, weights = all_clicks()
    items = tf.tile(tf.eye(3, 2)[None], [8, 1, 1])
    observation = {GLOBAL: tf.ones([8, 1]), PER_ARM: items}
    batch = experience(observation, slate, tf.constant(clicks))

    @tf.function(autograph=False)
    def train():
        tf.while_loop(lambda step: step < 600, lambda step: (agent.train(batch, weights), step + 1)[1:], [0])

    train()
    scores = agent.model.scores(observation).numpy()[0, :2]
    np.testing.assert_allclose(scores, SCORES[bias, positive_only], atol=2e-3)


@pytest.mark.parametrize("feedback", FEEDBACK)
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_linear_statistics_equal_an_oracle_that_learns_slot_by_slot(feedback, gamma):
    """Under cascading feedback down to the click, or all slots without one; a score vector teaches all slots."""
    specs = Specs(feedback=feedback)
    agent = make_agent("cascading_linucb", specs, tikhonov=0.5, gamma=gamma)
    A, b, count = np.zeros((7, 7)), np.zeros(7), 0.0
    for step in range(4):
        observation, slate, reward = decisions(specs, 9, step)
        theta, errors = np.linalg.solve(A + 0.5 * np.eye(7), b), []
        A, b, count = gamma * A, gamma * b, gamma * count
        for user, items in enumerate(slate):
            for slot, item in enumerate(items):
                if feedback == "cascading":
                    click = int(reward["chosen_index"][user])
                    if slot > click:
                        continue
                    r = float(reward["chosen_value"][user]) if slot == click else 0.0
                else:
                    r = float(reward[user, slot])
                x = np.concatenate([observation[GLOBAL][user], observation[PER_ARM][user, item]]).astype(float)
                A, b, count = A + np.outer(x, x), b + r * x, count + 1
                errors.append((r - x @ theta) ** 2)
        batch = experience(observation, slate, reward)
        assert float(agent.loss(batch).loss) == pytest.approx(np.mean(errors), rel=1e-4)
        assert float(agent.train(batch).loss) == pytest.approx(np.mean(errors), rel=1e-4)
    model = agent.model
    np.testing.assert_allclose(model.covariance[0], A, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.response[0], b, rtol=1e-5, atol=1e-5)
    assert float(model.count[0]) == pytest.approx(count)
    np.testing.assert_allclose(model.theta[0], np.linalg.solve(A + 0.5 * np.eye(7), b), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("feedback", FEEDBACK)
def test_a_weight_of_2_is_a_slate_twice_and_a_weight_of_0_is_none(feedback):
    specs = Specs(feedback=feedback)
    observation, slate, reward = decisions(specs, 3)
    repeated = tf.nest.map_structure(lambda part: tf.gather(part, [0, 0, 2]), (observation, tf.constant(slate), reward))
    for name in ("ranking", "cascading_linucb"):
        weighted, plain = (make_agent(name, specs, seed=1) for _ in range(2))
        loss = weighted.train(experience(observation, slate, reward), tf.constant([2.0, 0.0, 1.0])).loss
        assert float(loss) == pytest.approx(float(plain.train(experience(*repeated)).loss), rel=1e-5)
        assert_values(weighted.model.variables, plain.model.variables, rtol=1e-3, atol=1e-4)


def test_optimism_is_alpha_widths_and_thompson_sampling_one_draw_a_slate():
    """20,000 draws: deviations have covariance (A + tikhonov I)^-1; equal items of one slate get equal scores."""
    specs = Specs()
    batch, observation = experience(*decisions(specs, 30)), specs.observation(2)
    ucb, ts = (make_agent(name, specs, tikhonov=1.0, alpha=2.0) for name in ("cascading_linucb", "cascading_lints"))
    for agent in (ucb, ts):
        agent.train(batch)
    model, zero = ucb.model, tf.constant([0, 0], tf.int64)
    inverse = np.linalg.inv(model.covariance.numpy()[0] + np.eye(7))
    draws = ts.model.sample(20_000, zero).numpy()
    np.testing.assert_allclose(np.cov(draws.T), inverse, atol=6 * inverse.max() * np.sqrt(2 / 20_000))
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=4 * np.sqrt(inverse.max() / 20_000))
    x = np.concatenate([np.repeat(observation[GLOBAL].numpy()[:, None], 5, axis=1), observation[PER_ARM]], axis=2)
    width = np.sqrt(np.einsum("nki,ij,nkj->nk", x, inverse, x))
    expected = x @ model.theta.numpy()[0] + 2.0 * width
    np.testing.assert_allclose(ucb.collect_policy.scores(observation, zero), expected, rtol=1e-4, atol=1e-4)
    uniform_observation = {GLOBAL: observation[GLOBAL], PER_ARM: tf.repeat(observation[PER_ARM][:, :1], 5, axis=1)}
    scores = ts.collect_policy.scores(uniform_observation, zero).numpy()
    np.testing.assert_allclose(scores, np.repeat(scores[:, :1], 5, axis=1), rtol=1e-5)
    mean = np.einsum("ni,i->n", x[:, 0], model.theta.numpy()[0])
    assert (np.abs(scores[:, 0] - mean) > 1e-3).all()
