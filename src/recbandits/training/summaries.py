"""What TensorBoard shows of a training: curves, and histograms of variables and gradients, an entry an epoch."""

from functools import partial

from recbandits.tf import tf

from tensorboard.plugins.histogram.summary_v2 import histogram_pb

from recbandits.environments.base import GLOBAL, PER_ARM
from recbandits.training.experience import gathered, tensors

LOSS, VALIDATION, VARIABLES, GRADIENTS = "loss", "validation", "variables", "gradients"
_SAMPLE = 1024


class Summaries:
    """Event files of one training: loss and validation error; of a network every variable and its gradient as well.

    Graphs that summarise every step are slow. Once an epoch is cheap, whether the epoch is compiled or not: the
    gradient is that of the loss of the first 1,024 examples, as the epoch left it. Only the gradient is a graph; to
    trace a summary of every variable takes seconds, to count what falls into its buckets by NumPy a millisecond.

    Args:
      directory: for the event files, one for each training.
      agent: from `make_agent`.
      examples: Examples or SlateExamples to take gradients of.
    """

    def __init__(self, directory, agent, examples):
        self._writer, self._agent = tf.summary.create_file_writer(str(directory)), agent
        sample = type(examples)(*(part[:_SAMPLE] for part in examples))
        self._data, self._rows = tensors(agent, sample), tf.range(len(sample.reward))
        network = getattr(agent.model, "network", None)
        self._variables = network.trainable_variables if network else []
        # a partial, because TensorFlow counts traces by code, and warns when many trainings have one each
        self._gradients = tf.function(partial(self._gradients_now), autograph=False)

    def __call__(self, epoch, loss=None, validation=None):
        """Write what there is after an epoch; 0 is before the first."""
        with self._writer.as_default(epoch):
            for name, value in ((LOSS, loss), (VALIDATION, validation)):
                if value is not None:
                    tf.summary.scalar(name, value)
            if self._variables:
                names = _names(len(self._variables), self._agent.parameters)
                for kind, values in ((VARIABLES, self._variables), (GRADIENTS, self._gradients())):
                    for name, value in zip(names, values, strict=True):
                        histogram = histogram_pb(f"{kind}/{name}", value.numpy())
                        tf.summary.experimental.write_raw_pb(histogram.SerializeToString(), epoch)
        self._writer.flush()

    def _gradients_now(self):
        with tf.GradientTape() as tape:
            loss = self._loss()
        return tape.gradient(loss, self._variables)

    def _loss(self):
        context, arm, reward = self._data
        if arm.shape.rank == 3:
            return self._agent.loss(gathered(self._data, self._rows), training=True).loss
        predicted = self._agent.model.scores({GLOBAL: context, PER_ARM: arm[:, None, :]})[:, 0]
        return tf.reduce_mean(tf.square(reward - predicted))


def _names(variables, parameters):
    """What the variables of a network are, in their order: kernel and bias of each layer of each of its towers."""
    depth = len(getattr(parameters, "layers", ()))
    layers = [*(f"{tower} {layer}" for tower in ("context", "arm") for layer in range(1, depth + 1))]
    layers += [f"head {layer}" for layer in range(1, variables // 2 - len(layers) + 1)]
    return [f"{layer} {part}" for layer in layers for part in ("kernel", "bias")][:variables]
