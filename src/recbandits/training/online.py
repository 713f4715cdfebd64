"""The on-policy loop: serve single items or slates, observe the reward, learn; all of it in one graph."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path

from recbandits.tf import tf

import numpy as np
import pandas as pd
from tf_agents.agents import tf_agent
from tqdm import tqdm

from recbandits.agents.factory import make_agent
from recbandits.environments.base import SeededEnvironment
from recbandits.environments.ranking import RankingEnvironment
from recbandits.training.checkpoints import restored
from recbandits.training.experience import first_step, of_decision


def simulate(environment, agents, steps, seeds=(0,), points=50, tensorboard=None, checkpoints=None):
    """Let agents interact with an environment, each on the same users, candidates and noise.

    Args:
      environment: an `Environment`, or a `RankingEnvironment` for agents that show slates.
      agents: a name, or parameters such as `LinUCB(alpha=0.1)`, made anew for every seed; or an agent already made,
        which is trained in place on a single seed; or a mapping from labels to these.
      steps: batches to serve.
      seeds: one run for each agent and seed; a seed fixes the environment's stream, exploration and initial weights.
      points: measurements per run, evenly spaced.
      tensorboard: directory for scalars, one run per agent and seed; None for none.
      checkpoints: directory; what was finished there is not run again, and what was interrupted goes on from its last
        measurement to the same end, bit by bit. None for none.

    Returns:
      DataFrame with one row per agent, seed and measurement: agent, seed, step, interactions; regret (expected, mean
      per interaction since the last measurement), reward (mean), suboptimal (share of actions that were not the best)
      and cumulative_regret (sum of expected regret since the start). The reward of a slate is its number of clicks,
      and it is sub-optimal where fewer are expected of it than of the best slate.

    Raises:
      ValueError: nothing to run, seeds or labels that are not different, an agent already made with several seeds, or
        checkpoints of another simulation.
    """
    if not isinstance(environment, SeededEnvironment):
        raise ValueError(f"environment must be one of recbandits, got {type(environment).__name__}")
    if not isinstance(agents, Mapping):
        agents = {_label(agents): agents}
    seeds = _check(agents, steps, seeds, points)
    ends = np.unique(np.linspace(0, steps, min(points, steps) + 1).round().astype(int))[1:]
    frames = []
    with tqdm(total=len(agents) * len(seeds) * len(ends), disable=None, unit="point") as progress:
        for label, agent in agents.items():
            run = _Run(environment, label, agent, ends)
            for seed in seeds:
                progress.set_description(f"{label}, seed {seed}")
                frames.append(run(seed, _below(tensorboard, label, seed), _below(checkpoints, label, seed), progress))
    return pd.concat(frames, ignore_index=True)


def _check(agents, steps, seeds, points):
    """Refuse what cannot be simulated; returns the seeds as a list."""
    if not (agents and isinstance(steps, Integral) and steps >= 1 and isinstance(points, Integral) and points >= 1):
        raise ValueError(f"there must be agents, steps and points, got {len(agents)}, {steps} and {points}")
    seeds = list(seeds) if isinstance(seeds, Iterable) else seeds
    if not seeds or not isinstance(seeds, list) or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be whole numbers, at least one and all different, got {seeds}")
    folders = {_folder(label) for label in agents}
    if "" in folders or len(folders) < len(agents):
        raise ValueError(f"labels must differ in their letters and digits, got {', '.join(map(str, agents))}")
    made = [label for label, agent in agents.items() if isinstance(agent, tf_agent.TFAgent)]
    if made and len(seeds) > 1:
        raise ValueError(f"{made[0]}: an agent already made runs one seed; give its parameters to run several")
    return seeds


class _Run:
    """One agent in one environment: traced once, run for every seed."""

    def __init__(self, environment, label, agent, ends):
        self._environment, self._label, self._parameters, self._ends = environment, label, agent, ends
        self._agent = self._loop = None

    def __call__(self, seed, tensorboard, checkpoints, progress):
        self._prepare(seed)
        history = tf.Variable(tf.zeros([len(self._ends), 3], tf.float64), trainable=False)
        done = tf.Variable(0, trainable=False)
        manager = self._restore(seed, checkpoints, history, done)
        scalars = None if tensorboard is None else _Scalars(tensorboard)
        if scalars is not None:
            scalars.write(self._frame(seed, history.numpy())[: int(done)])
        progress.update(int(done))
        for point in range(int(done), len(self._ends)):
            window = self._ends[point] - (self._ends[point - 1] if point else 0)
            history[point].assign(self._loop(tf.constant(window, tf.int32)) / window)
            done.assign(point + 1)
            if manager is not None:
                manager.save(point + 1)
            if scalars is not None:
                scalars.write(self._frame(seed, history.numpy())[point : point + 1])
            progress.update()
        return self._frame(seed, history.numpy())

    def _prepare(self, seed):
        """Reset the environment, and the agent to what it is when made with this seed."""
        made = self._parameters
        if not isinstance(made, tf_agent.TFAgent):
            made = make_agent(made, self._environment, seed)
        if self._loop is None:
            self._agent, self._loop = made, _make_loop(self._environment, made)
        else:
            for variable, value in zip(self._agent.variables, made.variables, strict=True):
                variable.assign(value)
        self._environment.restart(seed)

    def _restore(self, seed, directory, history, done):
        if directory is None:
            return None
        what = {
            "agent": repr(getattr(self._agent, "parameters", self._label)),
            "seed": int(seed),
            "steps": int(self._ends[-1]),
            "points": len(self._ends),
            "users": [self._digest_at(seed, step) for step in (int(self._ends[-1]) - 1, 0)],
        }
        world = self._environment
        if isinstance(world, RankingEnvironment):  # what becomes of a slate is not in the batches
            what["slates"] = [world.num_slots, repr(world.clicks), world.feedback]
        state = {"agent": self._agent, "environment": world.state, "history": history, "done": done}
        return restored(directory, what, "simulation", self._label, **state)

    def _digest_at(self, seed, step):
        """Fingerprint of all that the environment knows at a step; it is left at that step."""
        self._environment.restart(seed, step)
        digest = hashlib.sha256()
        for tensor in tf.nest.flatten(self._environment.batch()):
            if tensor is not None:
                digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def _frame(self, seed, history):
        frame = pd.DataFrame(history, columns=["regret", "reward", "suboptimal"])
        interactions = self._ends * self._environment.batch_size
        frame.insert(0, "agent", self._label)
        frame.insert(1, "seed", seed)
        frame.insert(2, "step", self._ends)
        frame.insert(3, "interactions", interactions)
        return frame.assign(cumulative_regret=(frame["regret"] * np.diff(interactions, prepend=0)).cumsum())


def _make_loop(environment, agent):
    """A graph that serves and learns for a number of steps and returns sums of regret, reward and sub-optimal share."""

    def step(number, sums):
        batch = environment.batch()
        decision = agent.collect_policy.action(first_step(environment, batch.observation))
        response = environment.respond(batch, decision.action)
        agent.train(of_decision(agent, batch.observation, decision, response.feedback))
        environment.advance()
        expected, optimal = response.expected, response.optimal
        means = [optimal - expected, response.reward, tf.cast(expected < optimal, tf.float32)]
        return number + 1, sums + tf.cast(tf.stack([tf.reduce_mean(mean) for mean in means]), tf.float64)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.int32)])
    def loop(steps):
        start = [tf.constant(0), tf.zeros([3], tf.float64)]
        return tf.while_loop(lambda number, _: number < steps, step, start, parallel_iterations=1)[1]

    return loop.get_concrete_function()


class _Scalars:
    """Event files of one run for TensorBoard; those of an earlier run in the same folder are removed."""

    def __init__(self, directory):
        for file in directory.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer = tf.summary.create_file_writer(str(directory))

    def write(self, rows):
        """Write every measure of some rows of a frame."""
        for row in rows.itertuples():
            with self._writer.as_default(step=row.interactions):
                for measure in ("regret", "reward", "suboptimal", "cumulative_regret"):
                    tf.summary.scalar(measure, getattr(row, measure))
        self._writer.flush()


def _label(agent):
    if isinstance(agent, str):
        return agent
    return agent.name if isinstance(agent, tf_agent.TFAgent) else type(agent).__name__


def _folder(label):
    """A label as a name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(label)).strip("-.")


def _below(directory, label, seed):
    """Folder of one run."""
    return None if directory is None else Path(directory) / _folder(label) / f"seed-{seed}"
