"""Training examples for ratings that the features themselves were fitted on."""

import numpy as np
import pandas as pd

from recbandits.data.examples import Examples, make_examples
from recbandits.data.tables import check_rated_once


def cross_fit_examples(log, ratings, fit_bundle, folds=5, seed=0):
    """Describe every decision by features that have not seen its reward.

    A factorisation knows the ratings it was fitted on better than it will ever know others. A model trained on such
    features trusts them too much, and fails on new ones. So the ratings are dealt into folds, and the examples of each
    fold get their features from a bundle fitted on the other folds (stacking: Wolpert 1992, "Stacked generalization").
    Serve with a bundle fitted on all of them.

    Args:
      log: BanditLog whose rewards are among the ratings; one rating may be the reward of several decisions.
      ratings: DataFrame with columns user_id and movie_id, each pair once.
      fit_bundle: function from ratings to a FeatureBundle, called once a fold.
      folds: number of folds, at least 2.
      seed: of the dealing.

    Returns:
      Examples in the order of the log.

    Raises:
      ValueError: too few folds, a rating that occurs twice, or a decision whose reward is not among the ratings.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    check_rated_once(ratings)
    pairs = pd.MultiIndex.from_frame(ratings[["user_id", "movie_id"]])
    place = pairs.get_indexer(pd.MultiIndex.from_arrays([log.user_id, log.arm]))
    if (place < 0).any():
        row = np.flatnonzero(place < 0)[0]
        raise ValueError(f"decision {row}: user {log.user_id[row]} and movie {log.arm[row]} must be among the ratings")
    fold = np.random.default_rng(seed).permutation(len(ratings)) % folds
    rows = [np.flatnonzero(fold[place] == number) for number in range(folds)]
    parts = [make_examples(log.take(rows[number]), fit_bundle(ratings[fold != number])) for number in range(folds)]
    order = np.argsort(np.concatenate(rows))
    return Examples(*(np.concatenate(column)[order] for column in zip(*parts, strict=True)))
