"""What a policy would have earned, from decisions that another policy made and logged with their propensities.

Estimators are functions of arrays with one element per record: `reward`; `propensity`, the probability with which the
logged action was taken; `target`, the probability with which the evaluated policy would have taken it; and, of a reward
model, `q_action`, its prediction for the logged action, and `q_target`, its expectation under the evaluated policy. The
weight of a record is w = target / propensity. A record that survived subsampling with probability `pass_prob` (1 unless
given) counts 1 / pass_prob in every mean. All return an `Estimate`.

All refuse, with a ValueError that names the record: a propensity or pass_prob that is missing, NaN or outside (0, 1]; a
target outside [0, 1]; a number that is not finite; and a log none of whose actions the evaluated policy ever takes.
"""

import numpy as np

from recbandits.evaluation.estimate import Estimate

ROUNDING = 1e-5  # of probabilities that were computed in float32


def direct(q_target, *, pass_prob=None):
    """Direct method (DM): mean(q_target), the reward model's word for it.

    As right as the model is, and its interval knows nothing of the model's error. Needs no propensity.
    """
    share, q_target = _columns(pass_prob, q_target=q_target)
    return _mean(share, q_target, np.ones(len(share)), np.nan)


def ips(reward, propensity, target, *, pass_prob=None):
    """Inverse propensity scoring (IPS): mean(w reward). Horvitz and Thompson 1952.

    Unbiased if every arm that the target may take could be logged; its error grows with the weights.
    """
    return clipped_ips(reward, propensity, target, np.inf, pass_prob=pass_prob)


def clipped_ips(reward, propensity, target, clip, *, pass_prob=None):
    """Clipped IPS: mean(min(w, clip) reward), `clip` positive. Ionides 2008, "Truncated importance sampling".

    Less variance for a bias towards 0; clip = infinity is IPS.
    """
    share, weight, missing, reward = _weights(propensity, target, pass_prob, reward=reward)
    used = np.minimum(weight, _positive("clip", clip))
    return _mean(share, used * reward, used, missing)


def snips(reward, propensity, target, *, pass_prob=None):
    """Self-normalised IPS (SNIPS): sum(w reward) / sum(w). Swaminathan and Joachims 2015.

    Stays between the smallest and the largest reward and moves with a constant added to all; its bias is O(1 / n).
    """
    share, weight, missing, reward = _weights(propensity, target, pass_prob, reward=reward)
    used = share * weight
    return Estimate(((used * reward, used),), (used,), missing)


def replay(reward, propensity, target, *, generator, bound=None, pass_prob=None):
    """Replay by rejection sampling: mean reward of the records that are kept, each with probability w / bound.

    What is kept is distributed as if the target had acted. With a uniform log of equally many arms and a deterministic
    target, exactly the records in which both agree are kept: the replay of Li, Chu, Langford and Wang 2011.

    Args:
      reward: float [n].
      propensity: float [n] in (0, 1].
      target: float [n] in [0, 1].
      generator: numpy.random.Generator, decides what is kept.
      bound: at least the largest weight, which is the default.
      pass_prob: float [n] in (0, 1], or None.

    Returns:
      Estimate; its value is NaN if nothing was kept.
    """
    share, weight, missing, reward = _weights(propensity, target, pass_prob, reward=reward)
    largest = weight.max(initial=0.0)
    bound = largest if bound is None else bound
    if not bound >= largest:
        raise ValueError(f"bound must be at least the largest weight, {largest:g}, got {bound:g}")
    kept = share * (generator.random(len(weight)) * bound < weight)
    return Estimate(((kept * reward, kept),), (kept,), missing)


def dr(reward, propensity, target, q_action, q_target, *, pass_prob=None):
    """Doubly robust (DR): mean(q_target + w (reward - q_action)). Dudik, Langford and Li 2011.

    Unbiased if the propensities or the model are right; the better the model, the smaller the error; q = 0 is IPS.
    """
    return switch_dr(reward, propensity, target, q_action, q_target, np.inf, pass_prob=pass_prob)


def sndr(reward, propensity, target, q_action, q_target, *, pass_prob=None):
    """Self-normalised DR: mean(q_target) + sum(w (reward - q_action)) / sum(w). Thomas and Brunskill 2016.

    Moves with a constant added to all rewards, whatever the model; its bias is O(1 / n).
    """
    model = {"q_action": q_action, "q_target": q_target}
    share, weight, missing, reward, q_action, q_target = _weights(propensity, target, pass_prob, reward=reward, **model)
    used = share * weight
    return Estimate(((share * q_target, share), (used * (reward - q_action), used)), (used,), missing)


def switch_dr(reward, propensity, target, q_action, q_target, threshold, *, pass_prob=None):
    """Switch-DR: mean(q_target + w 1[w <= threshold] (reward - q_action)). Wang, Agarwal and Dudik 2017.

    Believes the model where the weight is above the positive `threshold`: towards 0 it is DM, at infinity DR.
    """
    threshold = _positive("threshold", threshold)
    model = {"q_action": q_action, "q_target": q_target}
    return _corrected(reward, propensity, target, model, pass_prob, lambda w: w * (w <= threshold))


def dr_os(reward, propensity, target, q_action, q_target, shrinkage, *, pass_prob=None):
    """DR with optimistic shrinkage (DRos): w becomes w / (1 + w^2 / shrinkage). Su et al. 2020, section 3.

    No record counts more than sqrt(shrinkage) / 2. Towards a `shrinkage` of 0 it is DM, at infinity DR.
    """
    shrinkage = _positive("shrinkage", shrinkage)
    model = {"q_action": q_action, "q_target": q_target}
    return _corrected(reward, propensity, target, model, pass_prob, lambda w: w / (1 + w * w / shrinkage))


def _corrected(reward, propensity, target, model, pass_prob, change):
    """DR with changed weights."""
    share, weight, missing, reward, q_action, q_target = _weights(propensity, target, pass_prob, reward=reward, **model)
    used = change(weight)
    return _mean(share, q_target + used * (reward - q_action), used, missing)


def _mean(share, terms, used, missing):
    return Estimate(((share * terms, share),), (share * used,), missing)


def _weights(propensity, target, pass_prob, **numbers):
    """Check the columns; (1 / pass_prob, weight, unsupported mass, *numbers)."""
    share, propensity, target, *numbers = _columns(pass_prob, propensity=propensity, target=target, **numbers)
    if len(target) and not target.any():
        raise ValueError(
            f"target is 0 in all {len(target)} records: the evaluated policy takes no action of this log, "
            "which therefore says nothing about it"
        )
    weight = target / propensity
    missing = float(1 - (share @ weight) / share.sum()) if len(share) else np.nan
    return share, weight, missing, *numbers


def _columns(pass_prob, **columns):
    """(1 / pass_prob, *columns), all float [n], or a sentence about the first that is not as it should be."""
    if pass_prob is not None:
        columns["pass_prob"] = pass_prob
    arrays = {name: _column(name, values) for name, values in columns.items()}
    lengths = {name: len(column) for name, column in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"all columns must have the same number of records, got {lengths}")
    passed = arrays.pop("pass_prob", None)
    share = np.ones(next(iter(lengths.values()))) if passed is None else 1 / passed
    return share, *arrays.values()


def _column(name, values):
    if values is None:
        raise ValueError(f"{name} is missing: there is no estimate without it")
    column = np.asarray(values, float)
    if column.ndim != 1:
        raise ValueError(f"{name} must have one number per record, got shape {column.shape}")
    return check_numbers(name, column)


def check_numbers(name, values):
    """Refuse what an estimator cannot use.

    Args:
      name: "propensity" or "pass_prob" must be in (0, 1], "target" in [0, 1] up to rounding, all others finite.
      values: float [n, ...].

    Returns:
      values.

    Raises:
      ValueError: names the first record that breaks the rule.
    """
    good, expected = np.isfinite(values), "finite"
    if name in ("propensity", "pass_prob"):
        good, expected = (values > 0) & (values <= 1), "in (0, 1]"
    elif name == "target":
        good, expected = (values >= 0) & (values <= 1 + ROUNDING), "in [0, 1]"
    if not good.all():
        row = np.argwhere(~good)[0, 0]
        raise ValueError(f"{name} must be {expected}, record {row} has {values[row]}")
    return values


def _positive(name, value):
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")
    return value
