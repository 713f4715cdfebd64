"""Epochs of a training on logged decisions: their stages, one graph for each epoch, early stopping, resuming."""

import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from recbandits.tf import tf

import numpy as np
import pandas as pd
from tf_agents.agents.tf_agent import TFAgent
from tqdm import tqdm

from recbandits.agents.linear import LinearModel
from recbandits.agents.neural import EncodedLinearModel
from recbandits.data.examples import Examples
from recbandits.data.slates import SlateExamples
from recbandits.data.trajectories import gather_rows
from recbandits.training.checkpoints import INTERVAL, assign_values, compute_digest, open_checkpoints, read_values
from recbandits.training.distribution import get_strategy_of
from recbandits.training.experience import convert_examples, explain_errors
from recbandits.training.summaries import TrainingSummaries

PAIRS_PER_CALL = 1 << 17  # pairs of a context and an arm that a policy scores at once


def plan_stages(agent: TFAgent, epochs: int) -> dict[str, int]:
    """Plan the epochs of each stage of a training: "network", and "linear", one pass in the order of the log.

    ValueError for an agent that does not learn from logs, or several passes for a linear model.
    """
    model, reason = getattr(agent, "model", None), None
    if isinstance(model, EncodedLinearModel):
        stages = {"network": epochs, "linear": 1}
        if model.linear.count.numpy().any():
            stages, reason = {"linear": 1}, "the network must stay as it is, because its linear model has learnt on it"
    elif isinstance(model, LinearModel):
        stages, reason = {"linear": 1}, "a linear model sums up evidence, and would count it again"
    elif hasattr(model, "network"):
        stages = {"network": epochs}
    else:
        raise ValueError(f"agent must have a linear model or a network to learn from logs, got {type(agent).__name__}")
    if reason and epochs != 1:
        raise ValueError(f"epochs must be 1, got {epochs}: {reason}")
    return stages


class Training:
    """The training of one agent: its history, the state after its best epoch, and its checkpoints.

    Args:
      agent: to be trained, with the strategy in whose scope it was made.
      stages: from `plan_stages`.
      parts: {"examples": ..., "validation": ...}, the latter only if there are some.
      options: dict of batch_size, patience, weights, seed and xla, as of `fit`.
    """

    def __init__(self, agent: TFAgent, stages: dict[str, int], parts: dict, options: dict):
        self._agent, self._stages, self._parts, self._options = agent, stages, parts, options
        self._examples = parts["examples"]
        self._variables = agent.variables  # once, because TensorFlow searches the whole agent for them
        self._history = tf.Variable(tf.fill([sum(stages.values()), 3], np.float64("nan")), trainable=False)
        best = read_values(self._variables) if options["patience"] else []
        self._best = [tf.Variable(value, trainable=False, shape=value.shape) for value in best]
        self._manager = None
        self._summaries: TrainingSummaries | None = None
        self._unsaved, self._saved = 0, time.monotonic()

    def restore(self, directory: str | Path) -> None:
        """Continue from the checkpoints in a directory, if there are any, and write further ones there."""
        settings = {"agent": repr(self._agent.parameters), "stages": repr(self._stages), "options": repr(self._options)}
        settings |= {name: compute_digest(part) for name, part in self._parts.items()}
        settings["start"] = compute_digest(read_values(self._variables))
        if isinstance(self._examples, SlateExamples):  # the same rewards are another feedback to another agent
            settings["feedback"] = repr(self._agent.time_step_spec.reward)
        writes = get_strategy_of(self._agent).extended.should_checkpoint
        state = {"agent": self._agent, "history": self._history, "best": self._best}
        manager = open_checkpoints(directory, settings, "training", Path(directory).name, writes, **state)
        self._manager = manager if writes else None

    def write_summaries(self, directory: str | Path) -> None:
        """Write event files for TensorBoard into a directory, from now on."""
        if get_strategy_of(self._agent).extended.should_save_summary:
            resumes = not np.isnan(self._history[0, 0])
            self._summaries = TrainingSummaries(directory, self._agent, self._examples, resumes)
            if not resumes:
                self._summaries.write(0)

    def run(self) -> pd.DataFrame:
        """Run the epochs that have not been run yet, and return the history of all, as `fit` describes it."""
        first = 0
        with tqdm(total=self._history.shape[0], disable=None, unit="epoch") as progress:
            for name, epochs in self._stages.items():
                self._run_stage(name, range(first, first + epochs), progress)
                first += epochs
        self._save()
        frame = pd.DataFrame(self._history.numpy(), columns=["loss", "validation_mse", "seconds"])
        frame.insert(0, "stage", np.repeat(list(self._stages), list(self._stages.values())))
        frame = frame[frame["loss"].notna()].reset_index(drop=True)
        frame.insert(0, "epoch", frame.index + 1)
        return frame

    def _run_stage(self, name, rows, progress):
        """Run the epochs that a stage has in some rows of the history."""
        network, patience = name == "network", self._options["patience"]
        train = self._make_epoch(network)
        for row in rows:
            errors = self._history[rows.start : row, 1].numpy()
            if network and patience and len(errors) > patience and len(errors) > np.argmin(errors) + patience:
                break
            if np.isnan(self._history[row, 0]):
                self._run_epoch(row, train, network, errors)
            progress.update()
        if network and self._best and np.isnan(self._history[rows.stop :, 0]).all():
            assign_values(self._variables, read_values(self._best))

    def _run_epoch(self, row, train, network, errors):
        """Run the epoch of a row of the history, after epochs of its stage with these validation errors."""
        with self._rollback_on_error(), explain_errors(lambda: f"epoch {row + 1}"):
            start = time.perf_counter()
            order = np.arange(len(self._examples.event))
            if network:
                order = np.random.default_rng([self._options["seed"], len(errors)]).permutation(order)
            losses, sizes = train(order)
            seconds = time.perf_counter() - start
            self._check_finite(row, losses)
            error = np.nan
            if "validation" in self._parts:
                error = mean_squared_error(self._agent, self._parts["validation"], self._options["weights"])
                if not np.isfinite(error):  # NaN would never be the best epoch, and the agent that of the start
                    raise FloatingPointError(
                        f"epoch {row + 1}: validation error must stay finite, got {error} (extreme rewards or features)"
                    )
            if not network:
                learned = self._agent.learned_events
                learned.assign(np.concatenate([learned.numpy(), self._examples.event]))
        if network and self._best and error < errors.min(initial=np.inf):
            assign_values(self._best, read_values(self._variables))
        loss = np.average(losses, weights=sizes)
        self._history[row].assign([loss, error, seconds])
        if self._summaries:
            self._summaries.write(row + 1, loss, error)
        self._unsaved = row + 1
        if time.monotonic() - self._saved >= INTERVAL:
            self._save()

    def _save(self):
        """Write the checkpoint and the summaries of the epochs since the last one: all that are written are kept."""
        if self._unsaved and self._summaries:
            self._summaries.flush()
        if self._unsaved and self._manager:
            self._manager.save(self._unsaved)
        self._unsaved, self._saved = 0, time.monotonic()

    def _make_epoch(self, network):
        """Make a function that trains the agent once on each example, in one graph.

        A network learns from the mean over a batch, a linear model from its sum.

        Returns:
          Function from an order, a permutation of the row numbers, to the loss and the size of every batch.
        """
        agent, strategy, rows = self._agent, get_strategy_of(self._agent), len(self._examples.reward)
        batch_size, xla = min(self._options["batch_size"], rows), self._options["xla"] and network
        options = {"network": network} if isinstance(agent.model, EncodedLinearModel) else {}
        sizes = np.diff([*range(0, rows, batch_size), rows])
        replicas = strategy.num_replicas_in_sync
        if xla and replicas > 1:
            raise ValueError(f"xla must be False for an agent on several replicas, it has {replicas}")
        weights = weigh_examples(self._examples, self._options["weights"])
        experience = convert_examples(agent, self._examples)
        if weights is None and replicas > 1:
            weights = np.ones(rows)
        weights = None if weights is None else tf.constant(weights, tf.float32)

        def learn(rows, present):
            """Train on a replica's share of a batch; `present` is 0 for rows that only fill up the shares."""
            if replicas > 1:
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                rows, present = (tf.reshape(part, [-1, replicas])[:, replica] for part in (rows, present))
            weight = None if weights is None else tf.gather(weights, rows) * present
            return agent.train(gather_rows(experience, rows), weight, **options).loss

        def train(rows):
            padding = -rows.shape[0] % replicas
            growth = (rows.shape[0] + padding) / rows.shape[0]  # means over the shares count the padding
            present = tf.pad(tf.fill(rows.shape, growth if network else 1.0), [[0, padding]])
            losses = strategy.run(learn, (tf.pad(rows, [[0, padding]]), present))
            return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None) * (1.0 if network else growth)

        def train_all(order):
            whole = rows // batch_size
            batches = tf.reshape(order[: whole * batch_size], [whole, batch_size])
            losses = tf.map_fn(train, batches, fn_output_signature=tf.float32, parallel_iterations=1)
            if whole * batch_size == rows:
                return losses
            return tf.concat([losses, [train(order[whole * batch_size :])]], axis=0)

        # a partial, because TensorFlow counts traces by code, and warns when many agents have one each
        signature = [tf.TensorSpec([rows], tf.int32)]
        epoch = tf.function(partial(train_all), signature, autograph=False, jit_compile=xla)
        return lambda order: (epoch(tf.constant(order, tf.int32)).numpy(), sizes)

    @contextmanager
    def _rollback_on_error(self):
        """Restore the agent when an epoch ends early: half a pass, repeated, would count evidence twice."""
        before = read_values(self._variables)
        try:
            yield
        except BaseException:  # an interrupted kernel, too
            assign_values(self._variables, before)
            self._save()
            raise

    def _check_finite(self, row, losses):
        """Check that losses and weights are finite, and name the batch after which they are not."""
        infinite = np.flatnonzero(~np.isfinite(losses))
        if not len(infinite) and all(np.isfinite(value).all() for value in read_values(self._variables)):
            return
        batch = infinite[0] if len(infinite) else len(losses) - 1
        raise FloatingPointError(
            f"epoch {row + 1}, batch {batch + 1} of {len(losses)}: loss and weights must stay finite, the loss was "
            f"{losses[batch]} (extreme rewards or features, or too large a learning rate); the agent is what it was "
            "before this epoch"
        )


def weigh_examples(examples: Examples | SlateExamples, weights: str | None) -> np.ndarray | None:
    """Compute the weights float64 [n] of examples, as `fit` describes them; None for equal ones."""
    if weights is None or isinstance(examples, SlateExamples):
        return None
    inverse = 1.0 / (examples.propensity.astype(float) * examples.pass_prob)
    return inverse / inverse.mean()


def mean_squared_error(agent: TFAgent, examples: Examples | SlateExamples, weights: str | None = None) -> float:
    """Compute the mean squared error of an agent's predictions of logged rewards, weighted as in training.

    For slates it is the mean of the loss that the agent is trained by, with its targets and its weights of the slots.
    """
    rows = len(examples.event)
    if isinstance(examples, SlateExamples):
        experience, size = convert_examples(agent, examples), max(1, PAIRS_PER_CALL // examples.arm.shape[1])
        batches = [tf.range(start, min(start + size, rows)) for start in range(0, rows, size)]
        losses = [agent.loss(gather_rows(experience, batch)).loss.numpy() for batch in batches]
        return float(np.average(losses, weights=[len(batch) for batch in batches]))
    parts = [slice(start, start + PAIRS_PER_CALL) for start in range(0, rows, PAIRS_PER_CALL)]
    predicted = [agent.policy.score_pairs(examples.context[part], examples.arm[part]) for part in parts]
    error = np.square(examples.reward - np.concatenate(predicted), dtype=float)
    return float(np.average(error, weights=weigh_examples(examples, weights)))
