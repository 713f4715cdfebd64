"""Summaries of simulated runs, with Student's t intervals over seeds.

`runs` is a DataFrame as of `training.online.simulate`: one row per agent, seed and number of interactions, with the
measures averaged since the row before. `level` is the coverage of intervals in (0, 1).
"""

import pandas as pd

from recbandits.evaluation.intervals import Interval, group_intervals, mean_interval, tabulate_means

MEASURES = ["regret", "reward", "suboptimal"]


def totals(runs: pd.DataFrame) -> pd.DataFrame:
    """Average each measure over all interactions of a run.

    Returns:
      DataFrame indexed by (agent, seed), agents in order of appearance, with columns regret, reward, suboptimal.
    """
    window = runs.groupby(["agent", "seed"], sort=False)["interactions"].diff().fillna(runs["interactions"])
    weighted = runs[MEASURES].mul(window, axis=0).assign(window=window)
    sums = weighted.groupby([runs["agent"], runs["seed"]], sort=False).sum()
    return sums[MEASURES].div(sums["window"], axis=0)


def summary(runs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Tabulate means and intervals over seeds, by agent: regret, regret_low, regret_high, ..., suboptimal_high."""
    return tabulate_means(dict(iter(totals(runs).groupby(level="agent", sort=False))), level).rename_axis("agent")


def difference(runs: pd.DataFrame, agent: str, baseline: str, measure: str = "regret", level: float = 0.95) -> Interval:
    """Compute the interval of the mean of agent minus baseline in a measure, paired by seed.

    With a seed in common, both agents have the same users, candidates and noise: differences vary less than values.

    Raises:
      ValueError: the agents were run on different seeds.
    """
    per_seed = totals(runs)[measure].unstack("seed").loc[[agent, baseline]]
    if per_seed.isna().any(axis=None):
        raise ValueError(f"{agent!r} and {baseline!r} must have the same seeds to be compared")
    return mean_interval(per_seed.loc[agent] - per_seed.loc[baseline], level)


def curve(runs: pd.DataFrame, column: str, level: float = 0.95) -> pd.DataFrame:
    """Compute mean and interval over seeds of a column such as "cumulative_regret" at each number of interactions.

    Returns:
      DataFrame with columns agent, interactions, mean, low, high.
    """
    groups = runs.groupby(["agent", "interactions"], sort=False)[column]
    return group_intervals(groups, level).rename(columns={"value": "mean"}).reset_index()
