"""Summaries of simulated runs, with Student's t intervals over seeds.

`runs` is a DataFrame as of `training.online.simulate`: one row per agent, seed and number of interactions, in any
order, with the measures averaged since the next smaller number, `greedy_regret` where it was measured. NaN in one makes
all that is computed from it NaN. `level` is the coverage of intervals in (0, 1).
"""

import pandas as pd

from recbandits.checks import require_rows
from recbandits.evaluation.intervals import Interval, group_intervals, mean_interval

MEASURES = ["regret", "reward", "suboptimal", "greedy_regret"]


def totals(runs: pd.DataFrame) -> pd.DataFrame:
    """Average each measure over all interactions of a run: regret, reward, suboptimal, and greedy_regret if measured.

    Returns a DataFrame indexed by (agent, seed), agents in order of appearance. ValueError if a number of interactions
    is not positive, or occurs twice for an agent and seed.
    """
    measures, runs = [name for name in MEASURES if name in runs], runs.reset_index(drop=True)
    steps = runs.sort_values("interactions").groupby(["agent", "seed"])["interactions"].diff()
    window = steps.reindex(runs.index).fillna(runs["interactions"])
    expected = "positive, and different within a run of an agent and seed"
    require_rows(window.gt(0).to_numpy(), "interactions", expected, runs["interactions"])
    weighted = runs[measures].mul(window, axis=0).assign(window=window)
    sums = weighted.groupby([runs["agent"], runs["seed"]], sort=False).agg(lambda values: values.sum(skipna=False))
    return sums[measures].div(sums["window"], axis=0)


def summary(runs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Tabulate means and intervals over seeds, by agent: regret, regret_low, regret_high, ..., suboptimal_high."""
    values = totals(runs)
    groups = values.groupby(level="agent", sort=False)
    names = {name: [name, f"{name}_low", f"{name}_high"] for name in values}
    tables = [group_intervals(groups[name], level).set_axis(columns, axis=1) for name, columns in names.items()]
    return pd.concat(tables, axis=1)


def difference(runs: pd.DataFrame, agent: str, baseline: str, measure: str = "regret", level: float = 0.95) -> Interval:
    """Compute the interval of the mean of agent minus baseline in a measure, paired by seed.

    With a seed in common, both agents have the same users, candidates and noise: differences vary less than values.
    ValueError if the agents were run on different seeds.
    """
    values = totals(runs)[measure]
    if set(values[agent].index) != set(values[baseline].index):
        raise ValueError(f"{agent!r} and {baseline!r} must have the same seeds to be compared")
    return mean_interval(values[agent] - values[baseline], level)


def curve(runs: pd.DataFrame, column: str, level: float = 0.95) -> pd.DataFrame:
    """Tabulate agent, interactions, mean, low, high over seeds of a column such as "cumulative_regret"."""
    groups = runs.groupby(["agent", "interactions"], sort=False)[column]
    return group_intervals(groups, level).rename(columns={"value": "mean"}).reset_index()
