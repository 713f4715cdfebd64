"""Pictures of simulated runs: curves with bands, and totals with intervals."""

import numpy as np

from recbandits.evaluation.regret import MEASURES, curve, summary
from recbandits.plots.style import COLOURS, REFERENCE, figure

_LABELS = {
    "cumulative_regret": "cumulative expected regret ({unit})",
    "regret": "expected regret per interaction ({unit})",
    "reward": "mean reward ({unit})",
    "suboptimal": "share of sub-optimal arms",
}
_DASHES = ["--", "-.", ":"]


def curves(runs, column="cumulative_regret", references=(), limits=None, title=None, unit="rating points"):
    """Draw one measure over time, a line per agent with the 95 % interval over seeds as a band.

    Args:
      runs: DataFrame of `training.online.simulate`.
      column: measure to draw.
      references: labels among the agents to draw as grey reference lines.
      limits: mapping from a label to a constant to draw as a dotted horizontal line.
      title: of the picture.
      unit: of the reward.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: an unknown measure, or a reference that is not among the agents.
    """
    _check(runs, column, _LABELS, references)
    points = curve(runs, column)
    dashes, colours = iter(_DASHES * 3), iter(COLOURS * 3)
    with figure(7.5, 4.2) as (fig, axes):
        for agent in points["agent"].unique():
            line = points[points["agent"] == agent]
            style = {"color": next(colours)}
            if agent in references:
                style = {"color": REFERENCE, "linestyle": next(dashes), "zorder": 1}
            axes.plot(line["interactions"], line["mean"], label=agent, **style)
            axes.fill_between(line["interactions"], line["low"], line["high"], color=style["color"], alpha=0.18, lw=0)
        for label, value in (limits or {}).items():
            axes.axhline(value, color="black", linestyle=(0, (1, 2)), linewidth=1.2, label=label)
        axes.update_datalim([(points["interactions"].iloc[0], 0)])  # zero is always in sight
        axes.autoscale_view()
        axes.xaxis.set_major_formatter("{x:,.0f}")
        if column == "cumulative_regret":
            axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="interactions", ylabel=_LABELS[column].format(unit=unit), title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def totals(runs, column="regret", references=(), title=None, unit="rating points"):
    """Draw the mean over all interactions for each agent, best on top, with the 95 % interval over seeds.

    Args:
      runs: DataFrame of `training.online.simulate`.
      column: regret, reward or suboptimal.
      references: labels to draw in grey.
      title: of the picture.
      unit: of the reward.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: an unknown measure, or a reference that is not among the agents.
    """
    _check(runs, column, MEASURES, references)
    table = summary(runs).sort_values(column, ascending=column != "reward")
    position = np.arange(len(table))[::-1]
    with figure(6.5, 0.9 + 0.36 * len(table)) as (fig, axes):
        for y, (agent, row) in zip(position, table.iterrows(), strict=True):
            colour = REFERENCE if agent in references else COLOURS[0]
            axes.plot([row[f"{column}_low"], row[f"{column}_high"]], [y, y], color=colour, linewidth=3, alpha=0.5)
            axes.plot(row[column], y, "o", color=colour)
            axes.annotate(
                f"{row[column]:.3f}", (row[column], y), (0, 6), textcoords="offset points", ha="center", size=8
            )
        axes.set_yticks(position, table.index)
        axes.set_ylim(-0.6, len(table) - 0.2)
        axes.set(xlabel=f"{_LABELS[column].format(unit=unit)}\nwith 95 % interval over seeds", title=title)
        axes.update_datalim([(0, 0)])  # zero is always in sight
        axes.autoscale_view(scaley=False)
    return fig


def _check(runs, column, columns, references):
    if column not in columns:
        raise ValueError(f"column must be one of {', '.join(columns)}, got {column!r}")
    for label in references:
        if label not in set(runs["agent"]):
            raise ValueError(f"references must be among the agents, {label!r} is not")
