"""From scores to the probability of each arm, and from probabilities to an action."""

import tensorflow as tf


def epsilon_greedy(scores, epsilon):
    """Probability of each arm under epsilon-greedy exploration.

    The greedy share is split evenly among tied best arms, the random share evenly among the available ones: a single
    best arm among K available is chosen with probability 1 - epsilon + epsilon / K (the marginal, not the branch).

    Args:
      scores: float [batch, arms], minus infinity where an arm is unavailable.
      epsilon: exploration rate in [0, 1].

    Returns:
      float [batch, arms]; rows sum to 1, unavailable arms are exactly 0.
    """
    available = tf.cast(scores > -float("inf"), scores.dtype)
    best = tf.cast(tf.equal(scores, tf.reduce_max(scores, axis=1, keepdims=True)), scores.dtype)
    greedy = best / tf.reduce_sum(best, axis=1, keepdims=True)
    return (1.0 - epsilon) * greedy + epsilon * available / tf.reduce_sum(available, axis=1, keepdims=True)


def softmax(scores, temperature):
    """Probability of each arm under Boltzmann exploration, proportional to exp(score / temperature).

    Args:
      scores: float [batch, arms], minus infinity where an arm is unavailable.
      temperature: positive, in units of the scores; towards 0 it becomes greedy, towards infinity uniform.

    Returns:
      float [batch, arms]; rows sum to 1, unavailable arms are exactly 0.
    """
    return tf.nn.softmax(scores / temperature, axis=1)


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
    luck = tf.random.stateless_uniform([tf.shape(probabilities)[0], 1], seed) * cumulative[:, -1:]
    return tf.reduce_sum(tf.cast(cumulative <= luck, tf.int32), axis=1)


class Draws(tf.Module):
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
