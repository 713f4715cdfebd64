"""Pictures of what container images are made of."""

import numpy as np
from matplotlib.colors import ListedColormap

from recbandits.plots.style import COLOURS, REFERENCE, figure


def sizes(megabytes, total, title=None):
    """Draw the largest parts of a whole, a bar each, the first on top.

    Args:
      megabytes: Series indexed by name.
      total: megabytes of everything, the parts that are not drawn included.
      title: of the picture.

    Returns:
      The matplotlib figure.
    """
    position = np.arange(len(megabytes))[::-1]
    with figure(7.5, 1.0 + 0.27 * len(megabytes)) as (fig, axes):
        axes.barh(position, megabytes, 0.7)
        for y, value in zip(position, megabytes, strict=True):
            label = f"{value:,.0f} MB, {value / total:.0%}"
            axes.annotate(label, (value, y), (4, 0), textcoords="offset points", va="center", size=9)
        axes.set_yticks(position, megabytes.index)
        axes.grid(axis="y", visible=False)
        axes.set(xlabel=f"megabytes, {total:,.0f} in all", title=title, xlim=(0, 1.25 * megabytes.max()))
    return fig


def rebuilds(table, title=None):
    """Draw which steps of a Dockerfile are repeated after which change.

    Args:
      table: DataFrame of bool, a row per step and a column per change.
      title: of the picture.

    Returns:
      The matplotlib figure.
    """
    with figure(8.5, 1.1 + 0.26 * len(table)) as (fig, axes):
        axes.pcolormesh(
            table.to_numpy(), cmap=ListedColormap(["#e2e8f0", COLOURS[1]]), vmin=0, vmax=1, ec="white", lw=2
        )
        axes.invert_yaxis()
        axes.set_yticks(np.arange(len(table)) + 0.5, table.index, family="monospace", size=8)
        axes.set_xticks(np.arange(table.shape[1]) + 0.5, [f"{name}\nchanges" for name in table.columns])
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        for (row, column), repeated in np.ndenumerate(table.to_numpy()):
            text, colour = ("again", "white") if repeated else ("kept", REFERENCE)
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, size=8)
        axes.set_title(title)
    return fig


def footprints(table, title=None):
    """Draw what each of several programs needs, a panel per column, a bar per row, the first on top.

    Args:
      table: DataFrame of numbers, a row per program, columns named with their units.
      title: of the picture.

    Returns:
      The matplotlib figure.
    """
    position = np.arange(len(table))[::-1]
    with figure(8.5, 1.2 + 0.45 * len(table), ncols=table.shape[1], sharey=True, squeeze=False) as (fig, axes):
        for panel, (name, values), colour in zip(axes[0], table.items(), COLOURS, strict=False):
            panel.barh(position, values, 0.6, color=colour)
            for y, value in zip(position, values, strict=True):
                label = f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
                panel.annotate(label, (value, y), (4, 0), textcoords="offset points", va="center", size=9)
            panel.set(xlabel=name, xlim=(0, 1.2 * values.max()))
            panel.grid(axis="y", visible=False)
        axes[0, 0].set_yticks(position, table.index)
        fig.suptitle(title)
    return fig
