"""Every agent that fills slates, by name: it learns, resumes, saves and scores; unsuitable values are refused."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import policy_saver
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from recbandits.agents.agent import GLOBAL, PER_ARM
from recbandits.agents.factory import make_agent
from recbandits.agents.parameters import NAMES
from recbandits.agents.ranking.parameters import RANKING_NAMES, Ranking
from recbandits.agents.ranking.policy import slotted
from recbandits.environments import (
    MovieLensRankingEnvironment,
    StationaryLinearEnvironment,
    SyntheticRankingEnvironment,
)
from recbandits.environments.clicks import Cascade, PositionBased
from recbandits.environments.factorization import als
from recbandits.training.online import simulate
from tests.agents.slate_specs import Specs, experience
from tests.environments.samples import features, table
from tests.variables import assert_values

QUICK = {"layers": (16,), "learning_rate": 0.01, "temperature": 0.02}
LEARNERS = {
    "no penalty": Ranking(**QUICK),
    "descending scores": Ranking(policy="descending_scores", **QUICK),
    "cosine distance": Ranking(policy="cosine_distance", penalty=0.2, **QUICK),
    "cascading_linucb": RANKING_NAMES["cascading_linucb"](),
    "cascading_lints": RANKING_NAMES["cascading_lints"](),
}
FEEDBACK = {"score_vector": PositionBased(), "cascading": Cascade()}
RANDOM = ("no penalty", "cosine distance", "cascading_lints")  # both models; random numbers that must continue
each_random_learner = pytest.mark.parametrize("parameters", [LEARNERS[name] for name in RANDOM], ids=RANDOM)


def make_environment(feedback="score_vector", batch_size=32):
    return SyntheticRankingEnvironment(
        num_items=12, num_slots=4, batch_size=batch_size, clicks=FEEDBACK[feedback], feedback=feedback
    )


def act(policy, environment):
    """Return the slates of a policy for the present users of an environment."""
    return policy.action(ts.restart(environment.batch().observation, environment.batch_size)).action


def learn(agent, environment, steps):
    """Serve and learn, step by step."""
    for _ in range(steps):
        batch, slate = environment.batch(), act(agent.collect_policy, environment)
        agent.train(experience(batch.observation, slate, environment.respond(batch, slate).feedback))
        environment.advance()


def slates(agent, environment):
    """Return the next slates of collecting and of serving."""
    return [act(policy, environment).numpy() for policy in (agent.collect_policy, agent.policy)]


@pytest.mark.parametrize("feedback", FEEDBACK)
def test_each_agent_comes_closer_to_the_optimal_slate_than_random_ones_do(feedback):
    """Regret of the last quarter of 300 steps, users and clicks in common: at most a third of that of random slates."""
    runs = simulate(make_environment(feedback), LEARNERS | {"random": "random_ranking"}, steps=300, points=4)
    last = runs[runs["step"] == 300].set_index("agent")["regret"]
    assert last[[*LEARNERS]].between(0, last["random"] / 3, inclusive="neither").all(), last


@each_random_learner
def test_serving_is_deterministic_and_does_not_change_the_slates_of_collecting(parameters):
    environment = make_environment()
    serving, other = (make_agent(parameters, environment, seed=1) for _ in range(2))
    greedy_slates = [act(serving.policy, environment).numpy() for _ in range(3)]
    for slate in greedy_slates[1:]:
        np.testing.assert_array_equal(slate, greedy_slates[0])
    for _ in range(3):
        np.testing.assert_array_equal(act(serving.collect_policy, environment), act(other.collect_policy, environment))


@each_random_learner
def test_a_restored_agent_continues_with_the_same_slates(parameters, tmp_path):
    environment = make_environment()
    agent = make_agent(parameters, environment, seed=1)
    learn(agent, environment, 3)
    path = tf.train.Checkpoint(agent=agent).save(str(tmp_path / "agent"))
    restored = make_agent(parameters, environment, seed=2)
    tf.train.Checkpoint(agent=restored).restore(path).assert_consumed()
    for each in (agent, restored):
        environment.restart(0, step=3)
        learn(each, environment, 2)
    assert_values(slates(restored, environment), slates(agent, environment))


@each_random_learner
def test_one_seed_one_agent_and_another_seed_another(parameters):
    environment, results = make_environment(batch_size=200), []
    for seed in (3, 3, 4):
        tf.random.set_seed(len(results))
        environment.restart(0)
        agent = make_agent(parameters, environment, seed)
        learn(agent, environment, 2)
        results.append([*slates(agent, environment), agent.model.variables[0].numpy()])
    assert_values(*results[:2])
    assert any((first != other).any() for first, other in zip(results[0], results[2], strict=True))


@each_random_learner
def test_a_saved_policy_fills_the_same_slates(parameters, tmp_path):
    environment = make_environment()
    agent = make_agent(parameters, environment)
    learn(agent, environment, 3)
    for name in ("policy", "collect_policy"):
        policy_saver.PolicySaver(getattr(agent, name)).save(str(tmp_path / name))
        loaded = tf.saved_model.load(str(tmp_path / name))
        for _ in range(2):  # the saved one continues the stream of random numbers
            time_step = ts.restart(environment.batch().observation, 32, environment.time_step_spec().reward)
            np.testing.assert_array_equal(loaded.action(time_step).action, act(getattr(agent, name), environment))


@pytest.mark.parametrize("parameters", [Ranking(**QUICK), RANKING_NAMES["cascading_linucb"]()])
def test_pairs_and_the_scorer_score_as_the_policy_does(parameters):
    environment = make_environment()
    agent = make_agent(parameters, environment)
    learn(agent, environment, 3)
    observation = environment.batch().observation
    context, arms = (observation[name].numpy() for name in (GLOBAL, PER_ARM))
    expected = agent.policy.scores(observation, tf.constant([0, 0])).numpy()
    pairs = agent.policy.score_pairs(np.repeat(context, 12, axis=0), arms.reshape(-1, arms.shape[2]))
    np.testing.assert_allclose(np.reshape(pairs, expected.shape), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(agent.policy.scorer().scores(context, arms), expected, rtol=1e-4, atol=1e-5)


def test_baselines_rank_by_the_scores_of_the_environment():
    """Slates of popularity, ALS and attraction are the columns with the largest of these, the first ones on ties."""
    factorization = als(table(), rank=2)
    environment = MovieLensRankingEnvironment(factorization, features(), num_items=10, num_slots=4, batch_size=16)
    batch, value = environment.batch(), {}
    scores = batch.baselines | {"optimal": batch.attraction}
    for name in ("popularity", "als", "optimal"):
        agent = make_agent(f"{name}_ranking", environment)
        slate = act(agent.collect_policy, environment)
        expected = np.argsort(-scores[name].numpy(), axis=1, kind="stable")[:, :4]
        np.testing.assert_array_equal(slate, expected)
        np.testing.assert_array_equal(agent.policy.propensities(batch.observation, slate), 1.0)
        value[name] = environment.respond(batch, slate).expected.numpy()
    np.testing.assert_allclose(value["optimal"], environment.respond(batch, slate).optimal, rtol=1e-6)
    assert (value["optimal"] >= value["popularity"] - 1e-6).all()


def test_random_slates_hold_every_item_in_every_slot_alike():
    """20,000 slates of 3 out of 5: a fifth each, within 4 standard errors, as the policy's probabilities."""
    specs, n = Specs(), 20_000
    agent, observation = make_agent("random_ranking", specs), specs.observation(n)
    for policy in (agent.policy, agent.collect_policy):
        slate = policy.action(specs.time_step(observation)).action.numpy()
        for column in slate.T:
            np.testing.assert_allclose(np.bincount(column) / n, 0.2, atol=4 * np.sqrt(0.16 / n))
        assert (np.sort(slate)[:, 1:] > np.sort(slate)[:, :-1]).all()
        few = tf.nest.map_structure(lambda part: part[:2], observation)
        np.testing.assert_allclose(policy.propensities(few, slate[:2]), [[1 / 5, 1 / 4, 1 / 3]] * 2)
        np.testing.assert_allclose(policy.position_propensities(few, slate[:2]), 0.2)


def test_the_training_spec_is_that_of_slotted_observations():
    specs = Specs()
    inputs = slotted(specs.observation(6), tf.zeros([6, 3], tf.int32))
    for name in ("ranking", "cascading_linucb", "random_ranking"):
        spec = make_agent(name, specs).training_data_spec
        assert {part: spec.observation[part].shape for part in inputs} == {
            part: inputs[part].shape[1:] for part in inputs
        }
        assert (spec.action, spec.policy_info) == ((), ())


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "ranking",
            {"policy": "best"},
            "Ranking: policy must be one of no_penalty, descending_scores, cosine_distance",
        ),
        ("ranking", {"temperature": 0.0}, "Ranking: temperature must be positive and finite, got 0"),
        ("ranking", {"penalty": -1.0}, "Ranking: penalty must be 0 or more and finite, got -1"),
        ("ranking", {"non_click_score": float("inf")}, "Ranking: non_click_score must be finite, got inf"),
        ("ranking", {"position_bias": "weights"}, "position_bias must be one of none, base, exponent, inverse_prop"),
        ("ranking", {"severity": 0.0}, "Ranking: severity must be positive and finite, got 0"),
        ("ranking", {"positive_only": True}, "positive_only must be False without weights by slot, got True"),
        ("ranking", {"positive_only": "no"}, "positive_only must be one of True, False, got 'no'"),
        ("ranking", {"alpha": 1.0}, "parameter of ranking must be one of layers, .*, got 'alpha'"),
        ("cascading_linucb", {"alpha": -1.0}, "CascadingLinUCB: alpha must be 0 or more and finite, got -1"),
        ("cascading_lints", {"gamma": 0.0}, r"CascadingLinTS: gamma must be in \(0, 1\], got 0"),
        ("optimal_ranking", {}, "the environment of OptimalRanking must be one of recbandits"),
        ("rank", {}, "agent must be one of linucb, .*, ranking, .*, got 'rank'"),
    ],
)
def test_unsuitable_parameters_are_refused(name, values, message):
    with pytest.raises(ValueError, match=message):
        make_agent(name, Specs(), **values)


def test_corrections_and_baselines_refuse_environments_without_their_data():
    with pytest.raises(ValueError, match="position_bias must be another one under cascading feedback"):
        make_agent("ranking", Specs(feedback="cascading"), position_bias="inverse_propensity")
    with pytest.raises(ValueError, match="AlsRanking needs an environment with a factorization"):
        make_agent("als_ranking", make_environment())


def test_agents_for_one_arm_and_for_slates_refuse_the_environment_of_the_other_kind():
    for name in NAMES:
        with pytest.raises(ValueError, match="actions must be single int32 numbers from 0"):
            make_agent(name, make_environment())
    single = StationaryLinearEnvironment(num_actions=5, context_size=3, batch_size=2, per_arm=True)
    for name in RANKING_NAMES:
        with pytest.raises(ValueError, match=r"actions must be slates, int32 \[slots\]"):
            make_agent(name, single)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": 2}, r"\[2, features\] of at least 3 items from 0"),
        ({"shapes": {GLOBAL: [3]}}, r"the observation of a slate must be 'global' \[context\] and 'per_arm'"),
        ({"shapes": {GLOBAL: [3], PER_ARM: [4, 2]}}, r"\[5, features\]"),
        ({"reward": tensor_spec.TensorSpec([], tf.float32)}, r"the reward of a slate must be float \[3\], or a dict"),
        (
            {"reward": {"chosen_index": tensor_spec.TensorSpec([], tf.int32)}},
            "or a dict of 'chosen_index' and 'chosen_v",
        ),
    ],
)
def test_specs_that_do_not_fit_are_refused(change, message):
    specs = Specs()
    for name, value in change.items():
        setattr(specs, name, value)
    with pytest.raises(ValueError, match=message):
        make_agent("ranking", specs)


def test_observations_of_another_shape_are_refused():
    specs = Specs()
    with pytest.raises(ValueError, match=r"observation 'per_arm' must have shape \[batch, 5, 4\], got \[2, 9, 4\]"):
        make_agent("ranking", specs).policy.action(specs.time_step(Specs(items=9).observation(2)))
