"""Pictures of evaluations: estimates with their intervals, weights, ranking metrics, diversity, position bias."""

from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from recbandits.evaluation.intervals import mean_interval
from recbandits.plots.style import (
    BESIDE,
    COLOURS,
    MARKERS,
    REFERENCE,
    coloured,
    figure,
    interval_rows,
    label_rows,
    panels,
    reference_lines,
    require_content,
)

_LABELS = {"ndcg": "NDCG", "err": "ERR", "map": "MAP", "mrr": "MRR", "hit_rate": "hit rate"}
_LABELS["clicks"] = "expected clicks\nper slate"


def forest(
    table: pd.DataFrame, limits=None, title=None, unit="rating points", quantity="value of the policy"
) -> Figure:
    """Draw every estimate with its interval, in the order of the table from top to bottom.

    Args:
      table: DataFrame of `evaluation.off_policy.evaluate`, or one with its columns value, low and high.
      limits: mapping from a label to a value to draw as a vertical line, such as the truth where it is known.
      unit: of the reward.
      quantity: what is estimated, for the label of the axis.

    Raises:
      ValueError: a table without a row.
    """
    require_content(table, "table", "estimate")
    with figure(6.5, 1.1 + 0.32 * len(table)) as (fig, axes):
        interval_rows(axes, table.index, table["value"], table["low"], table["high"])
        reference_lines(axes.axvline, limits, [":", "--", "-."])
        axes.set(xlabel=f"{quantity} [{unit}]", title=title)
        axes.locator_params(axis="x", nbins=5)
        if limits:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def concentration(estimates, title=None) -> Figure:
    """Draw the share of the total weight that the heaviest records carry; above the diagonal, few records decide.

    Args:
      estimates: mapping from a label to an `Estimate`, such as one per policy by IPS.

    Raises:
      ValueError: no estimate, or one from an empty log.
    """
    require_content(estimates, "estimates", "estimate")
    with figure(7.5, 3.8) as (fig, axes):
        axes.plot([0, 1], [0, 1], "--", color=REFERENCE, label="equal weights")
        share = np.linspace(0, 1, 201)
        for (label, estimate), colour in coloured(estimates.items()):
            if estimate.n == 0:
                raise ValueError(f"{label}: the estimate must be from a log with records, got an empty one")
            heaviest_first = np.sort(estimate.weights[0])[::-1]
            carried = np.concatenate([[0.0], heaviest_first.cumsum() / heaviest_first.sum()])
            text = f"{label}: {estimate.effective_sample_size:,.0f} of {estimate.n:,}"
            axes.plot(share, np.interp(share, np.linspace(0, 1, len(carried)), carried), color=colour, label=text)
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set(xlabel="heaviest records", ylabel="share of the weight", title=title)
        axes.legend(**BESIDE, title="effective sample size")
    return fig


def by_click_model(tables, truths, title=None, unit="clicks per slate") -> Figure:
    """Draw estimates of a policy's value with their intervals, an axis per click model, a row per estimator.

    Intervals that do not contain the truth, a vertical line, have a colour of their own.

    Args:
      tables: mapping from a click model to a DataFrame with an estimator per row and the columns value, low and high;
        all with the same estimators as index.
      truths: mapping from the same click models to the true value.
      unit: of the value.

    Raises:
      ValueError: no table, or different estimators or click models.
    """
    if not tables or set(tables) != set(truths):
        raise ValueError(f"tables and truths must be of the same click models, got {list(tables)} and {list(truths)}")
    names = next(iter(tables.values())).index
    for model, table in tables.items():
        if not table.index.equals(names):
            raise ValueError(f"{model} must have the estimators {', '.join(names)}, got {', '.join(table.index)}")
    with panels(1.6 + 2.4 * len(tables), 1.3 + 0.3 * len(names), len(tables), title) as (fig, axes):
        handles = {}
        for axis, (model, table) in zip(axes, tables.items(), strict=True):
            position = label_rows(axis, names)
            handles["truth"] = axis.axvline(truths[model], color="black", linestyle=":", linewidth=1.4)
            misses = ((table["low"] > truths[model]) | (table["high"] < truths[model])).to_numpy()
            for rows, colour, label in ((~misses, COLOURS[0], "contains the truth"), (misses, COLOURS[1], "misses it")):
                if rows.any():
                    part = table[rows]
                    axis.hlines(position[rows], part["low"], part["high"], color=colour, alpha=0.45, linewidth=5)
                    (handles[label],) = axis.plot(part["value"], position[rows], "o", color=colour)
            axis.set_ylim(-0.6, len(names) - 0.4)
            axis.set_title(model)
        fig.supxlabel(f"value of the policy [{unit}]", fontsize="medium")
        fig.legend(handles.values(), handles, loc="outside right center", title="95 % interval")
    return fig


def metrics(table: pd.DataFrame, names=None, reference=None, title=None) -> Figure:
    """Draw ranking metrics with their intervals, an axis per metric, a row per policy in the order of the table.

    Args:
      table: DataFrame of `evaluation.tabulate_means` or `tabulate_differences`.
      names: some of its metrics; by default all.
      reference: policy whose values are drawn as dashed lines, or a number, such as 0 for differences; None for none.

    Raises:
      ValueError: a table without a row, or a metric or policy that it does not have.
    """
    require_content(table, "table", "policy")
    known = [name for name in table if f"{name}_low" in table]
    names = known if names is None else names
    for name in names:
        if name not in known:
            raise ValueError(f"names must be among {', '.join(known)}, got {name!r}")
    if isinstance(reference, str) and reference not in table.index:
        raise ValueError(f"reference must be one of {', '.join(table.index)}, got {reference!r}")
    with panels(1.4 + 2.1 * len(names), 1.1 + 0.32 * len(table), len(names), title) as (fig, axes):
        for axis, name in zip(axes, names, strict=True):
            if reference is not None:
                value = table.loc[reference, name] if isinstance(reference, str) else reference
                axis.axvline(value, color=REFERENCE, linestyle="--", linewidth=1.2)
            interval_rows(axis, table.index, table[name], table[f"{name}_low"], table[f"{name}_high"])
            axis.set_xlabel(_LABELS.get(name, name))
    return fig


def trade_off(table: pd.DataFrame, references=None, title=None, relevance="NDCG", parameter="penalty") -> Figure:
    """Draw relevance against diversity, a dot per setting with 95 % intervals both ways, joined in the table's order.

    Args:
      table: DataFrame indexed by setting, such as the penalty of similar items, with columns diversity, diversity_low,
        diversity_high, relevance, relevance_low and relevance_high.
      references: DataFrame with the columns diversity and relevance, indexed by label, of policies to compare with;
        None for none.
      relevance: name of the relevance metric.
      parameter: name of the index of the table.

    Raises:
      ValueError: a table without a row.
    """
    require_content(table, "table", "setting")
    x, y = table["diversity"], table["relevance"]
    across = [x - table["diversity_low"], table["diversity_high"] - x]
    along = [y - table["relevance_low"], table["relevance_high"] - y]
    with figure(6.5, 4.0) as (fig, axes):
        axes.errorbar(x, y, along, across, color=COLOURS[0], marker="o", capsize=2, label=f"by {parameter}")
        for setting, point in zip(table.index, zip(x, y, strict=True), strict=True):
            axes.annotate(f"{setting:g}", point, (6, 5), textcoords="offset points", size=9)
        if references is not None:
            for (label, row), marker in zip(references.iterrows(), cycle("sD^v*P"), strict=False):
                axes.plot(row["diversity"], row["relevance"], marker, color=REFERENCE, label=label, ms=7)
        axes.margins(0.12)
        axes.set(xlabel="diversity within a slate (1 - mean cosine similarity)", ylabel=relevance, title=title)
        axes.legend(**BESIDE)
    return fig


def against_truth(truth, estimates, slot, title=None) -> Figure:
    """Draw the estimated attraction of every item against the true one, coloured by the slot in which it was logged.

    Args:
      truth: float [n], attraction of each item: the probability of a click once it is examined.
      estimates: mapping from the name of a correction of position bias to float [n]; at least one.
      slot: float [n], mean slot in which each item was logged, from 1 for the top.

    Raises:
      ValueError: no estimate, or not one number for each item.
    """
    truth, slot = np.asarray(truth, float), np.asarray(slot, float)
    require_content(estimates, "estimates", "correction")
    for label, values in {"slot": slot, **estimates}.items():
        if np.shape(values) != truth.shape:
            raise ValueError(f"{label}: must have one number for each of {truth.size} items, got {np.shape(values)}")
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


def by_slot(runs: pd.DataFrame, examination=None, title=None) -> Figure:
    """Draw estimated over true attraction by the slot in which items were logged, with intervals over seeds.

    Args:
      runs: DataFrame with columns correction, seed, slot (usual slot of the items, from 1 for the top) and share
        (estimated attraction / true attraction of these items); one row for each correction, seed and slot.
      examination: float [slots], probability that each slot is examined, which is the share that a log yields where
        every item always stands in one slot; None for none.

    Raises:
      ValueError: runs without a row.
    """
    require_content(runs, "runs", "row")
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
