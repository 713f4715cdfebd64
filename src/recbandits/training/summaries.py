"""Event files for TensorBoard: curves of simulations and trainings, histograms of variables and gradients."""

import math
from functools import partial
from pathlib import Path

from recbandits.tf import tf

import pandas as pd
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tf_agents.agents.tf_agent import TFAgent

from recbandits.data.examples import Examples
from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.data.slates import SlateExamples
from recbandits.training.experience import convert_examples

LOSS, VALIDATION, VARIABLES, GRADIENTS = "loss", "validation", "variables", "gradients"
MEASURES = ("regret", "reward", "suboptimal", "cumulative_regret")
_SAMPLE = 1024


class SimulationSummaries:
    """Curves of one simulation by the number of interactions, in a directory whose older event files are removed."""

    def __init__(self, directory: Path):
        _remove_events(directory)
        self._writer = tf.summary.create_file_writer(str(directory))

    def write(self, rows: pd.DataFrame) -> None:
        """Write the measures of some rows of the DataFrame of `simulate`."""
        for row in rows.itertuples():
            _write_scalars(self._writer, row.interactions, {name: getattr(row, name) for name in MEASURES})
        self._writer.flush()


class TrainingSummaries:
    """Curves of one training, and of a reward network the histograms of variables and gradients, once an epoch.

    A training that does not resume removes older event files. The encoding of NeuralLinUCB has no histograms.

    Graphs that summarise every step are slow. Once an epoch is cheap, whether the epoch is compiled or not: the
    gradient is that of the loss of the first 1,024 examples after the epoch. Only the gradient is a graph: tracing a
    summary of every variable takes seconds, counting what falls into its buckets by NumPy a millisecond.
    """

    def __init__(self, directory: str | Path, agent: TFAgent, examples: Examples | SlateExamples, resumes: bool):
        if not resumes:
            _remove_events(Path(directory))
        self._writer, self._agent = tf.summary.create_file_writer(str(directory), max_queue=1_000_000), agent
        self._experience = convert_examples(agent, type(examples)(*(part[:_SAMPLE] for part in examples)))
        network = getattr(agent.model, "network", None)
        self._variables = network.trainable_variables if network else []
        # a partial, because TensorFlow counts traces by code, and warns when many trainings have one each
        self._gradients = tf.function(partial(self._compute_gradients), autograph=False)

    def write(self, epoch: int, loss: float = math.nan, validation: float = math.nan) -> None:
        """Write the measures after an epoch, 0 before the first one; those that are NaN are left out."""
        scalars = {LOSS: loss, VALIDATION: validation}
        _write_scalars(self._writer, epoch, {name: value for name, value in scalars.items() if not math.isnan(value)})
        if self._variables:
            names = _name_variables(len(self._variables), self._agent.parameters)
            with self._writer.as_default(epoch):
                for kind, values in ((VARIABLES, self._variables), (GRADIENTS, self._gradients())):
                    for name, value in zip(names, values, strict=True):
                        histogram = histogram_pb(f"{kind}/{name}", value.numpy())
                        tf.summary.experimental.write_raw_pb(histogram.SerializeToString(), epoch)

    def flush(self) -> None:
        """Put what was written into the file."""
        self._writer.flush()

    def _compute_gradients(self):
        experience = self._experience
        with tf.GradientTape() as tape:
            if self._agent.action_spec.shape.rank:
                loss = self._agent.loss(experience, training=True).loss
            else:
                context, arm = experience.observation[GLOBAL][:, 0], experience.policy_info.chosen_arm_features
                predicted = self._agent.model.scores({GLOBAL: context, PER_ARM: arm})
                loss = tf.reduce_mean(tf.square(experience.reward - predicted))
        return tape.gradient(loss, self._variables)


def _remove_events(directory):
    for file in directory.glob("events.out.tfevents.*"):
        file.unlink()


def _write_scalars(writer, step, values):
    with writer.as_default(step):
        for name, value in values.items():
            tf.summary.scalar(name, value)


def _name_variables(count, parameters):
    """Name the variables of a network in their order: kernel and bias of each layer of each of its towers."""
    depth = len(getattr(parameters, "layers", ()))
    layers = [*(f"{tower} {layer}" for tower in ("context", "arm") for layer in range(1, depth + 1))]
    layers += [f"head {layer}" for layer in range(1, count // 2 - len(layers) + 1)]
    return [f"{layer} {part}" for layer in layers for part in ("kernel", "bias")][:count]
