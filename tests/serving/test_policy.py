"""Exported policies: the same answers in a process that knows nothing of this package, and quiet about it."""

import subprocess
import sys

import numpy as np
import pytest
from tf_agents.trajectories import time_step as ts

from recbandits.agents.factory import make_agent
from recbandits.environments.stationary import StationaryLinearEnvironment
from recbandits.serving import policy
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
    (directory / "features.npz").write_text("keep me")
    with pytest.raises(ValueError, match="must hold nothing else, policy does"):
        policy.export(trained[1], directory)
    assert (directory / "features.npz").read_text() == "keep me"
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(ValueError, match="must hold nothing else, file does"):
        policy.export(trained[1], tmp_path / "file")


def test_a_directory_without_a_policy_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be the directory of an exported policy, it has no saved_model\.pb"):
        policy.load(tmp_path)
