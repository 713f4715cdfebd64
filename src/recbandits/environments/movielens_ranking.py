"""MovieLens users before slates of movies: clicks follow the ratings that ALS predicts, or those that users gave."""

from recbandits.tf import tf

import numpy as np

from recbandits.environments.base import ARMS, GLOBAL, PER_ARM, USERS
from recbandits.environments.clicks import attraction
from recbandits.environments.movielens import distinct_rows
from recbandits.environments.ranking import RankingBatch, RankingEnvironment, ranking_spec
from recbandits.environments.rated import RatedMovies


class MovieLensRankingEnvironment(RankingEnvironment):
    """Each step brings `batch_size` users, drawn with replacement, and for each some movies drawn without.

    How attractive a movie is to a user follows from the rating that a factorisation predicts, which is the truth here:
    the baseline "als" ranks perfectly.

    The baseline "popularity" ranks by how often movies were rated, as recommenders in production do: it needs no
    factorisation, and unlike a mean rating it does not put at the top what one user has liked. The number is the column
    `popularity` of the bundle, which grows with the ratings of the training part; a bundle without that column leaves
    the mean attraction over the users of the environment.

    Args:
      factorization: a `Factorization`.
      bundle: `FeatureBundle` that knows the users and movies; what the agent sees is its `observation`.
      num_items: candidates per user.
      num_slots: movies shown.
      batch_size: users served per step.
      user_ids: the users to draw from, for instance held-out ones; None for all of the factorisation.
      movie_ids: the movies to draw from; None for all of the factorisation.
      top: attraction of 5 stars, as in `clicks.attraction`.
      **options: `clicks`, `feedback`, `seed` of `RankingEnvironment`.

    Attributes:
      user_ids: int array [users], of those who can be drawn.
      movie_ids: int array [movies], likewise.

    Raises:
      ValueError: unknown, repeated or too few movies, unknown or repeated users, or what `RankingEnvironment` refuses.
      KeyError: users or movies that the bundle does not know.
    """

    def __init__(
        self,
        factorization,
        bundle,
        num_items=50,
        num_slots=10,
        batch_size=8,
        user_ids=None,
        movie_ids=None,
        top=0.5,
        **options,
    ):
        users, movies = (
            np.arange(len(known)) if ids is None else distinct_rows(field, known, ids)
            for field, known, ids in (
                ("user_ids", factorization.user_ids, user_ids),
                ("movie_ids", factorization.movie_ids, movie_ids),
            )
        )
        if len(users) < 1:
            raise ValueError("user_ids must name at least one user, got none")
        if num_items > len(movies):
            raise ValueError(f"num_items must be at most the number of movies, {len(movies)}, got {num_items}")
        self.user_ids, self.movie_ids = factorization.user_ids[users], factorization.movie_ids[movies]
        ratings = factorization.matrix()[np.ix_(users, movies)]
        attractions = attraction(ratings, top)
        self._ratings, self._attraction = tf.constant(ratings, tf.float32), tf.constant(attractions, tf.float32)
        self._popularity = _popularity(bundle, self.movie_ids, attractions.mean(axis=0))
        self._shown = _Shown(bundle, self.user_ids, self.movie_ids)
        shapes = bundle.spec(num_items)
        spec = ranking_spec(shapes[GLOBAL][0], shapes[PER_ARM][1], num_items)
        super().__init__(spec, num_items, num_slots, batch_size, **options)

    def _batch(self, step):
        users = tf.random.stateless_uniform([self.batch_size], self.stream(USERS), 0, len(self.user_ids), tf.int32)
        # The largest of independent uniform keys are a sample without replacement, in random order.
        keys = tf.random.stateless_uniform([self.batch_size, len(self.movie_ids)], self.stream(ARMS))
        movies = tf.math.top_k(keys, self.num_items).indices
        pairs = tf.stack([tf.broadcast_to(users[:, None], movies.shape), movies], axis=2)
        ratings = tf.gather_nd(self._ratings, pairs)
        return RankingBatch(
            self._shown(users, movies),
            users,
            movies,
            tf.gather_nd(self._attraction, pairs),
            tf.clip_by_value(ratings, 1.0, 5.0),
            {"popularity": tf.gather(self._popularity, movies), "als": ratings},
        )


class RatedRankingEnvironment(RankingEnvironment):
    """Each step brings users, and for each some movies that this user has rated: clicks follow the ratings given.

    No model says what is attractive, so that agents and ALS can be compared on ratings that neither has seen. As in
    `RatedEnvironment`, every user is as likely as any other, and so is every set of movies that a user has rated.

    Baselines: "popularity", by the column of the bundle as in `MovieLensRankingEnvironment` (without that column: the
    mean attraction of the movie in these ratings); "als", the predicted rating, where a factorisation is given.

    Args:
      ratings: DataFrame with columns user_id, movie_id and rating.
      bundle: `FeatureBundle` that knows these users and movies; fit it on other ratings than these.
      num_items: candidates per user; users with fewer ratings are left out.
      num_slots: movies shown.
      batch_size: users served per step.
      top: attraction of 5 stars, as in `clicks.attraction`.
      factorization: `Factorization` to compare with, fitted on other ratings than these; None for none.
      **options: `clicks`, `feedback`, `seed` of `RankingEnvironment`.

    Attributes:
      user_ids: int array [users], of those who can be drawn.
      movie_ids: int array [movies].

    Raises:
      ValueError: nobody with enough ratings, a movie that a user has rated twice, or what `RankingEnvironment` refuses.
      KeyError: users or movies that the bundle does not know.
    """

    def __init__(
        self, ratings, bundle, num_items=20, num_slots=5, batch_size=8, top=0.5, factorization=None, **options
    ):
        self._rated = RatedMovies(ratings, bundle, num_items, "num_items")
        self.user_ids, self.movie_ids = self._rated.user_ids, self._rated.movie_ids
        self._top = top
        table = self._rated.table
        mean = table["movie_id"].to_frame().assign(a=attraction(table["rating"], top)).groupby("movie_id")["a"].mean()
        self._popularity = _popularity(bundle, self.movie_ids, mean)
        self._predicted = None
        if factorization is not None:
            self._predicted = tf.constant(factorization.predict(table["user_id"], table["movie_id"]), tf.float32)
        shapes = bundle.spec(num_items)
        spec = ranking_spec(shapes[GLOBAL][0], shapes[PER_ARM][1], num_items)
        super().__init__(spec, num_items, num_slots, batch_size, **options)

    def _batch(self, step):
        users, rated = self._rated.draw(self.batch_size, self.num_items, self.stream(USERS), self.stream(ARMS))
        movies, ratings = tf.gather(self._rated.movies, rated), tf.gather(self._rated.ratings, rated)
        baselines = {"popularity": tf.gather(self._popularity, movies)}
        if self._predicted is not None:
            baselines["als"] = tf.gather(self._predicted, rated)
        return RankingBatch(
            self._rated.observation(users, rated), users, movies, attraction(ratings, self._top), ratings, baselines
        )


class _Shown:
    """`FeatureBundle.observation` in a graph, for rows of some users and movies: features are looked up once."""

    def __init__(self, bundle, user_ids, movie_ids):
        users, movies = bundle.user_features(user_ids), bundle.movie_features(movie_ids)
        of_user, of_movie = bundle.user_table, bundle.movie_table
        self._product = bundle.view == "product"
        self._users = tf.constant(bundle.context(users))
        self._movies = tf.constant(movies if self._product else movies[:, of_movie.other_columns])
        self._matched = bool(len(of_user.factor_columns) and len(of_movie.factor_columns))
        if self._matched:
            self._user_factors = tf.constant(users[:, of_user.factor_columns])
            self._movie_factors = tf.constant(movies[:, of_movie.factor_columns])

    def __call__(self, users, movies):
        """Rows int [batch] and [batch, items] to the observation."""
        parts = [tf.gather(self._movies, movies)]
        if self._matched:
            match = tf.gather(self._user_factors, users)[:, None, :] * tf.gather(self._movie_factors, movies)
            parts.append(match if self._product else tf.reduce_sum(match, axis=2, keepdims=True))
        return {GLOBAL: tf.gather(self._users, users), PER_ARM: tf.concat(parts, axis=2)}


def _popularity(bundle, movie_ids, otherwise):
    """Scores float32 [movies] of the popularity baseline."""
    known = "popularity" in bundle.movies.columns
    return tf.constant(bundle.movies.loc[movie_ids, "popularity"] if known else otherwise, tf.float32)
