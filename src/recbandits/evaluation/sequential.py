"""Intervals that may be looked at again and again: confidence sequences for a mean and for a difference of two.

A 95 % interval is right 95 times in 100 if one looks once. Who looks after every hundred decisions, and stops when zero
is outside, is wrong far more often. A confidence sequence is right at all looks at once: with probability 1 - alpha the
truth is never outside, so one may stop whenever one likes (Robbins 1970). Here they are asymptotic (Waudby-Smith,
Arbour, Sinha, Kennedy and Ramdas 2021, "Time-uniform central limit theory and asymptotic confidence sequences", theorem
2.2): a standard error, widened by a factor that knows how much has been seen, in place of 1.96.
"""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """An estimate with its bounds; all NaN where there is too little to say anything.

    Attributes:
      value: the estimate.
      low: lower bound.
      high: upper bound.
    """

    value: float
    low: float
    high: float


def widening(n, alpha=0.05, tightest=1000):
    """By how many standard errors the confidence sequence reaches to either side, in place of 1.96.

    sqrt(2 (n rho^2 + 1) / (n rho^2) log(sqrt(n rho^2 + 1) / alpha)), the boundary of a normal mixture; rho is chosen so
    that it is tightest after `tightest` observations (section B.2 of the paper, with its closed approximation).

    Args:
      n: observations so far, at least 1, a number or an array.
      alpha: probability, in (0, 1), with which the truth is ever outside.
      tightest: positive.

    Returns:
      float, or array as `n`.

    Raises:
      ValueError: alpha or tightest that cannot be.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    if not tightest > 0:
        raise ValueError(f"tightest must be positive, got {tightest}")
    log = -2 * np.log(alpha)
    known = np.asarray(n) * (log + np.log(log + 1)) / tightest  # n rho^2
    return np.sqrt(2 * (known + 1) / known * np.log(np.sqrt(known + 1) / alpha))


def running(values, alpha=0.05, tightest=1000):
    """The confidence sequence of a mean, after every observation.

    Args:
      values: float [n], in the order in which they came.
      alpha: as for `widening`.
      tightest: likewise.

    Returns:
      Interval of float arrays [n]; NaN after the first observation, which has no spread.
    """
    values = np.asarray(values, float)
    n = np.arange(1, len(values) + 1)
    mean = values.cumsum() / n
    squares = ((values - values[:1]) ** 2).cumsum() / n - (mean - values[:1]) ** 2  # about the first: little cancels
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(np.maximum(squares, 0) / np.where(n > 1, n - 1, np.nan))
    half = error * widening(n, alpha, tightest)
    return Interval(np.where(n > 1, mean, np.nan), mean - half, mean + half)


def difference(first, second, alpha=0.05, tightest=1000, groups=None):
    """By how much the mean of one stream is above that of another, after all that both have had so far.

    The streams are the two sides of a randomised experiment. Observations of one group, such as the decisions for one
    user, resemble each other: what counts is the spread of the groups' sums (the cluster-robust variance of Liang and
    Zeger 1986), without which users who come often make a split by users look surer than it is.

    Args:
      first: float [n], in units of the reward.
      second: float [m].
      alpha: as for `widening`.
      tightest: observations of both together, as for `widening`.
      groups: (labels [n], labels [m]) of the observations; None where each is independent of all others.

    Returns:
      Interval of mean(first) - mean(second); NaN where either side has fewer than two groups.

    Raises:
      ValueError: labels that are not as many as the observations, and as `widening`.
    """
    sides = [np.asarray(side, float) for side in (first, second)]
    labels = [np.arange(len(side)) for side in sides] if groups is None else groups
    for side, label in zip(sides, labels, strict=True):
        if len(side) != len(label):
            raise ValueError(f"groups must label every observation, {len(side)}, got {len(label)} labels")
    variances = [_variance_of_mean(side, label) for side, label in zip(sides, labels, strict=True)]
    if not np.isfinite(variances).all():
        return Interval(np.nan, np.nan, np.nan)
    value = float(sides[0].mean() - sides[1].mean())
    half = float(np.sqrt(sum(variances)) * widening(sum(map(len, sides)), alpha, tightest))
    return Interval(value, value - half, value + half)


def _variance_of_mean(values, labels):
    """Variance of a mean whose observations belong to groups; NaN with fewer than two of them."""
    groups, group = np.unique(np.asarray(labels), return_inverse=True)
    if len(groups) < 2:
        return np.nan
    sums = np.bincount(group, values - values.mean())
    return len(groups) / (len(groups) - 1) * (sums @ sums) / len(values) ** 2
