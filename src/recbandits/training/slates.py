"""Slates shown to simulated users: serving and logging them, their probabilities, and off-policy training on them."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

from recbandits.tf import tf

import numpy as np
from tf_agents.agents.tf_agent import TFAgent
from tf_agents.policies.tf_policy import TFPolicy
from tf_agents.trajectories import time_step as ts

from recbandits.agents.factory import make_agent
from recbandits.agents.ranking.models import rewards_by_slot
from recbandits.agents.ranking.policy import SlatePolicy
from recbandits.checks import require, require_each, require_seeds, whole
from recbandits.environments.ranking import RankingEnvironment
from recbandits.records.slate_log import SlateLog
from recbandits.training.checkpoints import Restart, read_values
from recbandits.training.experience import convert_decision

_FIRST_SEED = 1 << 50  # of the policy's draws: far from those of the environment
_OBSERVATION = "observation"  # a batch's, beside the fields of its slates


class ServedSlates(NamedTuple):
    """Slates that a policy showed to n users, with expectations that only the environment knows.

    `slate` int32 [n, slots] has columns of `candidates`, the ids int64 [n, items] of the items to choose from, from the
    top slot down. `reward` float32 [n, slots] are the clicks in the agent's feedback; `value` and `optimal`, float32
    [n], are the expected clicks of the slate and of the best slate. Of each candidate, float32 [n, items], `attraction`
    is the probability of a click when it is examined, and `relevance` is for the metrics of
    `evaluation.ranking_metrics`.
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
    def shown(self) -> np.ndarray:
        """Ids of the items shown, int64 [n, slots]."""
        return np.take_along_axis(self.candidates, self.slate, axis=1)


class SlateProbabilities(NamedTuple):
    """Probabilities of a target policy for the slates of a log, as slate estimators take them, float64.

    `propensity` [n, slots] is that of the logged item in each slot, given those above it, and `position` [n, slots]
    with any items above; None where it has no formula. `conditional` [n, slots, items] is that of every candidate in
    each slot, given the logged ones above.
    """

    propensity: np.ndarray
    position: np.ndarray | None
    conditional: np.ndarray


def serve_slates(environment: RankingEnvironment, policy: TFPolicy, slates: int, seed: int) -> ServedSlates:
    """Let a policy serve simulated users; a seed gives the same users, candidates and uniforms to every policy.

    The `value` of the slates has no noise of clicks, and two policies serve the same users: the difference of their
    values has a narrow interval. The environment is left after the last of these users, the policy as it was: its own
    draws, too, are seeded by `seed`. ValueError for another environment, or no slate to serve.
    """
    rows = _visit(environment, slates, seed, _make_server_graph(environment, policy))
    return ServedSlates(*(rows[name] for name in ServedSlates._fields))


def log_slates(environment: RankingEnvironment, policy: SlatePolicy, slates: int, seed: int) -> SlateLog:
    """Log the slates that `serve_slates` with the same arguments shows, and the clicks on them, with propensities.

    Users and movies that are drawn anew are logged by number. The reward is the click on a slot; under cascading
    feedback, only the click that the agent learns from. Errors are those of `serve_slates`, and ValueError for a policy
    whose propensities have no formula.
    """

    def compute(seed, number):
        served, observation = _serve(environment, policy, seed, number), environment.batch().observation
        propensity = policy.propensities(observation, served["slate"])
        return served | {"propensity": propensity, _OBSERVATION: observation}

    rows = _visit(environment, slates, seed, _make_graph(compute), policy)
    return SlateLog(
        event_id=_make_event_ids(seed, slates),
        user_id=rows["user_id"],
        candidates=rows["candidates"],
        slate=rows["slate"].astype(np.int64),
        reward=rows["reward"].astype(np.float64),
        propensity=_clip(rows["propensity"]),
        position_propensity=_clip(rows["position"]),
    )


def compute_slate_probabilities(
    environment: RankingEnvironment, policy: SlatePolicy, log: SlateLog, seed: int
) -> SlateProbabilities:
    """Compute the probabilities with which a target policy shows the slates of a log.

    Environment, log and seed are those of `log_slates`; the environment repeats the users of the log. ValueError for a
    log of another seed, or other users or candidates; a policy whose propensities have no formula.
    """
    logged = tf.constant(log.slate, tf.int32)

    def compute(seed, number):
        # the last batch may be logged in part: its missing rows are filled up, and cut off again
        batch = environment.batch()
        rows = number * environment.batch_size + tf.range(environment.batch_size, dtype=tf.int64)
        slate = tf.gather(logged, tf.minimum(rows, len(log) - 1))
        slots = [policy.conditional(batch.observation, slate[:, :slot]) for slot in range(slate.shape[1])]
        return {
            "user_id": batch.users,
            "candidates": batch.items,
            "slate": slate,
            "propensity": policy.propensities(batch.observation, slate),
            "conditional": tf.stack(slots, axis=1),
            _OBSERVATION: batch.observation,
        }

    rows = _visit(environment, len(log), seed, _make_graph(compute), policy)
    rows["event_id"] = _make_event_ids(seed, len(log))  # which differ even where users drawn anew have equal numbers
    names = {"event_id": "events", "user_id": "users", "candidates": "candidates"}
    others = [name for field, name in names.items() if not np.array_equal(rows[field], getattr(log, field))]
    expected = f"written in this environment with seed {seed}"
    require(not others, "log", expected, f"other {' and '.join(others)}")
    return SlateProbabilities(*(_clip(rows[name]) for name in SlateProbabilities._fields))


def train_off_policy(
    environment: RankingEnvironment, policy: TFPolicy, agents: Mapping[str, object], steps: int, seeds: Iterable[int]
) -> Iterator[tuple[int, dict[str, TFAgent]]]:
    """Train agents on the slates that another policy shows, all on the same slates and the same clicks, in one graph.

    `agents` map labels to parameters of slate agents, as `make_agent` takes them. The logging policy may be that of a
    baseline. Each seed has a training of its own: it fixes users, clicks, the policy's draws and the initial weights.
    Yields (seed, agents by label); the agents are those of this seed until the next one is requested. ValueErrors are
    those of `serve_slates`, when the first seed is requested. FloatingPointError, with label and seed, for weights that
    are not finite after the last step.
    """
    _check(environment, steps=steps)
    seeds = require_seeds(seeds)
    trained = {label: make_agent(agent, environment) for label, agent in agents.items()}

    def step(number, seed):
        batch = environment.batch()
        decision = _act(environment, policy, batch, seed, number)
        feedback = environment.respond(batch, decision.action).feedback
        for agent in trained.values():
            agent.train(convert_decision(agent, batch.observation, decision, feedback))
        environment.advance()
        return number + 1, seed

    def run(seed, number):
        tf.while_loop(lambda number, _: number < steps, step, [number, seed], parallel_iterations=1)

    loop, restarts = _make_graph(run), {label: Restart(agent, environment) for label, agent in trained.items()}
    for seed in seeds:
        for restart in restarts.values():
            restart(seed)
        environment.restart(seed)
        loop(tf.constant(seed, tf.int64), tf.constant(0, tf.int64))
        for label, restart in restarts.items():
            if not all(np.isfinite(value).all() for value in read_values(restart.variables)):
                raise FloatingPointError(
                    f"{label}, seed {seed}: weights must stay finite, some are not after step {steps} (extreme "
                    "features, or too large a learning rate)"
                )
        yield seed, trained


@lru_cache(maxsize=16)
def _make_server_graph(environment, policy):
    """Make the graph of `_serve`: traced once for an agent that is trained with several seeds."""
    return _make_graph(partial(_serve, environment, policy))


def _serve(environment, policy, seed, number):
    """Serve the current batch at a step with this number, and return the fields of `ServedSlates`."""
    batch = environment.batch()
    slate = _act(environment, policy, batch, seed, number).action
    response = environment.respond(batch, slate)
    return {
        "user_id": batch.users,
        "candidates": batch.items,
        "slate": slate,
        "reward": rewards_by_slot(response.feedback, environment.num_slots),
        "value": response.expected,
        "optimal": response.optimal,
        "attraction": batch.attraction,
        "relevance": batch.relevance,
    }


def _act(environment, policy, batch, seed, number):
    """Return the policy step of a batch, with draws that depend on the seed and the number of the step alone."""
    time_step = ts.restart(batch.observation, environment.batch_size, environment.reward_spec())
    return policy.action(time_step, seed=tf.stack([tf.cast(seed, tf.int64), _FIRST_SEED + number]))


def _visit(environment, slates, seed, graph, policy=None):
    """Compute fields of one batch after the other by a graph of seed and step, and join them to arrays [slates].

    The result also has the `position` propensities of the slates, for which the graph returns the observation, too;
    None without a `policy` that has a formula for them.
    """
    _check(environment, slates=slates)
    environment.restart(seed)
    parts, positions = [], []
    for number in range(-(-slates // environment.batch_size)):
        fields = graph(tf.constant(seed, tf.int64), tf.constant(number, tf.int64))
        observation = fields.pop(_OBSERVATION, None)
        parts.append({name: tensor.numpy() for name, tensor in fields.items()})
        if policy:
            with contextlib.suppress(ValueError):  # the policy has no formula for them
                positions.append(policy.position_propensities(observation, parts[-1]["slate"]))
        environment.advance()
    rows = {name: np.concatenate([part[name] for part in parts])[:slates] for name in parts[0]}
    rows["position"] = np.concatenate(positions)[:slates] if positions else None
    for name, ids in (("user_id", environment.user_ids), ("candidates", environment.movie_ids)):
        rows[name] = (rows[name] if ids is None else np.asarray(ids)[rows[name]]).astype(np.int64)
    return rows


def _make_graph(function):
    # a partial, because TensorFlow counts traces by code, and warns when many calls have one each
    return tf.function(partial(function), 2 * [tf.TensorSpec([], tf.int64)], autograph=False)


def _make_event_ids(seed, slates):
    return np.array([f"{seed}-{number}" for number in range(slates)], dtype=object)


def _check(environment, **numbers):
    require(isinstance(environment, RankingEnvironment), "environment", "a RankingEnvironment", environment)
    require_each(whole(), **numbers)


def _clip(probability):
    """Return a probability as float64, never above 1 by a rounding error of float32; None stays None."""
    return None if probability is None else np.minimum(probability.astype(np.float64), 1.0)
