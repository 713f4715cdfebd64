"""Pictures of where the time of training goes."""

import numpy as np

from recbandits.plots.style import COLOURS, REFERENCE, figure

_PARTS = {"input": COLOURS[1], "compute": COLOURS[0], "other": REFERENCE}
_LABELS = {"input": "waiting for input", "compute": "computing", "other": "other (mostly Python)"}


def step_times(steps, title=None):
    """Draw profiled steps, a panel per pipeline on a common scale, a bar per step made of its parts.

    Args:
      steps: mapping from label to `training.profiling.Profile.steps`.
      title: of the picture.

    Returns:
      The matplotlib figure.
    """
    with figure(2.6 * len(steps) + 0.8, 3.2, ncols=len(steps), sharey=True, squeeze=False) as (fig, axes):
        for panel, (label, table) in zip(axes[0], steps.items(), strict=True):
            bottom = np.zeros(len(table))
            for part, colour in _PARTS.items():
                panel.bar(table.index, table[part], 1.0, bottom, color=colour, label=_LABELS[part])
                bottom += table[part].to_numpy()
            panel.set(title=f"{label}\nmedian {table['total'].median():.1f} ms", xlabel="step")
            panel.grid(axis="x", visible=False)
        axes[0, 0].set_ylabel("milliseconds a step")
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        fig.suptitle(title)
    return fig


def time_per_example(table, title=None):
    """Draw what an example costs, a bar per way of training, the first on top.

    Args:
      table: DataFrame indexed by label, microseconds; columns are parts of a bar, NaN for none.
      title: of the picture.

    Returns:
      The matplotlib figure.
    """
    position, left = np.arange(len(table))[::-1], np.zeros(len(table))
    total = table.sum(axis=1)
    with figure(7.5, 1.2 + 0.38 * len(table)) as (fig, axes):
        for (part, values), colour in zip(table.items(), [COLOURS[1], COLOURS[0], COLOURS[2]], strict=False):
            axes.barh(position, values.fillna(0), 0.7, left, color=colour, label=part)
            left += values.fillna(0).to_numpy()
        for y, value in zip(position, total, strict=True):
            axes.annotate(f"{value:.1f}", (value, y), (4, 0), textcoords="offset points", va="center", size=9)
        axes.set_yticks(position, table.index)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="microseconds an example", title=title, xlim=(0, 1.08 * total.max()))
        axes.legend(loc="lower right")
    return fig


def elapsed(histories, title=None):
    """Draw the time that has passed after each epoch; a compiled graph begins late and rises less.

    Args:
      histories: mapping from label to the DataFrame of `training.offline.fit`, in pairs: a plain training, then the
        same compiled, which gets its colour and a dashed line.
      title: of the picture.

    Returns:
      The matplotlib figure.
    """
    with figure(6.5, 3.6) as (fig, axes):
        for number, (label, history) in enumerate(histories.items()):
            style = {"color": COLOURS[number // 2 % len(COLOURS)], "linestyle": ("-", "--")[number % 2]}
            axes.plot([0, *history["epoch"]], [0, *history["seconds"].cumsum()], label=label, **style)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epochs", ylabel="seconds, compilation included", title=title, xlim=(0, None), ylim=(0, None))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def operations(table, most=8, title=None):
    """Draw what operations took, a bar each, the longest on top, and what all the others took together.

    Args:
      table: DataFrame of `training.profiling.read_operations`.
      most: how many have bars of their own.
      title: of the picture.

    Returns:
      The matplotlib figure.
    """
    bars = table["ms"].iloc[:most].copy()
    if len(table) > most:
        bars[f"{len(table) - most} others"] = table["ms"].iloc[most:].sum()
    position, total = np.arange(len(bars))[::-1], table["ms"].sum()
    with figure(7.5, 1.0 + 0.3 * len(bars)) as (fig, axes):
        colours = [COLOURS[0] if name in table.index else REFERENCE for name in bars.index]
        axes.barh(position, bars, 0.7, color=colours)
        for y, (name, value) in zip(position, bars.items(), strict=True):
            calls = f", {table.loc[name, 'count']:,} calls" if name in table.index else ""
            axes.annotate(
                f"{value / total:.0%}{calls}", (value, y), (4, 0), textcoords="offset points", va="center", size=9
            )
        axes.set_yticks(position, bars.index)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="milliseconds in all threads", title=title, xlim=(0, 1.3 * bars.max()))
    return fig
