"""Features of users and movies, fitted once, joined by id, saved with whatever was trained on them."""

from pathlib import Path

import numpy as np
import pandas as pd

from recbandits.data.lookup import Table
from recbandits.data.tables import GENRES

AGES = (0, 18, 25, 35, 45, 50, 56)  # lower bounds of the age groups of MovieLens 1M
UNKNOWN = ("error", "mean")
VIEWS = ("match", "product")
GLOBAL, PER_ARM = "global", "per_arm"  # TF-Agents' names
FILE = "features.npz"


class FeatureBundle:
    """One row of float32 features for every user and every movie.

    Args:
      users: DataFrame indexed by user_id: age group (one-hot), gender, occupation (one-hot), activity, factors.
      movies: DataFrame indexed by movie_id: genres (multi-hot), year, popularity, factors.
      view: what a policy sees of them: "match" or "product", as `observation` says.

    Attributes:
      users: as given; not to be changed, as are the movies: look-ups read a copy.
      movies: as given.
      view: as given.

    Factors are the columns of a factorisation: `factor_0`, `factor_1`, ... and, where it has them, `bias`.

    Raises:
      ValueError: another view, or factors of users and movies that are not as many.
    """

    def __init__(self, users, movies, view="match"):
        self.users, self.movies, self.view = users, movies, view
        self.user_table, self.movie_table = Table(users, "user"), Table(movies, "movie")
        counts = len(self.user_table.factors), len(self.movie_table.factors)
        if view not in VIEWS:
            raise ValueError(f"view must be one of {', '.join(VIEWS)}, got {view!r}")
        if all(counts) and counts[0] != counts[1]:
            raise ValueError(
                f"users and movies must have as many factors as each other, got {counts[0]} and {counts[1]}"
            )
        self._matched = all(counts)

    @classmethod
    def fit(cls, ratings, users, movies, user_factors=None, movie_factors=None):
        """Compute the features.

        Activity and popularity are logarithms of 1 + the number of ratings, standardised, as is the year (0 where it is
        missing). A user or movie without a rating counts as rated 0 times, and its factors are zero, the prior mean.

        Args:
          ratings: DataFrame of the training part only, with columns user_id and movie_id.
          users: DataFrame indexed by user_id, as `MovieLens.users`.
          movies: DataFrame indexed by movie_id, as `MovieLens.movies`.
          user_factors: DataFrame indexed by user_id, fitted on the same training part, with columns `factor_*` and
            perhaps `bias`; None for no factors.
          movie_factors: DataFrame indexed by movie_id, likewise.

        Returns:
          FeatureBundle
        """
        group = np.searchsorted(AGES, users["age"], side="right") - 1
        user_parts = [
            pd.DataFrame(np.eye(len(AGES))[group], users.index, [f"age {low}+" for low in AGES]),
            (users["gender"] == "F").rename("female"),
            pd.get_dummies(users["occupation"]),
            _standard(_log_count(ratings["user_id"], users.index)).rename("activity"),
        ]
        movie_parts = [
            movies[list(GENRES)],
            _standard(movies["year"].astype(float)).fillna(0).rename("year"),
            _standard(_log_count(ratings["movie_id"], movies.index)).rename("popularity"),
        ]
        return cls(_joined(user_parts, user_factors), _joined(movie_parts, movie_factors))

    def user_features(self, ids, unknown="error"):
        """Features of the users `ids`, int array [n].

        Args:
          ids: user ids, any order, repetitions allowed.
          unknown: what an id gets that is not in the bundle: "error", or "mean" for the mean of all users.

        Returns:
          float32 array [n, features], columns as in `users`.

        Raises:
          KeyError: unknown ids, by name, with unknown="error".
          ValueError: another value of `unknown`.
        """
        return _look_up(self.user_table, ids, unknown)

    def movie_features(self, ids, unknown="error"):
        """Features of the movies `ids`; as `user_features`."""
        return _look_up(self.movie_table, ids, unknown)

    def observation(self, user_ids, movie_ids, mask=None, unknown="error"):
        """What a policy sees of decisions, in TF-Agents' per-arm form.

        In the view "match", where users and movies have factors, a candidate carries how well the two match: the dot
        product of their factors, without which a linear model shared by all arms cannot tell one user's taste from
        another's. The factors themselves are left out. Fitted anew they come out rotated, which would make whatever was
        learnt on them worthless; their dot product stays.

        In the view "product" nothing is left out, and a candidate carries the products of its factors and the user's,
        number by number, as in `MovieLensEnvironment`.

        Args:
          user_ids: int array [n].
          movie_ids: int array [n, k], the candidates of each decision.
          mask: bool array [n, k], False in padding, whose features are 0; None for no padding.
          unknown: as for `user_features`.

        Returns:
          dict of `global` float32 [n, G] and `per_arm` float32 [n, k, D], as `spec` says.

        Raises:
          KeyError: unknown ids, by name, with unknown="error".
        """
        movie_ids = np.asarray(movie_ids)
        wanted = np.ones(movie_ids.shape, bool) if mask is None else np.asarray(mask)
        users = self.user_features(user_ids, unknown)
        movies = np.zeros((*movie_ids.shape, self.movies.shape[1]), np.float32)
        movies[wanted] = self.movie_features(movie_ids[wanted], unknown)
        return {GLOBAL: self.context(users), PER_ARM: self.per_arm(users, movies)}

    def context(self, users):
        """What a policy sees of users, float32 [n, G], of all their features [n, features]."""
        return users if self.view == "product" else users.take(self.user_table.others, axis=1)

    def per_arm(self, users, movies):
        """What it sees of their candidates.

        Args:
          users: float32 [n, features], as `user_features` gives them.
          movies: float32 [n, k, features], as `movie_features` gives them.

        Returns:
          float32 [n, k, D]
        """
        parts = [movies if self.view == "product" else movies.take(self.movie_table.others, axis=2)]
        if self._matched:
            match = users[:, None, self.user_table.factors] * movies[:, :, self.movie_table.factors]
            parts.append(match if self.view == "product" else match.sum(axis=2, keepdims=True))
        return np.concatenate(parts, axis=2)

    def spec(self, candidates):
        """Shapes of one decision's observation: {"global": (G,), "per_arm": (candidates, D)}."""
        users, movies = self.user_table.values[:1], self.movie_table.values[None, :1]
        return {
            GLOBAL: self.context(users).shape[1:],
            PER_ARM: (candidates, self.per_arm(users, movies).shape[2]),
        }

    def save(self, directory):
        """Write the bundle into a directory, made if missing; the same bundle gives the same bytes."""
        Path(directory).mkdir(parents=True, exist_ok=True)
        parts = {"view": np.array(self.view)}
        for name, table in (("users", self.users), ("movies", self.movies)):
            parts[f"{name}_ids"] = table.index.to_numpy()
            parts[f"{name}_columns"] = np.array(table.columns.tolist())
            parts[name] = table.to_numpy()
        np.savez(Path(directory) / FILE, **parts)

    @classmethod
    def load(cls, directory):
        """Read a bundle that `save` wrote, bit by bit the same; `directory` may also be its open file."""
        file = directory if hasattr(directory, "read") else Path(directory) / FILE
        with np.load(file, allow_pickle=False) as parts:
            tables = [
                pd.DataFrame(parts[name], pd.Index(parts[f"{name}_ids"], name=index), parts[f"{name}_columns"].tolist())
                for name, index in (("users", "user_id"), ("movies", "movie_id"))
            ]
            return cls(*tables, str(parts["view"]))


def _log_count(ids, index):
    return np.log1p(ids.value_counts().reindex(index, fill_value=0))


def _standard(values):
    """Mean 0 and variance 1 over what is not missing; constant values become 0."""
    deviation = values.std(ddof=0)
    return (values - values.mean()) / (deviation if deviation > 0 else 1.0)


def _joined(parts, factors):
    """Parts side by side, the factors joined by id, as float32."""
    index = parts[0].index
    if factors is not None:
        parts = [*parts, factors.reindex(index, fill_value=0.0)]
    return pd.concat(parts, axis=1).astype("float32")


def _look_up(table, ids, unknown):
    if unknown not in UNKNOWN:
        raise ValueError(f"unknown must be 'error' or 'mean', got {unknown!r}")
    if unknown == "error":
        advice = f"pass unknown='mean' to take the mean of the {len(table.ids)} known ones"
        return table.values.take(table.known(ids, advice), axis=0)
    rows = table.rows(ids)
    values = table.values.take(rows, axis=0)
    values[rows < 0] = table.mean()
    return values
