"""Ridge regression with confidence widths, and the agents around it: LinUCB and linear Thompson sampling."""

from collections.abc import Callable
from functools import partial

from recbandits.tf import tf

from tf_agents.typing import types

from recbandits.agents.agent import GLOBAL, PER_ARM, BanditAgent, ScoringPolicy
from recbandits.serving.scorer import Scorer, linear_head


def make_linear_agent(
    time_step_spec: types.TimeStep,
    action_spec: types.NestedTensorSpec,
    *,
    alpha: float = 0.1,
    tikhonov: float = 0.001,
    gamma: float = 1.0,
    thompson: bool = False,
    seed: int = 0,
    number: int = 0,
) -> BanditAgent:
    """Make LinUCB, or linear Thompson sampling, with a model per arm, or one for all arms where arms have features.

    Args:
      time_step_spec: of the environment; observations are [context] or a dict of `global` and `per_arm`, with a mask or
        without.
      action_spec: of the environment, int32 from 0.
      alpha: confidence widths that are added to the estimates when data are collected.
      tikhonov: as in `LinearModel`.
      gamma: likewise.
      thompson: multiply `alpha` by a standard normal draw for each user and arm.
      seed: of the draws.
      number: of this agent among those that share a seed.

    Raises:
      ValueError: specs that do not fit.
    """
    features, num_arms = check_specs(time_step_spec, action_spec)
    size = sum(spec.shape[-1] for spec in tf.nest.flatten(features))
    model = LinearModel(size, 1 if isinstance(features, dict) else num_arms, tikhonov, gamma)

    def estimate(features):
        return model.estimate(arm_inputs(features))

    def score_sample(features, seed):
        mean, width = estimate(features)
        return mean + alpha * width * tf.random.stateless_normal(tf.shape(width), seed)

    score_mean, score_bound = make_scores(estimate, alpha)
    specs, options = (time_step_spec, action_spec), {"model": model, "number": number}
    if thompson:
        random_policy = partial(ScoringPolicy, random_scores="LinTS")
        return BanditAgent(*specs, seed, score_mean, score_sample, make_collect_policy=random_policy, **options)
    return BanditAgent(*specs, seed, score_mean, score_bound, **options)


def check_specs(
    time_step_spec: types.TimeStep, action_spec: types.NestedTensorSpec
) -> tuple[types.NestedTensorSpec, int]:
    """Return the spec of the features and the number of arms of an environment.

    Raises:
      ValueError: actions that are not single int32 numbers from 0, or observations that these agents cannot read.
    """
    if tf.nest.is_nested(action_spec) or action_spec.shape.rank or action_spec.dtype != tf.int32 or action_spec.minimum:
        raise ValueError(f"actions must be single int32 numbers from 0, got {action_spec}")
    observation, num_arms = time_step_spec.observation, int(action_spec.maximum) + 1
    features = observation[0] if isinstance(observation, tuple) else observation
    parts = features if isinstance(features, dict) else {GLOBAL: features}
    shapes = {name: part.shape.as_list() for name, part in parts.items()}
    vector = len(shapes.get(GLOBAL, [])) == 1 and shapes.keys() <= {GLOBAL, PER_ARM}
    table = PER_ARM not in shapes or (len(shapes[PER_ARM]) == 2 and shapes[PER_ARM][0] == num_arms)
    if not (vector and table):
        expected = f"{GLOBAL!r} [context], or that and {PER_ARM!r} [{num_arms}, features]"
        raise ValueError(f"the shape of an observation must be {expected}, got {shapes}")
    return features, num_arms


def read_experience(experience: types.Trajectory) -> tuple[types.NestedTensor, tf.Tensor, tf.Tensor]:
    """Read the decisions of a trajectory.

    Args:
      experience: trajectory [batch, time, ...] without a mask; where arms have features, those of the chosen arm are in
        its policy info.

    Returns:
      (features of the chosen arm, action int32 [n], reward float [n]) of all n = batch * time decisions; features are
      float [n, size], or a dict of `global` and `per_arm` [n, ...].
    """
    features = experience.observation
    if isinstance(features, dict):
        features = {GLOBAL: features[GLOBAL], PER_ARM: experience.policy_info.chosen_arm_features}
    parts = features, experience.action, experience.reward
    return tf.nest.map_structure(lambda part: tf.reshape(part, [-1, *part.shape[2:]]), parts)


def arm_inputs(features: types.NestedTensor) -> tf.Tensor:
    """Return the inputs of every arm: the context [batch, size] itself, or [global, per-arm] [batch, arms, size]."""
    if not isinstance(features, dict):
        return features
    context, arms = features[GLOBAL], features[PER_ARM]
    shape = tf.concat([tf.shape(arms)[:2], tf.shape(context)[1:]], axis=0)
    return tf.concat([tf.broadcast_to(context[:, None, :], shape), arms], axis=2)


def make_scores(estimate: Callable, alpha: float) -> tuple[Callable, Callable]:
    """Make two functions from (features, seed) to scores: the mean, and the mean plus `alpha` confidence widths.

    Both are those of `estimate`, a function of the features.
    """

    def score_mean(features, seed):
        return estimate(features)[0]

    def score_bound(features, seed):
        mean, width = estimate(features)
        return mean + alpha * width

    return score_mean, score_bound


class LinearModel(tf.Module):
    """Linear reward models with sufficient statistics A = sum x x^T and b = sum r x, one per arm or one for all arms.

    Estimates solve (A + tikhonov I) theta = b (Li et al. 2010, "A Contextual-Bandit Approach to Personalized News
    Article Recommendation", algorithm 1). Only models that got data are solved again, and from A itself: rank-one
    updates of an inverse would drift. A and b grow and are solved in float64, because A is ill-conditioned under a
    small penalty; a batch is summed, and arms are scored, in float32.

    Args:
      size: length of x.
      num_models: one per arm; 1 for a model that all arms share.
      tikhonov: ridge penalty, positive.
      gamma: factor in (0, 1] by which A and b shrink before each batch; 1 forgets nothing.
    """

    def __init__(self, size: int, num_models: int, tikhonov: float, gamma: float = 1.0):
        super().__init__(name="linear_model")
        eye = tf.eye(size, batch_shape=[num_models])
        self._num_models, self._gamma = num_models, gamma
        self._penalty = tikhonov * tf.eye(size, dtype=tf.float64)
        self.covariance = tf.Variable(tf.zeros_like(eye, tf.float64), trainable=False, name="A")
        self.response = tf.Variable(tf.zeros([num_models, size], tf.float64), trainable=False, name="b")
        self.count = tf.Variable(tf.zeros([num_models], tf.float64), trainable=False, name="count")
        self.inverse = tf.Variable(eye / tikhonov, trainable=False, name="inverse")
        self.theta = tf.Variable(tf.zeros([num_models, size]), trainable=False, name="theta")

    def estimate(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Estimate the reward of every arm.

        Args:
          x: float32 [batch, size] with a model per arm, or [batch, arms, size] with one for all.

        Returns:
          Mean float32 [batch, arms] and confidence width sqrt(x^T (A + tikhonov I)^-1 x) float32 [batch, arms].
        """
        if x.shape.rank == 3:
            mean = tf.linalg.matvec(x, self.theta[0])
            square = tf.reduce_sum(tf.matmul(x, self.inverse[0]) * x, axis=2)
        else:
            mean = tf.matmul(x, self.theta, transpose_b=True)
            # Every quadratic form in one product: <x x^T, inverse> for each user and arm.
            square = tf.matmul(_flat_outer(x), tf.reshape(self.inverse, [self._num_models, -1]), transpose_b=True)
        return mean, tf.sqrt(tf.maximum(square, 0.0))

    def scorer(self) -> Scorer:
        """Return the estimates as a `Scorer`; one that all arms share reads a context and the features of arms."""
        head = linear_head(self.theta.numpy())
        return Scorer("concat" if self._num_models == 1 else "none", "relu", (), (), (head,))

    def learn(self, experience: types.Trajectory, weights: tf.Tensor | None = None) -> tf.Tensor:
        """Learn from a trajectory [batch, time, ...] as `read_experience` reads it; see `update`."""
        features, action, reward = read_experience(experience)
        x = tf.concat([features[GLOBAL], features[PER_ARM]], axis=1) if isinstance(features, dict) else features
        return self.update(x, action, reward, weights)

    def update(self, x: tf.Tensor, action: tf.Tensor, reward: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
        """Learn from one batch.

        Args:
          x: float32 [batch, size], inputs of the chosen arms.
          action: int32 [batch]; a model that all arms share does not read it.
          reward: float32 [batch].
          weights: float32 [batch], with which each row enters A, b and the count; None for 1.

        Returns:
          Mean squared error of the batch before the update, weighted; a replica of a `tf.distribute.Strategy`, whose
          sums are added to those of the others, returns its share of it.
        """
        if self._num_models == 1:
            action = tf.zeros_like(action)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        error = tf.square(reward - tf.reduce_sum(x * tf.gather(self.theta, action), axis=1))
        if self._num_models > 1 and self._gamma == 1.0 and replicas == 1:
            models, row = tf.unique(action)
        else:  # forgetting changes every model, and other replicas may have data for others
            models, row = tf.range(self._num_models), action
        membership = tf.one_hot(row, tf.size(models), axis=0, dtype=x.dtype)
        if weights is not None:
            membership, error = weights * membership, weights * error
        if self._num_models == 1:
            outer = tf.matmul(x * tf.transpose(membership), x, transpose_a=True)[None]
        else:  # sums by model as one product with the membership matrix, which is faster than a segment sum
            outer = tf.reshape(tf.matmul(membership, _flat_outer(x)), [-1, x.shape[1], x.shape[1]])
        sums = outer, tf.matmul(membership, reward[:, None] * x), tf.reduce_sum(membership, axis=1)
        tf.distribute.get_replica_context().merge_call(self._solve, (models, *sums))
        return tf.reduce_mean(error) / replicas

    def _solve(self, strategy, models, *sums):
        """Add the sums of all replicas, and solve."""
        models = strategy.experimental_local_results(models)[0]
        outer, response, count = (strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None) for part in sums)
        covariance = self._add_batch(self.covariance, models, outer)
        response = self._add_batch(self.response, models, response)
        count = self._add_batch(self.count, models, count)
        inverse = tf.linalg.inv(covariance + self._penalty)
        theta = tf.linalg.matvec(inverse, response)
        variables = self.covariance, self.response, self.count, self.inverse, self.theta
        for variable, value in zip(variables, (covariance, response, count, inverse, theta), strict=True):
            variable.scatter_update(tf.IndexedSlices(tf.cast(value, variable.dtype), models))

    def _add_batch(self, statistic, models, batch):
        """Return the statistic of some models times gamma, plus the sums of the batch."""
        return self._gamma * tf.gather(statistic, models) + tf.cast(batch, statistic.dtype)


def _flat_outer(x):
    """Return the outer product of each row with itself, [batch, size] to [batch, size * size]."""
    return tf.reshape(x[:, :, None] * x[:, None, :], [-1, x.shape[1] ** 2])
