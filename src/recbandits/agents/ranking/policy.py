"""One policy for every agent that fills slates: score the items, fill the slots, say how probable that was."""

from recbandits.tf import tf

import numpy as np
from tf_agents.policies import utils
from tf_agents.trajectories import policy_step

from recbandits.agents.policy import ScoringPolicy
from recbandits.environments.base import PER_ARM
from recbandits.exploration import plackett_luce


class SlatePolicy(ScoringPolicy):
    """Fill the slots of a slate by the scores of the items.

    Its `action` is int32 [batch, slots], columns of the items from the first slot down, all different. It scores, saves
    and loads as a `ScoringPolicy`; `probabilities` are those of the first slot.

    Args:
      time_step_spec: of the environment; its observation is a dict of `global` [G] and `per_arm` [items, D].
      action_spec: of the environment, int32 [slots].
      score: function of (observation, seed int [2]) giving scores float [batch, items].
      draws: `seeds.SeedStream`, where random numbers come from.
      sampling: `Sampling`, how slots are filled.
      variables: what `score` reads, for saving.
      random_scores: where `score` is random, who draws them so; None where it is a function of the observation alone.
      freeze: as in `ScoringPolicy`.
    """

    _validates = False  # so that a time step may come without the nested rewards of cascading feedback

    def __init__(
        self, time_step_spec, action_spec, score, draws, sampling, variables=(), random_scores=None, freeze=None
    ):
        self._sampling, self._random_scores, self._slots = sampling, random_scores, action_spec.shape[0]
        super().__init__(time_step_spec, action_spec, score, draws, variables=variables, freeze=freeze)

    def conditional(self, observation, prefix):
        """Distribution of the item in the next slot, given those above.

        Args:
          observation: as `time_step_spec` says, with a batch dimension before.
          prefix: int [batch, j], columns of the items in the first j slots; j may be 0.

        Returns:
          float64 [batch, items]; rows sum to 1, items above are exactly 0.

        Raises:
          ValueError: the policy draws its scores at random.
        """
        return self._sampling.conditional(
            self._certain(observation), observation[PER_ARM], tf.convert_to_tensor(prefix)
        )

    def probabilities(self, observation):
        """Distribution of the item in the first slot, as `conditional` without a prefix."""
        scores = self._certain(observation)
        return self._sampling.conditional(scores, observation[PER_ARM], tf.zeros([tf.shape(scores)[0], 0], tf.int32))

    def propensities(self, observation, slate):
        """Probability of the item in each slot, given those above: what to log with a slate.

        Args:
          observation: as for `conditional`.
          slate: int [batch, slots], as `action` gives it.

        Returns:
          float64 [batch, slots]; 1 or 0 where the policy does not explore.

        Raises:
          ValueError: as `conditional`.
        """
        return self._sampling.propensities(
            self._certain(observation), observation[PER_ARM], tf.convert_to_tensor(slate)
        )

    def position_probabilities(self, observation):
        """Probability that an item stands in a slot, whatever stands above it.

        Args:
          observation: as for `conditional`, outside a graph.

        Returns:
          float64 array [batch, slots, items]; the items of a slot sum to 1.

        Raises:
          ValueError: as `conditional`, or the policy penalises resemblance and explores, for which there is no formula.
        """
        logits = self._position_logits(observation)
        if logits is not None:
            return plackett_luce.position_probabilities(logits, self._slots)
        return np.eye(observation[PER_ARM].shape[1])[self._certain_slate(observation)]

    def position_propensities(self, observation, slate):
        """Probability that the item in each slot stands there, whatever stands above it, in less time.

        Args:
          observation: as for `position_probabilities`.
          slate: int [batch, slots].

        Returns:
          float64 array [batch, slots].

        Raises:
          ValueError: as `position_probabilities`.
        """
        logits = self._position_logits(observation)
        if logits is not None:
            return plackett_luce.position_propensities(logits, slate)
        return (self._certain_slate(observation) == np.asarray(slate)).astype(float)

    def _position_logits(self, observation):
        """Logits [batch, items] of a Plackett-Luce model; None for a policy that does not explore."""
        scores = self._certain(observation)
        if self._sampling.temperature is None:
            return None
        if self._sampling.penalty:
            raise ValueError(
                "position probabilities must be those of a policy without penalty for resemblance, got penalty "
                f"{self._sampling.penalty}: what stands in a slot depends on all that may stand above it; "
                "`propensities` are exact"
            )
        return self._sampling.logits(scores).numpy()

    def _certain_slate(self, observation):
        """The slates int array [batch, slots] of a policy that does not explore."""
        scores = self._certain(observation)
        return self._sampling.fill(scores, observation[PER_ARM], self._slots, [0, 0]).numpy()

    def _certain(self, observation):
        """Scores [batch, items], refused where another call would give others."""
        if self._random_scores:
            raise ValueError(
                f"{self._random_scores} has no exact propensities, because it draws its scores at random: to log "
                "slates, draw them around the estimates of a policy by a temperature, as `Ranking` does"
            )
        return self.scores(observation, tf.zeros([2], tf.int64))

    def _action(self, time_step, policy_state, seed=None):
        place = self._draws.next() if seed is None else tf.cast(tf.broadcast_to(seed, [2]), tf.int64)
        first, second = tf.unstack(tf.random.experimental.stateless_split(place, 2))
        scores = self.scores(time_step.observation, first)
        slate = self._sampling.fill(scores, time_step.observation[PER_ARM], self._slots, second)
        return policy_step.PolicyStep(slate, policy_state, utils.PolicyInfo())

    def _info_spec_of(self, features):
        return utils.PolicyInfo()
