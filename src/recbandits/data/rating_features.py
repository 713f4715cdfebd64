"""Features of MovieLens: of its movies, and of its users, whose raw columns are the context of their requests."""

from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from recbandits.checks import require, require_shape
from recbandits.data.features import GLOBAL, PER_ARM, Features

AGES = (0, 18, 25, 35, 45, 50, 56)  # lower bounds of the age groups of MovieLens 1M
FACTOR, BIAS = "factor", "bias"


class RatingFeatures:
    """Features of the users and movies of a table of ratings.

    A policy knows no users: what is known of a user is the context of each request. For users of a table it is a row of
    `users`, with which `Log.join_users` completes a log and `context_of` a request.

    Args:
      features: of movies, by the text of their ids, and contexts.
      users: raw columns of the context of each user, indexed by user_id.
    """

    def __init__(self, features: Features, users: pd.DataFrame):
        self.features, self.users = features, users
        self._movie_ids = pd.Index(features.item_ids.astype(np.int64))

    @classmethod
    def fit(
        cls,
        ratings: pd.DataFrame,
        users: pd.DataFrame,
        movies: pd.DataFrame,
        user_factors: pd.DataFrame | None = None,
        movie_factors: pd.DataFrame | None = None,
    ) -> Self:
        """Compute the features.

        Activity and popularity are logarithms of 1 + the number of ratings. A user or movie without a rating counts as
        rated 0 times, and its factors are zero, the prior mean. Of factors, candidates get the dot product with those
        of the user, without which a linear model shared by all arms gives all users the same order.

        Args:
          ratings: of the training part only, with columns user_id and movie_id.
          users: as `MovieLens.users`; where nothing is known of them, activity and factors are their context.
          movies: as `MovieLens.movies`.
          user_factors: indexed by id, fitted on the same training part, with columns `factor_*` and perhaps `bias`.
          movie_factors: likewise.
        """
        context = pd.DataFrame(index=users.index)
        if "age" in users:
            lowest = np.array(AGES)[np.searchsorted(AGES, users["age"], side="right") - 1]
            context["age"] = [f"{age}+" for age in lowest]
            context["female"], context["occupation"] = users["gender"] == "F", users["occupation"]
        context["activity"] = _log_counts(ratings["user_id"], users.index)
        items = movies.drop(columns=["title", "year"]).assign(year=movies["year"].astype(float))
        items["popularity"] = _log_counts(ratings["movie_id"], movies.index)
        items = items.dropna(axis=1, how="all")
        if user_factors is not None:
            context = context.join(user_factors.reindex(users.index, fill_value=0.0))
        if movie_factors is not None:
            items = items.join(movie_factors.reindex(movies.index, fill_value=0.0))
        factors = [f"{FACTOR}_0" in table for table in (context, items)]
        vectors = [FACTOR] * any(factors) + [BIAS] * (BIAS in context or BIAS in items)
        return cls(Features.fit(items, context, [(FACTOR, FACTOR)] * all(factors), vectors=vectors), context)

    def contexts(self, user_ids: ArrayLike) -> pd.DataFrame:
        """Return the raw columns of users, one row for each of the ids [n]; KeyError names unknown ids."""
        return self.users.iloc[require_rows(self.users.index, user_ids, "user")].reset_index(drop=True)

    def context_of(self, user_id: int) -> dict[str, Any]:
        """Return the context of a request by a user, as `ServedPolicy.recommend` takes it."""
        return self.contexts([user_id]).to_dict("records")[0]

    def observation(
        self, user_ids: ArrayLike, movie_ids: ArrayLike, mask: ArrayLike | None = None
    ) -> dict[str, np.ndarray]:
        """Make the observation of decisions in TF-Agents' per-arm form; KeyError names unknown ids.

        Of users int [n] and candidates int [n, k] it is `global` float32 [n, G] and `per_arm` float32 [n, k, D], with
        the shapes of `spec`. The mask, bool [n, k], is False in padding, whose features are 0; None is no padding.
        """
        user_ids, movie_ids, mask = check_candidates(user_ids, movie_ids, mask)
        context = self.encode_users(user_ids)
        movies = np.zeros((*mask.shape, self.features.items.shape[1]), np.float32)
        movies[mask] = self.encode_movies(movie_ids[mask])
        per_arm = self.features.per_arm(context, movies)
        per_arm[~mask] = 0.0
        return {GLOBAL: self.features.context(context), PER_ARM: per_arm}

    def encode_users(self, user_ids: ArrayLike) -> np.ndarray:
        """Return the encoded contexts of users, float32 [n, numbers]; KeyError names unknown ids."""
        return self._encoded.take(require_rows(self.users.index, user_ids, "user"), axis=0)

    def encode_movies(self, movie_ids: ArrayLike) -> np.ndarray:
        """Return the encoded columns of movies, float32 [n, numbers]; KeyError names unknown ids."""
        return self.features.items.take(require_rows(self._movie_ids, movie_ids, "movie"), axis=0)

    def spec(self, candidates: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one decision's observation: {"global": (G,), "per_arm": (candidates, D)}."""
        return self.features.spec(candidates)

    @cached_property
    def _encoded(self) -> np.ndarray:
        return self.features.context_encoder.encode(self.users)


def require_rows(known: pd.Index, ids: ArrayLike, kind: str) -> np.ndarray:
    """Find the rows of ids in an index, int of the shape of the ids; KeyError names the kind and the unknown ids."""
    ids = np.asarray(ids, known.dtype)
    rows = known.get_indexer(ids.ravel())
    if (rows < 0).any():
        raise KeyError(f"unknown {kind} ids: {', '.join(map(str, np.unique(ids.ravel()[rows < 0])[:10]))}")
    return rows.reshape(ids.shape)


def check_candidates(
    user_ids: ArrayLike, candidates: ArrayLike, mask: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check the shapes of users [n], candidates [n, k] and mask [n, k] (None is all True); return them as arrays."""
    user_ids = require_shape(user_ids, "user_ids", "n")
    candidates = require_shape(candidates, "candidates", len(user_ids), "k")
    require(candidates.shape[1] > 0, "number of candidates", "at least 1", 0)
    mask = np.ones(candidates.shape, bool) if mask is None else np.asarray(mask, bool)
    return user_ids, candidates, require_shape(mask, "mask", *candidates.shape)


def _log_counts(ids: pd.Series, index: pd.Index) -> pd.Series:
    return np.log1p(ids.value_counts().reindex(index, fill_value=0))
