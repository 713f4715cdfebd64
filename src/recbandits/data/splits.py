"""Splits of ratings into training and held-out parts, as row ids, which can be stored and joined.

In all functions `ratings` has one row for each rating, the same seed gives the same split, and a `test_share` outside
(0, 1), or a missing value in a column that is read, raises ValueError. Parts are in ascending order, lists in that of
the users.
"""

from collections.abc import Callable
from hashlib import sha256
from os import PathLike
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from recbandits.checks import FRACTION, one_of, replacing, require, require_each, require_rows


class Split(NamedTuple):
    """Row ids (positions in the table of ratings) of two parts that share no row, int64 [n], or [n, size] for lists."""

    train: np.ndarray
    test: np.ndarray

    def select_training(self, ratings: pd.DataFrame) -> pd.DataFrame:
        """Select the rows of `ratings`, the table that was split, that features and models may be fitted on.

        These are all but the held-out ones: the ratings of `train`, and for lists also those that no training list has.
        """
        return ratings.iloc[np.setdiff1d(np.arange(len(ratings)), self.test)]

    def save(self, file: str | PathLike) -> None:
        """Write both parts to a file in NumPy's npz format; its folder is created if missing."""
        with replacing(file) as draft, draft.open("wb") as target:
            np.savez(target, train=self.train, test=self.test)

    @classmethod
    def load(cls, file: str | PathLike) -> Self:
        """Read a split that `save` wrote."""
        with np.load(file) as parts:
            return cls(parts["train"], parts["test"])


class ThreeWaySplit(NamedTuple):
    """Row ids (int64 arrays) of three parts that share no row; choose by `validation`, use `test` once, at the end."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def random_split(ratings: pd.DataFrame, seed: int = 42, test_share: float = 0.2) -> Split:
    """Hold out a random share of the ratings, `round(test_share * len(ratings))` rows."""
    _check_share(test_share)
    shuffled = np.random.default_rng(seed).permutation(len(ratings))
    held_out = round(test_share * len(ratings))
    return Split(np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out]))


def split_by_time(ratings: pd.DataFrame, test_share: float = 0.2) -> Split:
    """Hold out a share of the ratings of each user, the latest.

    Every held-out rating is later than all training ratings of its user. Ratings of the same second stay together, in
    training when the cut falls among them. So less than `test_share` is held out (18.5 % of MovieLens 100K for 0.2),
    and nothing of a user who rated everything in one second.
    """
    _check_share(test_share)
    _check_known(ratings, "user_id", "time")
    by_user = ratings.reset_index(drop=True).groupby("user_id")["time"]
    kept = by_user.transform("size") - np.floor(by_user.transform("size") * test_share)
    test = by_user.rank(method="min").to_numpy() > kept.to_numpy()
    return Split(np.flatnonzero(~test), np.flatnonzero(test))


def split_by_user(ratings: pd.DataFrame, seed: int = 42, test_share: float = 0.2) -> Split:
    """Hold out all ratings of a random share of the users, who are new to a model that was fitted on the others."""
    _check_share(test_share)
    _check_known(ratings, "user_id")
    users = ratings["user_id"].to_numpy()
    shuffled = np.random.default_rng(seed).permutation(np.unique(users))
    test = np.isin(users, shuffled[: round(test_share * len(shuffled))])
    return Split(np.flatnonzero(~test), np.flatnonzero(test))


def half_of_users(user_ids: ArrayLike, half: Literal["tune", "report"]) -> np.ndarray:
    """Select the users of one of two halves that share no user, in their order.

    The first byte of the SHA-256 digest of the id as text decides: below 128 a user is in "tune", else in "report". So
    a user is in the same half on every machine and in every table; other users do not matter.
    """
    require_each(one_of(("tune", "report")), half=half)
    user_ids = np.asarray(user_ids)
    tune = np.array([sha256(str(user).encode()).digest()[0] < 128 for user in user_ids.tolist()], bool)
    return user_ids[tune if half == "tune" else ~tune]


def train_validation_test(ratings: pd.DataFrame, split: Callable[..., Split], **options: Any) -> ThreeWaySplit:
    """Split twice in the same way, with the same options: first `test` off all ratings, then `validation` off the rest.

    By `split_by_time` validation ratings of a user are later than the training ratings, and test ratings later than
    both. By `split_by_user` no user is in two parts. The validation part is `test_share` of the rest.
    """
    rest, test = split(ratings, **options)
    train, validation = split(ratings.iloc[rest], **options)
    return ThreeWaySplit(rest[train], rest[validation], test)


def draw_lists(ratings: pd.DataFrame, size: int, train_lists: int = 50, test_lists: int = 1, seed: int = 42) -> Split:
    """Draw lists of movies that one user has rated, for learning to rank.

    First `test_lists` lists of each user are held out; then each training list is a draw of `size` of the remaining
    ratings without replacement. Training lists of a user may overlap each other, never a test list. Movies are in
    random order. The parts are int64 [users * train_lists, size] and [users * test_lists, size]. A user with too few
    ratings for the test lists and one training list raises ValueError.
    """
    require(len(ratings) > 0, "the number of ratings", "at least 1", 0)
    _check_known(ratings, "user_id")
    rng, least = np.random.default_rng(seed), (test_lists + 1) * size
    train, test = [], []
    for user, positions in sorted(ratings.reset_index(drop=True).groupby("user_id").indices.items()):
        expected = f"at least {least} for lists of {size}"
        require(len(positions) >= least, f"number of ratings of user {user}", expected, len(positions))
        rows = rng.permutation(positions)
        test.append(rows[: test_lists * size].reshape(test_lists, size))
        rest = rows[test_lists * size :]
        train.append(rest[rng.random((train_lists, len(rest))).argsort(axis=1)[:, :size]])
    return Split(np.concatenate(train), np.concatenate(test))


def _check_share(test_share: float) -> None:
    require_each(FRACTION, test_share=test_share)


def _check_known(ratings: pd.DataFrame, *columns: str) -> None:
    for name in columns:
        require_rows(ratings[name].notna().to_numpy(), name, "known", ratings[name].array, ratings.index)
