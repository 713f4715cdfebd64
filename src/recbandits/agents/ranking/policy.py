"""A TF-Agents policy that fills slates by the scores of the items, with exact propensities."""

from functools import partial
from typing import Any

from recbandits.tf import tf

import numpy as np
from tf_agents.typing import types

from recbandits.agents.agent import GLOBAL, PER_ARM, ScoringPolicy, split_seed
from recbandits.checks import require
from recbandits.exploration import plackett_luce


class SlatePolicy(ScoringPolicy):
    """Fill the slots of a slate by the scores of the items, one slot after the other.

    Its `action` is int32 [batch, slots], columns of the items from the first slot down, all different. The logits of
    the first slot are score / temperature. Each item that takes a slot lowers the logits of the others by penalty * (1
    + s), where s is the largest cosine similarity of an item's features to those of an item above; as in TF-Agents'
    `CosinePenalizedPlackettLuce`, these penalties add up over the slots. They depend on the items above and on nothing
    else, hence the probability of each slot given those above is exact. A penalty of 0 is the Plackett-Luce model.

    Observations are dicts of `global` [G] and `per_arm` [items, D]. A `greedy` policy takes the largest logit in each
    slot, the first one on ties; other arguments are those of `ScoringPolicy`.
    """

    _keeps_chosen_arm = False
    _validates = False  # so that a time step may come without the nested rewards of cascading feedback

    def __init__(
        self,
        time_step_spec: types.TimeStep,
        action_spec: types.BoundedTensorSpec,
        *arguments: Any,
        temperature: float = 1.0,
        penalty: float = 0.0,
        greedy: bool = False,
        **options: Any,
    ):
        self._slots, self._temperature, self._penalty, self._greedy = action_spec.shape[0], temperature, penalty, greedy
        super().__init__(time_step_spec, action_spec, *arguments, **options)
        graph = tf.function(partial(self._deterministic_scores), autograph=False)  # a partial, as that of `score_pairs`
        self._scores_in_graph = partial(graph)  # a function itself would be saved with the policy

    @property
    def training_data_spec(self) -> types.Trajectory:
        """Spec of the trajectories that train an agent: their observation is that of `slotted`, their action ()."""
        spec = self.trajectory_spec
        arms = spec.observation[PER_ARM]
        arms = tf.TensorSpec([self._slots, *arms.shape[1:]], arms.dtype, arms.name)
        return spec._replace(observation=spec.observation | {PER_ARM: arms}, action=(), policy_info=())

    def conditional(self, observation: types.NestedTensor, prefix: types.Int) -> tf.Tensor:
        """Return the distribution float64 [batch, items] of the item in the next slot; items above are exactly 0.

        The observation is as `time_step_spec` says, with a batch dimension before; `prefix` int [batch, j] has the
        columns of the items in the first j slots, where j may be 0. ValueError if the policy draws its scores at
        random.
        """
        state = self._start(self._deterministic_scores(observation), observation)
        for item in tf.unstack(tf.convert_to_tensor(prefix), axis=1):
            state = self._place(state, item)
        return self._probabilities(state[0])

    def probabilities(self, observation: types.NestedTensor) -> tf.Tensor:
        """Return the distribution of the item in the first slot, as `conditional` without a prefix."""
        return self._probabilities(self._logits(self._deterministic_scores(observation)))

    def propensities(self, observation: types.NestedTensor, slate: types.Int) -> tf.Tensor:
        """Return the probability float64 [batch, slots] of each item, given those above: what to log with a slate.

        Arguments and errors are those of `conditional`, for a slate int [batch, slots] as `action` gives it. It is 1 or
        0 where the policy does not explore.
        """
        state, slate = self._start(self._deterministic_scores(observation), observation), tf.convert_to_tensor(slate)
        if not (self._greedy or self._penalty):
            return plackett_luce.propensities(state[0], slate)
        propensities = []
        for item in tf.unstack(slate, axis=1):
            propensities.append(tf.gather(self._probabilities(state[0]), item, batch_dims=1))
            state = self._place(state, item)
        return tf.stack(propensities, axis=1)

    def position_propensities(self, observation: types.NestedTensor, slate: types.Int) -> np.ndarray:
        """Return the probability float64 [batch, slots] that the item in each slot is there, with any items above it.

        Arguments and errors are those of `propensities`, outside a graph; also ValueError if the policy penalises
        similarity and explores, for which there is no formula.
        """
        scores = self._scores_in_graph(observation)
        if self._greedy:
            return (self._choose(scores, observation, [0, 0]).numpy() == np.asarray(slate)).astype(float)
        expected = "0 for position propensities (an item depends on those above; `propensities` are exact)"
        require(not self._penalty, "penalty for similarity", expected, self._penalty)
        return plackett_luce.position_propensities(self._logits(scores).numpy(), slate)

    def _choose(self, scores, observation, seed):
        state = self._start(scores, observation)
        if not self._penalty:  # then one draw of Gumbel noise does for all slots
            return tf.math.top_k(state[0] + self._draw_noise(scores, seed, 1)[0], self._slots).indices
        noise, slate = self._draw_noise(scores, seed, self._slots), []
        for slot in range(self._slots):
            slate.append(tf.argmax(state[0] + noise[slot], axis=1, output_type=tf.int32))
            state = self._place(state, slate[-1])
        return tf.stack(slate, axis=1)

    def _start(self, scores, observation):
        """Return (logits, directions of the features, largest similarity to an item above) before the first slot."""
        if not self._penalty:
            return self._logits(scores), None, None
        directions = tf.math.l2_normalize(tf.cast(observation[PER_ARM], tf.float32), axis=2)
        return self._logits(scores), directions, tf.fill(tf.shape(scores), -1.0)

    def _place(self, state, item):
        """Return the state after `item`, int [batch], has taken a slot."""
        logits, directions, nearest = state
        is_item = tf.one_hot(item, logits.shape[1], True, False, dtype=tf.bool)
        logits = tf.where(is_item, tf.constant(-np.inf, logits.dtype), logits)
        if directions is None:
            return logits, None, None
        nearest = tf.maximum(nearest, tf.linalg.matvec(directions, tf.gather(directions, item, batch_dims=1)))
        return logits - self._penalty * (1.0 + tf.cast(nearest, tf.float64)), directions, nearest

    def _logits(self, scores):
        # float64, in which Gumbel noise almost never ties and a slate of ten has a probability
        return tf.cast(scores, tf.float64) / self._temperature

    def _probabilities(self, logits):
        if self._greedy:
            return tf.one_hot(tf.argmax(logits, axis=1), logits.shape[1], dtype=tf.float64)
        return tf.nn.softmax(logits)

    def _draw_noise(self, scores, seed, slots):
        """Return Gumbel noise float64 [slots, batch, items]; zeros for a greedy policy."""
        if self._greedy:
            return [tf.zeros([], tf.float64)] * slots
        shape = tf.concat([[slots], tf.shape(scores)], axis=0)
        uniforms = tf.random.stateless_uniform(shape, split_seed(seed, 1), dtype=tf.float64)
        return -tf.math.log(-tf.math.log(uniforms))


def slotted(observation: dict, slate: types.Int) -> dict:
    """Keep the features of the items in a slate, in the order of its slots: {"global", "per_arm" [batch, slots, D]}.

    `observation` is {"global": [batch, G], "per_arm": [batch, items, D]}, and `slate` int [batch, slots] has columns of
    `per_arm`; both are arrays or tensors.
    """
    arms = observation[PER_ARM]
    if tf.is_tensor(arms):
        items = tf.gather(arms, slate, batch_dims=1)
    else:
        items = np.take_along_axis(arms, np.asarray(slate)[:, :, None], axis=1)
    return {GLOBAL: observation[GLOBAL], PER_ARM: items}
