"""What a policy's slates would have earned, from slates that another policy showed and logged with their propensities.

The value of a policy is the expected sum of the rewards of its slots. Estimators are functions of arrays [n, slots]:
`reward`; `propensity` and `target`, the probabilities of the item in the slot given the items above it, of the policy
that wrote the log and of the policy to be judged. w_1:k, the product of target / propensity over the slots up to k,
weighs what happened there. Each estimator trusts an assumption about users: the more it assumes, the fewer slots its
weights multiply, the smaller its error, and the worse its bias where the assumption does not hold.

All return an `Estimate`. Self-normalised, the sum of the weights takes the place of n, slot by slot: values stay within
the range of the rewards, for a bias of O(1 / n). All refuse arrays of different shapes, probabilities outside their
range, numbers that are not finite, and a log none of whose slates the policy would begin.
"""

import numpy as np

from recbandits.evaluation.estimate import Estimate
from recbandits.evaluation.estimators import check_numbers


def slate_ips(reward, propensity, target, *, self_normalised=False):
    """Standard IPS over whole slates: mean(w_1:K sum over k of r_k).

    Assumes nothing about users: a reward may depend on all items of the slate. Unbiased if every slate that the target
    may show could be logged. Its weights are products over all K slots, and its error grows with them exponentially.
    """
    reward, ratio = _checked(reward, propensity, target)
    weight = ratio.prod(axis=1, keepdims=True)
    return _estimate(reward.sum(axis=1, keepdims=True), weight, _missing(weight), self_normalised)


def item_position_ips(reward, position_propensity, target_position, *, self_normalised=False):
    """IPS by item and position (IIPS): mean(sum over k of w_k r_k).

    Here w_k is the ratio of the marginal probabilities that the item stands in slot k, whatever stands elsewhere (Li et
    al. 2018, "Offline evaluation of ranking policies with click models"). Assumes that a reward depends on the item and
    its position alone (a position-based click model, in which nobody stops or compares), and is biased where items
    above matter, as in a cascade. It asks that every pair of item and position, not every slate, could be logged.

    Args:
      reward: float [n, slots].
      position_propensity: float [n, slots] in (0, 1], marginal probabilities of the policy that wrote the log.
      target_position: float [n, slots] in [0, 1], those of the policy to be judged.
      self_normalised: whether each slot is divided by the sum of its weights instead of n.
    """
    reward, ratio = _checked(reward, position_propensity, target_position)
    return _estimate(reward, ratio, _missing(ratio), self_normalised)


def reward_interaction_ips(reward, propensity, target, *, self_normalised=False):
    """Reward interaction IPS (RIPS): mean(sum over k of w_1:k r_k).

    McInerney et al. 2020, "Counterfactual evaluation of slate recommendations with sequential reward interactions".
    Assumes that a reward depends on the items of its slot and of those above, as for users who look from the top
    (cascade and dependent clicks; position-based clicks as well). Biased where items below matter, as for users who
    compare a whole slate before they click.
    """
    reward, ratio = _checked(reward, propensity, target)
    weight = ratio.cumprod(axis=1)
    return _estimate(reward, weight, _missing(weight[:, -1]), self_normalised)


def cascade_dr(reward, propensity, target, q_slate, q_target, *, self_normalised=False):
    """Cascade-DR, doubly robust: mean(sum over k of w_1:k (r_k - q_k) + w_1:k-1 v_k).

    v_k is the expectation of q_k over the item that the target would put into slot k below the logged ones (Kiyohara et
    al. 2022, "Doubly robust off-policy evaluation for ranking policies under the cascade behavior model"). Assumes what
    RIPS does and is then unbiased, whatever the model; the better the model, the smaller the error. q = 0 is RIPS.

    Args:
      reward: float [n, slots].
      propensity: float [n, slots] in (0, 1].
      target: float [n, slots] in [0, 1].
      q_slate: float [n, slots], the sum of rewards from slot k on that a model predicts for the logged item in slot k
        below the logged items above, where the evaluated policy fills the slots below.
      q_target: float [n, slots], v_k.
      self_normalised: whether each slot is divided by the sum of its weights instead of n.
    """
    reward, ratio = _checked(reward, propensity, target)
    q_slate, q_target = _same_shape(q_slate=q_slate, q_target=q_target, reward=reward)[:2]
    weight = ratio.cumprod(axis=1)
    above = np.concatenate([np.ones_like(weight[:, :1]), weight[:, :-1]], axis=1)
    terms, weights = np.hstack([reward - q_slate, q_target]), np.hstack([weight, above])
    return _estimate(terms, weights, _missing(weight[:, -1]), self_normalised, counted=weight)


def shaped(name, values, shape):
    """Values as float array of this shape, or a ValueError that names them."""
    values = np.asarray(values, float)
    if values.shape != shape:
        raise ValueError(f"{name} must have the shape {list(shape)}, got {list(values.shape)}")
    return values


def _estimate(terms, weights, missing, self_normalised, counted=None):
    """Sum over columns of mean(weights terms), or of the ratio to mean(weights); `counted` are the weights to show."""
    products = weights * terms
    if self_normalised:
        parts = tuple(zip(products.T, weights.T, strict=True))
    else:
        parts = ((products.sum(axis=1), np.ones(len(products))),)
    return Estimate(parts, tuple((weights if counted is None else counted).T), missing)


def _missing(weight):
    return float(1 - weight.mean()) if len(weight) else np.nan


def _checked(reward, propensity, target):
    """(reward, target / propensity), both float [n, slots], or a sentence about the first that is not right."""
    reward, propensity, target = _same_shape(reward=reward, propensity=propensity, target=target)
    ratio = target / propensity
    if len(ratio) and not ratio[:, 0].any():
        raise ValueError(
            f"target is 0 in the first slot of all {len(target)} records: the evaluated policy begins no slate of this "
            "log, which therefore says nothing about it"
        )
    return reward, ratio


def _same_shape(**columns):
    """The columns as float [n, slots], checked by name."""
    arrays = {name: np.asarray(values, float) for name, values in columns.items()}
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    if len({tuple(shape) for shape in shapes.values()}) > 1 or {len(shape) for shape in shapes.values()} != {2}:
        raise ValueError(f"all columns must have the same shape [n, slots], got {shapes}")
    return [check_numbers(name, array) for name, array in arrays.items()]
