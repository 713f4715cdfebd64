"""One TF-Agents policy for every agent here: score the arms, turn scores into probabilities, draw."""

from functools import partial

from recbandits.tf import tf

from tf_agents.policies import tf_policy, utils
from tf_agents.trajectories import policy_step

from recbandits.agents.seeds import draw
from recbandits.environments.base import GLOBAL, PER_ARM


def split_mask(observation):
    """Split what an environment with unavailable arms shows into (features, mask), as TF-Agents asks for."""
    return observation


class ScoringPolicy(tf_policy.TFPolicy):
    """Choose the arm with the highest score, or draw one by the probability that an exploration gives its score.

    Args:
      time_step_spec: of the environment; its observation is a pair (features, mask) when arms can be unavailable.
      action_spec: of the environment.
      score: function of (features, seed int [2]) giving scores float [batch, arms].
      draws: `seeds.SeedStream`, where random numbers come from.
      explore: function of (scores, mask) [batch, arms] giving probabilities [batch, arms]; None for the best arm, the
        first one on ties.
      variables: what `score` reads, for saving.
      marginal: where `score` is random, the function of (scores, mask) that gives the probabilities of what `action`
        draws all the same, or raises; None where `score` is a function of the features alone.
      freeze: function that gives what `score` does as a `Scorer`; None for scores without one.
    """

    # Whether TF-Agents compares the structure of time steps with the spec. The rewards in them are not read.
    _validates = True

    def __init__(
        self, time_step_spec, action_spec, score, draws, explore=None, variables=(), marginal=None, freeze=None
    ):
        self._score = score
        self._draws = draws
        self._explore = explore
        self._marginal = marginal
        self._read = list(variables)
        self._freeze = freeze
        masked = isinstance(time_step_spec.observation, tuple)
        features = time_step_spec.observation[0] if masked else time_step_spec.observation
        if isinstance(features, dict):
            pair = [tf.TensorSpec([None, features[name].shape[-1]], name=name) for name in (GLOBAL, PER_ARM)]
            # TensorFlow counts traces by code, and warns when many policies have one each; a partial is counted alone
            self.score_pairs = tf.function(partial(self._score_pairs), input_signature=pair, autograph=False)
        super().__init__(
            time_step_spec,
            action_spec,
            info_spec=self._info_spec_of(features),
            clip=False,
            validate_args=self._validates,
            observation_and_action_constraint_splitter=split_mask if masked else None,
        )

    def _info_spec_of(self, features):
        """Spec of what an action comes with, given that of the features."""
        if not isinstance(features, dict):
            return utils.PolicyInfo()
        return utils.PerArmPolicyInfo(chosen_arm_features=utils.create_chosen_arm_features_info_spec(features))

    def scores(self, observation, seed):
        """Score every arm.

        Args:
          observation: as `time_step_spec` says, with a batch dimension before.
          seed: int [2], of a stateless generator.

        Returns:
          float [batch, arms], minus infinity where an arm is unavailable.

        Raises:
          ValueError: an observation of another shape.
          tf.errors.InvalidArgumentError: a mask without any available arm.
        """
        _check_shapes(observation, self.time_step_spec.observation)
        if self.observation_and_action_constraint_splitter is None:
            return self._score(observation, seed)
        features, mask = observation[0], self._mask(observation)
        possible = tf.debugging.Assert(tf.reduce_all(tf.reduce_any(mask, axis=1)), ["a mask must leave an arm", mask])
        with tf.control_dependencies([] if possible is None else [possible]):
            return tf.where(mask, self._score(features, seed), -float("inf"))

    def _score_pairs(self, context, arm):
        """Score pairs of a context float32 [n, G] and an arm float32 [n, D], float [n].

        Where arms have features it is the attribute `score_pairs`, in one graph, which a saved policy keeps.
        """
        return self._score({GLOBAL: context, PER_ARM: arm[:, None, :]}, tf.zeros([2], tf.int64))[:, 0]

    def scorer(self):
        """What it has learnt as a `Scorer`; None for a policy whose scores come from elsewhere."""
        return None if self._freeze is None else self._freeze()

    def probabilities(self, observation):
        """Probability with which `action` chooses each arm: what to log as propensity.

        Args:
          observation: as for `scores`.

        Returns:
          float [batch, arms]; rows sum to 1, unavailable arms are exactly 0, and the best arm of a policy that does not
          explore is exactly 1.

        Raises:
          ValueError: the policy draws its scores at random, and what that comes to has no formula.
        """
        scores, mask = self.scores(observation, tf.zeros([2], tf.int64)), self._mask(observation)
        if self._marginal is not None:
            return self._marginal(scores, mask)
        if self._explore is not None:
            return self._explore(scores, mask)
        return tf.one_hot(tf.argmax(scores, axis=1), scores.shape[1], dtype=scores.dtype)

    def _mask(self, observation):
        """Which arms are available, bool [batch, arms]; None when all always are."""
        masked = self.observation_and_action_constraint_splitter is not None
        return tf.cast(observation[1], tf.bool) if masked else None

    def _action(self, time_step, policy_state, seed=None):
        place = self._draws.next() if seed is None else tf.cast(tf.broadcast_to(seed, [2]), tf.int64)
        first, second = tf.unstack(tf.random.experimental.stateless_split(place, 2))
        scores = self.scores(time_step.observation, first)
        if self._explore is None:
            action = tf.argmax(scores, axis=1, output_type=tf.int32)
        else:
            action = draw(self._explore(scores, self._mask(time_step.observation)), second)
        return policy_step.PolicyStep(action, policy_state, self._info(time_step.observation, action))

    def _info(self, observation, action):
        features = observation[0] if isinstance(observation, tuple) else observation
        if not isinstance(features, dict):
            return utils.PolicyInfo()
        return utils.PerArmPolicyInfo(chosen_arm_features=tf.gather(features[PER_ARM], action, batch_dims=1))

    def _distribution(self, time_step, policy_state):
        raise NotImplementedError("this policy draws actions; it does not give a distribution object")

    def _variables(self):
        return [*self._read, *self._draws.variables]


def no_probabilities(who):
    """The `marginal` of a policy without a formula for its propensities."""

    def refuse(*observation):
        raise ValueError(
            f"{who} has no exact propensities, because it draws its scores at random: to log decisions, explore around "
            "the estimates of a policy by `exploration.epsilon_greedy`, `softmax` or `inverse_gap`"
        )

    return refuse


def _check_shapes(observation, spec):
    for tensor, part in zip(tf.nest.flatten(observation), tf.nest.flatten(spec), strict=True):
        if not tensor.shape[1:].is_compatible_with(part.shape):
            expected = ", ".join(["batch", *map(str, part.shape)])
            raise ValueError(f"observation {part.name!r} must have shape [{expected}], got {tensor.shape.as_list()}")
