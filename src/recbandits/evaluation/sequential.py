"""Confidence sequences of a difference of means: intervals that hold at all looks together.

A 95 % interval covers the truth with probability 0.95 at one look. Looking after every hundred decisions, and stopping
when 0 is outside, has a far larger error. A confidence sequence covers the truth at all times with probability
1 - alpha, hence allows to stop at any time (Robbins 1970). These are asymptotic (Waudby-Smith, Arbour, Sinha, Kennedy
and Ramdas 2021, "Time-uniform central limit theory and asymptotic confidence sequences", theorem 2.2): a standard error
times `critical_value`, in place of the quantile of an interval at a fixed time.
"""

from typing import Any

import numpy as np

from recbandits.checks import FEWEST, FRACTION, POSITIVE, outside_majority, require_each, require_labels
from recbandits.evaluation.intervals import Interval

FEWEST_GROUPS = 5  # effective ones, that the variance of their sums needs


def critical_value(n: Any, alpha: float = 0.05, optimal_n: float = 1000) -> Any:
    """Compute the half width of the confidence sequence of n observations, a number or an array, in standard errors.

    sqrt(2 (n rho^2 + 1) / (n rho^2) log(sqrt(n rho^2 + 1) / alpha)), the boundary of a normal mixture; rho is chosen so
    that the sequence is tightest after `optimal_n` observations (section B.2 of the paper, closed approximation).
    `alpha` is the probability that the truth is outside at any time. ValueError for alpha outside (0, 1), or optimal_n
    not positive.
    """
    require_each(FRACTION, alpha=alpha)
    require_each(POSITIVE, optimal_n=optimal_n)
    log = -2 * np.log(alpha)
    scaled = np.asarray(n) * (log + np.log(log + 1)) / optimal_n  # n rho^2
    return np.sqrt(2 * (scaled + 1) / scaled * np.log(np.sqrt(scaled + 1) / alpha))


def effective_groups(labels: Any) -> float:
    """Return how many groups of equal size have as much evidence as those with these labels [n] (Kish 1965)."""
    sizes = np.unique(np.asarray(labels), return_counts=True)[1]
    return float(sizes.sum() ** 2 / max(1, sizes @ sizes))


def difference(
    first: Any, second: Any, alpha: float = 0.05, optimal_n: float = 1000, groups: Any = None, covariates: Any = None
) -> Interval:
    """Compute the difference of the means of two streams, with its confidence sequence at this time.

    The streams, float [n] and [m] in units of the reward, are the two sides of a randomised experiment. Observations of
    one group, such as the decisions for one user, are correlated: the variance is that of the sums of groups
    (cluster-robust: Liang and Zeger 1986), whose labels are `groups`, ([n], [m]); None where all are independent. Where
    one side has fewer than `FEWEST` groups with a rare observation, both have the variance of an observation of either.
    Else covariates (float [n, j], float [m, j]), which do not depend on the side of an observation, such as the
    predicted value of its context, reduce the variance: the difference is that of the residuals of a regression on them
    (control variates: Deng, Xu, Kohavi and Walker 2013, "Improving the sensitivity of online controlled experiments by
    utilizing pre-experiment data"). `alpha` and `optimal_n`, of both streams together, are those of `critical_value`.

    Returns the interval of mean(first) - mean(second); NaN where a side has fewer than `FEWEST_GROUPS` effective
    groups, or both together fewer than `FEWEST` with a rare observation. ValueError if the numbers of labels and
    observations differ, or a label is missing; and as `critical_value`.
    """
    sides = [np.asarray(side, float) for side in (first, second)]
    labels = [np.arange(len(side)) for side in sides] if groups is None else groups
    for side, label in zip(sides, labels, strict=True):
        require_labels(label, "groups", len(side))
    # numbers, which sort faster than texts
    labels = [np.unique(np.asarray(label), return_inverse=True)[1] for label in labels]
    if min(map(effective_groups, labels)) < FEWEST_GROUPS:
        return Interval(np.nan, np.nan, np.nan)
    spreads = [_spread(side, label) for side, label in zip(sides, labels, strict=True)]
    if np.isnan(spreads).any():
        spreads = [_spread(np.concatenate(sides), np.concatenate([labels[0], -1 - labels[1]]))] * 2
    elif covariates is not None:
        sides = _residuals(sides, covariates)
        spreads = [_spread(side, label) for side, label in zip(sides, labels, strict=True)]
    error = np.sqrt(sum(spread / len(side) for spread, side in zip(spreads, sides, strict=True)))
    value = float(sides[0].mean() - sides[1].mean())
    half = float(error * critical_value(len(sides[0]) + len(sides[1]), alpha, optimal_n))
    return Interval(value, value - half, value + half)


def _residuals(sides: list[np.ndarray], covariates: tuple[Any, Any]) -> list[np.ndarray]:
    """Return what a regression on covariates, with a constant for each side, leaves of the observations of both."""
    within = np.concatenate([np.subtract(side, np.mean(side, axis=0)) for side in covariates])
    slopes = np.linalg.lstsq(within, np.concatenate([side - side.mean() for side in sides]), rcond=None)[0]
    center = np.concatenate(covariates).mean(axis=0)
    return [side - (columns - center) @ slopes for side, columns in zip(sides, covariates, strict=True)]


def _spread(values: np.ndarray, labels: Any) -> float:
    """Return n times the variance of a mean of n grouped observations; NaN if nothing, or too little, varies."""
    groups, group = np.unique(np.asarray(labels), return_inverse=True)
    differs = outside_majority(values)
    if differs is not None and len(np.unique(group[differs])) < FEWEST:
        return np.nan
    sums = np.bincount(group, values - values.mean())
    return float(len(groups) / (len(groups) - 1) * (sums @ sums) / len(values)) or np.nan
