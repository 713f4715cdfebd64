"""Simulation of the on-policy loop in one graph: serve single items or slates, observe the reward, learn."""

import re
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from recbandits.tf import tf

import numpy as np
import pandas as pd
from tf_agents.agents.tf_agent import TFAgent
from tf_agents.trajectories import time_step as ts
from tqdm import tqdm

from recbandits.agents.factory import make_agent
from recbandits.checks import require, require_each, require_seeds, whole
from recbandits.config import count_cores
from recbandits.environments.base import SeededEnvironment
from recbandits.environments.ranking import RankingEnvironment
from recbandits.evaluation.regret import MEASURES
from recbandits.training.checkpoints import INTERVAL, Restart, compute_digest, open_checkpoints, read_values
from recbandits.training.experience import convert_decision, explain_errors
from recbandits.training.summaries import SimulationSummaries

_STEPS_OF_A_PART = 10_000  # take about twice as long as tracing a graph


def simulate(
    environment: SeededEnvironment,
    agents: Any,
    steps: int,
    seeds: Iterable[int] = (0,),
    points: int = 50,
    tensorboard: str | Path | None = None,
    checkpoints: str | Path | None = None,
    greedy: bool = False,
) -> pd.DataFrame:
    """Let agents interact with an environment, each with the same users, candidates and noise.

    Agents run side by side, one thread for each processor; so do the seeds of a single agent if they are long. The
    results are the same, bit by bit, with any number of threads. ValueError for nothing to run, seeds or labels that
    are not different, an agent itself with several seeds, or checkpoints of another simulation. FloatingPointError,
    with agent, seed and step, for a regret, reward, loss or weight that is not finite.

    Args:
      environment: an `Environment`, or a `RankingEnvironment` for agents that rank.
      agents: a name, or parameters such as `LinUCB(alpha=0.1)`, from which an agent is made for every seed; or an agent
        itself, which is trained in place on a single seed; or a mapping from labels to these.
      steps: batches to serve.
      seeds: one run for each agent and seed; a seed fixes the environment's stream, exploration and initial weights.
      points: measurements per run, evenly spaced.
      tensorboard: directory for scalars, one run per agent and seed; None for none.
      checkpoints: directory; a run that was finished there is read back, and one that was interrupted continues after
        the measurement that it saved last, every ten seconds, to the same end, bit by bit. None for none.
      greedy: True to measure also the agent's `policy`, which does not explore, on the batches that its
        `collect_policy` serves and learns from.

    Returns:
      One row per agent, seed and measurement: agent, seed, step, interactions; regret (expected, mean per interaction
      since the last measurement), reward (mean), suboptimal (share of actions that were not the best) and
      cumulative_regret (sum of expected regret since the start). The reward of a slate is its number of clicks, and it
      is sub-optimal where fewer clicks are expected of it than of the best slate. With `greedy` also greedy_regret, of
      `policy` before the agent learns from the batch; regret minus greedy_regret is the exploration cost. The EXP3
      mixture, which has one policy for both, has the same regret twice.
    """
    require(isinstance(environment, SeededEnvironment), "environment", "one of recbandits", environment)
    if not isinstance(agents, Mapping):
        agents = {_default_label(agents): agents}
    seeds = require_seeds(seeds)
    _check(agents, steps, seeds, points)
    ends = np.unique(np.linspace(0, steps, min(points, steps) + 1).round().astype(int))[1:]
    frames, stop, workers = {}, threading.Event(), count_cores()

    def run(environment, agents, seeds):
        for label, agent in agents.items():
            simulation = _Simulation(environment, label, agent, ends, greedy, stop)
            for seed in seeds:
                progress.set_description(f"{label}, seed {seed}")
                directories = [
                    directory and Path(directory, _folder_name(label), f"seed-{seed}")
                    for directory in (tensorboard, checkpoints)
                ]
                frames[label, seed] = simulation.run(seed, *directories, progress)

    with (
        tqdm(total=len(agents) * len(seeds) * len(ends), disable=None, unit="point") as progress,
        ThreadPoolExecutor(workers) as pool,
    ):
        parts = [pool.submit(run, *part) for part in _divide(environment, agents, seeds, steps, workers)]
        try:
            wait(parts, return_when=FIRST_EXCEPTION)
        finally:  # after an error, or Ctrl-C, the other threads end at their next measurement
            stop.set()
            pool.shutdown(cancel_futures=True)
        for part in parts:
            if not part.cancelled():
                part.result()
    return pd.concat([frames[label, seed] for label in agents for seed in seeds], ignore_index=True)


def _divide(environment, agents, seeds, steps, workers):
    """Divide a simulation into (environment, agents by label, seeds of each) that can run side by side.

    Agents themselves are one part, in the given environment: a baseline reads the one for which it was made. The seeds
    of a single agent are divided if a part has enough steps to make up for the tracing of its graph.
    """
    instances = {label: agent for label, agent in agents.items() if isinstance(agent, TFAgent)}
    parts = [(environment, instances, seeds)] if instances else []
    shares = min(workers, len(seeds), max(1, steps * len(seeds) // _STEPS_OF_A_PART)) if len(agents) == 1 else 1
    for label, agent in agents.items():
        if label not in instances:
            parts += [(environment.twin(), {label: agent}, seeds[share::shares]) for share in range(shares)]
    return parts


def _check(agents, steps, seeds, points):
    require(bool(agents), "agents", "at least one", agents)
    require_each(whole(), steps=steps, points=points)
    require(steps // points < 2**31 - 1, "steps", "fewer than 2**31 - 1 for each of the points", steps)
    folders = {_folder_name(label) for label in agents} - {""}
    require(len(folders) == len(agents), "letters and digits of labels", "different from each other", [*agents])
    instances = [label for label, agent in agents.items() if isinstance(agent, TFAgent)]
    expected = f"one for agents that are given instead of their parameters, {instances}"
    require(not instances or len(seeds) == 1, "seeds", expected, seeds)


class _Simulation:
    """One agent in one environment: traced once, run for every seed, until an event is set."""

    def __init__(self, environment, label, agent, ends, greedy, stop):
        self._environment, self._label, self._source, self._ends = environment, label, agent, ends
        self._greedy, self._measures = greedy, MEASURES if greedy else MEASURES[:-1]
        self._stop = stop
        self._agent = self._loop = self._restart = None

    def run(self, seed, tensorboard, checkpoints, progress):
        """Run one seed, or what is left of it, and return its measurements."""
        self._reset(seed)
        history = tf.Variable(tf.zeros([len(self._ends), len(self._measures)], tf.float64), trainable=False)
        done = tf.Variable(0, trainable=False)
        manager = checkpoints and self._restore(seed, checkpoints, history, done)
        summaries = tensorboard and SimulationSummaries(tensorboard)
        written, saved = int(done), time.monotonic()
        progress.update(written)
        if summaries:
            summaries.write(self._make_frame(seed, history)[:written])
        for point in range(written, len(self._ends)):
            if self._stop.is_set():
                break
            history[point].assign(self._measure(seed, self._ends[point - 1] if point else 0, self._ends[point]))
            done.assign(point + 1)
            progress.update()
            if point + 1 == len(self._ends) or time.monotonic() - saved >= INTERVAL:
                if manager:
                    manager.save(point + 1)
                if summaries:
                    summaries.write(self._make_frame(seed, history)[written : point + 1])
                written, saved = point + 1, time.monotonic()
        return self._make_frame(seed, history)

    def _measure(self, seed, start, end):
        """Run the steps after `start` up to `end`, and return the means of the measures."""
        with explain_errors(lambda: f"{self._label}, seed {seed}, step {int(self._environment.state[1]) + 1}"):
            step, sums, finite = self._loop(tf.constant(end - start, tf.int32))
        regret, reward, *_, loss = sums.numpy()
        if finite and np.isfinite(sums).all():
            return sums[:-1] / (end - start)
        raise FloatingPointError(
            f"{self._label}, seed {seed}, step {start + int(step)}: regret, reward, loss and weights must stay finite, "
            f"got regret {regret:g}, reward {reward:g} and loss {loss:g} since step {start} (extreme rewards or "
            "features, or too large a learning rate)"
        )

    def _reset(self, seed):
        """Reset the environment, and the agent to its state when it is made with this seed."""
        if self._restart:
            self._restart(seed)
        else:
            given = isinstance(self._source, TFAgent)
            self._agent = self._source if given else make_agent(self._source, self._environment, seed)
            self._loop = _make_loop(self._environment, self._agent, self._greedy)
            self._restart = Restart(self._agent, self._environment)
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
        if self._greedy:
            settings["greedy"] = True
        if self._agent is self._source:  # which may have learnt before
            settings["start"] = compute_digest(read_values(self._agent.variables))
        state = {"agent": self._agent, "environment": environment.state, "history": history, "done": done}
        return open_checkpoints(directory, settings, "simulation", self._label, **state)

    def _compute_digest(self, seed, step):
        """Compute the digest of the batch of a step, at which the environment is left."""
        self._environment.restart(seed, step)
        tensors = tf.nest.flatten(self._environment.batch())
        return compute_digest(tensor.numpy() for tensor in tensors if tensor is not None)

    def _make_frame(self, seed, history):
        interactions = self._ends * self._environment.batch_size
        columns = {"agent": self._label, "seed": seed, "step": self._ends, "interactions": interactions}
        frame = pd.DataFrame(columns | dict(zip(self._measures, history.numpy().T, strict=True)))
        return frame.assign(cumulative_regret=(frame["regret"] * np.diff(interactions, prepend=0)).cumsum())


def _make_loop(environment, agent, greedy):
    """Make a graph that serves and learns for some steps, or until a sum is not finite.

    Returns:
      Function from a number of steps int32 [] to the number of those taken, the sums float64 [4] of regret, reward,
      sub-optimal share and loss (float64 [5] with `greedy`, whose regret is before the loss), and whether all variables
      of the agent are finite.
    """

    def step(number, sums):
        batch = environment.batch()
        time_step = ts.restart(batch.observation, environment.batch_size, environment.reward_spec())
        decision = agent.collect_policy.action(time_step)
        response = environment.respond(batch, decision.action)
        expected, optimal = response.expected, response.optimal
        measures = [optimal - expected, response.reward, tf.cast(expected < optimal, tf.float32)]
        if greedy:
            separate = agent.policy is not agent.collect_policy  # one policy for both would draw twice
            action = agent.policy.action(time_step).action if separate else decision.action
            measures.append(optimal - environment.respond(batch, action).expected)
        loss = agent.train(convert_decision(agent, batch.observation, decision, response.feedback)).loss
        with tf.control_dependencies([loss]):  # an error leaves the environment at its step
            environment.advance()
        means = [tf.cast(tf.reduce_mean(measure), tf.float64) for measure in (*measures, loss)]
        return number + 1, sums + tf.stack(means)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([], tf.int32)])
    def loop(steps):
        def continues(number, sums):
            return (number < steps) & tf.reduce_all(tf.math.is_finite(sums))

        start = [tf.constant(0), tf.zeros([5 if greedy else 4], tf.float64)]
        number, sums = tf.while_loop(continues, step, start, parallel_iterations=1)
        weights = [variable for variable in agent.variables if variable.dtype.is_floating]
        finite = [tf.reduce_all(tf.math.is_finite(variable)) for variable in weights]
        return number, sums, tf.reduce_all(finite)

    return loop.get_concrete_function()


def _default_label(agent):
    if isinstance(agent, str):
        return agent
    return agent.name if isinstance(agent, TFAgent) else type(agent).__name__


def _folder_name(label):
    """Return a label with those characters alone that every file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(label)).strip("-.")
