"""Ridge regression with confidence widths: the model behind LinUCB and linear Thompson sampling."""

from recbandits.tf import tf

from recbandits.environments.base import GLOBAL, PER_ARM
from recbandits.serving.scorer import Scorer, linear_head


def arm_inputs(features):
    """Model inputs of every arm: the context [batch, size] itself, or [global, per-arm] [batch, arms, size]."""
    if not isinstance(features, dict):
        return features
    context, arms = features[GLOBAL], features[PER_ARM]
    shape = tf.concat([tf.shape(arms)[:2], tf.shape(context)[1:]], axis=0)
    return tf.concat([tf.broadcast_to(context[:, None, :], shape), arms], axis=2)


def chosen_inputs(features):
    """Model inputs [batch, size] of the chosen arm; `per_arm` is [batch, arm] here."""
    if not isinstance(features, dict):
        return features
    return tf.concat([features[GLOBAL], features[PER_ARM]], axis=1)


def scorers(model, alpha):
    """How a `LinearModel` scores arms: functions of (features, seed), the mean and the mean plus `alpha` widths."""

    def mean(features, seed):
        return model.estimate(arm_inputs(features))[0]

    def optimistic(features, seed):
        estimate, width = model.estimate(arm_inputs(features))
        return estimate + alpha * width

    return mean, optimistic


class LinearModel(tf.Module):
    """Linear reward models with sufficient statistics A = sum x x^T and b = sum r x, one per arm or one for all arms.

    Estimates solve (A + tikhonov I) theta = b (Li et al. 2010, "A Contextual-Bandit Approach to Personalized News
    Article Recommendation", algorithm 1). Only models that got data are solved again, and from A itself: rank-one
    updates of an inverse would drift. A and b grow and are solved in float64, because A is ill-conditioned under a
    small penalty; a batch is summed, and arms are scored, in float32.

    Args:
      size: length of x.
      models: number of models, one per arm; 1 for a model that all arms share.
      tikhonov: ridge penalty, positive.
      gamma: factor in (0, 1] by which A and b shrink before each batch; 1 forgets nothing.
    """

    def __init__(self, size, models, tikhonov, gamma=1.0):
        super().__init__(name="linear_model")
        eye = tf.eye(size, batch_shape=[models])
        self._models, self._gamma = models, gamma
        self._penalty = tikhonov * tf.eye(size, dtype=tf.float64)
        self.covariance = tf.Variable(tf.zeros_like(eye, tf.float64), trainable=False, name="A")
        self.response = tf.Variable(tf.zeros([models, size], tf.float64), trainable=False, name="b")
        self.count = tf.Variable(tf.zeros([models], tf.float64), trainable=False, name="count")
        self.inverse = tf.Variable(eye / tikhonov, trainable=False, name="inverse")
        self.theta = tf.Variable(tf.zeros([models, size]), trainable=False, name="theta")

    def estimate(self, x):
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
            square = tf.matmul(_flat_outer(x), tf.reshape(self.inverse, [self._models, -1]), transpose_b=True)
        return mean, tf.sqrt(tf.maximum(square, 0.0))

    def sample(self, rows, seed):
        """Draw coefficients of the model that all arms share from the normal distribution around its estimate.

        Args:
          rows: how many draws.
          seed: int [2], of a stateless generator.

        Returns:
          Deviations from theta, float32 [rows, size], with covariance (A + tikhonov I)^-1: with the Cholesky factor C
          of A + tikhonov I they are C^-T z for standard normal z.
        """
        factor = tf.linalg.cholesky(self.covariance[0] + self._penalty)
        normal = tf.random.stateless_normal([factor.shape[0], rows], seed, dtype=tf.float64)
        return tf.cast(tf.transpose(tf.linalg.triangular_solve(factor, normal, adjoint=True)), tf.float32)

    def scorer(self):
        """The estimates as a `Scorer`; one that all arms share reads a context and the features of arms."""
        head = linear_head(self.theta.numpy())
        return Scorer("concat" if self._models == 1 else "none", "relu", (), (), (head,))

    def update(self, x, action, reward, weights=None):
        """Learn from one batch.

        Args:
          x: float32 [batch, size], inputs of the chosen arms.
          action: int32 [batch]; a model that all arms share does not read it.
          reward: float32 [batch].
          weights: float32 [batch], with which each row enters A, b and the count; None for 1.

        Returns:
          Mean squared error of the batch before it was learnt, weighted; a replica of a `tf.distribute.Strategy`, whose
          sums are added to those of the others, returns its share of it.
        """
        if self._models == 1:
            action = tf.zeros_like(action)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        error = tf.square(reward - tf.reduce_sum(x * tf.gather(self.theta, action), axis=1))
        if self._models > 1 and self._gamma == 1.0 and replicas == 1:
            played, row = tf.unique(action)
        else:  # forgetting changes every model, and other replicas may have played others
            played, row = tf.range(self._models), action
        member = tf.one_hot(row, tf.size(played), axis=0, dtype=x.dtype)
        if weights is not None:
            member, error = weights * member, weights * error
        if self._models == 1:
            outer = tf.matmul(x * tf.transpose(member), x, transpose_a=True)[None]
        else:  # sums by model as one product with the membership matrix, which is faster than a segment sum
            outer = tf.reshape(tf.matmul(member, _flat_outer(x)), [-1, x.shape[1], x.shape[1]])
        sums = outer, tf.matmul(member, reward[:, None] * x), tf.reduce_sum(member, axis=1)
        tf.distribute.get_replica_context().merge_call(self._absorb, (played, *sums))
        return tf.reduce_mean(error) / replicas

    def _absorb(self, strategy, played, *sums):
        """Add what all replicas have summed, and solve."""
        played = strategy.experimental_local_results(played)[0]
        outer, response, count = (strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None) for part in sums)
        covariance = self._grown(self.covariance, played, outer)
        response = self._grown(self.response, played, response)
        count = self._grown(self.count, played, count)
        inverse = tf.linalg.inv(covariance + self._penalty)
        theta = tf.linalg.matvec(inverse, response)
        for variable, value in (
            (self.covariance, covariance),
            (self.response, response),
            (self.count, count),
            (self.inverse, inverse),
            (self.theta, theta),
        ):
            variable.scatter_update(tf.IndexedSlices(tf.cast(value, variable.dtype), played))

    def _grown(self, statistic, played, batch):
        """Statistics of the played models, shrunk by gamma, plus what the batch adds."""
        return self._gamma * tf.gather(statistic, played) + tf.cast(batch, statistic.dtype)


def _flat_outer(x):
    """Outer product of each row with itself, [batch, size] to [batch, size * size]."""
    return tf.reshape(x[:, :, None] * x[:, None, :], [-1, x.shape[1] ** 2])
