"""The on-policy loop: sums checked by hand, common random numbers, several seeds, and resuming after SIGKILL."""

import json
import threading

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tf_agents.bandits.agents import lin_ucb_agent
from tf_agents.trajectories import single_step

from recbandits.agents.factory import make_agent
from recbandits.agents.linear import make_linear_agent
from recbandits.agents.parameters import BestFixedArm, EpsilonGreedy, Exp3Mixture, LinTS, LinUCB, Oracle, Uniform
from recbandits.environments import StationaryLinearEnvironment
from recbandits.training import online
from recbandits.training.online import simulate
from tests.forks import ForkedPython
from tests.variables import assert_values, read_values

LEARNERS = ["linucb", "lints", "epsilon_greedy", "neural_linucb", "exp3_mixture"]


def environment(**options):
    return StationaryLinearEnvironment(**({"num_actions": 4, "context_size": 3, "batch_size": 8} | options))


def test_measures_equal_a_loop_by_hand():
    """The best fixed arm on 6 batches, measured twice, against the environment stepped in plain Python."""
    world = environment(reward_noise=0.3)
    frame = simulate(world, BestFixedArm(), steps=6, points=2, seeds=[5])
    world.restart(5)
    regret, reward, suboptimal = [], [], []
    for _ in range(6):
        batch = world.batch()
        action = batch.unpersonalised.numpy().argmax(axis=1)
        expected = batch.expected_reward.numpy()[np.arange(8), action]
        best = batch.expected_reward.numpy().max(axis=1)
        regret.append((best - expected).mean())
        reward.append((expected + batch.noise.numpy()).mean())
        suboptimal.append((expected < best).mean())
        world.advance()
    for column, by_hand in (("regret", regret), ("reward", reward), ("suboptimal", suboptimal)):
        np.testing.assert_allclose(frame[column], np.reshape(by_hand, (2, 3)).mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(frame["cumulative_regret"], 8 * np.cumsum(regret)[[2, 5]], rtol=1e-5)
    assert frame["interactions"].tolist() == [24, 48]


def test_the_regret_of_the_greedy_policy_equals_a_loop_by_hand_and_changes_nothing_else():
    """Linear Thompson sampling on 6 batches: its greedy policy takes the largest estimate before each update."""
    world = environment(reward_noise=0.3, available=0.7)
    frame = simulate(world, LinTS(), steps=6, points=2, seeds=[5], greedy=True)
    plain = simulate(world, LinTS(), steps=6, points=2, seeds=[5])
    assert frame.drop(columns="greedy_regret").equals(plain)
    agent, by_hand = make_agent(LinTS(), world, seed=5), []
    world.restart(5)
    for _ in range(6):
        batch = world.batch()
        estimate = np.where(batch.mask, agent.model.estimate(batch.observation[0])[0], -np.inf)
        by_hand.append((batch.optimal_reward() - batch.expected(estimate.argmax(axis=1))).numpy().mean())
        simulate_step(world, agent)
    np.testing.assert_allclose(frame["greedy_regret"], np.reshape(by_hand, (2, 3)).mean(axis=1), rtol=1e-4)


def simulate_step(world, agent):
    """Serve and learn one batch eagerly."""
    time_step = world.current_time_step()
    decision = agent.collect_policy.action(time_step)
    reward = world.step(decision.action).reward
    experience = single_step(time_step.observation, decision.action, decision.info, reward, time_step.discount)
    agent.train(tf.nest.map_structure(lambda part: part[:, None], experience))


def test_epsilon_greedy_costs_epsilon_times_the_regret_of_uniform_choice_more_than_its_greedy_policy():
    """The regret is 0.6 of the greedy policy's plus 0.4 of uniform choice; a standard error is 0.03."""
    agents = {"egreedy": EpsilonGreedy(epsilon=0.4), "uniform": Uniform()}
    runs = simulate(environment(), agents, steps=400, points=1, greedy=True).set_index("agent")
    mixed = 0.6 * runs.loc["egreedy", "greedy_regret"] + 0.4 * runs.loc["uniform", "regret"]
    assert runs.loc["egreedy", "regret"] == pytest.approx(mixed, abs=0.1)
    assert runs.loc["egreedy", "regret"] > runs.loc["egreedy", "greedy_regret"] + 0.3


def test_an_agent_with_one_policy_for_both_has_the_same_regret_twice():
    world = environment()
    frame = simulate(world, Exp3Mixture(reward_range=(-9.0, 9.0)), steps=20, points=2, greedy=True)
    np.testing.assert_array_equal(frame["greedy_regret"], frame["regret"])
    plain = simulate(world, Exp3Mixture(reward_range=(-9.0, 9.0)), steps=20, points=2)
    assert frame.drop(columns="greedy_regret").equals(plain)


def test_windows_are_uneven_when_they_must_be_and_nothing_is_lost():
    """10 steps in 4 points end at 2, 5, 8, 10; sums over windows are the sums of a single window."""
    fine = simulate(environment(), Uniform(), steps=10, points=4)
    coarse = simulate(environment(), Uniform(), steps=10, points=1)
    assert fine["step"].tolist() == [2, 5, 8, 10]
    assert fine["cumulative_regret"].iloc[-1] == pytest.approx(coarse["cumulative_regret"].iloc[-1])


def test_agents_meet_the_same_users_and_noise():
    """Without personalisation or learning, reward plus regret is the optimum plus noise: equal for every agent."""
    runs = simulate(environment(reward_noise=1.0), {"a": Uniform(), "b": Oracle()}, steps=20, seeds=[1, 2], points=5)
    optimum = (runs["reward"] + runs["regret"]).to_numpy().reshape(2, -1)
    np.testing.assert_allclose(optimum[0], optimum[1], rtol=1e-5)


class FavouriteOfTheSeed:
    """Parameters of an agent that reads its seed in ways of its own: it prefers an arm at first."""

    def make(self, time_step_spec, action_spec, seed):
        """Return the agent."""
        agent = make_linear_agent(time_step_spec, action_spec, seed=seed + 1)
        agent.model.theta[seed % 4].assign(tf.constant([10.0, 0.0, 0.0, 0.0]))
        return agent


def test_a_later_seed_of_a_call_equals_that_of_a_call_of_its_own():
    agents = {name: name for name in LEARNERS} | {"favourite": FavouriteOfTheSeed()}
    together, alone = (simulate(environment(), agents, 20, np.array(seeds)) for seeds in ([3, 4, 5], [5]))
    assert together[together["seed"] == 5].reset_index(drop=True).equals(alone)


def test_any_number_of_threads_gives_the_same_measurements_bit_by_bit(monkeypatch):
    """Agents by name, two agents themselves, one of which reads the environment, and the seeds of one agent."""
    frames = []
    for cores, steps_of_a_part in ((1, 10_000), (4, 1)):
        monkeypatch.setattr(online, "_STEPS_OF_A_PART", steps_of_a_part)
        monkeypatch.setattr(online, "count_cores", lambda cores=cores: cores)
        world = environment(reward_noise=0.3)
        fixed, linear = (make_agent(agent, world) for agent in (BestFixedArm(), LinUCB()))
        made_here = {name: name for name in LEARNERS}
        runs = [simulate(world, made_here | {"fixed": fixed, "linear": linear}, 30, [7], points=3)]
        runs += [simulate(world, name, 30, range(5), points=3) for name in ("lints", "epsilon_greedy")]
        frames.append(pd.concat(runs))
    assert frames[0].equals(frames[1])
    assert frames[0]["agent"].unique().tolist() == [*LEARNERS, "fixed", "linear"]


def test_an_error_in_one_thread_ends_the_others_and_leaves_the_environment_where_it_was(monkeypatch):
    monkeypatch.setattr(online, "count_cores", lambda: 2)
    world = FailingEnvironment(num_actions=4, context_size=3, batch_size=8)
    world.restart(1, 2)
    with pytest.raises(FloatingPointError, match=r"^(uniform|linucb), seed 3, step 7: "):
        simulate(world, {"linucb": "linucb", "uniform": "uniform"}, steps=10**9, points=10**4, seeds=[3, 4])
    assert [int(value) for value in world.state] == [1, 2]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("ThreadPool")] == []


def test_any_tf_agents_agent_can_be_simulated():
    world = environment()
    specs = world.time_step_spec(), world.action_spec()
    theirs = lin_ucb_agent.LinearUCBAgent(*specs, alpha=0.1, tikhonov_weight=1.0)
    ours = make_linear_agent(*specs, alpha=0.1, tikhonov=1.0, random_ties=False)
    runs = simulate(world, {"theirs": theirs, "ours": ours}, steps=100, points=2).set_index(["agent", "step"])
    assert runs.loc[("theirs", 100), "regret"] < 0.02
    assert runs.loc[("theirs", 100), "regret"] == pytest.approx(runs.loc[("ours", 100), "regret"], abs=0.01)


def test_scalars_of_tensorboard_are_the_rows_of_the_frame(tmp_path):
    frame = simulate(environment(), {"alpha = 0.1": LinUCB()}, steps=10, points=5, seeds=[2], tensorboard=tmp_path)
    events = EventAccumulator(str(tmp_path / "alpha-0.1" / "seed-2"), size_guidance={"tensors": 0}).Reload()
    for measure in ("regret", "reward", "suboptimal", "cumulative_regret"):
        written = events.Tensors(measure)
        assert [event.step for event in written] == frame["interactions"].tolist()
        values = [np.frombuffer(event.tensor_proto.tensor_content, np.float32).item() for event in written]
        np.testing.assert_allclose(values, frame[measure], rtol=1e-6)


def test_scalars_are_those_of_the_last_simulation_alone(tmp_path):
    for steps in (10, 20):
        simulate(environment(), "linucb", steps=steps, points=2, tensorboard=tmp_path)
    events = EventAccumulator(str(tmp_path / "linucb" / "seed-0"), size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("regret")] == [80, 160]


def test_scalars_and_checkpoints_can_share_a_folder_and_a_finished_run_is_read_back(tmp_path, monkeypatch):
    folders = {"tensorboard": tmp_path, "checkpoints": tmp_path}
    first = simulate(environment(), "lints", steps=10, points=5, **folders)
    with monkeypatch.context() as patch:
        patch.setattr(online._Simulation, "_measure", None)  # a finished simulation is not run again
        again = simulate(environment(), "lints", steps=10, points=5, **folders)
    assert first.equals(again)
    events = EventAccumulator(str(tmp_path / "lints" / "seed-0"), size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("regret")] == first["interactions"].tolist()


def test_checkpoints_of_another_simulation_are_refused_and_kept(tmp_path):
    simulate(environment(), LinUCB(), steps=10, checkpoints=tmp_path)
    noisy = environment(reward_noise=0.5)
    other, drifting = environment(per_arm=True), environment(drift=0.1)
    for world, agent, steps in (
        (drifting, LinUCB(), 10),
        (environment(), make_agent(LinUCB(alpha=2.0), environment()), 10),
        (environment(), LinUCB(alpha=2.0), 10),
        (environment(), LinUCB(), 11),
        (noisy, LinUCB(), 10),
        (other, LinUCB(), 10),
    ):
        with pytest.raises(ValueError, match="checkpoints of 'LinUCB' belong to another simulation"):
            simulate(world, {"LinUCB": agent}, steps=steps, checkpoints=tmp_path)
    with pytest.raises(ValueError, match="checkpoints of 'LinUCB' belong to another simulation"):
        simulate(environment(), LinUCB(), steps=10, checkpoints=tmp_path, greedy=True)
    description = json.loads((tmp_path / "LinUCB" / "seed-0" / "simulation.json").read_text())
    assert description["agent"] == repr(LinUCB())


def test_an_agent_itself_resumes_from_its_own_state_alone(tmp_path):
    """The checkpoint of an agent that started untrained replaced the state of one that had learnt before."""
    world = environment()
    first, equal, trained = (make_agent(LinUCB(), world) for _ in range(3))
    frame = simulate(world, {"agent": first}, steps=10, checkpoints=tmp_path)
    assert simulate(world, {"agent": equal}, steps=10, checkpoints=tmp_path).equals(frame)
    assert_values(equal.variables, read_values(first))
    simulate(world, {"agent": trained}, steps=5)
    state = read_values(trained)
    with pytest.raises(ValueError, match="checkpoints of 'agent' belong to another simulation"):
        simulate(world, {"agent": trained}, steps=10, checkpoints=tmp_path)
    assert_values(trained.variables, state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"steps": 2**32, "points": 2}, r"steps must be fewer than 2\*\*31 - 1 for each of the points, got 4294967296"),
        ({"points": 2.5}, "points must be a whole number of at least 1, got 2.5"),
        ({"agents": {}}, "agents must be at least one, got {}"),
        ({"seeds": [-1]}, r"seeds must be whole numbers from 0 to 2\*\*63 - 1, at least one and .*, got \[-1\]"),
        ({"seeds": [[1]]}, r"seeds must be whole numbers from 0 to 2\*\*63 - 1, at least one and .*, got \[\[1\]\]"),
        ({"seeds": [0, 0]}, r"at least one and all different, got \[0, 0\]"),
        ({"agents": {"..": LinUCB()}}, r"digits of labels must be different from each other, got \['..'\]"),
        ({"agents": {"a b": LinUCB(), "a-b": LinTS()}}, r"different from each other, got \['a b', 'a-b'\]"),
        ({"environment": "movielens"}, "environment must be one of recbandits, got 'movielens'"),
        ({"agents": make_agent("linucb", environment()), "seeds": [0, 1]}, "seeds must be one for agents"),
    ],
)
def test_invalid_arguments_are_refused(changes, message):
    arguments = {"environment": environment(), "agents": LinUCB(), "steps": 5} | changes
    with pytest.raises(ValueError, match=message):
        simulate(**arguments)


class FailingEnvironment(StationaryLinearEnvironment):
    """Rewards are not finite from the step with number 7 on, counted from 1."""

    failure = float("nan")

    def batch(self):
        batch = super().batch()
        is_sound = self.state[1].read_value() < 6
        return batch._replace(expected_reward=tf.where(is_sound, batch.expected_reward, self.failure))


@pytest.mark.parametrize(
    ("name", "failure"),
    [("uniform", np.nan), ("linucb", np.nan), ("linucb", np.inf), ("epsilon_greedy", np.inf), ("exp3_mixture", np.nan)],
)
def test_a_simulation_stops_at_the_first_reward_that_is_not_finite(name, failure):
    world = FailingEnvironment(num_actions=4, context_size=3, batch_size=8)
    world.failure = failure
    with pytest.raises(FloatingPointError, match=f"^{name}, seed 3, step 7: .* must (stay|be) finite"):
        simulate(world, name, steps=20, points=4, seeds=[3])


def test_a_simulation_stops_where_weights_are_not_finite_though_its_measures_are():
    """A learning rate of 1e38 turns the weights infinite at the first step."""
    with pytest.raises(FloatingPointError, match=r"^EpsilonGreedy, seed 0, step .* must stay finite"):
        simulate(environment(), EpsilonGreedy(learning_rate=1e38), steps=4, points=1)


def test_features_of_1e20_are_refused_before_the_agent_has_learnt_them():
    """A context with a number of 1e20 twice: LinUCB squared it in float32, and its state was NaN."""

    class LargeEnvironment(StationaryLinearEnvironment):
        def batch(self):
            batch = super().batch()
            return batch._replace(observation=batch.observation * [1.0, 0.0, 0.0, 0.0] + [0.0, 1e20, 1e20, 0.0])

    world = LargeEnvironment(num_actions=4, context_size=3, batch_size=8)
    agent = make_agent("linucb", world)
    with pytest.raises(
        FloatingPointError, match=r"^LinUCB, seed 0, step 1: .*features and rewards must be finite, and"
    ):
        simulate(world, {"LinUCB": agent}, steps=5)
    assert agent.model.count.numpy().sum() == 0


RESUMABLE = """
import hashlib, sys
import pandas as pd
from recbandits.agents import parameters
from recbandits.agents.factory import make_agent
from recbandits.environments import StationaryLinearEnvironment
from recbandits.training import online

online.INTERVAL = 0.0  # a checkpoint after each measurement
world = StationaryLinearEnvironment(num_actions=6, context_size=8, batch_size=64, available=0.7, reward_noise=0.5)
digest = hashlib.sha256()
for name in sys.argv[2:]:
    values = {"pretrain_steps": 30} if name == "NeuralLinUCB" else {}
    agent = make_agent(getattr(parameters, name)(**values), world, seed=1)
    frame = online.simulate(world, {name: agent}, steps=60, seeds=[1], points=30, checkpoints=sys.argv[1])
    digest.update(frame.to_csv().encode())
    for variable in [*agent.variables, *world.state]:
        digest.update(variable.numpy().tobytes())
print(digest.hexdigest())
"""


def saved(checkpoint):
    """Number of the last checkpoint."""
    return int(checkpoint.read_text().split("ckpt-")[1].split('"')[0])


def test_a_killed_simulation_continues_to_the_same_end_bit_by_bit(kill_when, tmp_path):
    """SIGKILL in the middle of each of four agents' runs; frame, statistics, weights, optimiser and streams agree."""
    names = ["LinTS", "EpsilonGreedy", "NeuralLinUCB", "Exp3Mixture"]
    script = tmp_path / "run.py"
    script.write_text(RESUMABLE)

    def start(directory, names):
        return ForkedPython(script, [tmp_path / directory, *names], tmp_path / f"{directory}.log")

    for name in names:
        checkpoint = tmp_path / "killed" / name / "seed-1" / "checkpoint"
        kill_when(start("killed", [name]), lambda file=checkpoint: file.exists() and saved(file) >= 10)
        assert '"ckpt-30"' not in checkpoint.read_text(), "the run was over when it was killed"
    digests = []
    for directory in ("killed", "undisturbed"):
        process = start(directory, names)
        process.communicate()
        log = (tmp_path / f"{directory}.log").read_text()
        assert process.exitcode == 0, log
        digests.append(log.split()[-1])
    assert digests[0] == digests[1]
