"""Features of users and movies: fitted once, looked up by id, saved with each model that was trained on them."""

import re
from collections.abc import Mapping
from math import isfinite, nan
from os import PathLike
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pandas.api.types import is_integer_dtype

from recbandits.checks import replacing, require, require_rows

AGES = (0, 18, 25, 35, 45, 50, 56)  # lower bounds of the age groups of MovieLens 1M
GLOBAL, PER_ARM = "global", "per_arm"  # parts of an observation, by TF-Agents' names
FILE = "features.npz"
_LARGEST = float(np.finfo(np.float32).max)


class FeatureTable:
    """Features of users or of movies as arrays, looked up by id.

    Args:
      frame: one row for each id, a whole number of 64 bits; columns of numbers or bools, with names that are text;
        `factor_0`, `factor_1`, ... are factors.
      kind: "user" or "movie", for error messages.

    Attributes:
      frame: the same with columns of numbers alone.
      ids: int64 or uint64 array [rows], in the order of the frame.
      values: float32 array [rows, columns].
      factor_columns, other_columns: int arrays, positions of the factors and of all other columns.

    Raises:
      ValueError: the table is empty, an id or a column occurs twice, or a value is no finite float32; the sentence
        names column, row and value.
    """

    def __init__(self, frame: pd.DataFrame, kind: str):
        self.kind, self.ids, names = kind, _convert_ids(frame.index, kind), frame.columns.tolist()
        text = all(isinstance(name, str) and not name.endswith("\0") for name in names)  # NumPy drops NULs at the end
        require(text and len({*names}) == len(names), f"columns of {kind}s", "different names that are text", names)
        others = frame.columns[[not (isinstance(dtype, np.dtype) and dtype.kind == "f") for dtype in frame.dtypes]]
        self.frame = frame.assign(**{name: frame[name].map(_convert_number).astype(np.float32) for name in others})
        with np.errstate(over="ignore"):  # to infinity, which is refused
            self.values = np.ascontiguousarray(self.frame.to_numpy(), np.float32)
        finite = np.isfinite(self.values)
        for column in np.flatnonzero(~finite.all(axis=0))[:1]:
            given = frame.iloc[:, column].array
            require_rows(finite[:, column], f"{names[column]!r} of a {kind}", "a finite number", given, self.ids)
        self._order = np.argsort(self.ids, kind="stable")
        self._sorted = self.ids[self._order]
        self._columns = {name: number for number, name in enumerate(names)}
        factors = np.array([bool(re.fullmatch(r"factor_\d+", name)) for name in names], bool)
        self.factor_columns, self.other_columns = np.flatnonzero(factors), np.flatnonzero(~factors)

    @classmethod
    def from_ids(cls, ids: ArrayLike, kind: str) -> Self:
        """Make a table of ids without features."""
        return cls(pd.DataFrame(index=pd.Index(ids), columns=pd.Index([], dtype=str)), kind)

    def find_rows(self, ids: ArrayLike) -> np.ndarray:
        """Find the row of each id, int array of the shape of `ids`; -1 for those that are not in the table."""
        ids = np.asarray(ids)
        if ids.size and ids.dtype.kind not in "iu":
            raise ValueError(f"{self.kind} ids must be whole numbers of 64 bits, got {ids.ravel()[:10].tolist()}")
        same = ids.astype(self.ids.dtype, copy=False)  # NumPy compares int64 with uint64 as doubles
        position = np.searchsorted(self._sorted, same)
        np.minimum(position, len(self._sorted) - 1, out=position)
        equal = self._sorted[position] == same
        if ids.dtype.kind != same.dtype.kind:
            equal &= (ids < 0) == (same < 0)  # else the sign has become part of the number
        return np.where(equal, self._order[position], -1)

    def require_rows(self, ids: ArrayLike, advice: str) -> np.ndarray:
        """Find the row of each id as `find_rows` does; raise KeyError with unknown ids and the advice."""
        rows = self.find_rows(ids)
        if (missing := rows < 0).any():
            names = ", ".join(str(name) for name in np.unique(np.asarray(ids)[missing])[:10])
            raise KeyError(f"unknown {self.kind} ids: {names}; {advice}")
        return rows

    def look_up(self, ids: ArrayLike, unknown: str = "error") -> np.ndarray:
        """Look up the features of ids in any order, float32 array [*ids.shape, columns].

        Unknown ids raise KeyError with unknown="error"; with unknown="mean" they get the mean of the table.
        """
        require(unknown in ("error", "mean"), "unknown", "'error' or 'mean'", unknown)
        if unknown == "error":
            advice = f"pass unknown='mean' to take the mean of the {len(self.ids)} known ones"
            return self.values.take(self.require_rows(ids, advice), axis=0)
        rows = self.find_rows(ids)
        values = self.values.take(rows, axis=0)
        values[rows < 0] = self.values.mean(axis=0)
        return values

    def describe(self, features: Mapping[str, Any], row: int = -1) -> np.ndarray:
        """Combine features by names of columns with those of a row, float32 array [columns].

        Row -1 stands for the means of all rows, and 0, the prior mean, for factors.
        """
        values = self.values.mean(axis=0) if row < 0 else self.values[row].copy()
        if row < 0:
            values[self.factor_columns] = 0.0
        for name, value in features.items():
            if name not in self._columns:
                raise ValueError(f"a {self.kind} has no feature {name!r}, it has {', '.join(self._columns)}")
            number = _convert_number(value)
            require(isfinite(number), f"feature {name!r} of a {self.kind}", "a finite number", value)
            values[self._columns[name]] = number
        return values


class FeatureBundle:
    """One row of float32 features for every user and every movie.

    Args:
      users: indexed by user_id: age group (one-hot), gender, occupation (one-hot), activity, factors.
      movies: indexed by movie_id: genres (multi-hot), year, popularity, factors.
      view: of the features in an observation: "match" or "product", as `observation` says.

    Attributes:
      users, movies, view: as given, but bools as numbers; not to be changed, because look-ups read the tables.
      user_table, movie_table: the same as `FeatureTable`.

    Raises:
      ValueError: another view, different factors of users and movies, or a table that `FeatureTable` refuses.
    """

    def __init__(self, users: pd.DataFrame, movies: pd.DataFrame, view: str = "match"):
        require(view in ("match", "product"), "view", "one of match, product", view)
        tables = self.user_table, self.movie_table = FeatureTable(users, "user"), FeatureTable(movies, "movie")
        self.users, self.movies, self.view = *(table.frame for table in tables), view
        factors = [table.frame.columns[table.factor_columns].tolist() for table in tables]
        self._has_match = all(factors)
        equal = factors[0] == factors[1] or not self._has_match
        require(equal, "users and movies", "of the same factors, in the same order", factors)

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

        Activity and popularity are logarithms of 1 + the number of ratings, standardised, as is the year (0 where it is
        missing). A user or movie without a rating counts as rated 0 times, and its factors are zero, the prior mean.
        Users of whom nothing is known have activity and factors alone.

        Args:
          ratings: of the training part only, with columns user_id and movie_id.
          users: as `MovieLens.users`.
          movies: as `MovieLens.movies`.
          user_factors: indexed by id, fitted on the same training part, with columns `factor_*` and perhaps `bias`.
          movie_factors: likewise.
        """
        user_parts = [_standardise(_log_counts(ratings["user_id"], users.index)).rename("activity")]
        if "age" in users:
            group = np.searchsorted(AGES, users["age"], side="right") - 1
            ages = pd.DataFrame(np.eye(len(AGES))[group], users.index, [f"age {low}+" for low in AGES])
            female, occupations = (users["gender"] == "F").rename("female"), pd.get_dummies(users["occupation"])
            user_parts = [ages, female, occupations, *user_parts]
        movie_parts = [
            movies.drop(columns=["title", "year"]),
            _standardise(movies["year"].astype(float)).fillna(0).rename("year"),
            _standardise(_log_counts(ratings["movie_id"], movies.index)).rename("popularity"),
        ]
        return cls(_join(user_parts, user_factors), _join(movie_parts, movie_factors))

    def user_features(self, ids: ArrayLike, unknown: str = "error") -> np.ndarray:
        """Look up features of users, float32 [n, columns of `users`]; see `FeatureTable.look_up`."""
        return self.user_table.look_up(ids, unknown)

    def movie_features(self, ids: ArrayLike, unknown: str = "error") -> np.ndarray:
        """Look up features of movies, as `user_features`."""
        return self.movie_table.look_up(ids, unknown)

    def observation(
        self, user_ids: ArrayLike, movie_ids: ArrayLike, mask: ArrayLike | None = None, unknown: str = "error"
    ) -> dict[str, np.ndarray]:
        """Make the observation of decisions in TF-Agents' per-arm form.

        In the view "match", where users and movies have factors, a candidate carries the dot product of its factors and
        the user's, without which a linear model shared by all arms gives all users the same order. The factors are left
        out: a new fit rotates them, which makes parameters learnt on them worthless; the dot product stays. In the view
        "product" nothing is left out, and a candidate carries the element-wise products, as in `MovieLensEnvironment`.

        Args:
          user_ids: int array [n].
          movie_ids: int array [n, k], the candidates of each decision.
          mask: bool array [n, k], False in padding, whose features are 0; None for no padding.
          unknown: as for `FeatureTable.look_up`.

        Returns:
          `global` float32 [n, G] and `per_arm` float32 [n, k, D], with the shapes of `spec`.
        """
        movie_ids = np.asarray(movie_ids)
        available = np.ones(movie_ids.shape, bool) if mask is None else np.asarray(mask)
        users = self.user_features(user_ids, unknown)
        movies = np.zeros((*movie_ids.shape, self.movies.shape[1]), np.float32)
        movies[available] = self.movie_features(movie_ids[available], unknown)
        return {GLOBAL: self.context(users), PER_ARM: self.per_arm(users, movies)}

    def context(self, users: np.ndarray) -> np.ndarray:
        """Select the part `global` of an observation, float32 [n, G], from all features of users [n, features].

        It is a constant where no column is left for it, because networks need an input.
        """
        context = users if self.view == "product" else users.take(self.user_table.other_columns, axis=1)
        return context if context.shape[1] else np.ones((len(users), 1), np.float32)

    def per_arm(self, users: np.ndarray, movies: np.ndarray) -> np.ndarray:
        """Make the part `per_arm` [n, k, D] of an observation from all features of users [n] and movies [n, k]."""
        parts = [movies if self.view == "product" else movies.take(self.movie_table.other_columns, axis=2)]
        if self._has_match:
            match = users[:, None, self.user_table.factor_columns] * movies[:, :, self.movie_table.factor_columns]
            parts.append(match if self.view == "product" else match.sum(axis=2, keepdims=True))
        return np.concatenate(parts, axis=2)

    def spec(self, candidates: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one decision's observation: {"global": (G,), "per_arm": (candidates, D)}."""
        users, movies = self.user_table.values[:1], self.movie_table.values[None, :1]
        return {GLOBAL: self.context(users).shape[1:], PER_ARM: (candidates, self.per_arm(users, movies).shape[2])}

    def save(self, directory: str | PathLike) -> None:
        """Write the bundle into a directory, created if missing; equal bundles give equal bytes."""
        parts = {"view": np.array(self.view)}
        for name, table in (("users", self.user_table), ("movies", self.movie_table)):
            parts[f"{name}_ids"] = table.ids
            parts[f"{name}_columns"] = np.array(table.frame.columns.tolist(), str)
            parts[name] = table.frame.to_numpy()
        with replacing(Path(directory, FILE)) as draft:
            np.savez(draft, allow_pickle=False, **parts)

    @classmethod
    def load(cls, directory: str | PathLike | IO[bytes]) -> Self:
        """Read a bundle that `save` wrote, bit by bit the same; `directory` may also be its open file."""
        file = Path(directory, FILE) if isinstance(directory, (str, PathLike)) else directory
        with np.load(file, allow_pickle=False) as parts:
            users, movies = (
                pd.DataFrame(parts[name], pd.Index(parts[f"{name}_ids"], name=index), parts[f"{name}_columns"].tolist())
                for name, index in (("users", "user_id"), ("movies", "movie_id"))
            )
            return cls(users, movies, str(parts["view"]))


def check_candidates(
    user_ids: ArrayLike, candidates: ArrayLike, mask: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check the shapes of users [n], candidates [n, k] and mask [n, k] (None is all True); return them as arrays."""
    user_ids, candidates = np.asarray(user_ids), np.asarray(candidates)
    mask = np.ones(candidates.shape, bool) if mask is None else np.asarray(mask, bool)
    if candidates.ndim != 2 or 0 in candidates.shape[1:] or user_ids.shape != candidates.shape[:1]:
        shapes = f"{list(user_ids.shape)} and {list(candidates.shape)}"
        raise ValueError(f"user_ids and candidates must be [n] and [n, k] with k at least 1, got {shapes}")
    if mask.shape != candidates.shape:
        raise ValueError(f"mask must have the shape of candidates, {list(candidates.shape)}, got {list(mask.shape)}")
    return user_ids, candidates, mask


def _convert_ids(index: pd.Index, kind: str) -> np.ndarray:
    """Convert an index to int64, or to uint64 where a number is too large for that."""
    require(len(index) > 0, f"{kind} ids", "at least one", 0)
    whole = is_integer_dtype(index.dtype) and not index.hasnans
    require(whole, f"{kind} ids", "whole numbers of 64 bits, as an index", index[:10].tolist())
    require_rows(~index.duplicated(), f"the id of a {kind}", "different in each row", index, index)
    return index.to_numpy(np.int64 if index.max() < 2**63 else np.uint64)


def _convert_number(value: Any) -> float:
    """Convert a number or bool that float32 can hold; anything else becomes NaN."""
    number = isinstance(value, (int, float, np.integer, np.floating, np.bool_))
    return float(value) if number and -_LARGEST <= value <= _LARGEST else nan


def _log_counts(ids: pd.Series, index: pd.Index) -> pd.Series:
    return np.log1p(ids.value_counts().reindex(index, fill_value=0))


def _standardise(values: pd.Series) -> pd.Series:
    """Scale to mean 0 and variance 1 over the values that are not missing; constant values become 0."""
    deviation = values.std(ddof=0)
    return (values - values.mean()) / (deviation if deviation > 0 else 1.0)


def _join(parts: list, factors: pd.DataFrame | None) -> pd.DataFrame:
    """Join parts side by side, and the factors by id, as float32."""
    if factors is not None:
        parts = [*parts, factors.reindex(parts[0].index, fill_value=0.0)]
    return pd.concat(parts, axis=1).astype("float32")
