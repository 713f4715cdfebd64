"""Pictures of training: where the time goes, how weights and gradients spread, the slotting transform."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.ticker import MaxNLocator

from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.plots import style
from recbandits.plots.style import BESIDE, COLOURS, REFERENCE, coloured, figure, panels

PERCENTILES = (6.68, 15.87, 30.85, 50.0, 69.15, 84.13, 93.32)  # 0, 0.5, 1, 1.5 deviations of a normal distribution
_PARTS = {
    "input": ("waiting for input", COLOURS[1]),
    "compute": ("computing", COLOURS[0]),
    "other": ("other", REFERENCE),
}
_RIDGES = 12  # at most
_POINTS = 60  # of a ridge
_HEIGHT = 1.8  # of a ridge, in distances between them


def step_times(steps: Mapping[str, pd.DataFrame], title: str | None = None) -> Figure:
    """Draw `Profile.steps` of each label, an axis each on a common scale, a bar per step made of its parts."""
    with panels(2.6 * len(steps) + 0.8, 3.2, len(steps), title) as (fig, axes):
        for panel, (label, table) in zip(axes, steps.items(), strict=True):
            bottom = np.zeros(len(table))
            for part, (name, colour) in _PARTS.items():
                panel.bar(table.index, table[part], 1.0, bottom, color=colour, label=name)
                bottom += table[part].to_numpy()
            panel.set(title=f"{label}\nmedian {table['total'].median():.1f} ms", xlabel="step")
            panel.grid(axis="x", visible=False)
        axes[0].set_ylabel("time per step [ms]")
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def time_per_example(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw the time per example, a bar per way of training, the first on top.

    `table` is indexed by label, in microseconds; columns are parts of a bar, NaN for none.
    """
    left, total = np.zeros(len(table)), table.sum(axis=1)
    with figure(7.5, 1.2 + 0.38 * len(table)) as (fig, axes):
        position = style.label_rows(axes, table.index)
        for (part, values), colour in zip(table.items(), [COLOURS[1], COLOURS[0], COLOURS[2]], strict=False):
            axes.barh(position, values.fillna(0), 0.7, left, color=colour, label=part)
            left += values.fillna(0).to_numpy()
        style.annotate_rows(axes, total, [f"{value:.1f}" for value in total], reach=1.08)
        axes.set(xlabel="time per example [µs]", title=title)
        if table.shape[1] > 1:
            axes.legend(**BESIDE)
    return fig


def elapsed(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the time after each epoch; a compiled graph starts later and rises less.

    `histories` map a label to the DataFrame of `training.fit`, in pairs: a plain training, then the same compiled,
    which gets its colour and a dashed line.
    """
    with figure(6.5, 3.6) as (fig, axes):
        for number, (label, history) in enumerate(histories.items()):
            look = {"color": COLOURS[number // 2 % len(COLOURS)], "linestyle": ("-", "--")[number % 2]}
            axes.plot([0, *history["epoch"]], [0, *history["seconds"].cumsum()], label=label, **look)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch", ylabel="training time, start-up included [s]", xlim=(0, None), ylim=(0, None))
        axes.legend(**BESIDE)
    return fig


def operations(table: pd.DataFrame, most: int = 8, title: str | None = None) -> Figure:
    """Draw times of `training.read_operations`, a bar for each of the longest and one for all the others."""
    bars, total = table["ms"].iloc[:most].copy(), table["ms"].sum()
    if len(table) > most:
        bars[f"{len(table) - most} others"] = table["ms"].iloc[most:].sum()
    calls = [f", {table.loc[name, 'count']:,} calls" if name in table.index else "" for name in bars.index]
    texts = [f"{value / total:.0%}{count}" for value, count in zip(bars, calls, strict=True)]
    colours = [COLOURS[0] if name in table.index else REFERENCE for name in bars.index]
    with figure(7.5, 1.0 + 0.3 * len(bars)) as (fig, axes):
        style.bar_rows(axes, bars, texts, reach=1.3, color=colours)
        axes.set(xlabel="time in all threads [ms]", title=title)
    return fig


class Histograms(NamedTuple):
    """Histograms of one variable at steps int [n], with buckets [left edge, right edge, count] for each; ascending."""

    steps: np.ndarray
    buckets: list

    def share_below(self, values: Any) -> np.ndarray:
        """Share of each step's numbers at or below some values [m], float [n, m]; a bucket is spread over its width."""
        return np.stack([np.interp(values, edges, share) for edges, share in map(_cumulated, self.buckets)])

    def percentiles(self, percentiles: Sequence[float] = PERCENTILES) -> np.ndarray:
        """Values below which these percentages [m] of each step's numbers are, float [n, m]."""
        share = np.divide(percentiles, 100)
        return np.stack([np.interp(share, below, edges) for edges, below in map(_cumulated, self.buckets)])


def read_histograms(directory: str | Path) -> dict[str, Histograms]:
    """Read all histograms in a directory of TensorBoard event files of one training, with TensorBoard's own reader.

    Returns a dict from tag, such as "variables/head 1 kernel", to Histograms; ValueError if there is none.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    files = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    files.Reload()
    histograms = {}
    for tag in files.Tags()["tensors"]:
        if files.SummaryMetadata(tag).plugin_data.plugin_name == "histograms":
            events = {event.step: tensor_util.make_ndarray(event.tensor_proto) for event in files.Tensors(tag)}
            histograms[tag] = Histograms(np.array(sorted(events)), [events[step] for step in sorted(events)])
    style.require_content(histograms, "directory", "event file with histograms")
    return histograms


def ridges(histograms: Mapping[str, Histograms], title: str | None = None) -> Figure:
    """Draw histograms, by label, as ridge lines, the first step in the back.

    Ridges have equal areas, spikes are cut off. The range is that of the later half of the steps; a wider one before is
    a low ridge that goes on outside. Of many steps some are drawn, evenly spaced from the last one.
    """
    with _histogram_panels(histograms, title) as (fig, axes):
        for ax, ((label, whole), colour) in zip(axes, coloured(histograms.items()), strict=False):
            every = -(-len(whole.steps) // _RIDGES)
            part = Histograms(whole.steps[::-every][::-1], whole.buckets[::-every][::-1])
            ends = part.percentiles([0.5, 99.5])[len(part.steps) // 2 :]
            grid = np.linspace(ends.min(), ends.max(), _POINTS + 1)
            share = np.diff(part.share_below(grid), axis=1)
            gap = float(np.diff(part.steps).min()) if len(part.steps) > 1 else 1.0
            height = _HEIGHT * gap * np.minimum(share / np.median(share.max(axis=1)), 1.2)
            middle = (grid[1:] + grid[:-1]) / 2
            for step, row in zip(part.steps, height, strict=True):
                ax.fill_between(middle, step, step - row, color=colour, alpha=0.25, linewidth=0, zorder=step + 3)
                ax.plot(middle, step - row, color=colour, linewidth=0.8, zorder=step + 3)
            ax.set(yticks=part.steps, title=label, xlabel="value")
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.invert_yaxis()
            ax.grid(visible=False, axis="y")
        axes[0].set(ylabel="epoch")
    return fig


def bands(histograms: Mapping[str, Histograms], title: str | None = None) -> Figure:
    """Draw percentiles of histograms, by label, over the steps: the median, and bands that hold 38, 68 and 87 %.

    Of a normal distribution these are 0.5, 1 and 1.5 standard deviations around the mean.
    """
    with _histogram_panels(histograms, title) as (fig, axes):
        for ax, ((label, part), colour) in zip(axes, coloured(histograms.items()), strict=False):
            values, last = part.percentiles(), len(PERCENTILES) - 1
            for low in range(len(PERCENTILES) // 2):
                ax.fill_between(part.steps, values[:, low], values[:, last - low], color=colour, alpha=0.2, linewidth=0)
            ax.plot(part.steps, values[:, last // 2], color=colour)
            ax.set(title=label, xlabel="epoch")
        axes[0].set(ylabel="value")
    return fig


def slotting(observation: Any, slate: Any, reward: Any) -> Figure:
    """Draw the slotting transform: from the features that a policy sees of one user to those that its agent learns.

    A row is an item, a column one of its features, a colour its value. Each line leads from an item to its slot.
    `observation` has "global" [G] and "per_arm" [items, D], `slate` int [slots] the columns of items, `reward` is float
    [slots].
    """
    context, arms = np.asarray(observation[GLOBAL]), np.asarray(observation[PER_ARM])
    slate, reward = np.asarray(slate), np.asarray(reward, float)
    (items, size), slots = arms.shape, len(slate)
    limit = np.abs(arms).max() or 1.0
    look = {"cmap": "PuOr", "vmin": -limit, "vmax": limit}
    with figure(9.0, 4.6, 2, 4, width_ratios=(10, 2, 10, 1.6), height_ratios=(1, 14)) as (fig, axes):
        before, after = axes[1, 0], axes[1, 2]
        for ax, part, title, colours in (
            (axes[0, 0], context[None], f"global [{len(context)}]", look),
            (before, arms, f"per_arm [{items}, {size}]", look),
            (axes[0, 2], context[None], f"global [{len(context)}]", look),
            (after, arms[slate], f"per_arm [{slots}, {size}]", look),
            (axes[1, 3], reward[:, None], f"reward\n[{slots}]", {"cmap": "Greens", "vmin": 0}),
        ):
            ax.imshow(part, aspect="auto", interpolation="nearest", **colours)
            ax.set_title(title, fontsize=9)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
        for ax in (axes[0, 1], axes[1, 1], axes[0, 3]):
            ax.axis("off")
        right, left = before.get_xlim()[1], after.get_xlim()[0]
        for slot, (item, colour) in enumerate(coloured(slate)):
            ends = {"xyA": (right, item), "coordsA": before.transData, "xyB": (left, slot), "coordsB": after.transData}
            fig.add_artist(ConnectionPatch(**ends, color=colour, linewidth=1.2))
        before.set(ylabel="item", yticks=np.sort(slate), xlabel="features: observation of the policy")
        after.set(yticks=range(slots), xlabel="features: observation that the agent learns from")
        after.yaxis.tick_right()
        after.set_yticklabels([f"slot {slot + 1}" for slot in range(slots)])
        for slot, value in enumerate(reward):
            dark = value > 0.6 * max(reward.max(), 1e-12)
            axes[1, 3].text(0, slot, f"{value:g}", ha="center", va="center", color="white" if dark else "black")
    return fig


def _histogram_panels(histograms, title):
    return panels(max(4.0, 3.0 * len(histograms)), 3.2, len(histograms), title, sharey=False)


def _cumulated(buckets):
    """(edges, share of the numbers up to each edge) of a histogram's buckets, both ascending."""
    left, right, count = np.asarray(buckets, float).T
    total = max(count.sum(), 1.0)
    after = np.cumsum(count) / total
    edges = np.stack([left, right], axis=1).ravel()
    return edges, np.stack([after - count / total, after], axis=1).ravel()
