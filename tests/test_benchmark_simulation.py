"""The contenders of the simulation benchmark meet one stream, and a row says what was measured."""

import subprocess
import sys

from recbandits.tf import tf

import numpy as np
import pandas as pd
import pytest

from benchmarks import peer, peer_online, simulation
from benchmarks.bound import as_share, count_linear_operations
from recbandits.agents.parameters import LinUCB

SECOND_ARM = """
class Agent:
    def serve(self, x):
        return np.ones(len(x), int)

    def learn(self, x, action, reward):
        assert (x[:, 0] == reward).all()
"""


@pytest.fixture
def arrays():
    """Three batches of two users. The second of three arms has the reward in the context, the third twice as much."""
    value = np.arange(6, dtype=np.float32).reshape(3, 2)
    return value[:, :, None], np.stack([0 * value, value, 2 * value], axis=2)


def test_the_environment_of_a_contender_is_made_again_for_other_requirements_or_without_its_python(
    tmp_path, monkeypatch
):
    made = []

    def call(command, **_):
        if command[1] == "venv":
            made.append(command)
            peer.python_of("vw").parent.mkdir(parents=True, exist_ok=True)
            peer.python_of("vw").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(peer, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(peer.subprocess, "run", call)
    counts = []
    for version in ("1.0", "1.0", "2.0", "2.0"):
        assert peer.install("vw", [[f"vowpalwabbit=={version}"]])
        counts.append(len(made))
    peer.python_of("vw").unlink()
    assert peer.install("vw", [["vowpalwabbit==2.0"]])
    assert [*counts, len(made)] == [1, 1, 2, 2, 3]


def test_the_environment_of_tf_agents_serves_the_stream_in_order_and_again(arrays):
    observations, rewards = arrays
    environment = simulation.StreamEnvironment(observations, rewards)
    environment.restart()
    time_step = environment.reset()
    for number in (0, 1, 2, 0):
        np.testing.assert_array_equal(time_step.observation, observations[number])
        time_step = environment.step(np.array([1, 2], np.int32))
        np.testing.assert_array_equal(time_step.reward, rewards[number][[0, 1], [1, 2]])


def test_the_baseline_of_tf_agents_regret_is_that_of_the_observations(arrays):
    """Its metrics are graphs: a baseline that reads anything else would be that of the first batch for ever."""
    observations, rewards = arrays
    expected = tf.function(simulation.expected_rewards(observations, rewards))
    for number in range(3):
        np.testing.assert_allclose(expected(tf.constant(observations[number])), rewards[number], atol=1e-6)


def test_the_regret_of_tf_agents_is_that_of_its_actions(monkeypatch):
    generator, regrets = np.random.default_rng(0), []
    observations = generator.normal(size=(6, 4, 2)).astype(np.float32)
    rewards = observations @ generator.normal(size=(2, 3)).astype(np.float32)
    apply = simulation.StreamEnvironment._apply_action

    def record(environment, action):
        reward = apply(environment, action)
        regrets.append(rewards[len(regrets)].max(axis=1).mean() - reward.mean())
        return reward

    monkeypatch.setattr(simulation.StreamEnvironment, "_apply_action", record)
    _, regret = simulation.tf_agents(observations, rewards, 6)()
    assert regret == pytest.approx(np.mean(regrets), abs=1e-5)
    assert len(set(np.round(regrets, 3))) > 1


def test_the_first_call_of_a_peer_has_the_regret_of_the_first_steps(arrays, monkeypatch):
    """The second arm costs its own reward: 0, 1, 2 and 3 in two batches, 1.5 in the mean; 2.5 in all three."""
    monkeypatch.setattr(peer, "install", lambda *_: True)
    monkeypatch.setattr(peer, "python_of", lambda _: sys.executable)
    monkeypatch.setattr(peer_online, "PEERS", {"second arm": ("none", [], SECOND_ARM)})
    contender = peer_online.start_peers(*arrays, LinUCB(), steps=2)["second arm"]
    (speed, regret), (_, longer_regret) = contender(), contender()
    assert speed > 0
    assert (regret, longer_regret) == (1.5, 2.5)


def test_a_row_has_speed_ratio_share_and_regret_and_says_what_does_not_install(monkeypatch):
    rng = np.random.default_rng(0)
    user, movie = np.nonzero(rng.random((60, 25)) < 0.8)
    ratings = pd.DataFrame({"user_id": user + 1, "movie_id": movie + 1, "rating": 1.0 + (user + movie) % 5})
    monkeypatch.setattr(simulation, "STEPS", {4: 6})
    monkeypatch.setattr(simulation, "REGRET_STEPS", {4: 3})
    monkeypatch.setattr(simulation, "ROUNDS", 1)
    monkeypatch.setattr(simulation, "SECONDS", 0.05)
    monkeypatch.setattr(simulation, "measure_gemm", lambda: 1e9)
    monkeypatch.setattr(simulation, "own_loop", lambda *_: lambda: 5000.0)
    monkeypatch.setattr(simulation, "start_peers", lambda *_: {"half": lambda: [2500.0, 0.5], "absent": lambda: None})
    own, tf_agents, half, absent = simulation.compare(ratings, 4, 25)
    share = 5000 * count_linear_operations(25, simulation.RANK) / 1e9
    assert own["project"] == simulation.OWN
    assert (own["interactions"], own["ratio"], own["share of the bound"]) == ("5,000/s", "", as_share(share))
    assert (half["ratio"], half["share of the bound"]) == ("2x (2 to 2)", as_share(share / 2))
    assert half["regret"] == "0.500 after 12"
    assert absent["interactions"] == simulation.NOT_INSTALLED
    assert absent["regret"] == absent["ratio"] == ""
    assert 0 < float(tf_agents["regret"].partition(" ")[0]) < 5


def test_shares_have_two_digits_that_count():
    assert [as_share(value) for value in (0.0000036, 0.0823, 0.5, 1.0)] == ["0.00036 %", "8.2 %", "50 %", "100 %"]
