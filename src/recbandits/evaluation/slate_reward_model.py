"""A model of what a slate earns from a slot on, for cascade-DR, which never predicts what it was fitted to."""

import numpy as np
from sklearn.linear_model import Ridge

from recbandits.evaluation.reward_model import user_folds
from recbandits.evaluation.slate_estimators import shaped


def slate_reward_model(log, features, target_conditional, users=None, folds=5, alpha=1.0, seed=0):
    """Predict the rewards from each slot on, for every candidate in it, by models that have not seen the user.

    Fitted from the last slot up, as Kiyohara et al. 2022 do: q_k is regressed on r_k plus the expectation of q_k+1
    under the evaluated policy, so that it speaks of the slots below as that policy would fill them. A ridge regression
    per slot sees the features of the item, the sum of the features of the items above, and the mean of those of all
    candidates, which tells what is left for the slots below. Cross-fitted over users like `reward_model.cross_fit`.

    Args:
      log: `data.slate_log.SlateLog` of n slates with `slots` of `items`.
      features: float [n, items, D] of users and candidates, not made from these rewards.
      target_conditional: float [n, slots, items], probability under the evaluated policy of each candidate for slot k
        below the logged items.
      users: int [n], whose records are left out together; by default those of the log. Where every slate is of a new
        user who has no id, number them.
      folds: number of groups of users, at least 2.
      alpha: penalty of the ridge regressions.
      seed: of the assignment of users to folds.

    Returns:
      float64 [n, slots, items].

    Raises:
      ValueError: features or probabilities of another shape, or folds that are not between 2 and the number of users.
    """
    features = np.asarray(features, float)
    if features.ndim != 3 or features.shape[:2] != log.candidates.shape:
        raise ValueError(f"features must have the shape {[*log.candidates.shape, 'D']}, got {list(features.shape)}")
    target_conditional = shaped("target_conditional", target_conditional, (*log.slate.shape, log.candidates.shape[1]))
    fold = user_folds(log.user_id if users is None else users, folds, seed)
    shown = np.take_along_axis(features, log.slate[:, :, None], axis=1)
    above = shown.cumsum(axis=1) - shown
    offered = features.mean(axis=1)
    q = np.empty((*log.slate.shape, log.candidates.shape[1]))
    for left_out in range(folds):
        seen = fold != left_out
        below = np.zeros(len(log))
        for slot in reversed(range(log.slate.shape[1])):
            inputs = np.concatenate([shown[:, slot], above[:, slot], offered], axis=1)
            model = Ridge(alpha).fit(inputs[seen], log.reward[seen, slot] + below[seen])
            of_item, of_above, of_offered = np.split(model.coef_, 3)
            around = above[:, slot] @ of_above + offered @ of_offered + model.intercept_
            predicted = features @ of_item + around[:, None]
            q[~seen, slot] = predicted[~seen]
            below = np.einsum("ni,ni->n", target_conditional[:, slot], predicted)
    return q
