"""Ridge regression with confidence widths, and the agents around it: LinUCB and linear Thompson sampling."""

from collections.abc import Callable
from functools import partial
from typing import Any

from recbandits.tf import tf

from tf_agents.typing import types

from recbandits.agents.agent import GLOBAL, PER_ARM, BanditAgent, ScoringPolicy, split_seed
from recbandits.serving.scorer import Scorer, linear_head

_ROUNDING = 2.0**-48  # of a pivot of the Cholesky factorisation, relative to the diagonal, for each feature
_REFUSAL = (
    "features and rewards must be finite, and where features are collinear, tikhonov must be at least 1e-14 of the sum "
    "of their squares, times their number; the linear model is what it was before this batch"
)


def make_linear_agent(
    time_step_spec: types.TimeStep,
    action_spec: types.NestedTensorSpec,
    *,
    alpha: float = 0.1,
    tikhonov: float = 0.001,
    gamma: float = 1.0,
    thompson: bool = False,
    random_ties: bool = True,
    seed: int = 0,
    number: int = 0,
) -> BanditAgent:
    """Make LinUCB, or linear Thompson sampling, with a model per arm, or one for all arms where arms have features.

    Observations are [context] or a dict of `global` and `per_arm`, with a mask or without; ValueError for other specs.
    When data are collected, `alpha` confidence widths are added to the estimates, for `thompson` times a standard
    normal draw for each user and arm; LinUCB takes one of tied arms at random, or without `random_ties` the first one.
    `tikhonov` and `gamma` are those of `LinearModel`, and `number` is that of this agent among those that share a seed.
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
    make = partial(BanditAgent, time_step_spec, action_spec, seed, score_mean, model=model, number=number)
    if thompson:
        return make(score_sample, make_collect_policy=partial(ScoringPolicy, random_scores="LinTS"))
    return make(score_bound, make_collect_policy=RandomTiesPolicy if random_ties else ScoringPolicy)


class RandomTiesPolicy(ScoringPolicy):
    """Choose the arm with the highest score, and one of them at random where arms tie.

    Arms without data have equal scores in every row. The first of them would get a whole batch, and a batch for each
    arm would pass before all were tried.
    """

    def probabilities(self, observation: types.NestedTensor) -> tf.Tensor:
        """Return the probability of each arm, float [batch, arms]: best arms share 1; see `ScoringPolicy`."""
        scores = self._deterministic_scores(observation)
        is_best = tf.cast(_is_best(scores), scores.dtype)
        return is_best / tf.reduce_sum(is_best, axis=1, keepdims=True)

    def _choose(self, scores, observation, seed):
        best, arms = tf.math.top_k(scores, min(2, scores.shape[1]))

        def break_ties():
            # half the time of `draw`: no sums
            order = tf.random.stateless_uniform(tf.shape(scores), split_seed(seed, 1))
            return tf.argmax(tf.where(_is_best(scores), order, -1.0), axis=1, output_type=tf.int32)

        has_ties = tf.reduce_any(best[:, 0] == best[:, -1])
        return tf.cond(has_ties, break_ties, lambda: arms[:, 0])


def _is_best(scores):
    return scores == tf.reduce_max(scores, axis=1, keepdims=True)


def check_specs(time_step_spec: types.TimeStep, action_spec: types.NestedTensorSpec) -> tuple[Any, int]:
    """Return the spec of the features and the number of arms of an environment.

    ValueError for actions that are not single int32 numbers from 0, or observations that these agents cannot read.
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
    """Return (features of the chosen arm, action int32 [n], reward float [n]) of all n = batch * time decisions.

    The trajectory is [batch, time, ...] without a mask; where arms have features, those of the chosen arm are in its
    policy info. Features are float [n, size], or a dict of `global` and `per_arm` [n, ...].
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
    """Make two functions from (features, seed) to scores: the mean of an estimate, and the mean plus `alpha` widths."""

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
    updates of an inverse would drift. A and b are summed and solved in float64, in which products of float32 numbers
    are exact. The width of x is the norm of C^-1 x for the Cholesky factor C of A + tikhonov I: a sum of squares, while
    x^T (A + tikhonov I)^-1 x cancels where features are nearly collinear. Arms are scored in float32, by `factor`, the
    C^-1 of each model, and theta from float64; that errs as much as x itself, whose numbers are rounded to float32.

    Args:
      size: length of x.
      num_models: one per arm; 1 for a model that all arms share.
      tikhonov: ridge penalty, positive.
      gamma: factor in (0, 1] by which A and b shrink before each batch; 1 forgets nothing.
    """

    def __init__(self, size: int, num_models: int, tikhonov: float, gamma: float = 1.0):
        super().__init__(name="linear_model")
        self._size, self._num_models, self._gamma = size, num_models, gamma
        self._eye = tf.eye(size, dtype=tf.float64)
        # The widths of some twenty models take half the time on one thread, in its cache, that they take on all.
        blocks = min(max(num_models // 20, 1), 8)
        self._blocks = [(num_models + block) // blocks for block in range(blocks)]
        # diagonal of the matrix that is factorised: A times this, plus the penalty
        self._scale, self._penalty = 1.0 + _ROUNDING * size * self._eye, tikhonov * self._eye
        moments = tf.zeros([num_models, size + 2, size + 2], tf.float64)
        self._moments = tf.Variable(moments, trainable=False, name="moments")  # sum z z^T of z = [x, r, 1]
        factor = tf.eye(size, batch_shape=[num_models]) / tikhonov**0.5
        self.factor = tf.Variable(factor, trainable=False, name="factor")
        self.theta = tf.Variable(tf.zeros([num_models, size]), trainable=False, name="theta")

    @property
    def covariance(self) -> tf.Tensor:
        """A of each model, float64 [num_models, size, size]."""
        return self._moments[:, : self._size, : self._size]

    @property
    def response(self) -> tf.Tensor:
        """The sum b of each model, float64 [num_models, size]."""
        return self._moments[:, : self._size, self._size]

    @property
    def count(self) -> tf.Tensor:
        """Number of decisions of each model, weighted, float64 [num_models]."""
        return self._moments[:, -1, -1]

    def estimate(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return mean and confidence width sqrt(x^T (A + tikhonov I)^-1 x) of every arm, both float32 [batch, arms].

        The inputs x are float32 [batch, size] with a model per arm, or [batch, arms, size] with one for all.
        """
        rows = tf.reshape(x, [-1, self._size])
        width = tf.concat([self._width(factor, rows) for factor in tf.split(self.factor, self._blocks)], axis=1)
        if x.shape.rank == 3:
            return tf.linalg.matvec(x, self.theta[0]), tf.reshape(width, tf.shape(x)[:2])
        return tf.matmul(x, self.theta, transpose_b=True), width

    def _width(self, factor, rows):
        """Return the width float32 [n, models] of rows [n, size] for some models, of which `factor` is the C^-1.

        The squares stand side by side, so that each sum is rounded alike: arms without data tie to the bit.
        """
        solved = tf.matmul(rows, tf.reshape(factor, [-1, self._size]), transpose_b=True)
        return tf.math.reduce_euclidean_norm(tf.reshape(solved, [-1, factor.shape[0], self._size]), axis=2)

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
        """Learn from one batch, and return its mean squared error before the update, weighted.

        The inputs x of the chosen arms are float32 [batch, size], actions int32 [batch] (a model that all arms share
        does not read them), rewards and weights float32 [batch]; with its weight, 1 for None, each row enters A, b and
        the count. A replica of a `tf.distribute.Strategy`, whose sums are added to those of the others, returns its
        share of the error. Raises tf.errors.InvalidArgumentError for features or rewards that are not finite, or so
        large beside the penalty that float64 cannot tell A + tikhonov I from a singular matrix; the model stays as it
        was.
        """
        if self._num_models == 1:
            action = tf.zeros_like(action)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        error = tf.square(reward - tf.reduce_sum(x * tf.gather(self.theta, action), axis=1))
        z = tf.cast(tf.concat([x, reward[:, None], tf.ones_like(reward)[:, None]], axis=1), tf.float64)
        weighted = z
        if weights is not None:
            weighted, error = tf.cast(weights, tf.float64)[:, None] * z, weights * error
        if self._num_models == 1:
            models, moments = tf.constant([0]), tf.matmul(weighted, z, transpose_a=True)[None]
        else:
            models, row = tf.unique(action)
            order = tf.argsort(row)
            outer = tf.einsum("bi,bj->bij", tf.gather(weighted, order), tf.gather(z, order))
            moments = tf.math.segment_sum(outer, tf.gather(row, order))
            if self._gamma < 1.0 or replicas > 1:  # models without data forget, or have data on other replicas
                moments = tf.scatter_nd(models[:, None], moments, self._moments.shape)
                models = tf.range(self._num_models)
        solved = tf.distribute.get_replica_context().merge_call(self._solve, (models, moments))
        with tf.control_dependencies([solved]):  # what follows the loss in a graph does not run after an error
            # a member of a mixture may get no decision of a batch
            return tf.math.divide_no_nan(tf.reduce_sum(error), tf.cast(tf.size(error) * replicas, error.dtype))

    def _solve(self, strategy, models, moments):
        """Add the sums of all replicas, and solve."""
        models = strategy.experimental_local_results(models)[0]
        moments = strategy.reduce(tf.distribute.ReduceOp.SUM, moments, axis=None)
        previous = tf.gather(self._moments, models)
        moments += previous if self._gamma == 1.0 else self._gamma * previous
        factor, is_valid = self._factorise(moments[:, : self._size, : self._size])
        response = moments[:, : self._size, self._size, None]
        theta = tf.cast(tf.matmul(factor, tf.matmul(factor, response), transpose_a=True)[:, :, 0], tf.float32)
        theta = tf.debugging.check_numerics(tf.where(is_valid, theta, float("nan")), _REFUSAL)
        with tf.control_dependencies([theta]):
            for variable, value in ((self._moments, moments), (self.factor, factor), (self.theta, theta)):
                variable.scatter_update(tf.IndexedSlices(tf.cast(value, variable.dtype), models))
        return theta

    def _factorise(self, covariance):
        """Return C^-1 float64 [models, size, size] of A [models, size, size], and where its pivots are valid.

        Rounding moves the pivots of a factorisation by a share of the diagonal. As much is added to the diagonal, so
        that every A can be factorised. It adds twice the share to the pivot of a feature that equals another one, and
        pivots up to twice that are not valid.
        """
        matrix = covariance * self._scale + self._penalty
        rounding = 4.0 * _ROUNDING * self._size * tf.linalg.diag_part(matrix)
        with tf.control_dependencies([rounding]):  # such small operations take longer on two threads than in turn
            factor = tf.linalg.triangular_solve(tf.linalg.cholesky(matrix), self._eye)
        # a pivot is the square of 1 / an element of the diagonal of C^-1
        return factor, rounding * tf.square(tf.linalg.diag_part(factor)) < 1.0
