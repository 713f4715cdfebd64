"""Randomness inside a graph: seeds whose place a checkpoint keeps, and actions drawn with them."""

from recbandits.tf import tf


def draw(probabilities, seed):
    """Draw one action per row by inverting the cumulative distribution.

    Args:
      probabilities: float [batch, arms], rows sum to 1.
      seed: int [2], of a stateless generator.

    Returns:
      int32 [batch]; arms of probability 0 are never drawn.
    """
    cumulative = tf.cumsum(probabilities, axis=1)
    # uniform in [0, 1) times the total stays below the total, so that rounding never points past the last arm
    uniforms = tf.random.stateless_uniform([tf.shape(probabilities)[0], 1], seed) * cumulative[:, -1:]
    return tf.reduce_sum(tf.cast(cumulative <= uniforms, tf.int32), axis=1)


class SeedStream(tf.Module):
    """A stream of seeds whose place is a variable: checkpoints keep it, and a resumed run goes on where it was.

    Args:
      seed: of the run.
      stream: number of the stream; those of one seed do not overlap.
    """

    def __init__(self, seed, stream=0):
        super().__init__(name="draws")
        self._place = tf.Variable([seed, stream << 40], dtype=tf.int64, trainable=False, name="place")

    def next(self):
        """Seed int64 [2] of the next draw."""
        return self._place.assign_add([0, 1])
