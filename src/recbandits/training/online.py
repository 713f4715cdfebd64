"""Simulation of the on-policy loop in one graph: serve single items or slates, observe the reward, learn."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from recbandits.tf import tf

import numpy as np
import pandas as pd
from tf_agents.agents.tf_agent import TFAgent
from tf_agents.trajectories import time_step as ts
from tqdm import tqdm

from recbandits.agents.factory import make_agent
from recbandits.checks import require, whole
from recbandits.environments.base import SeededEnvironment
from recbandits.environments.ranking import RankingEnvironment
from recbandits.training.checkpoints import assign_values, compute_digest, open_checkpoints, read_values
from recbandits.training.experience import convert_decision
from recbandits.training.summaries import SimulationSummaries


def simulate(
    environment: SeededEnvironment,
    agents,
    steps: int,
    seeds: Iterable[int] = (0,),
    points: int = 50,
    tensorboard: str | Path | None = None,
    checkpoints: str | Path | None = None,
) -> pd.DataFrame:
    """Let agents interact with an environment, each with the same users, candidates and noise.

    Args:
      environment: an `Environment`, or a `RankingEnvironment` for agents that rank.
      agents: a name, or parameters such as `LinUCB(alpha=0.1)`, from which an agent is made for every seed; or an agent
        itself, which is trained in place on a single seed; or a mapping from labels to these.
      steps: batches to serve.
      seeds: one run for each agent and seed; a seed fixes the environment's stream, exploration and initial weights.
      points: measurements per run, evenly spaced.
      tensorboard: directory for scalars, one run per agent and seed; None for none.
      checkpoints: directory; a run that was finished there is read back, and one that was interrupted continues after
        its last measurement to the same end, bit by bit. None for none.

    Returns:
      One row per agent, seed and measurement: agent, seed, step, interactions; regret (expected, mean per interaction
      since the last measurement), reward (mean), suboptimal (share of actions that were not the best) and
      cumulative_regret (sum of expected regret since the start). The reward of a slate is its number of clicks, and it
      is sub-optimal where fewer clicks are expected of it than of the best slate.

    Raises:
      ValueError: nothing to run, seeds or labels that are not different, an agent itself with several seeds, or
        checkpoints of another simulation.
    """
    if not isinstance(environment, SeededEnvironment):
        raise ValueError(f"environment must be one of recbandits, got {type(environment).__name__}")
    if not isinstance(agents, Mapping):
        agents = {_default_label(agents): agents}
    seeds = list(seeds) if isinstance(seeds, Iterable) else seeds
    _check(agents, steps, seeds, points)
    ends = np.unique(np.linspace(0, steps, min(points, steps) + 1).round().astype(int))[1:]
    frames = []
    with tqdm(total=len(agents) * len(seeds) * len(ends), disable=None, unit="point") as progress:
        for label, agent in agents.items():
            simulation = _Simulation(environment, label, agent, ends)
            for seed in seeds:
                progress.set_description(f"{label}, seed {seed}")
                directories = [
                    directory and Path(directory, _folder_name(label), f"seed-{seed}")
                    for directory in (tensorboard, checkpoints)
                ]
                frames.append(simulation.run(seed, *directories, progress))
    return pd.concat(frames, ignore_index=True)


def _check(agents, steps, seeds, points):
    require(bool(agents), "agents", "at least one", agents)
    for name, value in {"steps": steps, "points": points}.items():
        require(whole().accepts(value), name, whole().expected, value)
    different = isinstance(seeds, list) and 0 < len(seeds) == len(set(seeds))
    require(different, "seeds", "whole numbers, at least one and all different", seeds)
    folders = {_folder_name(label) for label in agents}
    if "" in folders or len(folders) < len(agents):
        raise ValueError(f"labels must differ in their letters and digits, got {', '.join(map(str, agents))}")
    instances = [label for label, agent in agents.items() if isinstance(agent, TFAgent)]
    if instances and len(seeds) > 1:
        raise ValueError(f"{instances[0]}: an agent itself runs one seed; give its parameters to run several")


class _Simulation:
    """One agent in one environment: traced once, run for every seed."""

    def __init__(self, environment, label, agent, ends):
        self._environment, self._label, self._source, self._ends = environment, label, agent, ends
        self._agent = self._loop = None

    def run(self, seed, tensorboard, checkpoints, progress):
        """Run one seed, or what is left of it, and return its measurements."""
        self._reset(seed)
        history = tf.Variable(tf.zeros([len(self._ends), 3], tf.float64), trainable=False)
        done = tf.Variable(0, trainable=False)
        manager = checkpoints and self._restore(seed, checkpoints, history, done)
        summaries = tensorboard and SimulationSummaries(tensorboard)
        if summaries:
            summaries.write(self._make_frame(seed, history)[: int(done)])
        progress.update(int(done))
        for point in range(int(done), len(self._ends)):
            window = self._ends[point] - (self._ends[point - 1] if point else 0)
            history[point].assign(self._loop(tf.constant(window, tf.int32)) / window)
            done.assign(point + 1)
            if manager:
                manager.save(point + 1)
            if summaries:
                summaries.write(self._make_frame(seed, history)[point : point + 1])
            progress.update()
        return self._make_frame(seed, history)

    def _reset(self, seed):
        """Reset the environment, and the agent to its state when it is made with this seed."""
        agent = self._source
        if not isinstance(agent, TFAgent):
            agent = make_agent(agent, self._environment, seed)
        if self._loop is None:
            self._agent, self._loop = agent, _make_loop(self._environment, agent)
        else:
            assign_values(self._agent.variables, read_values(agent.variables))
        self._environment.restart(seed)

    def _restore(self, seed, directory, history, done):
        environment = self._environment
        settings = {
            "agent": repr(getattr(self._agent, "parameters", self._label)),
            "seed": int(seed),
            "steps": int(self._ends[-1]),
            "points": len(self._ends),
            "users": [self._compute_digest(seed, step) for step in (int(self._ends[-1]) - 1, 0)],
        }
        if isinstance(environment, RankingEnvironment):  # the batches do not determine the clicks on a slate
            settings["slates"] = [environment.num_slots, repr(environment.clicks), environment.feedback]
        state = {"agent": self._agent, "environment": environment.state, "history": history, "done": done}
        return open_checkpoints(directory, settings, "simulation", self._label, **state)

    def _compute_digest(self, seed, step):
        """Compute the digest of the batch of a step, at which the environment is left."""
        self._environment.restart(seed, step)
        tensors = tf.nest.flatten(self._environment.batch())
        return compute_digest(tensor.numpy() for tensor in tensors if tensor is not None)

    def _make_frame(self, seed, history):
        frame = pd.DataFrame(history.numpy(), columns=["regret", "reward", "suboptimal"])
        interactions = self._ends * self._environment.batch_size
        columns = {"agent": self._label, "seed": seed, "step": self._ends, "interactions": interactions}
        for position, (name, values) in enumerate(columns.items()):
            frame.insert(position, name, values)
        return frame.assign(cumulative_regret=(frame["regret"] * np.diff(interactions, prepend=0)).cumsum())


def _make_loop(environment, agent):
    """Make a graph that serves and learns for some steps and returns sums of regret, reward and sub-optimal share."""

    def step(number, sums):
        batch = environment.batch()
        time_step = ts.restart(batch.observation, environment.batch_size, environment.reward_spec())
        decision = agent.collect_policy.action(time_step)
        response = environment.respond(batch, decision.action)
        agent.train(convert_decision(agent, batch.observation, decision, response.feedback))
        environment.advance()
        expected, optimal = response.expected, response.optimal
        means = [optimal - expected, response.reward, tf.cast(expected < optimal, tf.float32)]
        return number + 1, sums + tf.cast(tf.stack([tf.reduce_mean(mean) for mean in means]), tf.float64)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.int32)])
    def loop(steps):
        start = [tf.constant(0), tf.zeros([3], tf.float64)]
        return tf.while_loop(lambda number, _: number < steps, step, start, parallel_iterations=1)[1]

    return loop.get_concrete_function()


def _default_label(agent):
    if isinstance(agent, str):
        return agent
    return agent.name if isinstance(agent, TFAgent) else type(agent).__name__


def _folder_name(label):
    """Return a label with those characters alone that every file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(label)).strip("-.")
