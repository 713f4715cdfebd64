"""Cross-fitted reward models for the direct and the doubly robust estimators, of decisions and of slates.

A model that was fitted to a reward predicts it too well, and doubly robust estimators then correct too little.
Cross-fitting (Chernozhukov et al. 2018) predicts the rewards of each fold of users by a model of the other folds. It
fails with features that were made from the same rewards, such as a factorisation of these ratings: use earlier data.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from recbandits.checks import require, require_shape
from recbandits.data.features import Features
from recbandits.records.log import Log
from recbandits.records.slate_log import SlateLog


def cross_fit(
    log: Log, features: Features | np.ndarray, model: Any = None, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Predict the reward of every candidate by models that were fitted without the user of the decision.

    Returns float64 [n, k], NaN in padding. The features are those of requests and items, or an array of those of
    decisions and candidates, float [n, k, D]; to learn, only those of the chosen candidates are computed. The model is
    a scikit-learn regressor that takes `sample_weight`, fitted to the logged actions, each with weight 1 / pass_prob;
    by default ridge regression. The seed assigns users to folds. ValueError if features have another shape, or folds
    are not between 2 and the number of users.
    """
    from sklearn.base import clone  # takes a second to import
    from sklearn.linear_model import Ridge

    fold = assign_folds(log.user_id, folds, seed)
    model = Ridge() if model is None else model
    examples = np.concatenate(list(_inputs(log, features, log.chosen)))
    q = np.full(log.mask.shape, np.nan)
    for held_out in range(folds):
        train, cells = fold != held_out, log.mask & (fold == held_out)[:, None]
        fitted = clone(model).fit(examples[train], log.reward[train], sample_weight=1 / log.pass_prob[train])
        q[cells] = np.concatenate([fitted.predict(part) for part in _inputs(log, features, cells)])
    return q


def cross_fit_slates(
    log: SlateLog, features: Any, target_conditional: Any, users: Any = None, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Predict the sum of rewards from each slot on, for every candidate in it, by models without the user of the slate.

    Models are fitted from the last slot up, as by Kiyohara et al. 2022: q_k is regressed on r_k plus the expectation of
    q_k+1 under the target policy, which fills the slots below. The ridge regression of a slot has the features of the
    item, the sum of the features of the items above, and the mean of those of all candidates. Returns float64 [n,
    slots, items]; ValueErrors are those of `cross_fit`, as are `folds` and `seed`.

    Features are float [n, items, D] of users and candidates; `target_conditional` float [n, slots, items] is the
    probability under the target policy of each candidate for slot k below the logged items. Slates are grouped into
    folds by `users` int [n], by default those of the log: where users have no id, number the slates.
    """
    from sklearn.linear_model import Ridge  # takes a second to import

    features = require_shape(np.asarray(features, float), "features", *log.candidates.shape, "D")
    shape = (*log.slate.shape, log.candidates.shape[1])
    target_conditional = require_shape(target_conditional, "target_conditional", *shape)
    fold = assign_folds(log.user_id if users is None else users, folds, seed)
    item = np.take_along_axis(features, log.slate[:, :, None], axis=1)
    above = item.cumsum(axis=1) - item
    average = features.mean(axis=1)
    q = np.empty(shape)
    for held_out in range(folds):
        train = fold != held_out
        below = np.zeros(len(log))
        for slot in reversed(range(log.slate.shape[1])):
            inputs = np.concatenate([item[:, slot], above[:, slot], average], axis=1)
            model = Ridge().fit(inputs[train], log.reward[train, slot] + below[train])
            of_item, of_above, of_average = np.split(model.coef_, 3)
            constant = above[:, slot] @ of_above + average @ of_average + model.intercept_
            predicted = features @ of_item + constant[:, None]
            q[~train, slot] = predicted[~train]
            below = np.einsum("ni,ni->n", target_conditional[:, slot], predicted)
    return q


def assign_folds(user_id: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Assign the records of each user to one fold, int [n]; ValueError unless folds are 2 to the number of users."""
    users, user = np.unique(user_id, return_inverse=True)
    require(2 <= folds <= len(users), "folds", f"from 2 to the number of users in the log, {len(users)}", folds)
    return np.random.default_rng(seed).permutation(len(users))[user] % folds


def _inputs(log: Log, features: Any, cells: np.ndarray) -> Iterator[np.ndarray]:
    """Return inputs of a regression for the cells bool [n, k], float [m, D], part by part."""
    if isinstance(features, Features):
        return (np.concatenate(part, axis=1) for part in features.observe(log, cells))
    return iter([require_shape(features, "features", *log.mask.shape, "D")[cells]])
