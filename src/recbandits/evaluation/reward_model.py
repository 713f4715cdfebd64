"""A model of rewards for the direct and the doubly robust estimators, which never predicts what it was fitted to."""

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import Ridge

_CHUNK = 8192  # records whose features are in memory at a time


def cross_fit(log, features, model=None, folds=5, seed=0):
    """Predict the reward of every candidate by models that have not seen the user of the decision.

    A model that has seen a reward predicts it too well, and the doubly robust estimators then correct too little.
    Cross-fitting (Chernozhukov et al. 2018) leaves out one fold of users after the other. Features that were themselves
    made from these rewards (a factorisation of the same ratings) undo it: make them from earlier data.

    Args:
      log: `data.bandit_log.BanditLog` of n decisions with up to k candidates.
      features: of decisions and candidates: float [n, k, D]; or a function of (user_ids [m], candidates [m, k],
        mask [m, k]) that gives such an array for m decisions, or a dict as `FeatureBundle.observation` does.
      model: scikit-learn regressor that takes `sample_weight`, fitted to the chosen candidates, each counting
        1 / pass_prob. The default, ridge regression, is as good as the features and needs little time.
      folds: number of groups of users, at least 2.
      seed: of the assignment of users to folds.

    Returns:
      float64 [n, k] of predicted rewards, NaN in padding.

    Raises:
      ValueError: features of another shape, or folds that are not between 2 and the number of users.
    """
    fold = user_folds(log.user_id, folds, seed)
    model = Ridge() if model is None else model
    chosen = log.action[:, None] == np.arange(log.mask.shape[1])
    examples = np.concatenate([_inputs(log, features, rows, chosen) for rows in _pieces(np.arange(len(log)))])
    q = np.full(log.mask.shape, np.nan)
    for left_out in range(folds):
        seen, unseen = fold != left_out, np.flatnonzero(fold == left_out)
        fitted = clone(model).fit(examples[seen], log.reward[seen], sample_weight=1 / log.pass_prob[seen])
        for rows in _pieces(unseen):
            row, column = np.nonzero(log.mask[rows])
            q[rows[row], column] = fitted.predict(_inputs(log, features, rows, log.mask))
    return q


def user_folds(user_id, folds, seed):
    """Number of the fold of each decision, all of a user in one.

    Args:
      user_id: int [n].
      folds: number of groups of users, at least 2.
      seed: of the assignment.

    Returns:
      int [n], 0 to folds - 1.

    Raises:
      ValueError: folds that are not between 2 and the number of users.
    """
    users, user = np.unique(user_id, return_inverse=True)
    if not 2 <= folds <= len(users):
        raise ValueError(f"folds must be from 2 to the number of users in the log, {len(users)}, got {folds}")
    return np.random.default_rng(seed).permutation(len(users))[user] % folds


def _pieces(rows):
    return [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]


def _inputs(log, features, rows, cells):
    """Inputs of the model [m, D] for the candidates in `cells` (bool [n, k]) of some rows, decision by decision."""
    mask, wanted = log.mask[rows], cells[rows]
    given = features(log.user_id[rows], log.candidates[rows], mask) if callable(features) else features[rows]
    if isinstance(given, dict):
        decision = np.nonzero(wanted)[0]
        return np.concatenate([given["global"][decision], given["per_arm"][wanted]], axis=1)
    if np.ndim(given) != 3 or given.shape[:2] != mask.shape:
        raise ValueError(f"features must have the shape {[*mask.shape, 'D']}, got {list(np.shape(given))}")
    return given[wanted]
