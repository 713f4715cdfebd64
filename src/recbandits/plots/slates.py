"""A picture of slate estimators against the truth: which of them holds under which click model."""

import numpy as np

from recbandits.plots.style import COLOURS, figure

_HOLDS, _MISSES = COLOURS[0], COLOURS[1]


def by_click_model(tables, truths, title=None, unit="clicks per slate"):
    """Draw the estimates of a policy's value with their intervals, an axis per click model, a row per estimator.

    Args:
      tables: mapping from a click model to a DataFrame of `evaluation.estimate.tabulate`, or one with its columns
        value, low and high; all with the same estimators as index.
      truths: mapping from the same click models to the true value.
      title: of the picture.
      unit: of the value.

    Returns:
      The matplotlib figure; a vertical line is the truth, and intervals that do not hold it have a colour of their own.

    Raises:
      ValueError: no table, or different estimators or click models.
    """
    if not tables or set(tables) != set(truths):
        raise ValueError(f"tables and truths must be of the same click models, got {list(tables)} and {list(truths)}")
    names = next(iter(tables.values())).index
    for model, table in tables.items():
        if not table.index.equals(names):
            raise ValueError(f"{model} must have the estimators {', '.join(names)}, got {', '.join(table.index)}")
    position = np.arange(len(names))[::-1]
    shape = {"nrows": 1, "ncols": len(tables), "sharey": True, "squeeze": False}
    with figure(1.6 + 2.4 * len(tables), 1.3 + 0.3 * len(names), **shape) as (fig, axes):
        drawn = {}
        for axis, (model, table) in zip(axes[0], tables.items(), strict=True):
            drawn["truth"] = axis.axvline(truths[model], color="black", linestyle=":", linewidth=1.4)
            misses = ((table["low"] > truths[model]) | (table["high"] < truths[model])).to_numpy()
            for rows, colour, label in ((~misses, _HOLDS, "holds the truth"), (misses, _MISSES, "misses it")):
                if rows.any():
                    part = table[rows]
                    axis.hlines(position[rows], part["low"], part["high"], color=colour, alpha=0.45, linewidth=5)
                    (drawn[label],) = axis.plot(part["value"], position[rows], "o", color=colour)
            axis.set_yticks(position, names)
            axis.set_ylim(-0.6, len(names) - 0.4)
            axis.grid(axis="y", visible=False)
            axis.set_title(model)
        fig.supxlabel(f"value of the policy ({unit})", fontsize="medium")
        fig.suptitle(title)
        fig.legend(drawn.values(), drawn, loc="outside right center", title="95 % interval")
    return fig
