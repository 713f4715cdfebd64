"""The movies and users of a data set, and the batches of an environment made of them."""

from copy import copy
from functools import partial

from recbandits.tf import tf

import pandas as pd

from recbandits.data import GENRES, MovieLens
from recbandits.environments import MovieLensEnvironment, als

RANK, MOVIES, CANDIDATES = 3, 300, 8


class Catalogue:
    """The movies and users of a data set, and the users that a person has described.

    Args:
      data: ratings, from which ALS predicts the expected reward of every movie for every user.

    Attributes:
      titles: Series of text, title and year of the most rated movies, by movie_id.
      genres: Series of text, by movie_id.
      users: Series of text, by user_id.
      source: of the data, in words.
    """

    def __init__(self, data: MovieLens):
        self._factorization = als(data.ratings, RANK)
        movies = data.movies.loc[data.ratings["movie_id"].value_counts().index[:MOVIES]]
        self.titles = movies["title"] + movies["year"].map(" ({})".format, na_action="ignore").fillna("")
        self.genres = movies[list(GENRES)].apply(lambda row: ", ".join(row.index[row]), axis=1)
        self.source = repr(data)
        users = data.users.reindex(columns=["occupation", "age", "gender"]).dropna(axis=1)
        columns = [users.index.map("user {}".format), *(users[name].astype(str) for name in users)]
        self.users = pd.Series([", ".join(texts) for texts in zip(*columns, strict=True)], users.index)

    def with_user(self, ratings: dict[int, float]) -> tuple["Catalogue", int]:
        """Return a catalogue with a further user, described by ratings by movie_id, and the new user_id."""
        other, user_id = copy(self), int(self.users.index.max()) + 1
        table = pd.DataFrame({"user_id": user_id, "movie_id": list(ratings), "rating": list(ratings.values())})
        other._factorization = self._factorization.fold_in(table)
        other.users = pd.concat([self.users, pd.Series(f"user {user_id}, described by you", [user_id])])
        return other, user_id

    def make_environment(self, user_id: int | None = None, noise: float = 0.5) -> MovieLensEnvironment:
        """Make an environment with one user, or with all of them, each with equal probability."""
        return MovieLensEnvironment(
            self._factorization,
            CANDIDATES,
            batch_size=1,
            per_arm=True,
            movie_ids=self.titles.index,
            user_ids=None if user_id is None else [user_id],
            reward_noise=noise,
        )

    def coefficients(self) -> pd.Series:
        """Return the coefficients with which a linear model of the observation is the expected reward, by name."""
        user, movie = ([f"{kind} factor {k + 1}" for k in range(RANK)] for kind in ("user", "movie"))
        products = {f"product {k + 1}": 1.0 for k in range(RANK)}
        none = dict.fromkeys
        values = {"constant": self._factorization.mean, "user bias": 1.0, **none(user, 0.0), "movie bias": 1.0}
        return pd.Series(values | none(movie, 0.0) | products)


def make_specs(environment):
    """Return the specs of stacked batches, [n, 1, ...]; their mask is empty, which `map_fn` needs."""
    batch = environment.batch()._replace(mask=())
    return tf.nest.map_structure(lambda part: tf.TensorSpec([None, *part.shape], part.dtype), batch)


def make_draw(environment):
    """Make a graph that draws the batches of steps int64 [n], stacked."""
    signature = tf.nest.map_structure(lambda spec: tf.TensorSpec(spec.shape[1:], spec.dtype), make_specs(environment))

    def draw(step):
        environment.state[1].assign(step)
        return environment.batch()._replace(mask=())

    def draw_all(steps):
        return tf.map_fn(draw, steps, fn_output_signature=signature, parallel_iterations=1)

    return compile_graph(draw_all, tf.TensorSpec([None], tf.int64))


def compile_graph(function, *specs):
    """Return a function as a graph; TensorFlow counts traces by code and warns of many, but counts a partial alone."""
    return tf.function(partial(function), specs, autograph=False)
