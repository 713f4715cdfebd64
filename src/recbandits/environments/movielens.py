"""MovieLens users: rewards and clicks follow from ratings that a factorisation predicts, or that users have given."""

from collections.abc import Sequence
from typing import Any

from recbandits.tf import tf

import numpy as np
import pandas as pd

from recbandits.checks import distinct, require
from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.data.rating_features import RatingFeatures
from recbandits.data.tables import check_ratings
from recbandits.environments.base import Batch, Environment, observation_spec
from recbandits.environments.clicks import attraction
from recbandits.environments.factorization import Factorization, find_rows
from recbandits.environments.ranking import RankingBatch, RankingEnvironment


class MovieLensEnvironment(Environment):
    """Users drawn with replacement, each with candidate movies; the reward is the rating that a factorization predicts.

    With `per_arm=False` the candidates are always the same movies and the agent sees the user's features alone: one
    linear model per arm can represent every reward. With `per_arm=True` each user gets `num_actions` distinct movies
    drawn at random. Each has its own features and the interaction (user factors times movie factors, element by
    element), without which a linear model shared by all arms cannot represent differences between users.

    Movies are drawn from `movie_ids`, or, with `per_arm=False`, these are the arms in order; default: all, or the first
    `num_actions`. Users, such as held-out ones, are drawn from `user_ids`, by default from all of the factorization.
    Observations are made of `features`, the `RatingFeatures` of all users and of these movies. Options are those of
    `Environment`. ValueError for unknown, repeated or too few users or movies.
    """

    def __init__(
        self,
        factorization: Factorization,
        num_actions: int = 20,
        batch_size: int = 8,
        per_arm: bool = False,
        movie_ids: Sequence[int] | np.ndarray | None = None,
        user_ids: Sequence[int] | np.ndarray | None = None,
        **options: Any,
    ):
        users = _known_rows("user_ids", factorization.user_ids, user_ids)
        movies = _known_rows("movie_ids", factorization.movie_ids, movie_ids)
        if movie_ids is None and not per_arm:
            movies = movies[:num_actions]
        require(num_actions <= len(movies), "num_actions", f"at most the number of movies, {len(movies)}", num_actions)
        allowed = per_arm or len(movies) == num_actions
        require(allowed, "the number of movie_ids", f"num_actions, {num_actions}", len(movies))
        self.user_ids, self.movie_ids = factorization.user_ids[users], factorization.movie_ids[movies]
        rewards = factorization.matrix(users, movies)
        self._rewards = tf.constant(rewards, tf.float32)
        self._mean_rewards = tf.constant(rewards.mean(axis=0), tf.float32)
        self.features = factorization.features(self.movie_ids)
        self._tensors = _FeatureTensors(self.features, self.user_ids, self.movie_ids)
        spec = observation_spec(self.features.spec(num_actions))
        super().__init__(spec if per_arm else spec[GLOBAL], num_actions, batch_size, **options)

    def _draw(self):
        users = self._draw_users(len(self.user_ids))
        if not self.per_arm:
            shape = [self.batch_size, self.num_actions]
            arms, mean = (tf.broadcast_to(row, shape) for row in (tf.range(self.num_actions), self._mean_rewards))
            return Batch(tf.gather(self._tensors.users, users), arms, tf.gather(self._rewards, users), mean)
        arms = tf.math.top_k(self._draw_keys(len(self.movie_ids)), self.num_actions, sorted=False).indices
        rewards = tf.gather(tf.gather(self._rewards, users), arms, batch_dims=1)
        return Batch(self._tensors(users, arms), arms, rewards, tf.gather(self._mean_rewards, arms))


class RatedEnvironment(Environment):
    """Users drawn with replacement, each with movies that this user has rated; the reward is the rating.

    All users are equally likely, and so are all sets of `num_actions` of the movies that a user has rated, in random
    order. Users with fewer ratings are left out; ValueError where none has enough, or for ratings that `check_ratings`
    refuses. Fit the features, which must know these users and movies, on other ratings. Options are those of
    `Environment`.
    """

    def __init__(
        self,
        ratings: pd.DataFrame,
        features: RatingFeatures,
        num_actions: int = 10,
        batch_size: int = 8,
        **options: Any,
    ):
        check_ratings(ratings)
        ratings = ratings.sort_values("user_id", kind="stable")
        users, starts, counts = np.unique(ratings["user_id"], return_index=True, return_counts=True)
        self._max_count = int(counts.max(initial=0))
        expected = f"at most {self._max_count}, the most ratings of a user"
        require(num_actions <= self._max_count, "num_actions", expected, num_actions)
        eligible = counts >= num_actions
        self.user_ids, starts, counts = users[eligible], starts[eligible], counts[eligible]
        self.movie_ids, movies = np.unique(ratings["movie_id"], return_inverse=True)
        self._starts, self._counts = tf.constant(starts, tf.int32), tf.constant(counts, tf.int32)
        self._movies, self._ratings = tf.constant(movies, tf.int32), tf.constant(ratings["rating"], tf.float32)
        self._mean_ratings = tf.constant(ratings.groupby("movie_id")["rating"].mean(), tf.float32)
        observation = features.observation(ratings["user_id"].to_numpy(), ratings["movie_id"].to_numpy()[:, None])
        self._users, self._pairs = tf.constant(observation[GLOBAL][starts]), tf.constant(observation[PER_ARM][:, 0])
        super().__init__(observation_spec(features.spec(num_actions)), num_actions, batch_size, **options)

    def _draw(self):
        users = self._draw_users(len(self.user_ids))
        keys = self._draw_keys(self._max_count)  # those beyond the number of the user's ratings are below all others
        keys = tf.where(tf.range(self._max_count) < tf.gather(self._counts, users)[:, None], keys, -1.0)
        rows = tf.gather(self._starts, users)[:, None] + tf.math.top_k(keys, self.num_actions).indices
        observation = {GLOBAL: tf.gather(self._users, users), PER_ARM: tf.gather(self._pairs, rows)}
        arms = tf.gather(self._movies, rows)
        return Batch(observation, arms, tf.gather(self._ratings, rows), tf.gather(self._mean_ratings, arms))


class MovieLensRankingEnvironment(RankingEnvironment):
    """Users drawn with replacement, each with candidates drawn without; clicks follow from the predicted ratings.

    The baseline "als" ranks by the predicted ratings and hence perfectly. The baseline "popularity" ranks by the
    feature of that name, the number of ratings, as production systems do; without that feature by mean attraction. The
    agent sees the features' `observation`. Users, such as held-out ones, and movies are drawn from the given ids; None
    for all of the factorization. Options are those of `RankingEnvironment`. ValueError for unknown, repeated or too few
    users or movies, KeyError for those that the features do not know.
    """

    def __init__(
        self,
        factorization: Factorization,
        features: RatingFeatures,
        num_items: int = 50,
        num_slots: int = 10,
        batch_size: int = 8,
        user_ids: Sequence[int] | np.ndarray | None = None,
        movie_ids: Sequence[int] | np.ndarray | None = None,
        **options: Any,
    ):
        users = _known_rows("user_ids", factorization.user_ids, user_ids)
        movies = _known_rows("movie_ids", factorization.movie_ids, movie_ids)
        require(num_items <= len(movies), "num_items", f"at most the number of movies, {len(movies)}", num_items)
        self.user_ids, self.movie_ids = factorization.user_ids[users], factorization.movie_ids[movies]
        ratings = factorization.matrix(users, movies)
        attractions = attraction(ratings)
        self._ratings, self._attraction = tf.constant(ratings, tf.float32), tf.constant(attractions, tf.float32)
        popularity = attractions.mean(axis=0)
        if (block := features.features.item_encoder.blocks.get("popularity")) is not None:
            popularity = features.encode_movies(self.movie_ids)[:, block.start]
        self._popularity = tf.constant(popularity, tf.float32)
        self._tensors = _FeatureTensors(features, self.user_ids, self.movie_ids)
        super().__init__(observation_spec(features.spec(num_items)), num_items, num_slots, batch_size, **options)

    def _draw(self):
        users = self._draw_users(len(self.user_ids))
        movies = tf.math.top_k(self._draw_keys(len(self.movie_ids)), self.num_items).indices
        pairs = tf.stack([tf.broadcast_to(users[:, None], movies.shape), movies], axis=2)
        ratings = tf.gather_nd(self._ratings, pairs)
        return RankingBatch(
            self._tensors(users, movies),
            users,
            movies,
            tf.gather_nd(self._attraction, pairs),
            tf.clip_by_value(ratings, 1.0, 5.0),
            {"popularity": tf.gather(self._popularity, movies), "als": ratings},
        )


class _FeatureTensors:
    """The observation of `RatingFeatures` as operations of a graph, for some users and movies."""

    def __init__(self, features, user_ids, movie_ids):
        users, movies, columns = features.encode_users(user_ids), features.encode_movies(movie_ids), features.features
        self.users, self._movies = tf.constant(columns.context(users)), tf.constant(movies[:, columns.item_columns])
        self._is_product, pairs = bool(columns.products), [*columns.crosses, *columns.products]
        require(len(pairs) <= 1, "the number of crosses and products", "at most 1", len(pairs))
        self._factors = None
        for user, movie in pairs:
            of_user, of_movie = columns.context_encoder.blocks[user], columns.item_encoder.blocks[movie]
            self._factors = tf.constant(users[:, of_user]), tf.constant(movies[:, of_movie])

    def __call__(self, users, movies):
        """Return the observation of rows int [batch] and [batch, movies]."""
        parts = [tf.gather(self._movies, movies)]
        if self._factors is not None:
            match = tf.gather(self._factors[0], users)[:, None, :] * tf.gather(self._factors[1], movies)
            parts.append(match if self._is_product else tf.reduce_sum(match, axis=2, keepdims=True))
        return {GLOBAL: tf.gather(self.users, users), PER_ARM: tf.concat(parts, axis=2)}


def _known_rows(name, known_ids, ids):
    """Return the row of each id, which must be known and different from each other; all rows for None."""
    if ids is None:
        return np.arange(len(known_ids))
    ids = np.asarray(ids)
    rows = find_rows(known_ids, ids)
    require((rows >= 0).all(), name, "known to the factorisation", ids[rows < 0].tolist())
    require(distinct(rows[None])[0], name, "different from each other", ids.tolist())
    require(len(rows) >= 1, f"the number of {name}", "at least 1", 0)
    return rows
