"""Confidence intervals of means of independent observations, such as users or seeds, by Student's t."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from recbandits.checks import require


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


def mean_interval(values: Any, level: float = 0.95) -> Interval:
    """Compute the mean of independent observations with Student's t interval.

    Args:
      values: float array [n].
      level: coverage in (0, 1).

    Returns:
      Interval; its bounds are NaN for a single value, and all three numbers for none.
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return Interval(float(values[0]) if len(values) else np.nan, np.nan, np.nan)
    mean, half = float(values.mean()), float(half_width(values.var(ddof=1), len(values), level))
    return Interval(mean, mean - half, mean + half)


def group_intervals(groups: Any, level: float = 0.95) -> pd.DataFrame:
    """Compute the `mean_interval` of each group of a pandas SeriesGroupBy: DataFrame with columns value, low, high."""
    table = groups.agg(value="mean", variance="var", n="count")
    half = half_width(table["variance"], table["n"], level)
    return pd.DataFrame({"value": table["value"], "low": table["value"] - half, "high": table["value"] + half})


def tabulate_means(tables: Mapping[str, pd.DataFrame], level: float = 0.95) -> pd.DataFrame:
    """Tabulate the mean of each column with its interval, one row per policy.

    Args:
      tables: mapping from policy to a DataFrame whose rows are independent observations, such as users; NaN does
        not count.
      level: coverage in (0, 1).

    Returns:
      DataFrame indexed by policy with columns x, x_low and x_high for each column x of the tables.
    """
    rows: dict[str, dict[str, float]] = {}
    for policy, table in tables.items():
        rows[policy] = {}
        for column in table:
            names = (column, f"{column}_low", f"{column}_high")
            rows[policy] |= dict(zip(names, mean_interval(table[column].dropna(), level), strict=True))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")


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
    others = {name: table - tables[baseline] for name, table in tables.items() if name != baseline}
    return tabulate_means(others, level)
