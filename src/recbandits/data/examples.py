"""Training examples of logged decisions: NumPy arrays, one row a decision."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbandits.checks import require, whole
from recbandits.data.features import GLOBAL, PER_ARM, FeatureBundle
from recbandits.data.tables import check_ratings
from recbandits.records.bandit_log import BanditLog


class Examples(NamedTuple):
    """Examples that a reward model is trained on.

    Attributes:
      context: float32 [n, G], features of the user.
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


def make_examples(log: BanditLog, bundle: FeatureBundle) -> Examples:
    """Make the training examples of a log, in its order.

    Raises:
      KeyError: a user or a movie that the bundle does not know.
    """
    observation = bundle.observation(log.user_id, log.arm[:, None])
    return join_examples(log, observation[GLOBAL], observation[PER_ARM][:, 0])


def join_examples(log: BanditLog, context: np.ndarray, arm: np.ndarray) -> Examples:
    """Join features of the chosen candidates of a log, context [n, G] and arm [n, D], with what the log has of them."""
    return Examples(
        context=context,
        arm=arm,
        reward=log.reward.astype(np.float32),
        propensity=log.propensity.astype(np.float32),
        pass_prob=log.pass_prob.astype(np.float32),
        event=pd.util.hash_array(log.event_id).view(np.int64),
    )


def make_doubly_robust_examples(log: BanditLog, bundle: FeatureBundle, q: np.ndarray) -> Examples:
    """Make an example of every candidate, with the rewards by which doubly robust estimators value a policy.

    The reward of candidate a is q(a), plus (reward - q) / propensity if a was chosen: unbiased where the propensities
    are right, for any q (Dudik et al. 2014, "Doubly Robust Policy Evaluation and Optimization", section 3).

    Args:
      log: logged decisions.
      bundle: features of their users and movies.
      q: float [n, k], predicted reward of every candidate; it is not read in padding.

    Returns:
      One row for each decision and candidate that is not padding, with propensity 1: they need no more weighting. The
      chosen candidate keeps the hash of its event, the others have neighbouring numbers.
    """
    logged, observation = make_examples(log, bundle), bundle.observation(log.user_id, log.candidates, log.mask)
    row, column = np.nonzero(log.mask)
    reward, chosen = q[log.mask], column == log.action[row]
    reward[chosen] += (log.reward - reward[chosen]) / log.propensity
    return Examples(
        context=logged.context[row],
        arm=observation[PER_ARM][log.mask],
        reward=reward.astype(np.float32),
        propensity=np.ones(len(row), np.float32),
        pass_prob=logged.pass_prob[row],
        event=logged.event[row] + column - log.action[row],
    )


def cross_fit_examples(
    log: BanditLog,
    ratings: pd.DataFrame,
    fit_bundle: Callable[[pd.DataFrame], FeatureBundle],
    folds: int = 5,
    seed: int = 0,
) -> Examples:
    """Make examples whose features were fitted without the rating that is their reward.

    A factorisation fits the ratings it was fitted on better than others. A model trained on such features overrates
    them and generalises badly. So the ratings are split into folds, and the examples of a fold get their features from
    a bundle fitted on the other folds (stacking: Wolpert 1992, "Stacked generalization"). Serve with a bundle fitted on
    all ratings.

    Args:
      log: decisions whose rewards are among the ratings; one rating may be the reward of several decisions.
      ratings: with columns user_id, movie_id and rating, each pair once; those that `fit_bundle` gets.
      fit_bundle: function from ratings to their features, called once a fold.
      folds: number of folds, at least 2.
      seed: of the split into folds.

    Returns:
      Examples in the order of the log.

    Raises:
      ValueError: too few folds, ratings that `check_ratings` refuses, or a decision whose reward is not among them.
    """
    require(whole(2).accepts(folds), "folds", whole(2).expected, folds)
    check_ratings(ratings)
    pairs = pd.MultiIndex.from_frame(ratings[["user_id", "movie_id"]])
    rating = pairs.get_indexer(pd.MultiIndex.from_arrays([log.user_id, log.arm]))
    if (rating < 0).any():
        row = np.flatnonzero(rating < 0)[0]
        raise ValueError(f"decision {row}: user {log.user_id[row]} and movie {log.arm[row]} must be among the ratings")
    fold = np.random.default_rng(seed).permutation(len(ratings)) % folds
    rows = [np.flatnonzero(fold[rating] == number) for number in range(folds)]
    parts = [make_examples(log.take(rows[number]), fit_bundle(ratings[fold != number])) for number in range(folds)]
    order = np.argsort(np.concatenate(rows))
    return Examples(*(np.concatenate(column)[order] for column in zip(*parts, strict=True)))
