"""Which ratings a problem of the training task learns from, and by which its agents are judged."""

from functools import partial

import numpy as np

from recbandits.data import splits


def known_and_held_out(problem, ratings, seed):
    """Split ratings as a problem says.

    Args:
      problem: has `split` ("random", "user" or "time") and `judge` ("validation" or "test").
      ratings: DataFrame of all ratings.
      seed: of the split; ratings that are split by time have only one.

    Returns:
      (DataFrame of those to learn from, DataFrame of those to be judged by).
    """
    split = {
        "random": partial(splits.random_split, seed=seed),
        "user": partial(splits.split_by_user, seed=seed),
        "time": splits.split_by_time,
    }[problem.split]
    train, validation, test = splits.train_validation_test(ratings, split)
    if problem.judge == "test":
        return ratings.iloc[np.union1d(train, validation)], ratings.iloc[test]
    return ratings.iloc[train], ratings.iloc[validation]
