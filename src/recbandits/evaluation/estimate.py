"""An off-policy estimate, kept record by record: its value, its confidence intervals and its diagnostics."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import special

from recbandits.checks import (
    FEWEST,
    FRACTION,
    POSITIVE,
    one_of,
    outside_majority,
    require,
    require_each,
    require_labels,
)

_CHUNK = 1024  # records that a bootstrap has in memory at a time, each with a count for every resample


@dataclass(frozen=True, eq=False)
class Estimate:
    """An estimate as a sum of ratios of means over the records of a log.

    Every off-policy estimator has this form; its value, its linearised error, its bootstrap and the difference of two
    estimates follow from the terms. An empty log gives NaN for value and bounds, and every comparison is false.

    Attributes:
      parts: tuple of (numerator float [n], denominator float [n]); the value is the sum over parts of sum(numerator) /
        sum(denominator).
      weights: tuple of float [n], weights of the records; a difference of estimates has those of both.
      mean_weight: mean of target / propensity. It is 1, but for sampling noise, if the propensities are right and every
        action of the target policy could be logged; else it is smaller by the probability of the actions that could
        not. NaN where nothing is weighted.
      reward: float [n] or [n, slots] of the records; None for an estimate that no logged reward enters.
      slopes: tuple of (weights as `reward`, denominators); n times the derivative of the value with respect to a reward
        is the sum of weights / mean(denominators).
    """

    parts: tuple[tuple[np.ndarray, np.ndarray], ...]
    weights: tuple[np.ndarray, ...]
    mean_weight: float = np.nan
    reward: np.ndarray | None = None
    slopes: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    @property
    def n(self) -> int:
        """Number of records."""
        return len(self.parts[0][0])

    @property
    def smallest_count(self) -> int:
        """Number of records with a weight in the mean that has the fewest; it differs from n where self-normalised."""
        return min(int(np.count_nonzero(denominator)) for _, denominator in self.parts)

    @cached_property
    def value(self) -> float:
        """The estimate, in units of the reward; NaN where the log gives none."""
        return sum(_ratio(*part) for part in self.parts)

    @cached_property
    def influence(self) -> np.ndarray:
        """Contribution of each record to n times the error, to first order (delta method): float [n] of mean 0."""
        return sum((top - _ratio(top, bottom) * bottom) / bottom.mean() for top, bottom in self.parts)

    @property
    def effective_sample_size(self) -> float:
        """Records of equal weight with the same precision: sum(w)^2 / sum(w^2) (Kish 1965), the least of `weights`."""
        return float(np.fmin.reduce([_ratio(w * w.sum(), w * w) for w in self.weights]))

    @property
    def rewarded_decisions(self) -> float:
        """Rewarded decisions of equal weight: their share of the weight times the effective sample size.

        Rewarded are those whose reward differs from the one that more than half of the decisions have; without such a
        majority, all are. Of a difference, the weight is the difference of the weights. NaN where nothing is weighted.
        """
        return self._rewarded[0]

    @property
    def largest_weight(self) -> float:
        """Largest weight of a record; 1 / pass_prob where both policies agree. NaN for an empty log."""
        return max(float(w.max(initial=0.0)) for w in self.weights) if self.n else np.nan

    def interval(
        self, method: str = "normal", level: float = 0.95, groups: Any = None, **options: Any
    ) -> tuple[float, float]:
        """Compute a two-sided confidence interval (low, high) of the value at a level in (0, 1), in reward units.

        The method is "normal", "bootstrap" or "bernstein": see `normal_interval` and so on, also for its options.
        Labels `groups` [n] are of records that are not independent, such as their users: the interval is that of the
        sums of groups (cluster-robust: Liang and Zeger 1986). NaN where nothing varies, or all rests on a single record
        or group; and where a reward has the majority, as 0 among clicks, below 20 `rewarded_decisions` or rewarded
        groups: a log that lacks the rare rewards has a small spread too. "bernstein" with a declared `span` has bounds
        even then. ValueError for another method, a level outside (0, 1), a span that is not positive, or labels that
        are missing or of another number.
        """
        methods = {"normal": normal_interval, "bootstrap": bootstrap_interval, "bernstein": bernstein_interval}
        require_each(one_of(methods), method=method)
        require_each(FRACTION, level=level)
        if options.get("span") is not None:
            require_each(POSITIVE, span=options["span"])
        estimate, (rewarded, rare) = self, self._rewarded
        if groups is not None:
            group = np.unique(require_labels(groups, "groups", self.n), return_inverse=True)[1]
            sums = tuple((np.bincount(group, top), np.bincount(group, bottom)) for top, bottom in self.parts)
            estimate, (rewarded, rare) = Estimate(sums, ()), self._count_rewarded(group)
            if options.get("span") is not None and len(group):
                options["span"] *= max(_largest_share(bottom) for _, bottom in sums)
        few = rare and options.get("span") is None and not rewarded >= FEWEST * (1 - 1e-9)
        if few or estimate.smallest_count < 2:
            return np.nan, np.nan
        low, high = methods[method](estimate, level, **options)
        if high - low > 1e-9 * max(abs(low), abs(high)) or (self.slopes and not self._leverage.any()):
            return low, high  # of width 0 for policies that agree in every record
        return np.nan, np.nan

    @property
    def _leverage(self) -> np.ndarray:
        """Derivatives of the value with respect to the rewards, up to a factor."""
        if len(self.slopes) == 1 and self.slopes[0][0].ndim == 1:
            return self.slopes[0][0]
        with np.errstate(divide="ignore", invalid="ignore"):
            return sum(weights / denominators.mean(axis=0) for weights, denominators in self.slopes)

    @cached_property
    def _rewarded(self) -> tuple[float, bool]:
        return self._count_rewarded(None)

    def _count_rewarded(self, group: np.ndarray | None) -> tuple[float, bool]:
        """Return the number of rewarded decisions or groups of equal weight, and whether a reward has the majority."""
        if self.reward is None or not self.n:
            return np.nan, False
        weight = np.abs(self._leverage)
        used = weight > 0
        differs = outside_majority(self.reward.ravel() if used.all() else self.reward[used])
        rewarded = used.copy()
        rewarded[used] = True if differs is None else differs
        if weight.ndim == 2:
            weight, rewarded = weight.sum(axis=1), rewarded.any(axis=1)
        if group is not None:
            weight, rewarded = np.bincount(group, weight), np.bincount(group, rewarded) > 0
        squares, total = weight @ weight, weight.sum()
        share = total if differs is None else weight[rewarded].sum()
        return float(total * share / squares) if squares else np.nan, differs is not None


def difference(first: Estimate, second: Estimate) -> Estimate:
    """Estimate the value of the first minus that of the second target policy, from the same records in the same order.

    Sampling noise of the records largely cancels. The interval of this paired difference decides which policy is
    better; overlapping intervals of the two values do not. Its diagnostics are the worse of the two: the smaller
    effective sample size, the larger largest weight, the mean weight further from 1. ValueError if the numbers of
    records differ.
    """
    require(first.n == second.n, "numbers of records", "the same in a difference", (first.n, second.n))
    parts = first.parts + tuple((-numerator, denominator) for numerator, denominator in second.parts)
    means = [mean for mean in (first.mean_weight, second.mean_weight) if not np.isnan(mean)]
    mean_weight = max(means, key=lambda mean: abs(mean - 1), default=np.nan)
    rewards = [each.reward for each in (first, second) if each.reward is not None]
    reward = max(rewards, key=np.size, default=None)  # of slots rather than of slates: a slate's weight is of each slot
    slopes = first.slopes + tuple((-weights, denominators) for weights, denominators in second.slopes)
    return Estimate(parts, first.weights + second.weights, mean_weight, reward, slopes)


def normal_interval(estimate: Estimate, level: float) -> tuple[float, float]:
    """Compute the interval of the linearised error: at least Student's t, wider on the side of a long tail.

    Rewards times weights are skewed to the right, and a symmetric interval then ends too low: a log that lacks the rare
    large terms has a low mean and a small spread at once. Hall's transformation takes the skewness out of Student's t,
    x = t + g t^2 / 3 + g^2 t^3 / 27 + g / 6 with g = skewness / sqrt(n) (Hall 1992, "On the removal of skewness by
    transformation"), and is inverted in closed form. The result is the union of its interval with Student's. Where a
    mean is over a part of the records only, their number gives the degrees of freedom.
    """
    n, count, influence = estimate.n, estimate.smallest_count, estimate.influence
    squares = influence * influence
    spread = np.sqrt(squares.mean() * count / (count - 1))
    if spread == 0:
        return estimate.value, estimate.value
    t = special.stdtrit(count - 1, (1 + level) / 2)
    g = (squares @ influence) / n / spread**3 / np.sqrt(n)
    low, high = (t, -t) if abs(g) < 1e-6 else 3 / g * (np.cbrt(1 + g * (np.array([t, -t]) - g / 6)) - 1)
    error = spread / np.sqrt(n)
    return float(estimate.value - error * max(t, low)), float(estimate.value - error * min(-t, high))


def bootstrap_interval(estimate: Estimate, level: float, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Compute the percentile bootstrap (Efron 1979) over records, with Poisson(1) instead of multinomial counts.

    Poisson counts (Chamandy et al. 2012, "Estimating uncertainty for massive data streams") let the log be read in
    chunks; in a ratio, their random total cancels. The bounds are quantiles of the values of `resamples` resampled
    logs. A thousand of a million records take minutes, where the other intervals take a fraction of a second.
    """
    generator = np.random.default_rng(seed)
    columns = np.stack([column for part in estimate.parts for column in part], axis=1)
    sums = np.zeros((resamples, columns.shape[1]))
    for start in range(0, estimate.n, _CHUNK):
        chunk = columns[start : start + _CHUNK]
        sums += generator.poisson(1.0, (resamples, len(chunk))) @ chunk
    numerators, denominators = sums[:, ::2], sums[:, 1::2]
    values = (numerators / np.where(denominators == 0, np.nan, denominators)).sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def bernstein_interval(estimate: Estimate, level: float, span: float | None = None) -> tuple[float, float]:
    """Compute the empirical Bernstein bound (Maurer and Pontil 2009, theorem 4), on each side at half the error.

    value -+ (sqrt(2 V log(4 / a) / n) + 7 span log(4 / a) / (3 (n - 1))), V the sample variance, a = 1 - level.
    It holds for every n if the estimate is a plain mean (IPS, clipped IPS, DM, DR, Switch-DR and DRos without
    `pass_prob`, with a `q` from other data) and `span`, the largest minus the smallest possible value of a record's
    term, was known before the log: for IPS with rewards from 0 to 1, the largest possible weight. It is approximate for
    ratios (self-normalised, replay, `pass_prob`, groups of different sizes) and for a `q` that was cross-fitted on the
    same log. Of independent `groups`, n is the number, and the span is that of a record times the size of the largest
    group over the mean size. The default span is the range in this log, too small when rare terms are missing from it.
    """
    n, influence = estimate.n, estimate.influence
    span = np.ptp(influence) if span is None else span
    log = np.log(4 / (1 - level))
    half = np.sqrt(2 * influence.var(ddof=1) * log / n) + 7 * span * log / (3 * (n - 1))
    return float(estimate.value - half), float(estimate.value + half)


def _largest_share(values: np.ndarray) -> float:
    """Return max(values) / mean(values), NaN for a mean of 0."""
    return _ratio(len(values) * values.max(), values)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """Return sum(numerator) / sum(denominator), NaN for a denominator of 0."""
    total = denominator.sum()
    return float(numerator.sum() / total) if total else np.nan
