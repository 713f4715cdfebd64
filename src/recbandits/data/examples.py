"""Training examples of logged decisions: NumPy arrays, one row a decision."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbandits.checks import require_each, require_rows, whole
from recbandits.data.features import Features
from recbandits.data.rating_features import RatingFeatures
from recbandits.data.tables import check_ratings
from recbandits.records.log import Log


class Examples(NamedTuple):
    """Examples that a reward model is trained on.

    Attributes:
      context: float32 [n, G], features of the request.
      arm: float32 [n, D], features of the chosen candidate.
      reward: float32 [n].
      propensity: float32 [n], probability with which the candidate was chosen.
      pass_prob: float32 [n], probability with which the record was kept.
      event: int64 [n], hash of the event id, the same in every process.
    """

    context: np.ndarray
    arm: np.ndarray
    reward: np.ndarray
    propensity: np.ndarray
    pass_prob: np.ndarray
    event: np.ndarray


def make_examples(log: Log, features: Features) -> Examples:
    """Make the training examples of a log, in its order.

    KeyError for an item that the features do not know, ValueError for a context or numbers of candidates that do not
    fit.
    """
    context, arm = map(np.concatenate, zip(*features.observe(log, log.chosen), strict=True))
    reward, propensity, pass_prob = (
        values.astype(np.float32) for values in (log.reward, log.propensity, log.pass_prob)
    )
    return Examples(context, arm, reward, propensity, pass_prob, pd.util.hash_array(log.event_id).view(np.int64))


def make_doubly_robust_examples(log: Log, features: Features, q: np.ndarray) -> Examples:
    """Make an example of every candidate, with the rewards by which doubly robust estimators value a policy.

    The reward of candidate a is q(a), plus (reward - q) / propensity if a was chosen: unbiased where the propensities
    are right, for any q float [n, k] (Dudik et al. 2014, "Doubly Robust Policy Evaluation and Optimization", section
    3). There is one row for each decision and candidate that is not padding, with propensity 1: they need no more
    weighting. The chosen candidate keeps the hash of its event, the others have neighbouring numbers.
    """
    context, arm = map(np.concatenate, zip(*features.observe(log, log.mask), strict=True))
    row, column = np.nonzero(log.mask)
    reward, chosen = q[log.mask], column == log.action[row]
    reward[chosen] += (log.reward - reward[chosen]) / log.propensity
    return Examples(
        context=context,
        arm=arm,
        reward=reward.astype(np.float32),
        propensity=np.ones(len(row), np.float32),
        pass_prob=log.pass_prob[row].astype(np.float32),
        event=pd.util.hash_array(log.event_id).view(np.int64)[row] + column - log.action[row],
    )


def cross_fit_examples(
    log: Log,
    ratings: pd.DataFrame,
    fit_features: Callable[[pd.DataFrame], RatingFeatures],
    folds: int = 5,
    seed: int = 0,
) -> Examples:
    """Make examples whose features were fitted without the rating that is their reward.

    A factorisation fits the ratings it was fitted on better than others. A model trained on such features overrates
    them and generalises badly. So the ratings are split into folds, and the examples of a fold get their features from
    a fit on the other folds (stacking: Wolpert 1992, "Stacked generalization"). Serve with features fitted on all
    ratings.

    Args:
      log: decisions whose rewards are among the ratings; one rating may be the reward of several decisions. Its context
        is not read: that of a decision is what the fit knows of its user.
      ratings: with columns user_id, movie_id and rating, each pair once; those that `fit_features` gets.
      fit_features: function from ratings to their features, called once a fold.
      folds: number of folds, at least 2.
      seed: of the split into folds.

    Raises:
      ValueError: too few folds, ratings that `check_ratings` refuses, or a decision whose reward is not among them.
    """
    require_each(whole(2), folds=folds)
    check_ratings(ratings)
    pairs = pd.MultiIndex.from_frame(ratings[["user_id", "movie_id"]].astype(str))
    user, movie = log.user_ids.take(log.user_id), log.item_ids.take(log.arm)
    logged = pd.MultiIndex.from_arrays([user, movie])
    rating = pairs.get_indexer(logged)
    require_rows(rating >= 0, "user and movie", "among the ratings", logged)
    fold = np.random.default_rng(seed).permutation(len(ratings)) % folds
    rows = [np.flatnonzero(fold[rating] == number) for number in range(folds)]
    parts = []
    for number in range(folds):
        fitted = fit_features(ratings[fold != number])
        parts.append(make_examples(log.take(rows[number]).join_users(fitted.users), fitted.features))
    order = np.argsort(np.concatenate(rows))
    return Examples(*(np.concatenate(column)[order] for column in zip(*parts, strict=True)))
