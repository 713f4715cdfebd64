"""Pictures of simulations: regret over time and in total, how far users agree, which items are shown."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from recbandits.checks import one_of, require, require_each
from recbandits.evaluation.regret import MEASURES, curve, summary
from recbandits.plots import style
from recbandits.plots.style import BESIDE, COLOURS, DASHES, MARKERS, REFERENCE, band, coloured, figure, label_rows

_LABELS = {
    "cumulative_regret": "cumulative expected regret [{unit}]",
    "regret": "expected regret per interaction [{unit}]",
    "greedy_regret": "expected regret of the greedy policy\nper interaction [{unit}]",
    "reward": "mean reward [{unit}]",
    "suboptimal": "share of sub-optimal actions",
}


def curves(
    runs: pd.DataFrame,
    column: str = "cumulative_regret",
    references: Sequence[str] = (),
    limits: Any = None,
    title: str | None = None,
    unit: str = "rating points",
    log: bool = False,
) -> Figure:
    """Draw one measure over time, a line per agent with the 95 % interval over seeds as a band.

    `runs` is of `training.simulate`, `column` one of its measures, in `unit`. Agents have colours and markers of their
    own; `references`, labels among them, are grey and dashed. `limits` map a label to a constant to draw as a dotted
    horizontal line. A `log` axis has no 0: a line has gaps where it is 0 or below. ValueError for an unknown measure or
    reference.
    """
    _check(runs, column, _LABELS, references)
    points = curve(runs, column)
    dashes, colours, markers = cycle(DASHES), cycle(COLOURS), cycle(MARKERS)
    with figure(7.5, 4.2) as (fig, axes):
        for agent in points["agent"].unique():
            line = points[points["agent"] == agent]
            # agents that do alike have their markers at different places
            every = (0.12 * len(axes.lines) / points["agent"].nunique(), 0.12)
            if agent in references:
                style: dict = {"color": REFERENCE, "linestyle": next(dashes), "zorder": 1}
            else:  # the colours of agents do not depend on the references beside them
                style = {"color": next(colours), "marker": next(markers), "markersize": 5, "markevery": every}
            axes.plot(line["interactions"], line["mean"], label=agent, **style)
            band(axes, line["interactions"], line["low"], line["high"], style["color"])
        for label, value in (limits or {}).items():
            axes.axhline(value, color="black", linestyle=(0, (1, 2)), linewidth=1.2, label=label)
        if log:
            axes.set_yscale("log")
        else:
            axes.update_datalim([(points["interactions"].iloc[0], 0)])  # the range includes zero
        axes.autoscale_view()
        axes.xaxis.set_major_formatter("{x:,.0f}")
        if column == "cumulative_regret" and not log:
            axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="interactions", ylabel=_LABELS[column].format(unit=unit), title=title)
        axes.legend(**BESIDE)
    return fig


def totals(
    runs: pd.DataFrame,
    column: str = "regret",
    references: Sequence[str] = (),
    title: str | None = None,
    unit: str = "rating points",
    log: bool = False,
) -> Figure:
    """Draw the mean over all interactions for each agent, best on top, with the 95 % interval over seeds.

    Arguments and errors are those of `curves`; `column` is regret, greedy_regret, reward or suboptimal, and a reference
    has a dashed line through all rows. Regret is that of the policy that explores; where `runs` has the regret of the
    greedy policy, a diamond marks it.
    """
    _check(runs, column, MEASURES, references)
    table = summary(runs).sort_values(column, ascending=column != "reward")
    marks = {}
    with figure(7.5, 1.3 + 0.4 * len(table)) as (fig, axes):
        for y, (agent, row) in zip(label_rows(axes, table.index), table.iterrows(), strict=True):
            colour, value = REFERENCE if agent in references else COLOURS[0], row[column]
            axes.plot([row[f"{column}_low"], row[f"{column}_high"]], [y, y], color=colour, linewidth=3, alpha=0.5)
            (mark,) = axes.plot(value, y, "o", color=colour)
            patch = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # dashed lines end at the number
            style = {"textcoords": "offset points", "ha": "center", "size": 9, "bbox": patch}
            axes.annotate(f"{value:.3f}", (value, y), (0, 6), **style)
            if agent in references:
                axes.axvline(value, color=REFERENCE, linestyle="--", linewidth=1, zorder=1)
            elif column == "regret" and "greedy_regret" in table:
                low, high, below = row["greedy_regret_low"], row["greedy_regret_high"], y - 0.22
                axes.plot([low, high], [below, below], color=COLOURS[1], linewidth=1)
                (diamond,) = axes.plot(row["greedy_regret"], below, "D", color=COLOURS[1], markerfacecolor="white")
                marks = {"greedy policy": diamond, "policy that explores": mark}
        if log:
            axes.set_xscale("log")
        else:
            axes.update_datalim([(0, 0)])  # the range includes zero
        axes.set_ylim(-0.6, len(table) - 0.2)
        axes.set(xlabel=f"{_LABELS[column].format(unit=unit)}\nwith 95 % interval over seeds", title=title)
        axes.autoscale_view(scaley=False)
        if marks:
            fig.legend(marks.values(), marks, loc="outside upper center", ncols=2)
    return fig


def disagreement(rewards: np.ndarray, titles: Any) -> Figure:
    """Draw the distribution over users of expected rewards [users, arms], and the share for whom an arm is best."""
    order = np.argsort(rewards.mean(axis=0))
    best = np.bincount(rewards.argmax(axis=1), minlength=rewards.shape[1]) / len(rewards)
    names = [title if len(title) <= 32 else f"{title[:30]}…" for title in np.asarray(titles)[order]]
    position = np.arange(len(order))
    with figure(8.5, 0.8 + 0.22 * len(order), ncols=2, sharey=True) as (fig, (reward, share)):
        low, middle, high = np.percentile(rewards[:, order], [10, 50, 90], axis=0)
        reward.hlines(position, low, high, color=COLOURS[0], alpha=0.4, linewidth=3, label="80 % of users")
        reward.plot(middle, position, "|", color=COLOURS[0], markersize=9, label="median")
        reward.plot(rewards.mean(axis=0)[order], position, "o", color=COLOURS[1], markersize=4, label="mean")
        reward.set_yticks(position, names, fontsize=9)
        reward.set(xlabel="expected reward [rating points]")
        share.barh(position, 100 * best[order], color=COLOURS[2])
        share.set(xlabel="users for whom it is the best action [%]")
        fig.legend(loc="outside upper center", ncols=3)
    return fig


def exposure(actions: Mapping[str, np.ndarray], ratings: pd.Series, title: str | None = None) -> Figure:
    """Draw the share of the decisions that the most rated movies take, a line per policy with a dash of its own.

    `actions` map a label to the ids of the chosen movies, int [n], ValueError for none. `ratings` has the number of
    ratings by movie id; movies that are not in it come last.
    """
    rank = ratings.rank(ascending=False, method="first")
    movies = max(len(np.union1d(ratings.index, ids)) for ids in actions.values())
    with figure(7.5, 4.0) as (fig, axes):
        for ((label, ids), colour), dash in zip(coloured(actions.items()), cycle(["-", *DASHES]), strict=False):
            style.require_content(ids, f"actions of {label}", "decision")
            position = np.sort(rank.reindex(ids).fillna(movies))
            share = np.arange(1, len(ids) + 1) / len(ids)
            axes.step([0, *position, movies], [0, *share, 1], where="post", color=colour, linestyle=dash, label=label)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="movies, from the most to the least rated", title=title)
        axes.set_ylabel("cumulative share of the decisions")
        axes.legend(**BESIDE)
    return fig


def _check(runs, column, columns, references):
    require_each(one_of(columns), column=column)
    for label in references:
        require(label in set(runs["agent"]), "references", "among the agents", label)
