"""Off-policy estimators of slates: the value of a target policy from slates that a logging policy showed.

The value of a policy is the expected sum of the rewards of its slots. Estimators are functions of arrays [n, slots]:
`reward`; `propensity` and `target`, the probabilities of the item in the slot given the items above, under the logging
and the target policy. Each estimator makes an assumption about users: the stronger the assumption, the fewer slots its
weights multiply (w_1:k is the product of target / propensity over the slots up to k), the smaller its error, and the
larger its bias where the assumption does not hold.

All return an `Estimate`. Self-normalised, the sum of the weights replaces n, slot by slot: values stay within the range
of the rewards, for a bias of O(1 / n). All raise ValueError for arrays of different shapes, probabilities outside their
range, numbers that are not finite, and a log in which the target policy takes no first item.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from recbandits.checks import require, require_distributions, require_rows, require_shape
from recbandits.evaluation.estimate import Estimate
from recbandits.evaluation.estimators import ROUNDING, check_columns, check_numbers
from recbandits.records.slate_log import SlateLog

# SN means self-normalised
SLATE_ESTIMATORS = ("IPS", "SNIPS", "IIPS", "SNIIPS", "RIPS", "SNRIPS", "cascade-DR", "cascade-SNDR")


def slate_ips(reward: Any, propensity: Any, target: Any, *, self_normalised: bool = False) -> Estimate:
    """Estimate by IPS over whole slates: mean(w_1:K sum over k of r_k).

    No assumption about users: a reward may depend on all items of the slate. Unbiased if every slate of the target
    policy could be logged. Its weights are products over all K slots, and its error grows with them exponentially.
    """
    reward, ratio = _checked_ratio(reward, propensity, target)
    weight = ratio.prod(axis=1, keepdims=True)
    total = reward.sum(axis=1, keepdims=True)
    return _estimate(total, weight, _mean_weight(weight), self_normalised, total)


def item_position_ips(
    reward: Any, position_propensity: Any, target_position: Any, *, self_normalised: bool = False
) -> Estimate:
    """Estimate by IPS of items and positions (IIPS): mean(sum over k of w_k r_k).

    w_k is the ratio of the marginal probabilities of the item in slot k, `target_position` / `position_propensity` (Li
    et al. 2018, "Offline evaluation of ranking policies with click models"). Assumes that a reward depends on the item
    and its position alone (position-based clicks), and is biased where the items above matter, as in a cascade. Every
    pair of item and position, not every slate, must be possible in the log.
    """
    reward, ratio = _checked_ratio(reward, position_propensity, target_position)
    return _estimate(reward, ratio, _mean_weight(ratio), self_normalised, reward)


def reward_interaction_ips(reward: Any, propensity: Any, target: Any, *, self_normalised: bool = False) -> Estimate:
    """Estimate by reward interaction IPS (RIPS): mean(sum over k of w_1:k r_k).

    McInerney et al. 2020, "Counterfactual evaluation of slate recommendations with sequential reward interactions".
    Assumes that a reward depends on the items of its slot and of those above, as for users who look from the top
    (cascade, dependent and position-based clicks). Biased where items below matter, as for users who compare all items
    of a slate before they click.
    """
    reward, ratio = _checked_ratio(reward, propensity, target)
    weight = ratio.cumprod(axis=1)
    return _estimate(reward, weight, _mean_weight(weight[:, -1]), self_normalised, reward)


def cascade_dr(
    reward: Any, propensity: Any, target: Any, q_slate: Any, q_target: Any, *, self_normalised: bool = False
) -> Estimate:
    """Estimate by the doubly robust cascade-DR: mean(sum over k of w_1:k (r_k - q_k) + w_1:k-1 v_k).

    q_k, `q_slate`, predicts the sum of rewards from slot k on, given the logged items down to k, where the target
    policy fills the slots below. v_k, `q_target`, is its expectation over the target policy's item in slot k (Kiyohara
    et al. 2022, "Doubly robust off-policy evaluation for ranking policies under the cascade behavior model"). Assumes
    what RIPS assumes, and is then unbiased for any model; the better the model, the smaller the error. q = 0 is RIPS.
    """
    reward, ratio = _checked_ratio(reward, propensity, target)
    q_slate, q_target, _ = check_columns(2, q_slate=q_slate, q_target=q_target, reward=reward)
    weight = ratio.cumprod(axis=1)
    above = np.concatenate([np.ones_like(weight[:, :1]), weight[:, :-1]], axis=1)
    terms, weights = np.hstack([reward - q_slate, q_target]), np.hstack([weight, above])
    return _estimate(terms, weights, _mean_weight(weight[:, -1]), self_normalised, reward)


def slate_estimates(
    log: "SlateLog",
    target_propensity: np.ndarray,
    target_position: np.ndarray | None = None,
    q: np.ndarray | None = None,
    target_conditional: np.ndarray | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, Estimate]:
    """Estimate the value of a target policy by several estimators, by name; "IPS" is over whole slates.

    Of the target policy, `target_propensity` float [n, slots] is the probability of the logged item in each slot, given
    the logged items above, and `target_position` float [n, slots] its marginal probability there: IIPS needs it, and
    `position_propensity` in the log. cascade-DR needs `q` float [n, slots, items], the predicted sum of rewards from
    slot k on for each candidate in slot k below the logged items (see `reward_model.cross_fit_slates`), and
    `target_conditional` float [n, slots, items], the probability of each candidate there. `names` are some of
    `SLATE_ESTIMATORS`, by default all that can be computed. ValueError if an estimator is unknown or lacks an input, or
    arrays do not fit the log or each other.
    """
    target = require_shape(target_propensity, "target_propensity", *log.slate.shape)
    logged = (log.reward, log.propensity, target)
    known: dict[str, tuple[Any, tuple]] = {"IPS": (slate_ips, logged), "RIPS": (reward_interaction_ips, logged)}
    if target_position is not None and log.position_propensity is not None:
        position = require_shape(target_position, "target_position", *log.slate.shape)
        known["IIPS"] = (item_position_ips, (log.reward, log.position_propensity, position))
    if q is not None and target_conditional is not None:
        known["cascade-DR"] = (cascade_dr, (*logged, *_predict(log, target, q, target_conditional)))
    possible = [name for name in SLATE_ESTIMATORS if name.replace("SN", "") in known]
    estimates = {}
    for name in possible if names is None else names:
        require(name in possible, "names", f"among {', '.join(possible)} (by the given inputs)", name)
        estimator, columns = known[name.replace("SN", "")]
        estimates[name] = estimator(*columns, self_normalised="SN" in name)
    return estimates


def _estimate(terms, weights, mean_weight, self_normalised, reward):
    """Return the sum over columns of mean(weights terms), divided by mean(weights) where self-normalised."""
    products, logged = weights * terms, weights[:, : reward.shape[1]]  # the first columns are those of the rewards
    parts = tuple(zip(products.T, weights.T, strict=True))
    if not self_normalised:
        parts = ((products.sum(axis=1), np.ones(len(products))),)
    slopes = ((logged, logged if self_normalised else np.ones((len(logged), 1))),)
    return Estimate(parts, tuple(logged.T), mean_weight, reward, slopes)


def _mean_weight(weight: np.ndarray) -> float:
    return float(weight.mean()) if len(weight) else np.nan


def _checked_ratio(reward: Any, propensity: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return reward and target / propensity, both float [n, slots]."""
    reward, propensity, target = check_columns(2, reward=reward, propensity=propensity, target=target)
    ratio = target / propensity
    if len(ratio) and not ratio[:, 0].any():
        raise ValueError(
            f"target is 0 in the first slot of all {len(target)} records: the target policy begins no slate of this "
            "log, which therefore says nothing about it"
        )
    return reward, ratio


def _predict(log: SlateLog, target_propensity: np.ndarray, q: Any, target_conditional: Any) -> tuple:
    """Return the predictions for the logged items and their expectation under the target policy, both [n, slots]."""
    shape = (*log.slate.shape, log.candidates.shape[1])
    q = check_numbers("q", require_shape(q, "q", *shape))
    conditional = require_shape(target_conditional, "target_conditional", *shape)
    require_distributions(conditional, "target_conditional")
    columns = log.slate[:, :, None]
    chosen = np.take_along_axis(conditional, columns, axis=2)[:, :, 0]
    agrees = np.abs(chosen - target_propensity) <= ROUNDING
    require_rows(agrees, "target_conditional of the logged items", "their target_propensity", chosen)
    return np.take_along_axis(q, columns, axis=2)[:, :, 0], np.einsum("nsi,nsi->ns", conditional, q)
