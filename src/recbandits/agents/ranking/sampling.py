"""How a slate is filled from scores: drawn by a softmax or greedily, with a penalty for resemblance or without."""

from dataclasses import dataclass

from recbandits.tf import tf

from recbandits.exploration import plackett_luce


@dataclass(frozen=True)
class Sampling:
    """A distribution over slates, one slot after the other.

    The logits of the first slot are score / temperature. Each item that takes a slot lowers the logits of the others by
    penalty * (1 + s), where s is the largest cosine similarity of an item's features to those of an item above; as in
    TF-Agents' `CosinePenalizedPlackettLuce`, these penalties add up over the slots. They depend on what stands above
    and on nothing else, hence the probability of each slot given those above is exact.

    Attributes:
      temperature: of the softmax; None takes the largest logit, the first one on ties.
      penalty: 0 for the Plackett-Luce model.
      scale: by which scores are divided without a temperature, where a penalty has to be weighed against them.
    """

    temperature: float | None = None
    penalty: float = 0.0
    scale: float = 1.0

    def greedy(self):
        """The same without chance: the largest logit in each slot."""
        return Sampling(None, self.penalty, self.scale if self.temperature is None else self.temperature)

    def fill(self, scores, arms, slots, seed):
        """Draw slates.

        Args:
          scores: float [batch, items].
          arms: float [batch, items, D], features whose resemblance is penalised.
          slots: of a slate.
          seed: int [2], of a stateless generator.

        Returns:
          int32 [batch, slots], columns of the items.
        """
        state = self._start(scores, arms)
        if not self.penalty:  # then one draw of Gumbel noise does for all slots
            noisy = state[0] + self._noise(scores, seed, 1)[0]
            return tf.math.top_k(noisy, slots).indices
        noise, slate = self._noise(scores, seed, slots), []
        for slot in range(slots):
            slate.append(tf.argmax(state[0] + noise[slot], axis=1, output_type=tf.int32))
            state = self._after(state, slate[-1])
        return tf.stack(slate, axis=1)

    def conditional(self, scores, arms, prefix):
        """Distribution of the next item.

        Args:
          scores: as for `fill`.
          arms: likewise.
          prefix: int [batch, j], columns of the items in the first j slots.

        Returns:
          float64 [batch, items].
        """
        state = self._start(scores, arms)
        for slot in range(prefix.shape[1]):
            state = self._after(state, prefix[:, slot])
        return self._probabilities(state[0])

    def propensities(self, scores, arms, slate):
        """Probability of the item in each slot, given those above.

        Args:
          scores: as for `fill`.
          arms: likewise.
          slate: int [batch, slots].

        Returns:
          float64 [batch, slots].
        """
        if self.temperature is not None and not self.penalty:
            return plackett_luce.propensities(self._start(scores, arms)[0], slate)
        state, found = self._start(scores, arms), []
        for slot in range(slate.shape[1]):
            found.append(tf.gather(self._probabilities(state[0]), slate[:, slot], batch_dims=1))
            state = self._after(state, slate[:, slot])
        return tf.stack(found, axis=1)

    def logits(self, scores):
        """Logits float64 [batch, items] of the first slot."""
        # float64, in which Gumbel noise hardly ever ties and a slate of ten has a probability
        return tf.cast(scores, tf.float64) / (self.scale if self.temperature is None else self.temperature)

    def _start(self, scores, arms):
        """(logits, directions of the features, largest similarity so far) before the first slot."""
        logits = self.logits(scores)
        if not self.penalty:
            return logits, None, None
        return logits, tf.math.l2_normalize(arms, axis=2), tf.fill(tf.shape(scores), -1.0)

    def _after(self, state, item):
        """The same when `item` int [batch] has taken a slot."""
        logits, directions, nearest = state
        taken = tf.one_hot(item, logits.shape[1], True, False, dtype=tf.bool)
        logits = tf.where(taken, tf.constant(-float("inf"), logits.dtype), logits)
        if directions is None:
            return logits, None, None
        similarity = tf.linalg.matvec(directions, tf.gather(directions, item, batch_dims=1))
        nearest = tf.maximum(nearest, similarity)
        return logits - self.penalty * (1.0 + tf.cast(nearest, tf.float64)), directions, nearest

    def _probabilities(self, logits):
        if self.temperature is None:
            return tf.one_hot(tf.argmax(logits, axis=1), logits.shape[1], dtype=tf.float64)
        return tf.nn.softmax(logits)

    def _noise(self, scores, seed, slots):
        """Gumbel noise float64 [slots, batch, items]; zeros without a temperature."""
        if self.temperature is None:
            return [tf.zeros([], tf.float64)] * slots
        uniforms = tf.random.stateless_uniform(tf.concat([[slots], tf.shape(scores)], axis=0), seed, dtype=tf.float64)
        return -tf.math.log(-tf.math.log(uniforms))
