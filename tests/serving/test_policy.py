"""Exported policies: the same answers in a process without this package, and without warnings."""

import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from recbandits.agents.factory import make_agent
from recbandits.agents.parameters import EpsilonGreedy, LinTS, LinUCB, NeuralLinUCB
from recbandits.data import simulated_logs
from recbandits.data.examples import make_examples
from recbandits.environments import StationaryLinearEnvironment
from recbandits.environments.factorization import als
from recbandits.environments.movielens import MovieLensEnvironment
from recbandits.exploration import Exploration, epsilon_greedy
from recbandits.serving import policy
from recbandits.training.offline import Specs, fit, score_candidates
from recbandits.training.online import simulate
from tests.commands import run_python
from tests.rating_tables import rating_features

STRANGER = """
import collections, sys
import numpy as np
import tensorflow as tf
assert not [name for name in sys.modules if name.startswith(("recbandits", "tf_agents"))]
loaded = tf.saved_model.load(sys.argv[1])
observation = tf.constant(np.load(sys.argv[2]))
batch = len(observation)
TimeStep = collections.namedtuple("TimeStep", ["step_type", "reward", "discount", "observation"])
step = TimeStep(tf.zeros([batch], tf.int32), tf.zeros([batch]), tf.ones([batch]), observation)
print(*loaded.signatures["action"](**{
    "0/step_type": step.step_type, "0/reward": step.reward, "0/discount": step.discount, "0/observation": observation,
})["action"].numpy())
print(*loaded.signatures["serving_default"](context=observation[:3])["scores"].numpy().argmax(axis=1))
"""


@pytest.fixture(scope="module")
def observation_and_policy():
    environment = StationaryLinearEnvironment(num_actions=4, context_size=3, batch_size=16)
    agent = make_agent("linucb", environment)
    simulate(environment, agent, steps=50)
    return environment.batch().observation, agent.policy


def test_exporting_says_nothing_and_a_process_without_this_package_gets_the_same_actions(
    observation_and_policy, tmp_path, capfd, caplog
):
    observation, greedy = observation_and_policy
    policy.export(greedy, tmp_path / "policy")
    assert (caplog.messages, capfd.readouterr().err) == ([], "")
    np.save(tmp_path / "observation.npy", observation.numpy())
    printed = run_python(STRANGER, tmp_path / "policy", tmp_path / "observation.npy")
    expected = greedy.action(ts.restart(observation, 16)).action.numpy()
    actions, plain = printed.splitlines()
    assert [int(action) for action in actions.split()] == expected.tolist()
    assert [int(action) for action in plain.split()] == expected[:3].tolist()
    assert len(set(expected)) > 1


def test_a_policy_is_replaced_as_a_whole_and_acts_for_any_batch_size(observation_and_policy, tmp_path):
    observation, greedy = observation_and_policy
    other = make_agent("linucb", StationaryLinearEnvironment(num_actions=4, context_size=3, batch_size=16)).policy
    policy.export(other, tmp_path / "policy")
    policy.export(greedy, tmp_path / "policy")
    loaded = policy.load(tmp_path / "policy")
    for rows in (1, 16):
        time_step = ts.restart(observation[:rows], rows)
        np.testing.assert_array_equal(loaded.action(time_step).action, greedy.action(time_step).action)
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy"]


def test_an_agent_and_the_name_of_an_exploration_are_refused(observation_and_policy, tmp_path):
    agent = make_agent("linucb", StationaryLinearEnvironment(num_actions=4, context_size=3, batch_size=16))
    with pytest.raises(ValueError, match=r"^policy must be that of an agent, such as `agent\.policy`, got <"):
        policy.export(agent, tmp_path / "policy")
    sentence = r"^exploration must be None or an Exploration, such as .*, got 'epsilon_greedy'$"
    with pytest.raises(ValueError, match=sentence):
        policy.export(observation_and_policy[1], tmp_path / "policy", exploration="epsilon_greedy")
    assert list(tmp_path.iterdir()) == []


def test_other_files_beside_a_policy_are_not_lost(observation_and_policy, tmp_path):
    directory = policy.export(observation_and_policy[1], tmp_path / "policy")
    (directory / "notes.txt").write_text("keep me")
    with pytest.raises(ValueError, match="directory must be new, or that of an exported policy and nothing else"):
        policy.export(observation_and_policy[1], directory)
    assert (directory / "notes.txt").read_text() == "keep me"
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(ValueError, match=r"nothing else, got '.*/file'"):
        policy.export(observation_and_policy[1], tmp_path / "file")


@pytest.fixture(scope="module")
def log_and_features():
    """300 decisions among 2 to 5 of 40 movies for 30 users, and `RatingFeatures` of all of them."""
    rng = np.random.default_rng(0)
    pairs = pd.MultiIndex.from_product([range(1, 31), range(101, 141)], names=["user_id", "movie_id"])
    time = pd.date_range("2024-01-01", periods=len(pairs), freq="h", tz="UTC")
    ratings = pairs.to_frame(index=False).assign(rating=rng.integers(1, 6, len(pairs)), time=time)
    users = pd.DataFrame(rng.normal(size=(30, 3)), range(1, 31), ["age", "factor_0", "factor_1"])
    movies = pd.DataFrame(rng.normal(size=(40, 3)), range(101, 141), ["year", "factor_0", "factor_1"])
    decisions = simulated_logs.log_decisions(ratings, simulated_logs.uniform, candidates=(2, 5), decisions=300)
    return decisions, rating_features(users, movies)


SERVER = """
import json, sys
import numpy as np
import pandas as pd
from recbandits.serving.policy import load

arguments = np.load(sys.argv[2])
policy, context = load(sys.argv[1]), pd.DataFrame(arguments["context"], columns=["age", "factor_0", "factor_1"])
np.save(sys.argv[3], policy.scores(context, arguments["candidates"], arguments["mask"]))
request = context.iloc[0].to_dict()
seeded = policy.recommend(request, k=3, rng=5)
drawn = [policy.recommend(request).item_ids[0] for _ in range(40)]
drawn += policy.decide(context[:1].take([0] * 40)).action.tolist()
assert not [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "tf_agents", "keras", "tf_keras")]
print(json.dumps([seeded.item_ids, seeded.scores, seeded.propensity, drawn]))
"""


def test_processes_without_tensorflow_give_the_same_scores_and_explore_apart(log_and_features, tmp_path):
    """Scores and seeded requests bit by bit; without a seed two replicas differ. They get the directory and no more."""
    decisions, features = log_and_features
    log, ids = decisions.log.join_users(features.users), (decisions.user_ids, decisions.movie_ids, decisions.log.mask)
    agent = make_agent("epsilon_greedy", Specs(features.spec(5)))
    fit(agent, make_examples(log, features.features), epochs=3, batch_size=64)
    expected = score_candidates(agent, features, *ids)
    exploration = Exploration("epsilon_greedy", 0.5)
    directory = policy.export(agent.policy, tmp_path / "policy", features, exploration=exploration)
    loaded, arguments = policy.load(directory), {"candidates": log.candidate_ids.astype(str), "mask": log.mask}
    scores = loaded.scores(log.context, **arguments)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(score_candidates(loaded, features, *ids), expected, rtol=1e-5, atol=1e-5)
    explore = simulated_logs.explore_scores(
        lambda users, movies, mask: loaded.scores(features.contexts(users), movies, mask),
        lambda scores, mask: epsilon_greedy(scores, mask, 0.1),
    )
    np.testing.assert_array_equal(explore(*ids), epsilon_greedy(expected, log.mask, 0.1))
    np.savez(tmp_path / "arguments.npz", context=log.context.to_numpy(), **arguments)
    paths = directory, tmp_path / "arguments.npz", tmp_path / "scores.npy"
    replicas = []
    for _ in range(2):
        replicas.append(json.loads(run_python(SERVER, *paths)))
        np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), scores)
    answer = loaded.recommend(log.context.iloc[0], k=3, rng=5)
    assert [replica[:3] for replica in replicas] == [[answer.item_ids, answer.scores, answer.propensity]] * 2
    assert replicas[0][3] != replicas[1][3]
    assert np.isneginf(expected[~log.mask]).all()
    assert expected[log.mask].std() > 0


def test_the_features_come_back_with_their_policy_and_go_when_it_is_replaced(log_and_features, tmp_path):
    features = log_and_features[1]
    agent = make_agent("linucb", Specs(features.spec(5)))
    loaded = policy.load(policy.export(agent.policy, tmp_path / "policy", features=features))
    np.testing.assert_array_equal(loaded.features.items, features.features.items)
    assert loaded.candidates.equals(features.features.item_ids)
    other = policy.load(policy.export(agent.policy, tmp_path / "policy"))
    assert other.features is other.candidates is None
    for call in (
        lambda: other.scores(features.users),
        other.recommend,
        lambda: other.decide(features.users),
    ):
        with pytest.raises(ValueError, match="policy must have been exported with its features to score ids"):
            call()


def test_features_that_the_policy_does_not_read_are_refused(observation_and_policy, log_and_features, tmp_path):
    features = log_and_features[1]
    other = make_agent("linucb", Specs({"global": (7,), "per_arm": (5, 2)}))
    with pytest.raises(ValueError, match=r"must be as many as the policy reads, \{'global': 7, 'per_arm': 2\}, got"):
        policy.export(other.policy, tmp_path / "policy", features=features)
    with pytest.raises(ValueError, match=r"must be as many as the policy reads, \{'global': 4\}, got"):
        policy.export(observation_and_policy[1], tmp_path / "policy", features=features, arms=[1, 2, 3, 4])
    assert not (tmp_path / "policy").exists()


def test_arms_that_do_not_fit_are_refused(observation_and_policy, log_and_features, tmp_path):
    features = log_and_features[1]
    with pytest.raises(ValueError, match="arms must be the items of the 4 actions, to serve ids, got None"):
        policy.export(observation_and_policy[1], tmp_path / "policy", features=features)
    with pytest.raises(ValueError, match=r"one item for each of the 4 actions, .*, got \['1', '2', '2', '3'\]"):
        policy.export(observation_and_policy[1], tmp_path / "policy", arms=[1, 2, "2", 3])
    with pytest.raises(ValueError, match=r"arm must be text or a whole number, got 2\.0"):
        policy.export(observation_and_policy[1], tmp_path / "policy", arms=[1, 2.0, 3, 4])
    with pytest.raises(ValueError, match="arms must be None for a policy whose arms have features"):
        policy.export(make_agent("linucb", Specs(features.spec(5))).policy, tmp_path / "policy", features, arms=["a"])
    assert not (tmp_path / "policy").exists()


def make_environment(per_arm):
    """Invented users and movies whose ratings are a factorisation."""
    rng = np.random.default_rng(3)
    user, movie = np.nonzero(rng.random((60, 30)) < 0.7)
    rating = np.clip(3.5 + rng.normal(size=len(user)), 1, 5)
    model = als(pd.DataFrame({"user_id": user + 1, "movie_id": movie + 1, "rating": rating}), rank=3)
    return MovieLensEnvironment(model, 10, 16, per_arm=per_arm, movie_ids=None if per_arm else range(11, 21))


AGENTS = {
    "linucb": LinUCB(),
    "lints": LinTS(),
    "common tower": EpsilonGreedy(),
    "dot product": EpsilonGreedy(network="dot_product"),
    "encoded common tower": NeuralLinUCB(pretrain_steps=20),
    "encoded dot product": NeuralLinUCB(pretrain_steps=20, network="dot_product"),
    "still learning to encode": NeuralLinUCB(pretrain_steps=100),
}
WITHOUT_ARMS = ("linucb", "common tower", "encoded common tower")


@pytest.mark.parametrize(
    ("name", "per_arm"),
    [(name, per_arm) for name in AGENTS for per_arm in (True, False) if per_arm or name in WITHOUT_ARMS],
)
def test_loaded_policies_score_as_their_agents_do(name, per_arm, tmp_path):
    """1,000 contexts and text ids, by the SavedModel's plain signature, and by its TF-Agents action."""
    environment = make_environment(per_arm)
    agent = make_agent(AGENTS[name], environment)
    simulate(environment, agent, steps=30)
    rng = np.random.default_rng(0)
    users = rng.choice(environment.user_ids, 1000)
    movies = rng.permuted(np.tile(environment.movie_ids, (1000, 1)), axis=1)[:, :10]
    movies = movies if per_arm else np.tile(environment.movie_ids, (1000, 1))
    observation = tf.nest.map_structure(tf.constant, environment.features.observation(users, movies))
    observation = observation if per_arm else observation["global"]
    expected = agent.policy.scores(observation, tf.constant([0, 0])).numpy()
    arms = None if per_arm else environment.movie_ids
    directory = policy.export(agent.policy, tmp_path / "policy", environment.features, arms=arms)
    loaded = policy.load(directory)
    context, texts = environment.features.contexts(users), movies.astype(str)
    scores = loaded.scores(context, texts)
    inputs = (
        {"context": observation["global"], "per_arm": observation["per_arm"]} if per_arm else {"context": observation}
    )
    plain = tf.saved_model.load(str(directory)).signatures["serving_default"](**inputs)["scores"].numpy()
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 2e-5 * np.abs(expected).max()
    assert clear.mean() > 0.9
    assert scores.std(axis=1).min() > 0
    for values in (scores, plain):
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_array_equal(values.argmax(axis=1)[clear], expected.argmax(axis=1)[clear])
    actions = loaded.action(ts.restart(observation, 1000)).action.numpy()
    np.testing.assert_array_equal(actions[clear], scores.argmax(axis=1)[clear])
    np.testing.assert_array_equal(loaded.decide(context[:50], texts[:50]).action, scores[:50].argmax(axis=1))


@pytest.mark.parametrize("name", ["exp3_mixture", "collecting"])
def test_a_policy_that_does_not_score_by_what_it_learnt_acts_and_serves_no_ids(name, log_and_features, tmp_path):
    features = log_and_features[1]
    agent = make_agent("linucb" if name == "collecting" else name, Specs(features.spec(5)))
    acting_policy = agent.collect_policy if name == "collecting" else agent.policy
    loaded = policy.load(policy.export(acting_policy, tmp_path / "policy", features))
    observation = features.observation([1, 2], [[101, 102, 103, 104, 105]] * 2)
    action = loaded.action(ts.restart({key: tf.constant(value) for key, value in observation.items()}, 2)).action
    assert action.shape == [2]
    with pytest.raises(ValueError, match="policy must score by what it has learnt to serve ids, this one does not"):
        loaded.recommend()
