"""Pictures of evaluations: estimates with their intervals, weights, ranking metrics, diversity, position bias."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from recbandits.checks import require, require_shape
from recbandits.evaluation.intervals import mean_interval
from recbandits.plots import style
from recbandits.plots.style import BESIDE, COLOURS, MARKERS, REFERENCE, coloured, figure, panels

_LABELS = {"ndcg": "NDCG", "err": "ERR", "map": "MAP", "mrr": "MRR", "hit_rate": "hit rate"}
_LABELS["clicks"] = "expected clicks\nper slate"


def forest(
    table: pd.DataFrame,
    limits: Mapping[str, float] | None = None,
    title: str | None = None,
    unit: str = "rating points",
    quantity: str = "value of the policy",
) -> Figure:
    """Draw every estimate with its interval, in the order of the table from top to bottom.

    `table` is one of `evaluation.off_policy.evaluate`, or has its columns value, low and high; ValueError if it is
    empty. `limits` map a label to a value that is drawn as a vertical line, such as the truth where it is known. The
    label of the axis is `quantity` [`unit`].
    """
    style.require_content(table, "table", "estimate")
    with figure(6.5, 1.1 + 0.32 * len(table)) as (fig, axes):
        style.interval_rows(axes, table.index, table["value"], table["low"], table["high"])
        style.reference_lines(axes.axvline, limits, [":", "--", "-."])
        axes.set(xlabel=f"{quantity} [{unit}]", title=title)
        axes.locator_params(axis="x", nbins=5)
        if limits:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def by_click_model(tables: Mapping[str, pd.DataFrame], truths: Mapping[str, float], title: str | None = None) -> Figure:
    """Draw estimates of a policy's value with their intervals, an axis per click model, a row per estimator.

    Intervals that do not contain the truth, a vertical line, have a colour of their own; without one, an estimate is
    grey. `tables` map a click model to a DataFrame with columns value, low and high, all with the same estimators as
    index, and `truths` the same click models to the true value in clicks per slate; ValueError for other tables, or
    none.
    """
    style.require_content(tables, "tables", "click model")
    require(set(tables) == set(truths), "click models of truths", f"those of tables, {list(tables)}", list(truths))
    names = next(iter(tables.values())).index
    for model, table in tables.items():
        require(table.index.equals(names), f"estimators of {model}", f"those of all, {list(names)}", list(table.index))
    with panels(1.6 + 2.4 * len(tables), 1.3 + 0.3 * len(names), len(tables), title) as (fig, axes):
        handles = {}
        for axis, (model, table) in zip(axes, tables.items(), strict=True):
            position = style.label_rows(axis, names)
            handles["truth"] = axis.axvline(truths[model], color="black", linestyle=":", linewidth=1.4)
            without = table[["low", "high"]].isna().any(axis=1).to_numpy()
            misses = ((table["low"] > truths[model]) | (table["high"] < truths[model])).to_numpy() & ~without
            for rows, colour, label in (
                (~misses & ~without, COLOURS[0], "contains the truth"),
                (misses, COLOURS[1], "misses it"),
                (without, REFERENCE, "no interval"),
            ):
                if rows.any():
                    part = table[rows]
                    axis.hlines(position[rows], part["low"], part["high"], color=colour, alpha=0.45, linewidth=5)
                    (handles[label],) = axis.plot(part["value"], position[rows], "o", color=colour)
            axis.set_ylim(-0.6, len(names) - 0.4)
            axis.set_title(model)
        fig.supxlabel("value of the policy [clicks per slate]", fontsize="medium")
        fig.legend(handles.values(), handles, loc="outside right center", title="95 % interval")
    return fig


def metrics(
    table: pd.DataFrame,
    names: Sequence[str] | None = None,
    reference: str | float | None = None,
    title: str | None = None,
) -> Figure:
    """Draw ranking metrics with their intervals, an axis per metric, a row per policy in the order of the table.

    `table` is one of `evaluation.tabulate_means` or `tabulate_differences`, and `names` are some of its metrics, by
    default all. The `reference`, a dashed line, is a policy of the table or a number, such as 0 for differences.
    ValueError for an empty table, or a name that it does not have.
    """
    style.require_content(table, "table", "policy")
    known = [name for name in table if f"{name}_low" in table]
    names = known if names is None else names
    for name in names:
        require(name in known, "names", f"among {', '.join(known)}", name)
    allowed = not isinstance(reference, str) or reference in table.index
    require(allowed, "reference", f"one of {', '.join(table.index)}", reference)
    with panels(1.4 + 2.1 * len(names), 1.1 + 0.32 * len(table), len(names), title) as (fig, axes):
        for axis, name in zip(axes, names, strict=True):
            if reference is not None:
                value = table.loc[reference, name] if isinstance(reference, str) else reference
                axis.axvline(value, color=REFERENCE, linestyle="--", linewidth=1.2)
            style.interval_rows(axis, table.index, table[name], table[f"{name}_low"], table[f"{name}_high"])
            axis.set_xlabel(_LABELS.get(name, name))
    return fig


def trade_off(
    table: pd.DataFrame, references: pd.DataFrame | None = None, title: str | None = None, relevance: str = "NDCG"
) -> Figure:
    """Draw relevance against diversity, a dot per setting with 95 % intervals both ways, joined in the table's order.

    `table` is indexed by the penalty of similar items, with columns diversity, diversity_low,
    diversity_high, relevance, relevance_low and relevance_high; ValueError if it is empty. `references` has the columns
    diversity and relevance of policies to compare with, by label. `relevance` is the name of the metric.
    """
    style.require_content(table, "table", "setting")
    x, y = table["diversity"], table["relevance"]
    across = [x - table["diversity_low"], table["diversity_high"] - x]
    along = [y - table["relevance_low"], table["relevance_high"] - y]
    with figure(6.5, 4.0) as (fig, axes):
        axes.errorbar(x, y, along, across, color=COLOURS[0], marker="o", capsize=2, label="by penalty")
        for setting, point in zip(table.index, zip(x, y, strict=True), strict=True):
            axes.annotate(f"{setting:g}", point, (6, 5), textcoords="offset points", size=9)
        if references is not None:
            for (label, row), marker in zip(references.iterrows(), cycle("sD^v*P"), strict=False):
                axes.plot(row["diversity"], row["relevance"], marker, color=REFERENCE, label=label, ms=7)
        axes.margins(0.12)
        axes.set(xlabel="diversity within a slate (1 - mean cosine similarity)", ylabel=relevance, title=title)
        axes.legend(**BESIDE)
    return fig


def against_truth(truth: Any, estimates: Mapping[str, Any], slot: Any, title: str | None = None) -> Figure:
    """Draw the estimated attraction of every item against the true one, coloured by the slot in which it was logged.

    `truth` float [n] is the attraction of each item, the probability of a click once it is examined. `estimates` map a
    correction of position bias to float [n], and `slot` float [n] is the mean slot of each item in the log, from 1 for
    the top. ValueError for no estimate, or not one number for each item.
    """
    truth, slot = np.asarray(truth, float), np.asarray(slot, float)
    style.require_content(estimates, "estimates", "correction")
    for label, values in {"slot": slot, **estimates}.items():
        require_shape(values, label, *truth.shape)
    every = np.concatenate([truth, *map(np.asarray, estimates.values())])
    with panels(1.2 + 2.6 * len(estimates), 3.2, len(estimates), title, sharex=True) as (fig, axes):
        for axis, (label, values) in zip(axes, estimates.items(), strict=True):
            axis.axline((0, 0), slope=1, color="black", linestyle="--", linewidth=1)
            dots = axis.scatter(truth, values, c=slot, cmap="viridis_r", s=14, zorder=2)
            axis.set(title=label, xlim=(0, 1.05 * truth.max()), ylim=(min(0.0, every.min()), 1.05 * every.max()))
        axes[0].set_ylabel("estimated attraction")
        fig.supxlabel("true attraction", fontsize="medium")
        fig.colorbar(dots, ax=axes.tolist(), label="mean slot in the log")
    return fig


def by_slot(runs: pd.DataFrame, examination: Any = None, title: str | None = None) -> Figure:
    """Draw estimated over true attraction by the slot in which items were logged, with intervals over seeds.

    `runs` has a row for each correction, seed and slot (usual slot of the items, from 1 for the top), and a column
    share (estimated attraction / true attraction of these items); ValueError if it is empty. `examination` float
    [slots] is the probability that each slot is examined: the share that a log yields where every item always stands in
    one slot.
    """
    style.require_content(runs, "runs", "row")
    with figure(7.5, 4.0) as (fig, axes):
        axes.axhline(1.0, color="black", linestyle="--", linewidth=1, label="the truth")
        if examination is not None:
            slots = np.arange(1, len(examination) + 1)
            axes.plot(slots, examination, color=REFERENCE, linestyle=":", label="probability of examination")
        names = runs["correction"].unique()
        for number, ((name, colour), marker) in enumerate(zip(coloured(names), cycle(MARKERS), strict=False)):
            shares = runs[runs["correction"] == name].groupby("slot")["share"]
            mean, low, high = np.array([mean_interval(values) for _, values in shares]).T
            x = np.array(list(shares.groups), float) + 0.08 * (number - (len(names) - 1) / 2)  # bars side by side
            axes.errorbar(x, mean, [mean - low, high - mean], color=colour, marker=marker, ms=5, capsize=2, label=name)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set(xlabel="slot in the log", ylabel="estimated / true attraction", title=title)
        axes.legend(**BESIDE)
    return fig
