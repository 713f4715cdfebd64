"""Pictures of off-policy estimates: intervals against a truth, and how few records carry the weight."""

import numpy as np

from recbandits.plots.style import COLOURS, REFERENCE, figure

_DASHES = [":", "--", "-."]


def forest(table, limits=None, title=None, unit="rating points"):
    """Draw every estimate with its interval, in the order of the table from top to bottom.

    Args:
      table: DataFrame of `evaluation.off_policy.evaluate`, or one with its columns value, low and high.
      limits: mapping from a label to a value to draw as a vertical line, such as the truth where it is known.
      title: of the picture.
      unit: of the reward.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: a table without a row.
    """
    if not len(table):
        raise ValueError("table must have at least one estimate to draw, got none")
    position = np.arange(len(table))[::-1]
    with figure(6.5, 1.1 + 0.32 * len(table)) as (fig, axes):
        axes.hlines(position, table["low"], table["high"], color=COLOURS[0], alpha=0.45, linewidth=5)
        axes.plot(table["value"], position, "o", color=COLOURS[0])
        for (label, value), dashes in zip((limits or {}).items(), _DASHES * len(limits or {}), strict=False):
            axes.axvline(value, color="black", linestyle=dashes, linewidth=1.4, label=f"{label} {value:.3f}")
        axes.set_yticks(position, table.index)
        axes.set_ylim(-0.6, len(table) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=f"value of the policy ({unit})", title=title)
        if limits:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def concentration(estimates, title=None):
    """Draw which share of all weight the heaviest records carry: the further above the diagonal, the fewer decide.

    Args:
      estimates: mapping from a label to an `Estimate`, such as one per policy by IPS.
      title: of the picture.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: no estimate, or one from an empty log.
    """
    if not estimates or any(estimate.n == 0 for estimate in estimates.values()):
        raise ValueError("estimates must be at least one, from logs with records, to have weights to draw")
    with figure(7.5, 3.8) as (fig, axes):
        axes.plot([0, 1], [0, 1], "--", color=REFERENCE, label="all records alike")
        for (label, estimate), colour in zip(estimates.items(), COLOURS * len(estimates), strict=False):
            heaviest_first = np.sort(estimate.weights[0])[::-1]
            carried = np.concatenate([[0.0], heaviest_first.cumsum() / heaviest_first.sum()])
            share = np.linspace(0, 1, 201)
            axes.plot(
                share,
                np.interp(share, np.linspace(0, 1, len(carried)), carried),
                color=colour,
                label=(f"{label}: as {estimate.effective_sample_size:,.0f} of {estimate.n:,}"),
            )
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set(xlabel="heaviest records", ylabel="share of the weight", title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="effective sample size")
    return fig
