"""Exported policies: the same answers in a process that knows nothing of this package, and quiet about it."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from tf_agents.trajectories import time_step as ts

from recbandits.agents.exploration import epsilon_greedy
from recbandits.agents.factory import make_agent
from recbandits.data import logged
from recbandits.data.features import FeatureBundle
from recbandits.data.trajectories import examples
from recbandits.environments.stationary import StationaryLinearEnvironment
from recbandits.serving import policy
from recbandits.training.offline import Specs, fit, scores
from recbandits.training.online import simulate

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
"""


@pytest.fixture
def trained():
    world = StationaryLinearEnvironment(num_actions=4, context_size=3, batch_size=16)
    agent = make_agent("linucb", world)
    simulate(world, agent, steps=50)
    return world.batch().observation, agent.policy


def test_a_process_without_this_package_gets_the_same_actions(trained, tmp_path):
    observation, greedy = trained
    policy.export(greedy, tmp_path / "policy")
    np.save(tmp_path / "observation.npy", observation.numpy())
    arguments = [sys.executable, "-c", STRANGER, str(tmp_path / "policy"), str(tmp_path / "observation.npy")]
    printed = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    expected = greedy.action(ts.restart(observation, 16)).action.numpy()
    assert [int(action) for action in printed.split()] == expected.tolist()
    assert len(set(expected)) > 1


def test_loading_gives_the_same_actions_for_any_batch_size(trained, tmp_path):
    observation, greedy = trained
    loaded = policy.load(policy.export(greedy, tmp_path / "policy"))
    for rows in (1, 5, 16):
        time_step = ts.restart(observation[:rows], rows)
        np.testing.assert_array_equal(loaded.action(time_step).action, greedy.action(time_step).action)


def test_exporting_says_nothing(trained, tmp_path, capfd, caplog):
    policy.export(trained[1], tmp_path / "policy")
    assert caplog.messages == []
    assert capfd.readouterr().err == ""


def test_a_policy_is_replaced_as_a_whole(trained, tmp_path):
    observation, greedy = trained
    other = make_agent("linucb", StationaryLinearEnvironment(num_actions=4, context_size=3, batch_size=16)).policy
    policy.export(other, tmp_path / "policy")
    policy.export(greedy, tmp_path / "policy")
    loaded, time_step = policy.load(tmp_path / "policy"), ts.restart(observation, 16)
    np.testing.assert_array_equal(loaded.action(time_step).action, greedy.action(time_step).action)
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy"]


def test_a_directory_in_use_is_refused_and_kept(trained, tmp_path):
    (tmp_path / "precious").write_text("keep me")
    with pytest.raises(ValueError, match="directory of a policy must hold nothing else"):
        policy.export(trained[1], tmp_path)
    assert (tmp_path / "precious").read_text() == "keep me"


def test_what_somebody_put_beside_a_policy_is_not_lost(trained, tmp_path):
    directory = policy.export(trained[1], tmp_path / "policy")
    (directory / "notes.txt").write_text("keep me")
    with pytest.raises(ValueError, match="must hold nothing else, policy does"):
        policy.export(trained[1], directory)
    assert (directory / "notes.txt").read_text() == "keep me"
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(ValueError, match="must hold nothing else, file does"):
        policy.export(trained[1], tmp_path / "file")


def test_a_directory_without_a_policy_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be the directory of an exported policy, it has no saved_model\.pb"):
        policy.load(tmp_path)


@pytest.fixture(scope="module")
def log_and_features():
    """300 decisions among 2 to 5 of 40 movies for 30 users, and features of all of them."""
    rng = np.random.default_rng(0)
    pairs = pd.MultiIndex.from_product([range(1, 31), range(101, 141)], names=["user_id", "movie_id"])
    time = pd.date_range("2024-01-01", periods=len(pairs), freq="h", tz="UTC")
    ratings = pairs.to_frame(index=False).assign(rating=rng.integers(1, 6, len(pairs)), time=time)
    users = pd.DataFrame(rng.normal(size=(30, 3)), range(1, 31), ["age", "factor_0", "factor_1"])
    movies = pd.DataFrame(rng.normal(size=(40, 3)), range(101, 141), ["year", "factor_0", "factor_1"])
    bundle = FeatureBundle(users.astype(np.float32), movies.astype(np.float32))
    return logged.log_decisions(ratings, logged.uniform, candidates=(2, 5), decisions=300), bundle


SERVER = """
import sys
import numpy as np
from recbandits.serving.policy import load

asked = np.load(sys.argv[2])
np.save(sys.argv[3], load(sys.argv[1]).scores(asked["user_id"], asked["candidates"], asked["mask"]))
"""


@pytest.mark.parametrize("name", ["linucb", "epsilon_greedy"])
def test_the_same_ids_get_the_same_scores_in_training_evaluation_and_another_process(name, log_and_features, tmp_path):
    """Bit by bit, minus infinity in padding included; the policy directory is all that the other process gets."""
    decisions, bundle = log_and_features
    log = decisions.log
    agent = make_agent(name, Specs(bundle.spec(5)))
    fit(agent, examples(log, bundle), epochs=1 if name == "linucb" else 3, batch_size=64)
    asked = {"user_id": log.user_id, "candidates": log.candidates, "mask": log.mask}
    in_training = scores(agent, bundle, *asked.values())
    directory = policy.export(agent.policy, tmp_path / "policy", bundle)
    loaded = policy.load(directory)
    np.testing.assert_array_equal(loaded.scores(*asked.values()), in_training)
    evaluated = logged.scored(loaded.scores, lambda values, mask: epsilon_greedy(values, mask, 0.1))(*asked.values())
    np.testing.assert_array_equal(evaluated, epsilon_greedy(in_training, log.mask, 0.1))
    np.savez(tmp_path / "asked.npz", **asked)
    paths = [str(directory), str(tmp_path / "asked.npz"), str(tmp_path / "scores.npy")]
    subprocess.run([sys.executable, "-c", SERVER, *paths], check=True, capture_output=True)
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), in_training)
    assert np.isneginf(in_training[~log.mask]).all()
    assert in_training[log.mask].std() > 0


def test_the_bundle_comes_back_with_its_policy_and_goes_when_it_is_replaced(log_and_features, tmp_path):
    bundle = log_and_features[1]
    agent = make_agent("linucb", Specs(bundle.spec(5)))
    loaded = policy.load(policy.export(agent.policy, tmp_path / "policy", features=bundle))
    pd.testing.assert_frame_equal(loaded.bundle.users, bundle.users, check_names=False)
    again = policy.load(policy.export(agent.policy, tmp_path / "policy"))
    assert again.bundle is None
    with pytest.raises(ValueError, match="policy must have been exported with its features to score ids"):
        again.scores([1], [[101]])


def test_features_that_the_policy_does_not_read_are_refused(trained, log_and_features, tmp_path):
    bundle = log_and_features[1]
    other = make_agent("linucb", Specs({"global": (7,), "per_arm": (5, 2)}))
    with pytest.raises(ValueError, match=r"must be as many as the policy reads, \{'global': 7, 'per_arm': 2\}, got"):
        policy.export(other.policy, tmp_path / "policy", features=bundle)
    with pytest.raises(ValueError, match="features must be as many as the policy reads, none, got"):
        policy.export(trained[1], tmp_path / "policy", features=bundle)
    assert not (tmp_path / "policy").exists()
