"""Pictures of simulations: regret over time and in total, how far users agree, which items are shown."""

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from recbandits.evaluation.regret import MEASURES, curve, summary
from recbandits.plots.style import BESIDE, COLOURS, DASHES, REFERENCE, band, coloured, figure, label_rows

_LABELS = {
    "cumulative_regret": "cumulative expected regret ({unit})",
    "regret": "expected regret per interaction ({unit})",
    "reward": "mean reward ({unit})",
    "suboptimal": "share of sub-optimal arms",
}


def curves(runs, column="cumulative_regret", references=(), limits=None, title=None, unit="rating points") -> Figure:
    """Draw one measure over time, a line per agent with the 95 % interval over seeds as a band.

    Args:
      runs: DataFrame of `training.online.simulate`.
      column: measure to draw.
      references: labels among the agents to draw as grey reference lines.
      limits: mapping from a label to a constant to draw as a dotted horizontal line.
      unit: of the reward.

    Raises:
      ValueError: an unknown measure, or a reference that is not among the agents.
    """
    _check(runs, column, _LABELS, references)
    points = curve(runs, column)
    dashes, colours = cycle(DASHES), cycle(COLOURS)
    with figure(7.5, 4.2) as (fig, axes):
        for agent in points["agent"].unique():
            line = points[points["agent"] == agent]
            style = {"color": next(colours)}
            if agent in references:
                style = {"color": REFERENCE, "linestyle": next(dashes), "zorder": 1}
            axes.plot(line["interactions"], line["mean"], label=agent, **style)
            band(axes, line["interactions"], line["low"], line["high"], style["color"])
        for label, value in (limits or {}).items():
            axes.axhline(value, color="black", linestyle=(0, (1, 2)), linewidth=1.2, label=label)
        axes.update_datalim([(points["interactions"].iloc[0], 0)])  # the range includes zero
        axes.autoscale_view()
        axes.xaxis.set_major_formatter("{x:,.0f}")
        if column == "cumulative_regret":
            axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="interactions", ylabel=_LABELS[column].format(unit=unit), title=title)
        axes.legend(**BESIDE)
    return fig


def totals(runs, column="regret", references=(), title=None, unit="rating points") -> Figure:
    """Draw the mean over all interactions for each agent, best on top, with the 95 % interval over seeds.

    Args:
      runs: DataFrame of `training.online.simulate`.
      column: regret, reward or suboptimal.
      references: labels to draw in grey.
      unit: of the reward.

    Raises:
      ValueError: an unknown measure, or a reference that is not among the agents.
    """
    _check(runs, column, MEASURES, references)
    table = summary(runs).sort_values(column, ascending=column != "reward")
    with figure(6.5, 0.9 + 0.36 * len(table)) as (fig, axes):
        for y, (agent, row) in zip(label_rows(axes, table.index), table.iterrows(), strict=True):
            colour, value = REFERENCE if agent in references else COLOURS[0], row[column]
            axes.plot([row[f"{column}_low"], row[f"{column}_high"]], [y, y], color=colour, linewidth=3, alpha=0.5)
            axes.plot(value, y, "o", color=colour)
            axes.annotate(f"{value:.3f}", (value, y), (0, 6), textcoords="offset points", ha="center", size=8)
        axes.set_ylim(-0.6, len(table) - 0.2)
        axes.set(xlabel=f"{_LABELS[column].format(unit=unit)}\nwith 95 % interval over seeds", title=title)
        axes.update_datalim([(0, 0)])  # the range includes zero
        axes.autoscale_view(scaley=False)
    return fig


def disagreement(rewards: np.ndarray, titles) -> Figure:
    """Draw the distribution of each arm's expected reward over users, and for how many users it is the best arm.

    Args:
      rewards: float array [users, arms], expected rewards.
      titles: one name per arm.
    """
    order = np.argsort(rewards.mean(axis=0))
    best = np.bincount(rewards.argmax(axis=1), minlength=rewards.shape[1]) / len(rewards)
    names = [title if len(title) <= 32 else f"{title[:30]}…" for title in np.asarray(titles)[order]]
    position = np.arange(len(order))
    with figure(8.5, 0.8 + 0.22 * len(order), ncols=2, sharey=True) as (fig, (reward, share)):
        low, middle, high = np.percentile(rewards[:, order], [10, 50, 90], axis=0)
        reward.hlines(position, low, high, color=COLOURS[0], alpha=0.4, linewidth=3, label="80 % of users")
        reward.plot(middle, position, "|", color=COLOURS[0], markersize=9, label="median")
        reward.plot(rewards.mean(axis=0)[order], position, "o", color=COLOURS[1], markersize=4, label="mean")
        reward.set_yticks(position, names, fontsize="small")
        reward.set(xlabel="expected reward (rating)")
        reward.legend(fontsize="small", loc="lower right")
        share.barh(position, 100 * best[order], color=COLOURS[2])
        share.set(xlabel="users for whom it is the best arm (%)")
    return fig


def exposure(actions, ratings: pd.Series, title=None) -> Figure:
    """Draw the share of the decisions that the most rated movies take, a line per policy.

    Args:
      actions: mapping from a label to the ids of the chosen movies, int array [n], n at least 1.
      ratings: Series of ratings per movie, indexed by movie id; movies that are not in it come last.

    Raises:
      ValueError: a label without a decision.
    """
    rank = ratings.rank(ascending=False, method="first")
    movies = max(len(np.union1d(ratings.index, ids)) for ids in actions.values())
    with figure(7.5, 4.0) as (fig, axes):
        for (label, ids), colour in coloured(actions.items()):
            if not len(ids):
                raise ValueError(f"{label}: actions must have at least one decision, got none")
            position = np.sort(rank.reindex(ids).fillna(movies))
            share = np.arange(1, len(ids) + 1) / len(ids)
            axes.step([0, *position, movies], [0, *share, 1], where="post", color=colour, label=label)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="movies, from the most to the least rated", ylabel="share of the decisions", title=title)
        axes.legend(**BESIDE)
    return fig


def _check(runs, column, columns, references):
    if column not in columns:
        raise ValueError(f"column must be one of {', '.join(columns)}, got {column!r}")
    for label in references:
        if label not in set(runs["agent"]):
            raise ValueError(f"references must be among the agents, {label!r} is not")
