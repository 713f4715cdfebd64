"""Confidence intervals of means of independent observations, such as users or seeds, by Student's t.

Rare values, such as clicks, have no interval until `FEWEST` of them were observed: the spread of a log that lacks them
is too small, and 0 where nothing varies.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from recbandits.checks import require

FEWEST = 20  # rare values that an interval needs; with them it covers the truth in 93 % of samples or more
_ROUNDING = 1e-9  # relative, of values that count as equal


class Interval(NamedTuple):
    """An estimate with its confidence bounds, in the unit of the estimate; NaN where there are too few observations."""

    value: Any
    low: Any
    high: Any


def half_width(variance: Any, n: Any, level: float = 0.95) -> Any:
    """Return half the width of Student's t interval of the mean of n independent observations.

    Args:
      variance: of the observations, with n - 1 in the denominator; a number or an array.
      n: number of observations, alike.
      level: coverage in (0, 1).

    Returns:
      float or array, in the unit of the observations; NaN where n is below 2.
    """
    quantile = special.stdtrit(np.asarray(n) - 1, (1 + level) / 2)
    return quantile * np.sqrt(variance) / np.sqrt(n)


def outside_majority(values: np.ndarray) -> np.ndarray | None:
    """Find the values that differ from the one that more than half have, such as clicks among decisions without one.

    The candidate for that value is the median of about a thousand evenly spaced ones.

    Returns:
      bool, shaped as the flat values; None where no value has the majority.
    """
    spaced = np.sort(values[:: max(1, len(values) // 1000)])
    middle = spaced[len(spaced) // 2] if len(spaced) else 0.0
    differs = np.abs(values - middle) > _ROUNDING * np.abs(middle)
    return differs if 2 * np.count_nonzero(differs) < len(values) else None


def mean_interval(values: Any, level: float = 0.95) -> Interval:
    """Compute the mean of independent observations with Student's t interval.

    Args:
      values: float array [n].
      level: coverage in (0, 1).

    Returns:
      Interval; NaN if a value is. Its bounds are NaN for a single value, and where more than half of the values are
      equal and fewer than `FEWEST` differ from them; all three numbers for none.
    """
    values, n = np.asarray(values, float), len(values)
    if not n:
        return Interval(np.nan, np.nan, np.nan)
    differs = outside_majority(values)
    few = n < 2 or (differs is not None and np.count_nonzero(differs) < FEWEST)
    half = np.nan if few else float(half_width(values.var(ddof=1), n, level))
    mean = float(values.mean())
    return Interval(mean, mean - half, mean + half)


def group_intervals(groups: Any, level: float = 0.95) -> pd.DataFrame:
    """Compute the `mean_interval` of each group of a pandas SeriesGroupBy: DataFrame with columns value, low, high."""
    rows = [mean_interval(values, level) for _, values in groups]
    return pd.DataFrame(rows, groups.size().index, Interval._fields)


def tabulate_means(tables: Mapping[str, pd.DataFrame], level: float = 0.95) -> pd.DataFrame:
    """Tabulate the mean of each column with its interval, one row per policy.

    Args:
      tables: mapping from policy to a DataFrame whose rows are independent observations, such as users. A metric that
        is NaN for a row in all tables is undefined there, and the row does not count; else NaN makes the mean NaN.
      level: coverage in (0, 1).

    Returns:
      DataFrame indexed by policy with columns x, x_low and x_high for each column x of the tables.
    """
    return _tabulate(tables, tables, level)


def tabulate_differences(tables: Mapping[str, pd.DataFrame], baseline: str, level: float = 0.95) -> pd.DataFrame:
    """Tabulate the mean of each column minus that of a baseline, with the interval of the paired differences.

    Paired differences vary less than the values, where the tables have the same users or seeds. Their interval decides
    which policy is better; overlapping intervals of the two values do not.

    Returns:
      DataFrame as of `tabulate_means`, without the row of the baseline.

    Raises:
      ValueError: the baseline is missing, or the index of a table differs from that of the baseline.
    """
    require(baseline in tables, "baseline", f"one of {', '.join(tables)}", baseline)
    for name, table in tables.items():
        if not table.index.equals(tables[baseline].index):
            raise ValueError(f"{name!r} and {baseline!r} must be measured on the same lists to be compared")
    return _tabulate(
        {name: table - tables[baseline] for name, table in tables.items() if name != baseline}, tables, level
    )


def _tabulate(tables: Mapping[str, pd.DataFrame], measured: Mapping[str, pd.DataFrame], level: float) -> pd.DataFrame:
    """Tabulate means of the rows that have a value in some table of `measured`, where all have the same rows."""
    first = next(iter(measured.values()))
    comparable = all(table.index.equals(first.index) for table in measured.values())
    rows: dict[str, dict[str, float]] = {}
    for policy, table in tables.items():
        rows[policy] = {}
        for column in table:
            values = table[column].to_numpy(float)
            if comparable:
                values = values[~np.all([other[column].isna() for other in measured.values()], axis=0)]
            names = (column, f"{column}_low", f"{column}_high")
            rows[policy] |= dict(zip(names, mean_interval(values, level), strict=True))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")
