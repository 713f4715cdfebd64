"""MovieLens users asking for movies; the reward is the rating that a factorisation predicts."""

from recbandits.tf import tf

import numpy as np
import pandas as pd
from tf_agents.specs import tensor_spec

from recbandits.environments.base import ARMS, GLOBAL, PER_ARM, USERS, Environment


class MovieLensEnvironment(Environment):
    """Each step brings `batch_size` users, drawn with replacement, and their candidate movies.

    With `per_arm=False` the candidates are always the same movies and the agent sees the user's features alone: one
    linear model per arm can represent every reward. With `per_arm=True` each user gets `num_actions` distinct movies
    drawn at random; each carries its own features and the interaction (user factors times movie factors, element by
    element), without which a linear model shared by all arms cannot tell one user's taste from another's.

    Args:
      factorization: a `Factorization`; its matrix is the expected reward.
      num_actions: candidate movies per user.
      batch_size: users per step.
      per_arm: whether arms are drawn anew and described by features.
      movie_ids: the movies to draw from, or, with `per_arm=False`, the arms in order; default: all, or the first
        `num_actions`.
      **options: `reward_noise`, `available`, `seed` of `Environment`.

    Raises:
      ValueError: unknown or too few movies.
    """

    def __init__(self, factorization, num_actions=20, batch_size=8, per_arm=False, movie_ids=None, **options):
        movies = _movie_rows(factorization, movie_ids, num_actions, per_arm)
        self._factorization = factorization
        self.user_ids, self.movie_ids = factorization.user_ids, factorization.movie_ids[movies]
        rewards = factorization.matrix()[:, movies]
        user, movie = factorization.user_features(), factorization.movie_features()[movies]
        self._rewards = tf.constant(rewards, tf.float32)
        self._mean_rewards = tf.constant(rewards.mean(axis=0), tf.float32)
        self._users = tf.constant(user, tf.float32)
        self._movies = tf.constant(movie, tf.float32)
        self._user_factors = tf.constant(factorization.user_factors, tf.float32)
        self._movie_factors = tf.constant(factorization.movie_factors[movies], tf.float32)
        spec = tensor_spec.TensorSpec([user.shape[1]], tf.float32, GLOBAL)
        if per_arm:
            features = movie.shape[1] + factorization.rank
            spec = {GLOBAL: spec, PER_ARM: tensor_spec.TensorSpec([num_actions, features], tf.float32, PER_ARM)}
        self._draw_batch = self._draw_candidates if per_arm else self._draw_users
        super().__init__(spec, num_actions, batch_size, **options)

    def describe(self, user_ids, movie_ids):
        """Observation of chosen users and candidates, for asking a policy about them.

        Args:
          user_ids: int [batch].
          movie_ids: int [batch, arms]; read with per-arm features only.

        Returns:
          What `observation` of a `Batch` holds, without a mask.

        Raises:
          ValueError: an id that the factorisation does not know.
        """
        users = _rows("user_ids", self.user_ids, user_ids)
        if not self.per_arm:
            return tf.gather(self._users, users)
        return self._describe(users, _rows("movie_ids", self.movie_ids, movie_ids))

    def bundle(self):
        """The features that it shows, as a FeatureBundle with which a policy can be served by ids.

        Its observations of users and movies are those of `describe`, and its movies are those of the environment; where
        arms have no features, it is the context that policies read.
        """
        return self._factorization.bundle(self.movie_ids)

    def _draw(self, step):
        users = tf.random.stateless_uniform([self.batch_size], self.stream(USERS), 0, len(self._users), tf.int32)
        return self._draw_batch(users)

    def _draw_users(self, users):
        shape = [self.batch_size, self.num_actions]
        return {
            "observation": tf.gather(self._users, users),
            "arms": tf.broadcast_to(tf.range(self.num_actions), shape),
            "expected_reward": tf.gather(self._rewards, users),
            "unpersonalised": tf.broadcast_to(self._mean_rewards, shape),
        }

    def _draw_candidates(self, users):
        # The largest of independent uniform keys are a sample without replacement.
        keys = tf.random.stateless_uniform([self.batch_size, len(self._movies)], self.stream(ARMS))
        arms = tf.math.top_k(keys, self.num_actions, sorted=False).indices
        return {
            "observation": self._describe(users, arms),
            "arms": arms,
            "expected_reward": tf.gather(tf.gather(self._rewards, users), arms, batch_dims=1),
            "unpersonalised": tf.gather(self._mean_rewards, arms),
        }

    def _describe(self, users, movies):
        interaction = tf.gather(self._user_factors, users)[:, None, :] * tf.gather(self._movie_factors, movies)
        return {
            GLOBAL: tf.gather(self._users, users),
            PER_ARM: tf.concat([tf.gather(self._movies, movies), interaction], axis=2),
        }


def _movie_rows(factorization, movie_ids, num_actions, per_arm):
    known = factorization.movie_ids
    if movie_ids is None:
        movie_ids = known if per_arm else known[:num_actions]
    rows = distinct_rows("movie_ids", known, movie_ids)
    if num_actions > len(rows):
        raise ValueError(f"num_actions must be at most the number of movies, {len(rows)}, got {num_actions}")
    if not per_arm and len(rows) != num_actions:
        raise ValueError(f"movie_ids must name one movie per arm, {num_actions}, got {len(rows)}")
    return rows


def distinct_rows(field, known, ids):
    """Row of each of some ids that must be known and different from each other, int array [ids].

    Raises:
      ValueError: an id that is not known or occurs twice; it names the field.
    """
    rows = _rows(field, known, ids)
    if len(set(rows)) < len(rows):
        raise ValueError(f"{field} must be different from each other")
    return rows


def _rows(field, known, ids):
    """Row of each id, in the shape of `ids`."""
    ids = np.asarray(ids)
    rows = pd.Index(known).get_indexer(ids.ravel())
    if (rows < 0).any():
        raise ValueError(f"{field} must be known to the factorisation, {ids.ravel()[rows < 0][0]} is not")
    return rows.reshape(ids.shape)
