"""Slates that policies show to simulated users: what they are worth, the log they leave, and learning from them."""

from functools import partial
from typing import NamedTuple

from recbandits.tf import tf

import numpy as np

from recbandits.agents.factory import make_agent
from recbandits.environments.ranking import CHOSEN_INDEX, CHOSEN_VALUE, RankingEnvironment
from recbandits.records.slate_log import SlateLog
from recbandits.training.experience import first_step, of_decision

_POLICY = 1 << 50  # where the seeds of a policy's draws begin: far from those by which the environment draws


class ServedSlates(NamedTuple):
    """What a policy showed to n users, and what only the environment knows of it.

    Attributes:
      user_id: int64 [n].
      candidates: int64 [n, items], ids of what there was to choose from.
      slate: int32 [n, slots], columns of the candidates, from the top slot down.
      reward: float32 [n, slots], the clicks as the agent is told of them.
      value: float32 [n], expected clicks of the slate.
      optimal: float32 [n], expected clicks of the best slate.
      attraction: float32 [n, items], probability of a click on a candidate that is looked at.
      relevance: float32 [n, items], what the metrics of `evaluation.ranking` read.
    """

    user_id: np.ndarray
    candidates: np.ndarray
    slate: np.ndarray
    reward: np.ndarray
    value: np.ndarray
    optimal: np.ndarray
    attraction: np.ndarray
    relevance: np.ndarray

    @property
    def shown(self):
        """Ids of what was shown, int64 [n, slots]."""
        return np.take_along_axis(self.candidates, self.slate, axis=1)


class SlateProbabilities(NamedTuple):
    """What a policy would have done where the slates of a log were shown; what slate estimators ask for.

    Attributes:
      propensity: float64 [n, slots], probability of the logged item in each slot, given those above it.
      position: float64 [n, slots], probability of the logged item in each slot; None where it has no formula.
      conditional: float64 [n, slots, items], probability of every candidate in each slot, given the logged ones above.
    """

    propensity: np.ndarray
    position: np.ndarray | None
    conditional: np.ndarray


def serve_slates(environment, policy, slates, seed):
    """Let a policy serve simulated users; the same seed brings the same users, candidates and uniforms to every policy.

    Args:
      environment: a `RankingEnvironment`; it is left after the last of these users.
      policy: TF-Agents policy whose actions are slates; its own draws come from `seed`, too, and leave it as it was.
      slates: how many users to serve, at least 1.
      seed: of users, candidates, clicks and the policy's draws.

    Returns:
      ServedSlates

    Raises:
      ValueError: another environment, or no slate to serve.
    """
    return ServedSlates(**_visit(environment, slates, seed, _server(environment, policy, seed)))


def compute_slate_values(environment, policy, slates, seed):
    """Expected clicks of every slate that a policy shows, float32 [slates]; arguments as of `serve_slates`.

    Clicks are not drawn for it, and two policies meet the same users: their difference has a narrow interval.
    """
    return serve_slates(environment, policy, slates, seed).value


def log_slates(environment, policy, slates, seed):
    """Log what a policy shows and how users answer, with its propensities.

    Args:
      environment: a `RankingEnvironment`; users and movies that are drawn anew are logged by number.
      policy: `SlatePolicy` that has propensities.
      slates: how many slates to log, at least 1.
      seed: as of `serve_slates`, which with the same seed shows the same slates.

    Returns:
      SlateLog; a reward is the click on a slot, under cascading feedback only the click that the agent is told of.

    Raises:
      ValueError: as of `serve_slates`, or a policy whose propensities have no formula.
    """
    serve = _server(environment, policy, seed)

    def compute(batch, number):
        served = serve(batch, number)
        return served | {"propensity": policy.propensities(batch.observation, served["slate"])}

    rows = _visit(environment, slates, seed, compute, policy)
    return SlateLog(
        event_id=_names(seed, slates),
        user_id=rows["user_id"],
        candidates=rows["candidates"],
        slate=rows["slate"].astype(np.int64),
        reward=rows["reward"].astype(np.float64),
        propensity=_probability(rows["propensity"]),
        position_propensity=_probability(rows.get("position")),
    )


def compute_slate_probabilities(environment, policy, log, seed):
    """Probabilities with which another policy would have shown the slates of a log.

    Args:
      environment: the `RankingEnvironment` that wrote the log; its users come again.
      policy: `SlatePolicy` to be judged, which has propensities.
      log: SlateLog of `log_slates`.
      seed: with which the log was written.

    Returns:
      SlateProbabilities

    Raises:
      ValueError: the log was written with another seed, or for other users or candidates, or a policy whose
        propensities have no formula.
    """
    logged = tf.constant(log.slate, tf.int32)

    def compute(batch, number):
        # the last batch may be logged in part: its missing rows are filled up, and cut off again
        rows = tf.minimum(
            number * environment.batch_size + tf.range(environment.batch_size, dtype=tf.int64), len(log) - 1
        )
        slate = tf.gather(logged, rows)
        slots = [policy.conditional(batch.observation, slate[:, :slot]) for slot in range(slate.shape[1])]
        return {
            "user_id": batch.users,
            "candidates": batch.items,
            "slate": slate,
            "propensity": policy.propensities(batch.observation, slate),
            "conditional": tf.stack(slots, axis=1),
        }

    rows = _visit(environment, len(log), seed, compute, policy)
    same = {  # users and movies that are drawn anew have the same numbers with every seed; the events have not
        "events": np.array_equal(_names(seed, len(log)), log.event_id),
        "users": np.array_equal(rows["user_id"], log.user_id),
        "candidates": np.array_equal(rows["candidates"], log.candidates),
    }
    if not all(same.values()):
        others = " and ".join(name for name, alike in same.items() if not alike)
        raise ValueError(f"log must be written in this environment with seed {seed}, got other {others}")
    position = rows.get("position")
    return SlateProbabilities(
        _probability(rows["propensity"]), _probability(position), _probability(rows["conditional"])
    )


def train_off_policy(environment, policy, agents, steps, seeds):
    """Train agents on the slates that another policy shows, all on the same slates and the same clicks, in one graph.

    It is what learning from the log of an earlier system comes to, without the log in between.

    Args:
      environment: a `RankingEnvironment`.
      policy: policy that decides what is shown, such as that of a baseline.
      agents: mapping from labels to parameters of slate agents, as `make_agent` takes them.
      steps: batches to learn from, at least 1.
      seeds: one training for each; a seed fixes users, clicks, the policy's draws and the initial weights.

    Yields:
      (seed, mapping from labels to agents), the agents trained for this seed until the next one is asked for.

    Raises:
      ValueError: as of `serve_slates`, when the first seed is asked for.
    """
    _check(environment, steps, "batch to learn from")
    trained = {label: make_agent(agent, environment) for label, agent in agents.items()}

    def step(number, seed):
        batch = environment.batch()
        decision = policy.action(first_step(environment, batch.observation), seed=_seed(seed, number))
        feedback = environment.respond(batch, decision.action).feedback
        for agent in trained.values():
            agent.train(of_decision(agent, batch.observation, decision, feedback))
        environment.advance()
        return number + 1, seed

    def run(seed):
        start = [tf.constant(0, tf.int64), seed]
        tf.while_loop(lambda number, _: number < steps, step, start, parallel_iterations=1)

    loop = _graph(run)
    for seed in seeds:
        for label, agent in trained.items():
            made = make_agent(agents[label], environment, seed)
            for variable, first in zip(agent.variables, made.variables, strict=True):
                variable.assign(first)
        environment.restart(seed)
        loop(tf.constant(seed, tf.int64))
        yield seed, trained


def _server(environment, policy, seed):
    """Function of (batch, number of the step) that serves a batch and gives the fields of `ServedSlates`."""

    def compute(batch, number):
        time_step = first_step(environment, batch.observation)
        slate = policy.action(time_step, seed=_seed(seed, number)).action
        response = environment.respond(batch, slate)
        return {
            "user_id": batch.users,
            "candidates": batch.items,
            "slate": slate,
            "reward": _clicks(response.feedback, environment.num_slots),
            "value": response.expected,
            "optimal": response.optimal,
            "attraction": batch.attraction,
            "relevance": batch.relevance,
        }

    return compute


def _visit(environment, slates, seed, compute, policy=None):
    """Compute something of one batch after the other in a graph, and join it to arrays of `slates` rows.

    With a `policy`, the result has the `position` propensities of the slates, if the policy has any.
    """
    _check(environment, slates)
    environment.restart(seed)
    graph = _graph(lambda number: compute(environment.batch(), number))
    parts = []
    for number in range(-(-slates // environment.batch_size)):
        part = {name: tensor.numpy() for name, tensor in graph(tf.constant(number, tf.int64)).items()}
        if policy is not None:
            part |= _positions(policy, environment.batch().observation, part["slate"])
        parts.append(part)
        environment.advance()
    rows = {name: np.concatenate([part[name] for part in parts])[:slates] for name in parts[0]}
    for name, ids in (("user_id", environment.user_ids), ("candidates", environment.movie_ids)):
        rows[name] = (rows[name] if ids is None else np.asarray(ids)[rows[name]]).astype(np.int64)
    return rows


def _graph(function):
    """A function of one int64 as a graph."""
    # a partial, because TensorFlow counts traces by code, and warns when many calls have one each
    return tf.function(partial(function), [tf.TensorSpec([], tf.int64)], autograph=False)


def _names(seed, slates):
    """Ids of the events that `log_slates` logs with a seed."""
    return np.array([f"{seed}-{number}" for number in range(slates)], dtype=object)


def _positions(policy, observation, slate):
    try:
        return {"position": policy.position_propensities(observation, slate)}
    except ValueError:  # the policy has no formula for them
        return {}


def _check(environment, number, what="slate to show"):
    if not isinstance(environment, RankingEnvironment):
        raise ValueError(f"environment must be a RankingEnvironment, got {type(environment).__name__}")
    if number < 1:
        raise ValueError(f"there must be at least one {what}, got {number}")


def _seed(seed, number):
    return tf.stack([tf.cast(seed, tf.int64), _POLICY + number])


def _clicks(feedback, num_slots):
    """What the agent is told as float32 [batch, slots]."""
    if not isinstance(feedback, dict):
        return feedback
    return tf.one_hot(feedback[CHOSEN_INDEX], num_slots) * feedback[CHOSEN_VALUE][:, None]


def _probability(value):
    """Float64, never above 1 by a rounding error of float32; None stays None."""
    return None if value is None else np.minimum(value.astype(np.float64), 1.0)
