"""Slates as training examples: several movies shown to one user at once, each with its reward."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from recbandits.checks import require, require_each, require_rows, whole
from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.data.rating_features import RatingFeatures
from recbandits.data.tables import check_ratings
from recbandits.records.slate_log import SlateLog


class SlateExamples(NamedTuple):
    """Training data of a ranking agent, one row for each slate.

    Attributes:
      context: float32 [n, G], features of the user.
      arm: float32 [n, slots, D], features of the movies in the order in which they were shown.
      reward: float32 [n, slots]: clicks, or scores such as ratings.
      event: int64 [n], identifies the slate, the same in every process.
    """

    context: np.ndarray
    arm: np.ndarray
    reward: np.ndarray
    event: np.ndarray


class RatedLists(NamedTuple):
    """All ratings of some users, one list each: candidates to rank whose relevance is known.

    Attributes:
      user_id: int [n], ascending.
      candidates: int [n, items], movie ids in the order of the ratings; any number in padding.
      rating: float [n, items], NaN in padding.
      mask: bool [n, items], False in padding.
    """

    user_id: np.ndarray
    candidates: np.ndarray
    rating: np.ndarray
    mask: np.ndarray


def rated_lists(ratings: pd.DataFrame) -> RatedLists:
    """Gather the ratings of each user with at least two of them; ValueError if there is none."""
    check_ratings(ratings)
    size = ratings.groupby("user_id")["movie_id"].transform("size")
    kept = ratings[size > 1].sort_values("user_id", kind="stable")
    require(not kept.empty, "ratings", "two or more of some user", "none")
    users, row, length = np.unique(kept["user_id"], return_inverse=True, return_counts=True)
    column = np.arange(len(kept)) - np.repeat(np.cumsum(length) - length, length)
    candidates, rating = np.zeros((len(users), length.max()), np.int64), np.full((len(users), length.max()), np.nan)
    candidates[row, column], rating[row, column] = kept["movie_id"], kept["rating"]
    return RatedLists(users, candidates, rating, ~np.isnan(rating))


def slate_examples(log: SlateLog, features: RatingFeatures) -> SlateExamples:
    """Make training examples of logged slates, in the order of the log; `event` is the hash of the event id."""
    event = pd.util.hash_array(np.asarray(log.event_id)).view(np.int64)
    return _make_examples(log.user_id, log.shown, log.reward, event, features)


def list_examples(ratings: pd.DataFrame, rows: ArrayLike, features: RatingFeatures) -> SlateExamples:
    """Make training examples of lists of movies that one user each has rated, with the ratings as reward.

    Args:
      ratings: with columns user_id, movie_id and rating.
      rows: int [n, size], positions in the table of ratings, as `splits.draw_lists` draws them; those of a list are of
        one user, in random order. `event` is the hash of a list and its number.
      features: of the users and movies. If its factors were fitted on these ratings, they fit them better than
        new ones: see `cross_fitted_lists`.
    """
    rows = np.asarray(rows)
    require(rows.ndim == 2 and rows.shape[1] > 0, "rows", "[lists, size] with size at least 1", list(rows.shape))
    users, movies, rating = (ratings[name].to_numpy()[rows] for name in ("user_id", "movie_id", "rating"))
    require_rows((users == users[:, :1]).all(axis=1), "users of a list", "the same", users)
    return _make_examples(users[:, 0], movies, rating, _hash_lists(rows), features)


def cross_fitted_lists(
    ratings: pd.DataFrame,
    size: int,
    fit_features: Callable[[pd.DataFrame], RatingFeatures],
    lists: int = 10,
    folds: int = 5,
    seed: int = 0,
) -> SlateExamples:
    """Draw lists of rated movies, and make examples with features that were fitted without the ratings of the list.

    The context of a list depends on all ratings of the user that its features were fitted on, so all ratings of a list
    are left out together. In each fold a random part of every user's ratings, one in `folds` but at least `size`, is
    left out of the fit, and lists are drawn from that part. Serve with features fitted on all ratings.

    Args:
      ratings: with columns user_id, movie_id and rating, each pair once.
      size: movies in a list.
      fit_features: function from ratings to features of all users and movies, called once for each fold.
      lists: number for each user and fold, each drawn without replacement; those of a user may overlap.
      folds: number of folds, at least 2.
      seed: of all draws.

    Returns:
      SlateExamples, the folds one after another, users ascending in each. Users with no more than `size` ratings have
      no list, because no rating would be left to fit their features on.
    """
    require_each(whole(), size=size, lists=lists)
    require_each(whole(2), folds=folds)
    check_ratings(ratings)
    by_user = ratings.reset_index(drop=True).groupby("user_id").indices
    users = [rows for _, rows in sorted(by_user.items()) if len(rows) > size]
    most = max(map(len, by_user.values()), default=0)
    require(bool(users), "the most ratings of a user", f"more than size, {size}", most)
    rng, rows_drawn, parts = np.random.default_rng(seed), [], []
    for _ in range(folds):
        left_out = [rng.permutation(rows)[: max(size, len(rows) // folds)] for rows in users]
        drawn = np.concatenate([part[rng.random((lists, len(part))).argsort(axis=1)[:, :size]] for part in left_out])
        features = fit_features(ratings.iloc[np.setdiff1d(np.arange(len(ratings)), np.concatenate(left_out))])
        rows_drawn.append(drawn)
        parts.append(list_examples(ratings, drawn, features))
    examples = SlateExamples(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return examples._replace(event=_hash_lists(np.concatenate(rows_drawn)))


def cascading_feedback(reward: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Reduce rewards [n, slots] to those of users who stop at the first slot with a positive reward.

    These are that slot int32 [n], or the number of slots where there is none, and its reward float32 [n], or 0.
    """
    reward = np.asarray(reward)
    positive = reward > 0
    any_positive, first = positive.any(axis=1), positive.argmax(axis=1)
    value = np.take_along_axis(reward, first[:, None], axis=1)[:, 0]
    index = np.where(any_positive, first, positive.shape[1])
    return index.astype(np.int32), np.where(any_positive, value, 0.0).astype(np.float32)


def _hash_lists(rows: np.ndarray) -> np.ndarray:
    """Hash each list [n, size] of row numbers with its position, so that equal lists differ."""
    return pd.util.hash_pandas_object(pd.DataFrame(rows)).to_numpy().view(np.int64)


def _make_examples(user_ids, movie_ids, reward, event, features) -> SlateExamples:
    observation = features.observation(user_ids, movie_ids)
    return SlateExamples(observation[GLOBAL], observation[PER_ARM], reward.astype(np.float32), event)
