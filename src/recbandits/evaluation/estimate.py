"""An estimate of a mean over logged records: its value, intervals for it, and how far the log can be trusted."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats

_CHUNK = 1024  # records that a bootstrap looks at together: resamples x 1024 counts are in memory at a time


@dataclass(frozen=True, eq=False)
class Estimate:
    """Sum of ratios of means over the records of a log, kept record by record.

    Every off-policy estimator has this form; its value, its linearised error, its bootstrap and the difference of two
    all follow from the terms. An empty log gives no estimate: value and bounds are NaN, and every comparison is false.

    Attributes:
      parts: tuple of (numerator float [n], denominator float [n]); the value is the sum over parts of
        sum(numerator) / sum(denominator).
      weights: tuple of float [n], how much each record counts in an estimate that it was made of.
      unsupported_mass: share of the evaluated policy's decisions that the log could not have contained, estimated as
        1 - mean(target / propensity). It differs from 0 by chance; far from 0 in either direction, the propensities are
        wrong or arms were never tried. NaN where nothing is weighted.
    """

    parts: tuple
    weights: tuple
    unsupported_mass: float = np.nan

    @property
    def n(self):
        """Number of records."""
        return len(self.parts[0][0])

    @property
    def counted(self):
        """Number of records that the mean of the fewest is over: of a self-normalised one, those with a weight."""
        return min(np.count_nonzero(bottom) for _, bottom in self.parts)

    @cached_property
    def value(self):
        """The estimate, in units of the reward; NaN where the log gives none."""
        return sum(_ratio(*part) for part in self.parts)

    @cached_property
    def influence(self):
        """What each record adds to n times the error, to first order (the delta method): float [n] of mean 0."""
        return sum((top - _ratio(top, bottom) * bottom) / bottom.mean() for top, bottom in self.parts)

    @property
    def effective_sample_size(self):
        """Records of equal weight that would be as precise: sum(w)^2 / sum(w^2) (Kish 1965), the least of `weights`."""
        return float(np.fmin.reduce([_ratio(w * w.sum(), w * w) for w in self.weights]))

    @property
    def largest_weight(self):
        """What the heaviest record counts; one that both policies choose alike counts 1 / pass_prob. NaN if empty."""
        return max(float(w.max(initial=0.0)) for w in self.weights) if self.n else np.nan

    def interval(self, method="normal", level=0.95, **options):
        """Two-sided confidence interval of the value.

        Args:
          method: "normal" (see `normal_interval`), "bootstrap" (`bootstrap_interval`) or "bernstein"
            (`bernstein_interval`).
          level: coverage in (0, 1).
          **options: of the method: resamples and seed, or span.

        Returns:
          (low, high), in units of the reward; NaN where there is no estimate, or where it rests on a single record.

        Raises:
          ValueError: an unknown method, or a level outside (0, 1).
        """
        methods = {"normal": normal_interval, "bootstrap": bootstrap_interval, "bernstein": bernstein_interval}
        if method not in methods:
            raise ValueError(f"method must be one of {', '.join(methods)}, got {method!r}")
        if not 0.0 < level < 1.0:
            raise ValueError(f"level must be in (0, 1), got {level}")
        if self.counted < 2:
            return np.nan, np.nan
        return methods[method](self, level, **options)


def difference(first, second):
    """Estimate of how much better the first policy is than the second, on the same log.

    Both are judged by the same records, whose uniforms largely cancels: the interval of the difference is what decides
    which is better, and overlapping intervals of the two do not.

    Args:
      first: Estimate.
      second: Estimate from the same records in the same order.

    Returns:
      Estimate of first minus second, with the worse diagnostics of the two: the smaller effective sample size, the
      larger largest weight, the unsupported mass that is further from 0.

    Raises:
      ValueError: the two are not from the same number of records.
    """
    if first.n != second.n:
        raise ValueError(f"a difference needs the same log twice, got logs of {first.n} and {second.n} records")
    parts = first.parts + tuple((-top, bottom) for top, bottom in second.parts)
    known = [mass for mass in (first.unsupported_mass, second.unsupported_mass) if not np.isnan(mass)]
    return Estimate(parts, first.weights + second.weights, max(known, key=abs, default=np.nan))


def tabulate(estimates, method="normal", level=0.95):
    """Tabulate estimates with their intervals and diagnostics.

    Args:
      estimates: mapping from name to Estimate.
      method: of the intervals: "normal", "bootstrap" or "bernstein".
      level: coverage of the intervals in (0, 1).

    Returns:
      DataFrame indexed by estimator with columns value, low, high, effective_sample_size, largest_weight and
      unsupported_mass.

    Raises:
      ValueError: as `Estimate.interval`.
    """
    rows = {}
    for name, estimate in estimates.items():
        low, high = estimate.interval(method, level)
        rows[name] = {
            "value": estimate.value,
            "low": low,
            "high": high,
            "effective_sample_size": estimate.effective_sample_size,
            "largest_weight": estimate.largest_weight,
            "unsupported_mass": estimate.unsupported_mass,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("estimator")


def normal_interval(estimate, level):
    """Interval from the linearised error, never narrower than Student's t and widened on the side of a long tail.

    Rewards times weights are skewed to the right, and a symmetric interval then ends too low: a log that lacks the rare
    large terms has a low mean and a small spread at once. Hall's transformation takes the skewness out of Student's t,
    x = t + g t^2 / 3 + g^2 t^3 / 27 + g / 6 with g = skewness / sqrt(n) (Hall 1992, "On the removal of skewness by
    transformation"), and is inverted in closed form. The result is the union of its interval with Student's. Where a
    mean is over a few of the records only, their number and not that of the log gives the degrees of freedom.

    Args:
      estimate: Estimate that rests on at least two records.
      level: coverage in (0, 1).

    Returns:
      (low, high).
    """
    n, counted, influence = estimate.n, estimate.counted, estimate.influence
    spread = influence.std() * np.sqrt(counted / (counted - 1))
    if spread == 0:
        return estimate.value, estimate.value
    scaled = influence / spread
    t = stats.t.ppf((1 + level) / 2, counted - 1)
    g = np.mean(scaled * scaled * scaled) / np.sqrt(n)
    low, high = (t, -t) if abs(g) < 1e-6 else 3 / g * (np.cbrt(1 + g * (np.array([t, -t]) - g / 6)) - 1)
    error = spread / np.sqrt(n)
    return float(estimate.value - error * max(t, low)), float(estimate.value - error * min(-t, high))


def bootstrap_interval(estimate, level, resamples=1000, seed=0):
    """Percentile bootstrap (Efron 1979) over records, with independent Poisson(1) counts in place of multinomial ones.

    Poisson counts (Chamandy et al. 2012, "Estimating uncertainty for massive data streams") let the log be read in
    pieces, so that memory stays at `resamples` x 1024 counts; in a ratio, their random total cancels. A thousand
    resamples of a million records are a billion counts: minutes, where the other intervals take a fraction of a second.

    Args:
      estimate: Estimate.
      level: coverage in (0, 1).
      resamples: number of resampled logs.
      seed: of the generator.

    Returns:
      (low, high): quantiles of the resampled values.
    """
    generator = np.random.default_rng(seed)
    columns = np.stack([column for part in estimate.parts for column in part], axis=1)
    sums = np.zeros((resamples, columns.shape[1]))
    for start in range(0, estimate.n, _CHUNK):
        piece = columns[start : start + _CHUNK]
        sums += generator.poisson(1.0, (resamples, len(piece))) @ piece
    tops, bottoms = sums[:, ::2], sums[:, 1::2]
    values = (tops / np.where(bottoms == 0, np.nan, bottoms)).sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def bernstein_interval(estimate, level, span=None):
    """Empirical Bernstein bound (Maurer and Pontil 2009, theorem 4), on both sides at half the error each.

    value -+ (sqrt(2 V log(4 / a) / n) + 7 span log(4 / a) / (3 (n - 1))), V the sample variance, a = 1 - level.
    It holds for every n, not only in the limit, if the estimate is a plain mean (IPS, clipped IPS, DM, DR, Switch-DR
    and DRos without `pass_prob`, with a `q` from elsewhere) and `span` was known before the log was seen: for IPS with
    rewards from 0 to 1, the largest possible weight. For ratios (self-normalised, replay, `pass_prob`), and for a `q`
    that was cross-fitted on the same log, it is approximate.

    Args:
      estimate: Estimate of at least two records.
      level: coverage in (0, 1).
      span: largest minus smallest value that a record's term can have, in units of the reward. The default is the range
        seen in this log, which is too small when rare terms are missing from it: wide, but no guarantee.

    Returns:
      (low, high).
    """
    n, influence = estimate.n, estimate.influence
    span = np.ptp(influence) if span is None else span
    log = np.log(4 / (1 - level))
    half = np.sqrt(2 * influence.var(ddof=1) * log / n) + 7 * span * log / (3 * (n - 1))
    return float(estimate.value - half), float(estimate.value + half)


def _ratio(numerator, denominator):
    """sum(numerator) / sum(denominator), NaN where there is nothing to divide by."""
    total = denominator.sum()
    return float(numerator.sum() / total) if total else np.nan
