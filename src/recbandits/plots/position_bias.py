"""Pictures of what clicks teach about items that stand low: learnt against true, and by the slot they stood in."""

import numpy as np

from recbandits.evaluation.regret import mean_interval
from recbandits.plots.style import COLOURS, REFERENCE, figure


def against_truth(truth, learnt, slot, title=None):
    """Draw what each correction has learnt of every item against the truth, coloured by where the log shows the item.

    Args:
      truth: float [n], attraction of each item: the probability of a click once it is looked at.
      learnt: mapping from the name of a correction to float [n], what it estimates; at least one.
      slot: float [n], mean slot in which each item was logged, from 1 for the top.
      title: of the picture.

    Returns:
      The matplotlib figure, axes side by side on common scales; on the dashed line the estimate is the truth.

    Raises:
      ValueError: nothing learnt, or not one number for each item.
    """
    truth, slot = np.asarray(truth, float), np.asarray(slot, float)
    if not learnt:
        raise ValueError("learnt must be at least one correction to draw, got none")
    for label, values in {"slot": slot, **learnt}.items():
        if np.shape(values) != truth.shape:
            raise ValueError(f"{label}: must have one number for each of {truth.size} items, got {np.shape(values)}")
    top = 1.05 * max(truth.max(), max(np.max(values) for values in learnt.values()))
    bottom = min(0.0, min(np.min(values) for values in learnt.values()))
    with figure(1.2 + 2.6 * len(learnt), 3.2, 1, len(learnt), sharex=True, sharey=True, squeeze=False) as (fig, axes):
        for axis, (label, values) in zip(axes[0], learnt.items(), strict=True):
            axis.axline((0, 0), slope=1, color="black", linestyle="--", linewidth=1)
            dots = axis.scatter(truth, values, c=slot, cmap="viridis_r", s=22, zorder=2)
            axis.set(title=label, xlim=(0, 1.05 * truth.max()), ylim=(bottom, top))
        axes[0, 0].set_ylabel("learnt attraction")
        fig.supxlabel("true attraction", fontsize="medium")
        fig.colorbar(dots, ax=axes[0].tolist(), label="mean slot in the log")
        fig.suptitle(title)
    return fig


def by_slot(runs, examination=None, title=None):
    """Draw what was learnt as a share of the truth by the slot in which items were logged, with intervals over seeds.

    Args:
      runs: DataFrame with columns correction, seed, slot (where the items usually stood, from 1 for the top) and share
        (learnt attraction / true attraction of these items); one row for each correction, seed and slot.
      examination: float [slots], probability that each slot is looked at: what a log that shows every item always in
        one slot makes of the truth, dotted; None for none.
      title: of the picture.

    Returns:
      The matplotlib figure; at the dashed line, 1, is the truth.

    Raises:
      ValueError: runs without a row.
    """
    if not len(runs):
        raise ValueError("runs must have at least one row to draw, got none")
    colours = iter(COLOURS * len(runs))
    with figure(7.5, 4.0) as (fig, axes):
        axes.axhline(1.0, color="black", linestyle="--", linewidth=1, label="the truth")
        if examination is not None:
            slots = np.arange(1, len(examination) + 1)
            axes.plot(slots, examination, color=REFERENCE, linestyle=":", label="share of users who look")
        names = runs["correction"].unique()
        for number, name in enumerate(names):
            shares = runs[runs["correction"] == name].groupby("slot")["share"]
            mean, low, high = np.array([mean_interval(values) for _, values in shares]).T
            place = np.array(list(shares.groups), float) + 0.08 * (number - (len(names) - 1) / 2)  # bars side by side
            axes.errorbar(
                place, mean, [mean - low, high - mean], color=next(colours), marker="o", ms=4, capsize=2, label=name
            )
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set(xlabel="slot in which the log usually shows the items", ylabel="learnt / true attraction", title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig
