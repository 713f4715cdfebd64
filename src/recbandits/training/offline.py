"""Learn from logged decisions: epochs for networks, one pass for linear models."""

import time
from numbers import Integral
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tqdm import tqdm

from recbandits.agents.linear import LinearModel
from recbandits.agents.neural import EncodedLinearModel, RewardNetwork
from recbandits.data.trajectories import Examples
from recbandits.data.trajectories import examples as examples_of
from recbandits.environments.base import GLOBAL, PER_ARM
from recbandits.training.epochs import make_epoch

WEIGHTS = (None, "ips")
_PAIRS = 1 << 17  # scored at a time


class Specs:
    """What `make_agent` has to know of logged decisions.

    Args:
      shapes: of one decision's observation, such as `FeatureBundle.spec(10)`: {"global": (G,), "per_arm": (k, D)}.
    """

    def __init__(self, shapes):
        self._shapes = shapes

    def time_step_spec(self):
        """Spec of a TF-Agents time step with these observations."""
        return ts.time_step_spec({name: tensor_spec.TensorSpec(size, name=name) for name, size in self._shapes.items()})

    def action_spec(self):
        """Spec of a candidate's column."""
        return tensor_spec.BoundedTensorSpec([], tf.int32, 0, self._shapes[PER_ARM][0] - 1, "action")


class _Stage(NamedTuple):
    """A part of the training: `epochs` of `agent.train(**options)`; a linear one is a single pass."""

    name: str
    epochs: int
    options: dict


def fit(
    agent,
    examples,
    *,
    epochs=1,
    batch_size=1024,
    validation=None,
    patience=None,
    weights=None,
    seed=0,
    xla=False,
):
    """Train an agent on logged decisions.

    Networks see the examples in a new order each epoch. A linear model sees each example once, in the order of the log:
    a second pass would add the same evidence again and shrink its confidence widths by sqrt(2), as if there had been
    twice as many users. NeuralLinUCB trains its network for `epochs` and then its linear model in one pass.

    Args:
      agent: from `make_agent` with `Specs`; it is trained in place, with the strategy in whose scope it was made.
      examples: Examples
      epochs: passes over the examples, for networks.
      batch_size: examples per update; the last batch of an epoch has what remains.
      validation: Examples on which the squared error is measured after each epoch; None for none.
      patience: epochs without a better validation error after which a network stops, to go back to its best epoch; None
        trains all epochs and keeps the last.
      weights: None weighs all examples alike; "ips" by 1 / (propensity * pass_prob), divided by its mean, which fits
        the decisions that a uniform policy would have logged.
      seed: of the order of the examples.
      xla: whether to compile networks with XLA: seconds of compilation for faster epochs.

    Returns:
      DataFrame with one row an epoch: epoch, stage ("network" or "linear"), loss (mean squared error of the batches
      before they were learnt), validation_mse (both weighted as `weights` says) and seconds (of training).

    Raises:
      ValueError: an agent, examples or options that do not fit; more than one pass, or an event that the agent has
        learnt before, where one pass is right.
      FloatingPointError: a loss that is not finite. The agent is then what it was after the epoch before.
    """
    parts = {"examples": examples} if validation is None else {"examples": examples, "validation": validation}
    _check(agent, parts, epochs, batch_size, patience, weights)
    size = min(batch_size, len(examples.event))
    stages = _stages(agent, epochs)
    if stages[-1].name == "linear":
        _refuse_again(agent, examples.event)
    frames = []
    with tqdm(total=sum(stage.epochs for stage in stages), disable=None, unit="epoch") as progress:
        for stage in stages:
            frames.append(_train(agent, stage, examples, validation, size, patience, weights, seed, xla, progress))
    history = pd.concat(frames, ignore_index=True)
    history.insert(0, "epoch", np.arange(1, len(history) + 1))
    return history


def _train(agent, stage, examples, validation, batch_size, patience, weights, seed, xla, progress):
    """Run the epochs of a stage; returns their history."""
    linear = stage.name == "linear"
    weight = weights_of(examples, weights)
    epoch = make_epoch(agent, examples, weight, batch_size, xla and not linear, not linear, **stage.options)
    sizes = np.diff(np.append(np.arange(0, len(examples.event), batch_size), len(examples.event)))
    history, best = [], None
    for number in range(stage.epochs):
        before, start = _values(agent), time.perf_counter()
        order = np.arange(len(examples.event))
        if not linear:
            order = np.random.default_rng([seed, number]).permutation(order)
        losses = epoch(order)
        if not np.isfinite(losses).all():
            _assign(agent, before)
            raise FloatingPointError(_diverged(number, losses))
        seconds = time.perf_counter() - start
        error = np.nan if validation is None else mse(agent, validation, weights)
        history.append((stage.name, np.average(losses, weights=sizes), error, seconds))
        progress.update()
        errors = [row[2] for row in history]
        if patience is not None and not linear:
            if np.argmin(errors) == number:
                best = _values(agent)
            elif number - np.argmin(errors) >= patience:
                break
    if best is not None:
        _assign(agent, best)
    if linear:
        agent.learnt.assign(np.concatenate([agent.learnt.numpy(), examples.event]))
    return pd.DataFrame(history, columns=["stage", "loss", "validation_mse", "seconds"])


def weights_of(examples, weights):
    """Weights float64 [n] of examples, mean 1; None for equal ones."""
    if weights is None:
        return None
    inverse = 1.0 / (examples.propensity.astype(float) * examples.pass_prob)
    return inverse / inverse.mean()


def mse(agent, examples, weights=None):
    """Mean squared error of an agent's predictions of logged rewards, weighted as `fit` does."""
    predicted = _score_pairs(agent.policy, examples.context, examples.arm)
    return float(np.average((examples.reward - predicted) ** 2, weights=weights_of(examples, weights)))


def scores(model, bundle, user_ids, candidates, mask=None):
    """Predicted reward of candidates.

    Args:
      model: an agent, or a policy of one, in this process or loaded; or, where the bundle is None, anything with
        `predict(user_ids [m], movie_ids [m])`, such as a `Factorization`.
      bundle: FeatureBundle that it was trained with.
      user_ids: int array [n].
      candidates: int array [n, k], movie ids.
      mask: bool array [n, k], False in padding; None for all True.

    Returns:
      float array [n, k], minus infinity where the mask is False.
    """
    user_ids, candidates = np.asarray(user_ids), np.asarray(candidates)
    mask = np.ones(candidates.shape, bool) if mask is None else np.asarray(mask)
    user = np.repeat(user_ids, mask.sum(axis=1))
    values = np.full(candidates.shape, -np.inf)
    if bundle is None:
        values[mask] = model.predict(user, candidates[mask])
        return values
    policy = getattr(model, "policy", model)
    rows = max(1, _PAIRS // candidates.shape[1])
    for start in range(0, len(user_ids), rows):
        part = slice(start, start + rows)
        observation = bundle.observation(user_ids[part], candidates[part], mask[part])
        wanted = mask[part]
        context = np.repeat(observation[GLOBAL], wanted.sum(axis=1), axis=0)
        values[part][wanted] = policy.score_pairs(context, observation[PER_ARM][wanted])
    return values


def doubly_robust(log, bundle, q):
    """Examples of every candidate, with the rewards by which doubly robust estimators value a policy.

    The reward of candidate a is q(a), plus (reward - q) / propensity if a was chosen: unbiased where the propensities
    are right, whatever q is (Dudik et al. 2014, "Doubly Robust Policy Evaluation and Optimization", section 3).

    Args:
      log: BanditLog
      bundle: FeatureBundle that knows its users and movies.
      q: float array [n, k], predicted reward of every candidate; it is not read in padding.

    Returns:
      Examples, one row for each decision and candidate that is not padding, with propensity 1: they need no more
      weighting for it. The chosen one keeps the hash of its event, the others have neighbouring numbers.
    """
    logged, observation = examples_of(log, bundle), bundle.observation(log.user_id, log.candidates, log.mask)
    row, column = np.nonzero(log.mask)
    reward, chosen = q[log.mask], column == log.action[row]
    reward[chosen] += (log.reward - reward[chosen]) / log.propensity
    return Examples(
        context=logged.context[row],
        arm=observation[PER_ARM][log.mask],
        reward=reward.astype(np.float32),
        propensity=np.ones(len(row), np.float32),
        pass_prob=logged.pass_prob[row],
        event=logged.event[row] + column - log.action[row],
    )


def _score_pairs(policy, context, arm):
    parts = [slice(start, start + _PAIRS) for start in range(0, len(arm), _PAIRS)]
    return np.concatenate([policy.score_pairs(context[part], arm[part]) for part in parts])


def _stages(agent, epochs):
    model = getattr(agent, "model", None)
    if isinstance(model, RewardNetwork):
        return [_Stage("network", epochs, {})]
    if isinstance(model, EncodedLinearModel):
        frozen = model.linear.count.numpy().any()
        network = [] if frozen else [_Stage("network", epochs, {"network": True})]
        _one_pass(epochs if frozen else 1, "its linear model learns on a network that must not change any more")
        return [*network, _Stage("linear", 1, {"network": False})]
    if isinstance(model, LinearModel):
        _one_pass(epochs, "a linear agent sums up evidence, and a second pass would count it twice")
        return [_Stage("linear", 1, {})]
    raise ValueError(f"agent must have a linear model or a network to learn from logs, got {type(agent).__name__}")


def _one_pass(epochs, why):
    if epochs != 1:
        raise ValueError(f"epochs must be 1: {why}; got {epochs}")


def _refuse_again(agent, event):
    """Refuse events that a linear model has learnt before, or would learn twice."""
    events, times = np.unique(event, return_counts=True)
    if (times > 1).any():
        first, second = np.flatnonzero(event == events[times > 1][0])[:2]
        raise ValueError(f"examples must be of different events, rows {first} and {second} are of the same one")
    again = int(np.isin(events, agent.learnt.numpy()).sum())
    if again:
        raise ValueError(
            f"examples must be new to a linear model, it has learnt {again} of these {len(events)} events before: "
            "the same evidence counted twice would make it too sure of itself"
        )


def _values(agent):
    return [variable.numpy() for variable in agent.variables]


def _assign(agent, values):
    for variable, value in zip(agent.variables, values, strict=True):
        variable.assign(value)


def _diverged(number, losses):
    batch = np.flatnonzero(~np.isfinite(losses))[0]
    return (
        f"epoch {number + 1}, batch {batch + 1} of {len(losses)}: the loss must be finite, got {losses[batch]}; "
        "try a smaller learning rate"
    )


def _check(agent, parts, epochs, batch_size, patience, weights):
    for name, value in (
        ("epochs", epochs),
        ("batch_size", batch_size),
        ("patience", 1 if patience is None else patience),
    ):
        if not (isinstance(value, Integral) and value >= 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if patience is not None and "validation" not in parts:
        raise ValueError("patience needs examples for validation, got none")
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be None or 'ips', got {weights!r}")
    features = agent.time_step_spec.observation
    if not isinstance(features, dict):
        raise ValueError("agent must be made for arms with features and without a mask, as Specs describes them")
    sizes = [features[name].shape[-1] for name in (GLOBAL, PER_ARM)]
    for name, part in parts.items():
        _check_examples(name, part, sizes)


def _check_examples(name, part, sizes):
    got = [part.context.shape[1], part.arm.shape[1]]
    if got != sizes:
        raise ValueError(f"{name} must have {sizes[0]} context and {sizes[1]} arm features, as the agent, got {got}")
    if not len(part.event):
        raise ValueError(f"{name} must have at least one row, got none")
    for field, values in zip(part._fields, part, strict=True):
        positive = field in ("propensity", "pass_prob")
        good = np.isfinite(values) & ((values > 0) | (not positive))
        if not good.all():
            row = np.argwhere(~good)[0][0]
            raise ValueError(f"{name}: {field} of row {row} must be finite{' and positive' * positive}")
