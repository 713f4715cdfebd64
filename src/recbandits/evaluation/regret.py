"""What simulated runs say, with intervals over seeds."""

import numpy as np
import pandas as pd
from scipy import stats

MEASURES = ["regret", "reward", "suboptimal"]


def mean_interval(values, confidence=0.95):
    """Mean with Student's t interval.

    Args:
      values: float array [n], independent replications.
      confidence: coverage in (0, 1).

    Returns:
      (mean, low, high); the bounds are NaN for a single value, which says nothing about its spread.
    """
    values = np.asarray(values, float)
    mean = values.mean()
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return mean, mean - half, mean + half


def totals(runs):
    """Mean of each measure over all interactions of a run.

    Args:
      runs: DataFrame of `training.online.simulate`.

    Returns:
      DataFrame indexed by (agent, seed), agents in order of appearance, with columns regret, reward, suboptimal.
    """
    window = runs.groupby(["agent", "seed"], sort=False)["interactions"].diff().fillna(runs["interactions"])
    weighted = runs[MEASURES].mul(window, axis=0).assign(window=window)
    sums = weighted.groupby([runs["agent"], runs["seed"]], sort=False).sum()
    return sums[MEASURES].div(sums["window"], axis=0)


def summary(runs, confidence=0.95):
    """Mean and interval over seeds of each measure, one row per agent.

    Args:
      runs: DataFrame of `training.online.simulate`.
      confidence: coverage in (0, 1).

    Returns:
      DataFrame indexed by agent with columns regret, regret_low, regret_high, reward, ..., suboptimal_high.
    """
    rows = {}
    for agent, group in totals(runs).groupby(level="agent", sort=False):
        rows[agent] = {}
        for measure in MEASURES:
            bounds = mean_interval(group[measure], confidence)
            rows[agent] |= dict(zip([measure, f"{measure}_low", f"{measure}_high"], bounds, strict=True))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("agent")


def difference(runs, agent, baseline, measure="regret", confidence=0.95):
    """Interval of the difference between two agents on the same seeds.

    Both met the same users, candidates and noise, so the difference per seed varies far less than either.

    Args:
      runs: DataFrame of `training.online.simulate`.
      agent: label.
      baseline: label.
      measure: regret, reward or suboptimal.
      confidence: coverage in (0, 1).

    Returns:
      (mean, low, high) of agent minus baseline.

    Raises:
      ValueError: the two were not run on the same seeds.
    """
    per_seed = totals(runs)[measure].unstack("seed").loc[[agent, baseline]]
    if per_seed.isna().any(axis=None):
        raise ValueError(f"{agent!r} and {baseline!r} must have the same seeds to be compared")
    return mean_interval(per_seed.loc[agent] - per_seed.loc[baseline], confidence)


def curve(runs, column, confidence=0.95):
    """One column of the runs over time, with an interval over seeds at each point.

    Args:
      runs: DataFrame of `training.online.simulate`.
      column: any of its measures, such as "cumulative_regret".
      confidence: coverage in (0, 1).

    Returns:
      DataFrame with columns agent, interactions, mean, low, high.
    """
    grouped = runs.groupby(["agent", "interactions"], sort=False)[column]
    bounds = grouped.apply(lambda values: pd.Series(mean_interval(values, confidence), index=["mean", "low", "high"]))
    return bounds.unstack().reset_index()
