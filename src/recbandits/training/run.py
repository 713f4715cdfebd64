"""The epochs of one training from logs: what is learnt in which order, when it is over, and how it resumes."""

import hashlib
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from recbandits.tf import tf

import numpy as np
import pandas as pd

from recbandits.agents.linear import LinearModel
from recbandits.agents.neural import EncodedLinearModel
from recbandits.data.slates import SlateExamples
from recbandits.training.checkpoints import restored
from recbandits.training.distribution import strategy_of
from recbandits.training.epochs import make_epoch
from recbandits.training.experience import gathered, tensors
from recbandits.training.summaries import Summaries

PAIRS = 1 << 17  # scored at a time


class Stage(NamedTuple):
    """Part of a training.

    Attributes:
      name: "network" or "linear"; the latter is a single pass in the order of the log.
      first: its first row in the history.
      epochs: how many at most.
      options: of `agent.train`.
    """

    name: str
    first: int
    epochs: int
    options: dict


def make_stages(agent, epochs):
    """What an agent learns in which order, a list of `Stage`; refuses agents and epochs that do not fit."""
    model = getattr(agent, "model", None)
    if isinstance(model, EncodedLinearModel):
        if model.linear.count.numpy().any():
            _one_pass(epochs, "the network must stay as it is, because its linear model has learnt on it")
            return [Stage("linear", 0, 1, {"network": False})]
        return [Stage("network", 0, epochs, {"network": True}), Stage("linear", epochs, 1, {"network": False})]
    if isinstance(model, LinearModel):
        _one_pass(epochs, "a linear model sums up evidence, and would count it again")
        return [Stage("linear", 0, 1, {})]
    if hasattr(model, "network"):
        return [Stage("network", 0, epochs, {})]
    raise ValueError(f"agent must have a linear model or a network to learn from logs, got {type(agent).__name__}")


class Run:
    """The training of one agent: its history, its best epoch, and how to go on after an interruption.

    Args:
      agent: with a strategy's variables or without.
      stages: from `make_stages`.
      parts: {"examples": Examples, "validation": Examples}, the latter only if there are some; or SlateExamples.
      options: dict of batch_size, patience, weights, seed and xla, as `fit` has them.
    """

    def __init__(self, agent, stages, parts, options):
        self._agent, self._stages, self._parts, self._options = agent, stages, parts, options
        rows = sum(stage.epochs for stage in stages)
        self._history = tf.Variable(tf.fill([rows, 3], np.float64("nan")), trainable=False)
        kept = agent.variables if options["patience"] else []
        self._best = [tf.Variable(value, trainable=False, shape=value.shape) for value in _values(kept)]
        self._manager = self._summaries = None

    def __len__(self):
        return self._history.shape[0]

    def frame(self):
        """The history of the epochs that were run."""
        frame = pd.DataFrame(self._history.numpy(), columns=["loss", "validation_mse", "seconds"])
        names = [stage.name for stage in self._stages]
        frame.insert(0, "stage", np.repeat(names, [stage.epochs for stage in self._stages]))
        frame = frame[frame["loss"].notna()].reset_index(drop=True)
        frame.insert(0, "epoch", frame.index + 1)
        return frame

    def resume(self, directory):
        """Go on from the checkpoints in a directory, if there are any, and write them there."""
        what = {"agent": repr(self._agent.parameters), "stages": repr(self._stages), "options": repr(self._options)}
        what |= {name: _digest(part) for name, part in self._parts.items()}
        what["start"] = _digest(_values(self._agent.variables))
        if isinstance(self._parts["examples"], SlateExamples):  # the same rewards are another feedback to another agent
            what["feedback"] = repr(self._agent.time_step_spec.reward)
        writes = strategy_of(self._agent).extended.should_checkpoint
        state = {"agent": self._agent, "history": self._history, "best": self._best}
        manager = restored(directory, what, "training", Path(directory).name, writes, **state)
        self._manager = manager if writes else None

    def summarise(self, directory):
        """Write event files for TensorBoard into a directory."""
        if not strategy_of(self._agent).extended.should_save_summary:
            return
        self._summaries = Summaries(directory, self._agent, self._parts["examples"])
        if np.isnan(self._history[0, 0]):
            self._summaries(0)

    def __call__(self, stage, progress):
        """Run what is left of a stage."""
        epoch = self._make_epoch(stage)
        for number in range(stage.epochs):
            if self._has_stopped(stage, number):
                break
            if np.isnan(self._history[stage.first + number, 0]):
                self._run_epoch(stage, number, epoch)
            progress.update()
        later = self._history[stage.first + stage.epochs :, 0]
        if stage.name == "network" and np.isnan(later).all():
            _assign(self._agent, [variable.numpy() for variable in self._best])

    def _make_epoch(self, stage):
        linear, weights = stage.name == "linear", weights_of(self._parts["examples"], self._options["weights"])
        size, xla = self._options["batch_size"], self._options["xla"] and not linear
        return make_epoch(self._agent, self._parts["examples"], weights, size, xla, not linear, **stage.options)

    def _errors(self, stage, number):
        """Validation errors of the first epochs of a stage."""
        return self._history[stage.first : stage.first + number, 1].numpy()

    def _has_stopped(self, stage, number):
        """Whether the last `patience` of the epochs before `number` brought nothing better."""
        patience = self._options["patience"]
        if stage.name == "linear" or patience is None or number <= patience:
            return False
        return number - 1 - np.argmin(self._errors(stage, number)) >= patience

    def _run_epoch(self, stage, number, epoch):
        with self._undone_if_it_fails():
            start = time.perf_counter()
            order = np.arange(len(self._parts["examples"].event))
            if stage.name == "network":
                order = np.random.default_rng([self._options["seed"], number]).permutation(order)
            losses, sizes = epoch(order)
            seconds = time.perf_counter() - start
            self._refuse_infinite(stage.first + number, losses)
            error = np.nan
            if "validation" in self._parts:
                error = mean_squared_error(self._agent, self._parts["validation"], self._options["weights"])
            if stage.name == "linear":
                learnt = self._agent.learnt
                learnt.assign(np.concatenate([learnt.numpy(), self._parts["examples"].event]))
        if stage.name == "network" and error < self._errors(stage, number).min(initial=np.inf):
            for kept, value in zip(self._best, _values(self._agent.variables), strict=False):
                kept.assign(value)
        loss = np.average(losses, weights=sizes)
        self._history[stage.first + number].assign([loss, error, seconds])
        if self._summaries is not None:
            self._summaries(stage.first + number + 1, loss, None if np.isnan(error) else error)
        if self._manager is not None:
            self._manager.save()

    @contextmanager
    def _undone_if_it_fails(self):
        """Give the agent back as it was when an epoch ends early: half a pass, repeated, would count evidence twice."""
        before = _values(self._agent.variables)
        try:
            yield
        except BaseException:  # an interrupted kernel, too
            _assign(self._agent, before)
            raise

    def _refuse_infinite(self, number, losses):
        """Say where a loss or a weight was not finite any more."""
        broken = np.flatnonzero(~np.isfinite(losses))
        if not len(broken) and all(np.isfinite(value).all() for value in _values(self._agent.variables)):
            return
        batch = broken[0] if len(broken) else len(losses) - 1
        raise FloatingPointError(
            f"epoch {number + 1}, batch {batch + 1} of {len(losses)}: loss and weights must stay finite, the loss was "
            f"{losses[batch]} (extreme rewards or features, or too large a learning rate); the agent is what it was "
            "before this epoch"
        )


def weights_of(examples, weights):
    """Weights float64 [n] of examples, mean 1; None for equal ones."""
    if weights is None:
        return None
    inverse = 1.0 / (examples.propensity.astype(float) * examples.pass_prob)
    return inverse / inverse.mean()


def mean_squared_error(agent, examples, weights=None):
    """Mean squared error of an agent's predictions of logged rewards, weighted as in training."""
    if isinstance(examples, SlateExamples):
        return _slate_error(agent, examples)
    parts = [slice(start, start + PAIRS) for start in range(0, len(examples.event), PAIRS)]
    predicted = [agent.policy.score_pairs(examples.context[part], examples.arm[part]) for part in parts]
    error = np.square(examples.reward - np.concatenate(predicted), dtype=float)
    return float(np.average(error, weights=weights_of(examples, weights)))


def _slate_error(agent, examples):
    """Mean over slates of the loss that the agent is trained by: its targets, and its weights of the slots."""
    data, rows = tensors(agent, examples), len(examples.reward)
    size = max(1, PAIRS // examples.arm.shape[1])
    batches = [tf.range(start, min(start + size, rows)) for start in range(0, rows, size)]
    losses = [agent.loss(gathered(data, batch)).loss.numpy() for batch in batches]
    return float(np.average(losses, weights=[len(batch) for batch in batches]))


def _one_pass(epochs, why):
    if epochs != 1:
        raise ValueError(f"epochs must be 1, got {epochs}: {why}")


def _values(variables):
    return [variable.numpy() for variable in variables]


def _assign(agent, values):
    for variable, value in zip(agent.variables, values, strict=False):
        variable.assign(value)


def _digest(arrays):
    """Fingerprint of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
