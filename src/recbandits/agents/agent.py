"""A TF-Agents policy that draws actions by scores of the arms, and the agent that trains the model of the scores."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NoReturn

from recbandits.tf import tf

from tf_agents.agents import tf_agent
from tf_agents.bandits.specs.utils import GLOBAL_FEATURE_KEY as GLOBAL
from tf_agents.bandits.specs.utils import PER_ARM_FEATURE_KEY as PER_ARM
from tf_agents.policies import tf_policy, utils
from tf_agents.trajectories import policy_step
from tf_agents.typing import types


class SeedStream(tf.Module):
    """A stream of seeds whose position is a variable: a run that resumes from a checkpoint continues the stream.

    Streams with different numbers of one seed do not overlap.
    """

    def __init__(self, seed: int, stream: int = 0):
        super().__init__(name="seeds")
        self._start = stream << 40
        self._position = tf.Variable([seed, self._start], dtype=tf.int64, trainable=False, name="position")

    def reseed(self, seed: int) -> None:
        """Return to the start of the stream, with another seed."""
        self._position.assign([seed, self._start])

    def next(self) -> tf.Tensor:
        """Return the next seed, int64 [2], for a stateless generator."""
        return self._position.assign_add([0, 1])


def split_seed(seed: tf.Tensor, part: int) -> tf.Tensor:
    """Return one of two seeds int [2] made from that of a decision: part 0 draws its scores, and part 1 its action."""
    return tf.random.experimental.stateless_split(seed, 2)[part]


def draw(probabilities: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draw one action int32 per row of probabilities [batch, arms], which sum to 1; arms of probability 0 never.

    The cumulative distribution is inverted. The seed is int [2], of a stateless generator.
    """
    cumulative = tf.cumsum(probabilities, axis=1)
    # uniform in [0, 1) times the total stays below the total, so that rounding never points past the last arm
    uniforms = tf.random.stateless_uniform([tf.shape(probabilities)[0], 1], seed) * cumulative[:, -1:]
    return tf.reduce_sum(tf.cast(cumulative <= uniforms, tf.int32), axis=1)


class ScoringPolicy(tf_policy.TFPolicy):
    """Choose the arm with the highest score, or draw one with probabilities that depend on the scores.

    The observation is a pair (features, mask) when arms can be unavailable.

    Args:
      score: function of (features, seed int [2]) giving scores float [batch, arms].
      explore: function of (scores, mask) giving probabilities, all [batch, arms]; None for the best arm, the first one
        on ties.
      random_scores: name of the agent that draws its scores at random; None where `score` does not read its seed.
      variables: those that `score` reads, for saving.
    """

    # Whether TF-Agents compares the structure of time steps with the spec. The rewards in them are not read.
    _validates = True
    _keeps_chosen_arm = True  # its features, where arms have some, are in the policy info

    def __init__(
        self,
        time_step_spec: types.TimeStep,
        action_spec: types.NestedTensorSpec,
        score: Callable,
        seeds: SeedStream,
        *,
        explore: Callable | None = None,
        random_scores: str | None = None,
        variables: Iterable[tf.Variable] = (),
    ):
        self._score, self._seeds, self._explore, self._random_scores = score, seeds, explore, random_scores
        self._score_variables = list(variables)
        masked = isinstance(time_step_spec.observation, tuple)
        features = time_step_spec.observation[0] if masked else time_step_spec.observation
        if isinstance(features, dict):
            pair = [tf.TensorSpec([None, features[name].shape[-1]], name=name) for name in (GLOBAL, PER_ARM)]
            # TensorFlow counts traces by code, and warns when many policies have one each; a partial is counted alone
            self.score_pairs = tf.function(partial(self._score_pairs), input_signature=pair, autograph=False)
        super().__init__(
            time_step_spec,
            action_spec,
            info_spec=self._make_info_spec(features),
            clip=False,
            validate_args=self._validates,
            observation_and_action_constraint_splitter=_split_mask if masked else None,
        )

    @property
    def training_data_spec(self) -> types.Trajectory:
        """Spec of the trajectories that train an agent: of the arms' features only those of the chosen arm."""
        spec = self.trajectory_spec
        return spec._replace(observation=_drop_arms(spec.observation))

    def scorer(self) -> Any:
        """Return the present scores as a `Scorer`; None where they are not those of a model."""

    def scores(self, observation: types.NestedTensor, seed: tf.Tensor) -> tf.Tensor:
        """Score every arm: float [batch, arms], minus infinity where an arm is unavailable.

        The observation is as `time_step_spec` says, with a batch dimension before, numbers of any type; ValueError for
        another shape, tf.errors.InvalidArgumentError for a mask without any available arm. The seed is int [2], of a
        stateless generator.
        """
        observation = tf.nest.map_structure(_convert, observation, self.time_step_spec.observation)
        if self.observation_and_action_constraint_splitter is None:
            return self._score(observation, seed)
        features, mask = observation[0], self._mask(observation)
        available = tf.debugging.Assert(tf.reduce_all(tf.reduce_any(mask, axis=1)), ["a mask must leave an arm", mask])
        with tf.control_dependencies([] if available is None else [available]):
            return tf.where(mask, self._score(features, seed), -float("inf"))

    def probabilities(self, observation: types.NestedTensor) -> tf.Tensor:
        """Return the probability with which `action` chooses each arm, float [batch, arms]: what to log as propensity.

        The observation is as for `scores`. Rows sum to 1, unavailable arms are exactly 0, and the best arm of a policy
        that does not explore is exactly 1. ValueError if the policy draws its scores at random: its probabilities have
        no formula.
        """
        scores = self._deterministic_scores(observation)
        if self._explore is not None:
            return self._explore(scores, self._mask(observation))
        return tf.one_hot(tf.argmax(scores, axis=1), scores.shape[1], dtype=scores.dtype)

    def _deterministic_scores(self, observation):
        if self._random_scores:
            raise_no_propensities(self._random_scores)
        return self.scores(observation, tf.zeros([2], tf.int64))

    def _score_pairs(self, context, arm):
        """Score pairs of a context float32 [n, G] and an arm float32 [n, D], float [n]; saved as `score_pairs`."""
        return self._score({GLOBAL: context, PER_ARM: arm[:, None, :]}, tf.zeros([2], tf.int64))[:, 0]

    def _mask(self, observation):
        """Return which arms are available, bool [batch, arms]; None when all always are."""
        masked = self.observation_and_action_constraint_splitter is not None
        return tf.cast(observation[1], tf.bool) if masked else None

    def _action(self, time_step, policy_state, seed=None):
        seed = self._seeds.next() if seed is None else tf.cast(tf.broadcast_to(seed, [2]), tf.int64)
        scores = self.scores(time_step.observation, split_seed(seed, 0))
        action = self._choose(scores, time_step.observation, seed)
        return policy_step.PolicyStep(action, policy_state, self._make_info(time_step.observation, action))

    def _choose(self, scores, observation, seed):
        if self._explore is None:
            return tf.argmax(scores, axis=1, output_type=tf.int32)
        return draw(self._explore(scores, self._mask(observation)), split_seed(seed, 1))

    def _make_info_spec(self, features):
        if isinstance(features, dict) and self._keeps_chosen_arm:
            return utils.PerArmPolicyInfo(chosen_arm_features=utils.create_chosen_arm_features_info_spec(features))
        return utils.PolicyInfo()

    def _make_info(self, observation, action):
        features = observation[0] if isinstance(observation, tuple) else observation
        if isinstance(features, dict) and self._keeps_chosen_arm:
            return utils.PerArmPolicyInfo(chosen_arm_features=tf.gather(features[PER_ARM], action, batch_dims=1))
        return utils.PolicyInfo()

    def _distribution(self, time_step, policy_state):
        raise NotImplementedError("this policy draws actions; it does not give a distribution object")

    def _variables(self):
        return [*self._score_variables, *self._seeds.variables]


class BanditAgent(tf_agent.TFAgent):
    """Serve greedily, collect with exploration, train a model.

    Serving and collecting have a stream of draws each, so that using one does not change the other. `learned_events`,
    an int64 variable [n], has hashes of the logged events that the model must not learn again.

    Args:
      score: function of (features, seed) giving the scores by which to serve, float [batch, arms].
      collect_score: the same for collecting; None for `score`.
      model: tf.Module with the variables that the functions read; None for an agent that does not learn. Its method
        `learn(experience, weights, **options)` takes what `train` takes (observations without their mask), learns and
        returns the loss; `scorer()` returns `score` as a `Scorer`; for slates, `loss` is `learn` without learning.
      make_policy: class of the policy that serves, or a partial of one.
      make_collect_policy: likewise, of the policy that collects.
      number: of this agent among those that share a seed.
    """

    def __init__(
        self,
        time_step_spec: types.TimeStep,
        action_spec: types.NestedTensorSpec,
        seed: int,
        score: Callable,
        collect_score: Callable | None = None,
        *,
        model: tf.Module | None = None,
        make_policy: Callable = ScoringPolicy,
        make_collect_policy: Callable = ScoringPolicy,
        number: int = 0,
    ):
        tf.Module.__init__(self, name=type(self).__name__)
        self.model = model
        self.learned_events = tf.Variable(tf.zeros([0], tf.int64), trainable=False, shape=[None], name="learned_events")
        specs, variables = (time_step_spec, action_spec), [] if model is None else model.variables
        collect_seeds, serve_seeds = SeedStream(seed, 2 * number), SeedStream(seed, 2 * number + 1)
        policy = make_policy(*specs, score, serve_seeds, variables=variables)
        collect_policy = make_collect_policy(*specs, collect_score or score, collect_seeds, variables=variables)
        if model is not None:
            policy.scorer = model.scorer
        super().__init__(
            *specs,
            policy,
            collect_policy,
            train_sequence_length=None,
            training_data_spec=collect_policy.training_data_spec,
            train_step_counter=make_counter("train_step"),
        )

    def _train(self, experience, weights=None, **options):
        loss = tf.constant(0.0)
        if self.model is not None:
            if self.policy.observation_and_action_constraint_splitter is not None:
                experience = experience._replace(observation=experience.observation[0])
            loss = self.model.learn(experience, weights, **options)
        self.train_step_counter.assign_add(1)
        return tf_agent.LossInfo(loss, ())

    def _loss(self, experience, weights=None, training=False):
        loss = tf.constant(0.0) if self.model is None else self.model.loss(experience, weights, training)
        return tf_agent.LossInfo(loss, ())

    def _initialize(self):
        """Variables are initialised where they are made."""


def make_counter(name: str, start: int = 0) -> tf.Variable:
    """Make an int64 variable that every replica of a `tf.distribute.Strategy` advances alike."""
    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(start, dtype=tf.int64, trainable=False, name=name, aggregation=first)


def raise_no_propensities(agent: str) -> NoReturn:
    """Raise the ValueError of an agent whose actions have probabilities without a formula."""
    raise ValueError(
        f"{agent} has no exact propensities, because it draws its scores at random: to log decisions, explore around "
        "the estimates of a policy by `recbandits.exploration`, or draw slates by the temperature of `Ranking`"
    )


def _split_mask(observation):
    """Return the pair (features, mask) that an environment with unavailable arms gives, for TF-Agents."""
    return observation


def _drop_arms(observation):
    if isinstance(observation, tuple):
        return (_drop_arms(observation[0]), *observation[1:])
    return {GLOBAL: observation[GLOBAL]} if isinstance(observation, dict) else observation


def _convert(part, spec):
    """Return a part of an observation in the type of its spec."""
    tensor = tf.cast(part, spec.dtype)
    if not tensor.shape[1:].is_compatible_with(spec.shape):
        expected = ", ".join(["batch", *map(str, spec.shape)])
        raise ValueError(f"observation {spec.name!r} must have shape [{expected}], got {tensor.shape.as_list()}")
    return tensor
