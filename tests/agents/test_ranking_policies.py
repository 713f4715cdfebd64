"""Slates and their probabilities: against TF-Agents' policies, against enumeration, against the frequency of draws."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tf_agents.bandits.policies import ranking_policy

from recbandits.agents.agent import GLOBAL, PER_ARM, SeedStream
from recbandits.agents.factory import make_agent
from recbandits.agents.ranking.policy import SlatePolicy, slotted
from tests.agents.slate_specs import Specs

SPECS = Specs(items=4, slots=2)
EVERY = np.array(list(itertools.permutations(range(4), 2)))
SAMPLINGS = {
    "plackett_luce": {"temperature": 0.5},
    "cosine": {"temperature": 0.5, "penalty": 2.0},
    "best": {"greedy": True},
    "best cosine": {"temperature": 0.5, "penalty": 2.0, "greedy": True},
}
each_sampling = pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)


def make_policy(sampling, specs=SPECS):
    """Scores are the first feature of the items."""
    return SlatePolicy(
        specs.time_step_spec(),
        specs.action_spec(),
        lambda observation, seed: observation[PER_ARM][:, :, 0],
        SeedStream(0),
        **sampling,
    )


def repeated(observation, n):
    return tf.nest.map_structure(lambda part: tf.repeat(part[:1], n, axis=0), observation)


def compute_slate_probabilities(policy, observation):
    """Probability of each slate of `EVERY` for the first user of an observation."""
    return policy.propensities(repeated(observation, len(EVERY)), EVERY).numpy().prod(axis=1)


def count_slates(slates):
    return np.array([(slates == slate).all(axis=1).sum() for slate in EVERY])


@each_sampling
def test_slates_are_drawn_as_often_as_the_product_of_their_propensities_says(sampling):
    """50,000 slates of 2 out of 4 items: chi-square over all 12; the products add up to 1."""
    policy, observation, n = make_policy(sampling), SPECS.observation(1), 50_000
    p = compute_slate_probabilities(policy, observation)
    assert p.sum() == pytest.approx(1.0)
    counts = count_slates(policy.action(SPECS.time_step(repeated(observation, n))).action.numpy())
    assert (counts[p == 0] == 0).all()
    if (p > 0).sum() > 1:
        assert stats.chisquare(counts[p > 0], n * p[p > 0]).pvalue > 1e-3


@each_sampling
def test_the_next_slot_given_those_above_is_a_distribution_over_the_items_left(sampling):
    """Its entry at the item of a slate is the propensity of that slot; the first one is `probabilities`."""
    specs = Specs(items=6, slots=4)
    policy, observation = make_policy(sampling, specs), specs.observation(20)
    slate = np.random.default_rng(0).permuted(np.tile(np.arange(6, dtype=np.int32), (20, 1)), axis=1)[:, :4]
    propensities = policy.propensities(observation, slate).numpy()
    for slot in range(4):
        p = policy.conditional(observation, slate[:, :slot]).numpy()
        np.testing.assert_allclose(p.sum(axis=1), 1.0)
        assert (np.take_along_axis(p, slate[:, :slot], axis=1) == 0.0).all()
        np.testing.assert_allclose(np.take_along_axis(p, slate[:, slot : slot + 1], 1)[:, 0], propensities[:, slot])
    first = policy.probabilities(observation)
    np.testing.assert_array_equal(first, policy.conditional(observation, np.zeros((20, 0), np.int32)))


@pytest.mark.parametrize("name", ["plackett_luce", "best", "best cosine"])
def test_position_propensities_are_the_probabilities_of_all_slates_added_up(name):
    policy, observation = make_policy(SAMPLINGS[name]), SPECS.observation(1)
    p = compute_slate_probabilities(policy, observation)
    expected = np.stack([np.bincount(column, weights=p, minlength=4) for column in EVERY.T])
    propensities = policy.position_propensities(repeated(observation, len(EVERY)), EVERY)
    np.testing.assert_allclose(propensities, expected[[0, 1], EVERY], atol=1e-11)


def test_propensities_without_a_formula_are_refused():
    policy, observation = make_policy(SAMPLINGS["cosine"]), SPECS.observation(2)
    with pytest.raises(ValueError, match=r"penalty for similarity must be 0 for position propensities .*, got 2\.0"):
        policy.position_propensities(observation, EVERY[:2])
    thompson = make_agent("cascading_lints", SPECS)
    collect = thompson.collect_policy
    for method in (collect.propensities, collect.position_propensities):
        with pytest.raises(ValueError, match="CascadingLinTS has no exact propensities, because it draws its scores"):
            method(observation, EVERY[:2])
    with pytest.raises(ValueError, match="CascadingLinTS has no exact propensities"):
        collect.probabilities(observation)
    greedy_slate = thompson.policy.action(SPECS.time_step(observation)).action  # by the estimates, without chance
    np.testing.assert_array_equal(thompson.policy.propensities(observation, greedy_slate), 1.0)


def network_policies(specs, kind, **options):
    """TF-Agents' policy on the network of an agent of ours, and that agent."""
    names = {
        "descending_scores": ranking_policy.DescendingScoreRankingPolicy,
        "no_penalty": ranking_policy.NoPenaltyRankingPolicy,
        "cosine_distance": ranking_policy.PenalizeCosineDistanceRankingPolicy,
    }
    agent = make_agent("ranking", specs, policy=kind, temperature=0.2, penalty=options.get("penalty", 1.0), seed=3)
    if kind != "descending_scores":
        options["logits_temperature"] = 0.2
    if "penalty" in options:
        options["penalty_mixture_coefficient"] = options.pop("penalty")
    reference = names[kind](specs.items, specs.slots, specs.time_step_spec(), agent.model.network, **options)
    return reference, agent


def test_descending_scores_are_tf_agents_slates():
    specs = Specs(items=9, slots=4)
    reference, agent = network_policies(specs, "descending_scores")
    time_step = specs.time_step(specs.observation(500))
    expected = reference.action(time_step).action
    for slate_policy in (agent.collect_policy, agent.policy, network_policies(specs, "no_penalty")[1].policy):
        np.testing.assert_array_equal(slate_policy.action(time_step).action, expected)


def test_plackett_luce_slates_have_tf_agents_probability():
    """All 4 items slotted: the logarithm of the product of ours is `log_prob` of their distribution."""
    specs = Specs(items=4, slots=4)
    reference, agent = network_policies(specs, "no_penalty")
    observation = specs.observation(24)
    every = np.array(list(itertools.permutations(range(4))), np.int32)
    expected = reference.distribution(specs.time_step(observation)).action.log_prob(every)
    propensities = agent.collect_policy.propensities(observation, every).numpy()
    np.testing.assert_allclose(np.log(propensities).sum(axis=1), expected, rtol=1e-4)


def test_the_penalty_for_similarity_is_that_of_tf_agents_after_every_slot():
    """Their logits after each item of a fixed slate, as probabilities, against ours given those above."""
    specs = Specs(items=7, slots=5)
    reference, agent = network_policies(specs, "cosine_distance", penalty=1.7)
    observation = specs.observation(30)
    slate = np.random.default_rng(1).permuted(np.tile(np.arange(7, dtype=np.int32), (30, 1)), axis=1)[:, :5]
    distribution = reference.distribution(specs.time_step(observation)).action
    logits, previous_items = distribution.scores, []
    for slot in range(5):
        conditional = agent.collect_policy.conditional(observation, slate[:, :slot])
        np.testing.assert_allclose(conditional, tf.nn.softmax(logits), rtol=2e-4, atol=1e-7)
        previous_items.append(tf.constant(slate[:, slot]))
        logits = logits - tf.one_hot(previous_items[-1], 7, on_value=np.inf)
        logits = distribution._penalizer_fn(logits, observation[PER_ARM], previous_items)


def test_a_seed_repeats_a_slate():
    specs = Specs(items=9, slots=4)
    agent = make_agent("ranking", specs, policy="cosine_distance", temperature=0.2)
    time_step = specs.time_step(specs.observation(200))
    first, again, other, free = (
        agent.collect_policy.action(time_step, seed=seed).action.numpy() for seed in (5, 5, 6, None)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != free).any()


def test_a_penalty_prefers_items_unlike_the_first():
    """Scores 3, 2.9, -1; the second item points as the first one, the third one away: a penalty of 2 swaps them."""
    specs = Specs(items=3, slots=2, context=1, arm=2)
    observation = {GLOBAL: tf.ones([1, 1]), PER_ARM: tf.constant([[[3.0, 0.0], [2.9, 0.0], [-1.0, 0.0]]])}
    slates = [
        make_policy({"penalty": penalty, "greedy": True}, specs).action(specs.time_step(observation)).action.numpy()
        for penalty in (0.0, 2.0)
    ]
    np.testing.assert_array_equal(slates, [[[0, 1]], [[0, 2]]])
    p = make_policy({"penalty": 2.0}, specs).conditional(observation, np.array([[0]])).numpy()
    expected = np.exp([2.9 - 2.0 * (1 + 1), -1.0 - 2.0 * (1 - 1)])
    np.testing.assert_allclose(p[0, 1:], expected / expected.sum(), rtol=1e-6)


def test_slotting_keeps_the_items_of_a_slate_in_the_order_of_the_slots():
    """The slates of users 0 and 1 are (2, 0) and (1, 3); NumPy as TensorFlow."""
    observation = {GLOBAL: np.zeros((2, 3), np.float32), PER_ARM: np.arange(8.0, dtype=np.float32).reshape(2, 4, 1)}
    slate = np.array([[2, 0], [1, 3]])
    inputs = slotted(observation, slate)
    np.testing.assert_array_equal(inputs[PER_ARM], [[[2.0], [0.0]], [[5.0], [7.0]]])
    assert inputs[GLOBAL] is observation[GLOBAL]
    tensors = slotted(tf.nest.map_structure(tf.constant, observation), tf.constant(slate))
    np.testing.assert_array_equal(tensors[PER_ARM], inputs[PER_ARM])
