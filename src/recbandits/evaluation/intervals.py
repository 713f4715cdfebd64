"""Confidence intervals of means of independent observations, such as users or seeds, by Student's t.

Rare values, such as clicks, have no interval until `FEWEST` of them were observed: the spread of a log that lacks them
is too small, and 0 where nothing varies.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from recbandits.checks import FEWEST, FRACTION, one_of, outside_majority, require_each, require_labels


class Interval(NamedTuple):
    """An estimate with its confidence bounds, in the unit of the estimate; NaN where there are too few observations."""

    value: Any
    low: Any
    high: Any


def half_width(variance: Any, n: Any, level: float = 0.95) -> Any:
    """Return half the width of Student's t interval of the mean of n observations of some variance (over n - 1)."""
    return special.stdtrit(np.asarray(n) - 1, (1 + level) / 2) * np.sqrt(variance) / np.sqrt(n)


def mean_interval(values: Any, level: float = 0.95, groups: Any = None) -> Interval:
    """Compute the mean of independent observations, float [n], with Student's t interval of a level in (0, 1).

    Labels `groups` [n] are of observations that are not independent, such as their users: the interval is then that of
    the sums of groups (cluster-robust: Liang and Zeger 1986), with one degree of freedom less than groups. It is NaN if
    a value is. Bounds are NaN where more than half of the values are equal and fewer than `FEWEST` of them, or of the
    groups that have one, differ, as for a single value or group. ValueError for another level, or labels that are
    missing or of another number.
    """
    require_each(FRACTION, level=level)
    values = terms = np.asarray(values, float)
    mean, differs = float(values.mean()) if len(values) else np.nan, outside_majority(values)
    unusual = 0 if differs is None else np.count_nonzero(differs)
    if groups is not None:
        labels, group = np.unique(require_labels(groups, "groups", len(values)), return_inverse=True)
        terms = np.bincount(group, values - mean) * len(labels) / max(1, len(values))  # their mean is the error
        unusual = 0 if differs is None else len(np.unique(group[differs]))
    few = len(terms) < 2 or (differs is not None and unusual < FEWEST)
    half = np.nan if few else float(half_width(terms.var(ddof=1), len(terms), level))
    return Interval(mean, mean - half, mean + half)


def group_intervals(groups: Any, level: float = 0.95) -> pd.DataFrame:
    """Compute the `mean_interval` of each group of a pandas SeriesGroupBy: DataFrame with columns value, low, high."""
    rows = [mean_interval(values, level) for _, values in groups]
    return pd.DataFrame(rows, groups.size().index, Interval._fields)


def tabulate_means(tables: Mapping[str, pd.DataFrame], level: float = 0.95) -> pd.DataFrame:
    """Tabulate the mean of each column with its interval: DataFrame indexed by policy with columns x, x_low and x_high.

    `tables` map a policy to a DataFrame whose rows are independent observations, such as users. A metric that is NaN
    for a row in all tables is undefined there, and the row does not count; else NaN makes the mean NaN.
    """
    return _tabulate(tables, tables, level)


def tabulate_differences(tables: Mapping[str, pd.DataFrame], baseline: str, level: float = 0.95) -> pd.DataFrame:
    """Tabulate the mean of each column minus that of a baseline, with the interval of the paired differences.

    Paired differences vary less than the values, where the tables have the same users or seeds. Their interval decides
    which policy is better; overlapping intervals of the two values do not. The table is as of `tabulate_means`, without
    the row of the baseline. ValueError if the baseline is missing, or the index of a table differs from that of the
    baseline.
    """
    require_each(one_of(tables), baseline=baseline)
    for name, table in tables.items():
        if not table.index.equals(tables[baseline].index):
            raise ValueError(f"{name!r} and {baseline!r} must be measured on the same lists to be compared")
    gaps = {name: table - tables[baseline] for name, table in tables.items() if name != baseline}
    return _tabulate(gaps, tables, level)


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
                known = [other[column].notna() for other in measured.values() if column in other]
                values = values[np.any(known, axis=0)]
            names = (column, f"{column}_low", f"{column}_high")
            rows[policy] |= dict(zip(names, mean_interval(values, level), strict=True))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")
