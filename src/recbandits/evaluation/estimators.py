"""Off-policy estimators: the value of a target policy from decisions that a logging policy made.

Estimators are functions of arrays with one element per record: `reward`; `propensity`, the probability of the logged
action under the logging policy; `target`, its probability under the target policy; and, of a reward model, `q_action`,
the predicted reward of the logged action, and `q_target`, the expected prediction under the target policy. The weight
of a record is w = target / propensity. A record that survived subsampling with probability `pass_prob` (1 unless given)
counts 1 / pass_prob in every mean. All return an `Estimate`.

All raise ValueError that names the record if a propensity or pass_prob is missing, NaN or outside (0, 1], a target is
outside [0, 1], or a number is not finite; and if the target policy takes no action of the log.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from recbandits.checks import FINITE, POSITIVE_PROBABILITY, Rule, require, require_rows, require_shape
from recbandits.evaluation.estimate import Estimate

ROUNDING = 1e-5  # error of probabilities that were computed in float32
_RULES = {
    "propensity": POSITIVE_PROBABILITY,
    "pass_prob": POSITIVE_PROBABILITY,
    "target": Rule("in [0, 1]", lambda values: (values >= 0) & (values <= 1 + ROUNDING)),
}


def direct_method(q_target: Any, *, pass_prob: Any = None) -> Estimate:
    """Estimate by the direct method (DM): mean(q_target).

    Its bias is that of the model, which its interval does not include. Needs no propensity.
    """
    count, q_target = _columns(pass_prob, q_target=q_target)
    return Estimate(((count * q_target, count),), (count,))


def ips(reward: Any, propensity: Any, target: Any, *, pass_prob: Any = None) -> Estimate:
    """Estimate by inverse propensity scoring (IPS): mean(w reward). Horvitz and Thompson 1952.

    Unbiased if every action of the target policy could be logged; its variance grows with the weights.
    """
    return clipped_ips(reward, propensity, target, np.inf, pass_prob=pass_prob)


def clipped_ips(reward: Any, propensity: Any, target: Any, clip: float, *, pass_prob: Any = None) -> Estimate:
    """Estimate by clipped IPS: mean(min(w, clip) reward). Ionides 2008, "Truncated importance sampling".

    Less variance for a bias towards 0; `clip` is positive, at infinity the result is IPS.
    """
    count, weight, mean_weight, reward = _weights(propensity, target, pass_prob, reward=reward)
    require(clip > 0, "clip", "positive", clip)
    weight = np.minimum(weight, clip)
    return _mean(count, weight * reward, weight, mean_weight, reward)


def snips(reward: Any, propensity: Any, target: Any, *, pass_prob: Any = None) -> Estimate:
    """Estimate by self-normalised IPS (SNIPS): sum(w reward) / sum(w). Swaminathan and Joachims 2015.

    Between the smallest and the largest reward, and moves with a constant added to all; its bias is O(1 / n).
    """
    count, weight, mean_weight, reward = _weights(propensity, target, pass_prob, reward=reward)
    weight = count * weight
    return _estimate(((weight * reward, weight),), weight, mean_weight, reward)


def replay(
    reward: Any,
    propensity: Any,
    target: Any,
    *,
    generator: np.random.Generator,
    bound: float | None = None,
    pass_prob: Any = None,
) -> Estimate:
    """Estimate by replay with rejection sampling: the mean reward of records accepted with probability w / bound.

    Accepted records are distributed as if the target policy had acted. With uniform random logs over equally many
    actions and a deterministic target policy, these are the records in which both agree, as in Li, Chu, Langford and
    Wang 2011. `bound` is at least the largest weight, which is the default; the value is NaN if nothing is accepted.
    """
    count, weight, mean_weight, reward = _weights(propensity, target, pass_prob, reward=reward)
    largest = weight.max(initial=0.0)
    bound = largest if bound is None else bound
    require(bound >= largest, "bound", f"at least the largest weight, {largest:g}", bound)
    accepted = count * (generator.random(len(weight)) * bound < weight)
    return _estimate(((accepted * reward, accepted),), accepted, mean_weight, reward)


def dr(reward: Any, propensity: Any, target: Any, q_action: Any, q_target: Any, *, pass_prob: Any = None) -> Estimate:
    """Estimate by the doubly robust method (DR): mean(q_target + w (reward - q_action)). Dudik, Langford and Li 2011.

    Unbiased if the propensities or the model are right; the better the model, the smaller the error; q = 0 is IPS.
    """
    return switch_dr(reward, propensity, target, q_action, q_target, np.inf, pass_prob=pass_prob)


def sndr(reward: Any, propensity: Any, target: Any, q_action: Any, q_target: Any, *, pass_prob: Any = None) -> Estimate:
    """Estimate by self-normalised DR: mean(q_target) + sum(w (reward - q_action)) / sum(w). Thomas and Brunskill 2016.

    Moves with a constant added to all rewards, for any model; its bias is O(1 / n).
    """
    columns = {"reward": reward, "q_action": q_action, "q_target": q_target}
    count, weight, mean_weight, reward, q_action, q_target = _weights(propensity, target, pass_prob, **columns)
    weight = count * weight
    parts = ((count * q_target, count), (weight * (reward - q_action), weight))
    return _estimate(parts, weight, mean_weight, reward)


def switch_dr(
    reward: Any, propensity: Any, target: Any, q_action: Any, q_target: Any, threshold: float, *, pass_prob: Any = None
) -> Estimate:
    """Estimate by Switch-DR: mean(q_target + w 1[w <= threshold] (reward - q_action)). Wang, Agarwal and Dudik 2017.

    Uses the model alone where the weight is above the positive `threshold`: towards 0 it is DM, at infinity DR.
    """
    require(threshold > 0, "threshold", "positive", threshold)
    columns = (reward, propensity, target, q_action, q_target, pass_prob)
    return _corrected(*columns, lambda weight, _: weight * (weight <= threshold))


def dr_os(
    reward: Any,
    propensity: Any,
    target: Any,
    q_action: Any,
    q_target: Any,
    shrinkage: float | None = None,
    *,
    pass_prob: Any = None,
) -> Estimate:
    """Estimate by DR with optimistic shrinkage (DRos): w becomes w / (1 + w^2 / shrinkage). Su et al. 2020, section 3.

    No weight exceeds sqrt(shrinkage) / 2. Towards a `shrinkage` of 0 it is DM, at infinity DR. None fits it to the
    weights, where variance plus squared bias is least: with errors reward - q of mean square s^2, these are at most
    s^2 (mean(v^2) / n + mean(w - v)^2) for shrunk weights v, least at sum(w^3)^2 / sum(w^4) to first order in
    1 / shrinkage. No weight then loses more than half, where all records have the same pass_prob.
    """
    require(shrinkage is None or shrinkage > 0, "shrinkage", "positive", shrinkage)

    def shrink(weight: np.ndarray, count: np.ndarray) -> np.ndarray:
        squares = count * weight * weight
        fitted = (squares @ weight) ** 2 / ((squares @ squares) or 1.0) if shrinkage is None else shrinkage
        return weight / (1 + weight * weight / fitted)

    return _corrected(reward, propensity, target, q_action, q_target, pass_prob, shrink)


def check_columns(dimensions: int, **columns: Any) -> list[np.ndarray]:
    """Return columns as float arrays of the same shape, [n] or [n, slots], or raise ValueError."""
    sizes: tuple = ("n", "slots")[:dimensions]
    for name, values in columns.items():
        require(values is not None, name, "given, as there is no estimate without it", values)
        columns[name] = require_shape(np.asarray(values, float), name, *sizes)
        sizes = columns[name].shape
    return [check_numbers(name, array) for name, array in columns.items()]


def check_numbers(name: str, values: np.ndarray) -> np.ndarray:
    """Return values [n, ...] if all obey the rule of their column, or raise ValueError about the first other."""
    rule = _RULES.get(name, FINITE)
    require_rows(rule.holds(values), name, rule.expected, values)
    return values


def _corrected(reward, propensity, target, q_action, q_target, pass_prob, change: Callable) -> Estimate:
    """Return DR with changed weights."""
    columns = {"reward": reward, "q_action": q_action, "q_target": q_target}
    count, weight, mean_weight, reward, q_action, q_target = _weights(propensity, target, pass_prob, **columns)
    weight = change(weight, count)
    return _mean(count, q_target + weight * (reward - q_action), weight, mean_weight, reward)


def _mean(count: np.ndarray, terms, weight, mean_weight: float, reward) -> Estimate:
    return _estimate(((count * terms, count),), count * weight, mean_weight, reward)


def _estimate(parts: tuple, weight: np.ndarray, mean_weight: float, reward: np.ndarray) -> Estimate:
    return Estimate(parts, (weight,), mean_weight, reward, ((weight, parts[-1][1]),))


def _weights(propensity: Any, target: Any, pass_prob: Any, **numbers: Any) -> tuple:
    """Return (1 / pass_prob, weight, mean weight, *numbers), checked."""
    count, propensity, target, *checked = _columns(pass_prob, propensity=propensity, target=target, **numbers)
    if len(target) and not target.any():
        raise ValueError(
            f"target is 0 in all {len(target)} records: the target policy takes no action of this log, "
            "which therefore says nothing about it"
        )
    weight = target / propensity
    mean_weight = float((count @ weight) / count.sum()) if len(count) else np.nan
    return count, weight, mean_weight, *checked


def _columns(pass_prob: Any, **columns: Any) -> tuple:
    """Return (1 / pass_prob, *columns), all float [n], checked."""
    if pass_prob is not None:
        columns["pass_prob"] = pass_prob
    arrays = check_columns(1, **columns)
    count = np.ones(len(arrays[0])) if pass_prob is None else 1 / arrays.pop()
    return count, *arrays
