"""Slates as training examples: several movies shown to one user at once, and what came of each."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.data.tables import check_rated_once


class SlateExamples(NamedTuple):
    """What a ranking agent learns from, one row a slate.

    Attributes:
      context: float32 [n, G], features of the user.
      arm: float32 [n, slots, D], features of the movies in the order in which they were shown.
      reward: float32 [n, slots], what came of each: clicks, or scores such as ratings.
      event: int64 [n], names the slate, the same in every process.
    """

    context: np.ndarray
    arm: np.ndarray
    reward: np.ndarray
    event: np.ndarray


class RatedLists(NamedTuple):
    """All that some users have rated, a list each: candidates to rank whose relevance is known.

    Attributes:
      user_id: int [n], ascending.
      candidates: int [n, items], movie ids; any number in padding.
      rating: float [n, items], NaN in padding.
      mask: bool [n, items], False in padding.
    """

    user_id: np.ndarray
    candidates: np.ndarray
    rating: np.ndarray
    mask: np.ndarray


def rated_lists(ratings, least=2):
    """Gather the ratings of each user, such as those held out, for measuring how well they can be ranked.

    Args:
      ratings: DataFrame with columns user_id, movie_id and rating, each pair once.
      least: users with fewer ratings are left out; one movie can be ranked in one way.

    Returns:
      RatedLists with the movies of a list in the order of the table.

    Raises:
      ValueError: nobody has that many ratings, or a user has rated a movie twice.
    """
    check_rated_once(ratings)
    size = ratings.groupby("user_id")["movie_id"].transform("size")
    kept = ratings[size >= least].sort_values("user_id", kind="stable")
    if kept.empty:
        raise ValueError(f"ratings must have a user with at least {least} of them, got none")
    users, row, length = np.unique(kept["user_id"], return_inverse=True, return_counts=True)
    column = np.arange(len(kept)) - np.repeat(np.cumsum(length) - length, length)
    candidates, rating = np.zeros((len(users), length.max()), np.int64), np.full((len(users), length.max()), np.nan)
    candidates[row, column], rating[row, column] = kept["movie_id"], kept["rating"]
    return RatedLists(users, candidates, rating, ~np.isnan(rating))


def slate_examples(log, bundle):
    """Training examples of a log of slates.

    Args:
      log: SlateLog
      bundle: FeatureBundle that knows its users and movies.

    Returns:
      SlateExamples in the order of the log; the event is the hash of its id.
    """
    event = pd.util.hash_array(np.asarray(log.event_id)).view(np.int64)
    return _described(log.user_id, log.shown, log.reward, event, bundle)


def list_examples(ratings, rows, bundle):
    """Training examples of lists of movies that one user each has rated, as `splits.draw_lists` draws them.

    Args:
      ratings: DataFrame with columns user_id, movie_id and rating.
      rows: int [n, size], positions in the table of ratings; those of a list are of one user, in random order.
      bundle: FeatureBundle that knows the users and movies. If it was fitted on these ratings, its factors know them
        better than they will ever know others: see `cross_fitted_lists`.

    Returns:
      SlateExamples in the order of the rows with the ratings as reward; the event is the hash of row numbers and place.

    Raises:
      ValueError: rows of another shape, or a list of more than one user.
    """
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] < 1:
        raise ValueError(f"rows must be [lists, size] with size at least 1, got {list(rows.shape)}")
    users, movies, rating = (ratings[name].to_numpy()[rows] for name in ("user_id", "movie_id", "rating"))
    if (mixed := (users != users[:, :1]).any(axis=1)).any():
        place = np.argmax(mixed)
        raise ValueError(f"list {place}: its ratings must be of one user, got {np.unique(users[place]).tolist()}")
    return _described(users[:, 0], movies, rating, _events(rows), bundle)


def cross_fitted_lists(ratings, size, fit_bundle, lists=10, folds=5, seed=0):
    """Draw lists of rated movies, and describe each by features that have seen none of its ratings.

    `cross_fitting` says why. A list has one context, which knows the user by all of the ratings its bundle was fitted
    on; so all ratings of a list must be left out together. In each fold a random part of every user's ratings, one in
    `folds` but at least `size`, is left out of what the bundle is fitted on, and lists are drawn from that part.
    Serve with a bundle fitted on all ratings.

    Args:
      ratings: DataFrame with columns user_id, movie_id and rating, each pair once.
      size: movies a list.
      fit_bundle: function from ratings to a FeatureBundle that knows all users and movies, called once a fold.
      lists: drawn for each user and fold, each without replacement; those of a user may overlap.
      folds: number of folds, at least 2.
      seed: of all draws.

    Returns:
      SlateExamples, the folds one after another, users ascending in each. Who has rated no more than `size` movies has
      no list: something must be left to know the user by.

    Raises:
      ValueError: a size, number of lists or of folds that is too small; a rating that occurs twice; nobody has rated
        more than `size` movies.
    """
    for name, value, least in (("size", size, 1), ("lists", lists, 1), ("folds", folds, 2)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    check_rated_once(ratings)
    by_user = ratings.reset_index(drop=True).groupby("user_id").indices
    users = [rows for _, rows in sorted(by_user.items()) if len(rows) > size]
    if not users:
        most = max(map(len, by_user.values()), default=0)
        raise ValueError(f"ratings must have a user with more than {size} of them, the most that one has is {most}")
    rng, rows_drawn, parts = np.random.default_rng(seed), [], []
    for _ in range(folds):
        left_out = [rng.permutation(rows)[: max(size, len(rows) // folds)] for rows in users]
        drawn = np.concatenate([part[rng.random((lists, len(part))).argsort(axis=1)[:, :size]] for part in left_out])
        bundle = fit_bundle(ratings.iloc[np.setdiff1d(np.arange(len(ratings)), np.concatenate(left_out))])
        rows_drawn.append(drawn)
        parts.append(list_examples(ratings, drawn, bundle))
    together = SlateExamples(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return together._replace(event=_events(np.concatenate(rows_drawn)))


def cascading(reward):
    """What a user tells who goes down a slate and stops at the first movie that pleases.

    Args:
      reward: float [n, slots], positive where the movie pleases.

    Returns:
      `chosen_index` int32 [n], the first slot with a positive reward, or the number of slots where there is none; and
      `chosen_value` float32 [n], its reward, or 0.
    """
    pleases = np.asarray(reward) > 0
    any_does, first = pleases.any(axis=1), pleases.argmax(axis=1)
    value = np.take_along_axis(np.asarray(reward), first[:, None], axis=1)[:, 0]
    index = np.where(any_does, first, pleases.shape[1])
    return index.astype(np.int32), np.where(any_does, value, 0.0).astype(np.float32)


def _events(rows):
    """A name for each list [n, size] of row numbers; one that was drawn twice has another name each time."""
    return pd.util.hash_pandas_object(pd.DataFrame(rows)).to_numpy().view(np.int64)


def _described(user_ids, movie_ids, reward, event, bundle):
    observation = bundle.observation(user_ids, movie_ids)
    return SlateExamples(observation[GLOBAL], observation[PER_ARM], reward.astype(np.float32), event)
