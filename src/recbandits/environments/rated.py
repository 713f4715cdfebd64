"""Users asked about movies that they have rated: the reward is the rating itself, no model's prediction."""

from recbandits.tf import tf

import numpy as np
from tf_agents.specs import tensor_spec

from recbandits.data.tables import check_rated_once
from recbandits.environments.base import ARMS, GLOBAL, PER_ARM, USERS, Environment


class RatedMovies:
    """Users with the movies that they have rated, to draw from in a graph.

    Args:
      ratings: DataFrame with columns user_id, movie_id and rating.
      features: `FeatureBundle` that knows these users and movies.
      size: movies to be drawn for a user; users with fewer ratings are left out.
      field: what the size is called where it is given.

    Attributes:
      user_ids: int array [users], of those who can be drawn.
      movie_ids: int array [movies].
      table: the ratings, ordered by user.
      movies: int tensor [ratings], row of the rated movie in `movie_ids`, in the order of the table.
      ratings: float tensor [ratings], likewise.

    Raises:
      ValueError: nobody with enough ratings, or a movie that a user has rated twice.
    """

    def __init__(self, ratings, features, size, field):
        check_rated_once(ratings)
        self.table = ratings = ratings.sort_values("user_id", kind="stable")
        users, first, count = np.unique(ratings["user_id"], return_index=True, return_counts=True)
        enough = count >= size
        if not enough.any():
            most = count.max(initial=0)
            raise ValueError(f"{field} must be at most {most}, the most ratings of a user, got {size}")
        self.user_ids = users[enough]
        self.movie_ids, movies = np.unique(ratings["movie_id"], return_inverse=True)
        self._first, self._count = tf.constant(first[enough], tf.int32), tf.constant(count[enough], tf.int32)
        self._most = int(count[enough].max())
        self.movies = tf.constant(movies, tf.int32)
        self.ratings = tf.constant(ratings["rating"], tf.float32)
        seen = features.observation(ratings["user_id"].to_numpy(), ratings["movie_id"].to_numpy()[:, None])
        self._users, self._pairs = tf.constant(seen[GLOBAL][first[enough]]), tf.constant(seen[PER_ARM][:, 0])

    def draw(self, batch, size, user_seed, movie_seed):
        """Draw users with replacement and, without, `size` of the movies of each.

        Args:
          batch: number of users.
          size: movies for each.
          user_seed: int64 [2], of a stateless generator.
          movie_seed: likewise.

        Returns:
          (rows of `user_ids` int32 [batch], rows of the table int32 [batch, size] in random order).
        """
        users = tf.random.stateless_uniform([batch], user_seed, 0, len(self.user_ids), tf.int32)
        # The largest of independent uniform keys are a sample without replacement, in random order.
        keys = tf.random.stateless_uniform([batch, self._most], movie_seed)
        keys = tf.where(tf.range(self._most) < tf.gather(self._count, users)[:, None], keys, -1.0)
        return users, tf.gather(self._first, users)[:, None] + tf.math.top_k(keys, size).indices

    def observation(self, users, rated):
        """What is seen of users and rows as `draw` gives them: dict of `global` and `per_arm`."""
        return {GLOBAL: tf.gather(self._users, users), PER_ARM: tf.gather(self._pairs, rated)}


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
        self._rated = RatedMovies(ratings, features, num_actions, "num_actions")
        self.user_ids, self.movie_ids = self._rated.user_ids, self._rated.movie_ids
        self._means = tf.constant(self._rated.table.groupby("movie_id")["rating"].mean(), tf.float32)
        shapes = features.spec(num_actions)
        spec = {name: tensor_spec.TensorSpec(shapes[name], tf.float32, name) for name in (GLOBAL, PER_ARM)}
        super().__init__(spec, num_actions, batch_size, **options)

    def _draw(self, step):
        users, rated = self._rated.draw(self.batch_size, self.num_actions, self.stream(USERS), self.stream(ARMS))
        arms = tf.gather(self._rated.movies, rated)
        return {
            "observation": self._rated.observation(users, rated),
            "arms": arms,
            "expected_reward": tf.gather(self._rated.ratings, rated),
            "unpersonalised": tf.gather(self._means, arms),
        }
