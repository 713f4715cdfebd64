"""Users asked about movies that they have rated: the reward is the rating itself, no model's prediction."""

import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec

from recbandits.data.tables import check_rated_once
from recbandits.environments.base import ARMS, GLOBAL, PER_ARM, USERS, Environment


class RatedEnvironment(Environment):
    """Each step brings `batch_size` users, drawn with replacement, and for each some movies that this user has rated.

    Every user is as likely as any other, and so is every set of `num_actions` movies among those that one has rated, in
    random order. Whatever an agent shows, the answer is known; what users think of movies that they have not rated,
    nobody knows.

    Args:
      ratings: DataFrame with columns user_id, movie_id and rating.
      features: `FeatureBundle` that knows these users and movies; fit it on other ratings than these.
      num_actions: candidate movies per user; users with fewer ratings are left out.
      batch_size: users per step.
      **options: `reward_noise`, `available`, `seed` of `Environment`.

    Attributes:
      user_ids: int array [users], of those who can be drawn.
      movie_ids: int array [movies]; `arms` of a `Batch` are rows of it.

    Raises:
      ValueError: nobody with enough ratings, or a movie that a user has rated twice.
    """

    def __init__(self, ratings, features, num_actions=10, batch_size=8, **options):
        check_rated_once(ratings)
        ratings = ratings.sort_values("user_id", kind="stable")
        users, first, count = np.unique(ratings["user_id"], return_index=True, return_counts=True)
        enough = count >= num_actions
        if not enough.any():
            most = count.max(initial=0)
            raise ValueError(f"num_actions must be at most {most}, the most ratings of a user, got {num_actions}")
        self.user_ids = users[enough]
        self.movie_ids, arms = np.unique(ratings["movie_id"], return_inverse=True)
        self._first, self._count = tf.constant(first[enough], tf.int32), tf.constant(count[enough], tf.int32)
        self._most = int(count[enough].max())
        self._arms = tf.constant(arms, tf.int32)
        self._ratings = tf.constant(ratings["rating"], tf.float32)
        self._means = tf.constant(ratings.groupby("movie_id")["rating"].mean(), tf.float32)
        seen = features.observation(ratings["user_id"].to_numpy(), ratings["movie_id"].to_numpy()[:, None])
        self._users, self._pairs = tf.constant(seen[GLOBAL][first[enough]]), tf.constant(seen[PER_ARM][:, 0])
        shapes = features.spec(num_actions)
        spec = {name: tensor_spec.TensorSpec(shapes[name], tf.float32, name) for name in (GLOBAL, PER_ARM)}
        super().__init__(spec, num_actions, batch_size, **options)

    def _draw(self, step):
        users = tf.random.stateless_uniform([self.batch_size], self.stream(USERS), 0, len(self.user_ids), tf.int32)
        # The largest of independent uniform keys are a sample without replacement, in random order.
        keys = tf.random.stateless_uniform([self.batch_size, self._most], self.stream(ARMS))
        keys = tf.where(tf.range(self._most) < tf.gather(self._count, users)[:, None], keys, -1.0)
        rated = tf.gather(self._first, users)[:, None] + tf.math.top_k(keys, self.num_actions).indices
        arms = tf.gather(self._arms, rated)
        return {
            "observation": {GLOBAL: tf.gather(self._users, users), PER_ARM: tf.gather(self._pairs, rated)},
            "arms": arms,
            "expected_reward": tf.gather(self._ratings, rated),
            "unpersonalised": tf.gather(self._means, arms),
        }
