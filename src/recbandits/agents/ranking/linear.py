"""A linear model of the attraction of items, which learns from the slots that were looked at."""

from recbandits.tf import tf

from tf_agents.bandits.agents.ranking_agent import CHOSEN_INDEX, CHOSEN_VALUE

from recbandits.agents.linear import LinearModel, arm_inputs


class CascadingLinearModel(LinearModel):
    """Ridge regression of the clicks on slots that were looked at.

    Under cascading feedback those are the slots down to the click, or all without one; the rewards are the value of the
    click and 0 above it (Zong et al. 2016, "Cascading Bandits for Large-Scale Recommendation Problems", algorithm 1).
    A score vector says nothing of what was looked at: all slots are learnt.

    Args:
      size: length of [global, per_arm] of an item.
      tikhonov: as in `LinearModel`.
      gamma: as in `LinearModel`.
    """

    def __init__(self, size, tikhonov, gamma):
        super().__init__(size, 1, tikhonov, gamma)

    def learn(self, experience, weights=None):
        """Learn from one batch.

        Args:
          experience: trajectory [batch, 1, ...] whose observation is that of `slotting.slotted`.
          weights: float [batch] of the slates; None for 1.

        Returns:
          Mean squared error of the slots that count, before they were learnt.
        """
        x, reward, counts = _rows(experience, weights)
        mean = self.update(x, tf.zeros_like(reward, tf.int32), reward, counts)
        return mean * tf.cast(tf.size(reward), mean.dtype) / tf.reduce_sum(counts)

    def loss(self, experience, weights=None, training=False):
        """That error, without learning."""
        x, reward, counts = _rows(experience, weights)
        error = tf.square(reward - tf.linalg.matvec(x, self.theta[0]))
        return tf.reduce_sum(counts * error) / tf.reduce_sum(counts)


def _rows(experience, weights):
    """Inputs [n, size], rewards [n] and weights [n] of all slots of a batch."""
    features = tf.nest.map_structure(lambda part: part[:, 0], experience.observation)
    reward = tf.nest.map_structure(lambda part: part[:, 0], experience.reward)
    x = arm_inputs(features)
    slots = x.shape[1]
    counts = tf.ones(tf.shape(x)[:2])
    if isinstance(reward, dict):
        counts = tf.sequence_mask(reward[CHOSEN_INDEX] + 1, slots, tf.float32)
        reward = tf.one_hot(reward[CHOSEN_INDEX], slots) * reward[CHOSEN_VALUE][:, None]
    if weights is not None:
        counts *= weights[:, None]
    return tf.reshape(x, [-1, x.shape[2]]), tf.reshape(reward, [-1]), tf.reshape(counts, [-1])
