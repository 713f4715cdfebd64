"""Which ratings are for training and which are held out; a split is row ids, so that it can be stored and joined."""

from pathlib import Path
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Row ids (positions in the table of ratings) of two parts that share no row.

    Attributes:
      train: int64 array [n], or [n, size] for lists.
      test: int64 array [m], or [m, size] for lists.
    """

    train: np.ndarray
    test: np.ndarray

    def known(self, ratings):
        """Ratings that features and models may be fitted on: all but the held-out ones.

        These are the ratings of `train`, and for lists also those that no training list has drawn.

        Args:
          ratings: DataFrame with one row a rating, the one that was split.

        Returns:
          DataFrame of these rows, in their order.
        """
        return ratings.iloc[np.setdiff1d(np.arange(len(ratings)), self.test)]

    def save(self, file):
        """Write both parts to `file`, a .npz; its folder is made if missing."""
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **self._asdict())

    @classmethod
    def load(cls, file):
        """Read a split that `save` wrote."""
        with np.load(file) as parts:
            return cls(parts["train"], parts["test"])


def random_split(ratings, seed=42, test_share=0.2):
    """Hold out a random share of the ratings.

    Args:
      ratings: DataFrame with one row a rating.
      seed: the same seed gives the same split.
      test_share: share held out, in (0, 1).

    Returns:
      Split, both parts ascending; `round(test_share * len(ratings))` rows are held out.

    Raises:
      ValueError: test_share outside (0, 1).
    """
    _check_share(test_share)
    shuffled = np.random.default_rng(seed).permutation(len(ratings))
    held_out = round(test_share * len(ratings))
    return Split(np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out]))


def split_by_time(ratings, test_share=0.2):
    """Hold out the latest ratings of each user.

    Every held-out rating is later than all training ratings of its user. Ratings of the same second stay together, in
    training when the cut falls among them; so somewhat less than `test_share` is held out (18.5 % of MovieLens 100K
    for 0.2), and nothing of a user who rated everything in one second.

    Args:
      ratings: DataFrame with columns user_id and time.
      test_share: share of each user's ratings to hold out, in (0, 1).

    Returns:
      Split, both parts ascending.

    Raises:
      ValueError: test_share outside (0, 1).
    """
    _check_share(test_share)
    by_user = ratings.reset_index(drop=True).groupby("user_id")["time"]
    kept = by_user.transform("size") - np.floor(by_user.transform("size") * test_share)
    rank = by_user.rank(method="min").to_numpy()
    test = rank > kept.to_numpy()
    return Split(np.flatnonzero(~test), np.flatnonzero(test))


def split_by_user(ratings, seed=42, test_share=0.2):
    """Hold out all ratings of a random share of the users, as if they came later: what is learnt of others must do.

    Args:
      ratings: DataFrame with column user_id.
      seed: the same seed gives the same split.
      test_share: share of the users held out, in (0, 1).

    Returns:
      Split, both parts ascending; `round(test_share * users)` users are held out.

    Raises:
      ValueError: test_share outside (0, 1).
    """
    _check_share(test_share)
    users = ratings["user_id"].to_numpy()
    shuffled = np.random.default_rng(seed).permutation(np.unique(users))
    test = np.isin(users, shuffled[: round(test_share * len(shuffled))])
    return Split(np.flatnonzero(~test), np.flatnonzero(test))


class Parts(NamedTuple):
    """Row ids of three parts that share no row; to choose by `validation` keeps `test` for the last word.

    Attributes:
      train: int64 array [n].
      validation: int64 array [m].
      test: int64 array [l].
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def train_validation_test(ratings, split, **options):
    """Split twice in the same way: `test` off all ratings, then `validation` off what is left.

    Args:
      ratings: DataFrame with one row a rating.
      split: `random_split`, `split_by_time` (each user's validation ratings are later than the training ratings, the
        test ratings later than both) or `split_by_user` (each part has users of its own).
      **options: of `split`, such as seed and test_share; validation is that share of what is left.

    Returns:
      Parts, each ascending.
    """
    rest, test = split(ratings, **options)
    train, validation = split(ratings.iloc[rest], **options)
    return Parts(rest[train], rest[validation], test)


def draw_lists(ratings, size, train_lists=50, test_lists=1, seed=42):
    """Draw lists of movies that one user has rated, for learning to rank.

    First `test_lists` lists a user are set aside; then each training list is a draw of `size` of the remaining ratings
    without replacement. Training lists of a user may overlap each other, never a test list. Movies are in random order.

    Args:
      ratings: DataFrame with column user_id.
      size: movies a list.
      train_lists: training lists a user.
      test_lists: test lists a user.
      seed: the same seed gives the same lists.

    Returns:
      Split of int64 arrays [users * train_lists, size] and [users * test_lists, size], users ascending.

    Raises:
      ValueError: a user has too few ratings for the test lists and one training list.
    """
    rng = np.random.default_rng(seed)
    train, test = [], []
    for user, rows in sorted(ratings.reset_index(drop=True).groupby("user_id").indices.items()):
        if len(rows) < (test_lists + 1) * size:
            needed = (test_lists + 1) * size
            raise ValueError(f"user {user} must have {needed} ratings for lists of {size}, got {len(rows)}")
        rows = rng.permutation(rows)
        test.append(rows[: test_lists * size].reshape(test_lists, size))
        rest = rows[test_lists * size :]
        train.append(rest[rng.random((train_lists, len(rest))).argsort(axis=1)[:, :size]])
    return Split(np.concatenate(train), np.concatenate(test))


def _check_share(test_share):
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must be in (0, 1), got {test_share}")
