"""The style and the building blocks that all pictures share."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

COLOURS = ["#2b6cb0", "#c05621", "#2f855a", "#b83280", "#6b46c1", "#b7791f", "#2c7a7b", "#c53030"]
REFERENCE = "#718096"
GREY_TEXT = "#4a5568"  # darker than lines: its contrast is 7.5 on white and 6.1 on #e2e8f0
DASHES = ["--", "-.", ":"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]  # one fewer than colours: 56 pairs before one is repeated
BESIDE = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}  # places a legend to the right of the axes

_STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.dpi": 144,
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.bbox": "tight",
}


@contextmanager
def figure(
    width: float, height: float, nrows: int = 1, ncols: int = 1, **subplots: Any
) -> Iterator[tuple[plt.Figure, Any]]:
    """Give a figure, in inches, and its axes as `matplotlib.pyplot.subplots` in the shared style; close it at the end.

    A closed figure is shown exactly once by a notebook: as the value of the cell that made it.
    """
    with plt.rc_context(_STYLE):
        fig, axes = plt.subplots(nrows, ncols, figsize=(width, height), layout="constrained", **subplots)
        try:
            yield fig, axes
        finally:
            plt.close(fig)


@contextmanager
def panels(
    width: float, height: float, count: int, title: str | None = None, sharey: bool = True, **subplots: Any
) -> Iterator[tuple[plt.Figure, np.ndarray]]:
    """Give a figure in the shared style and its `count` axes in one row, by default on a common vertical scale."""
    with figure(width, height, 1, count, squeeze=False, sharey=sharey, **subplots) as (fig, axes):
        fig.suptitle(title or "")
        yield fig, axes[0]


def require_content(content: Sized, name: str, expected: str) -> None:
    """Raise ValueError for a table or mapping that has nothing to draw."""
    if not len(content):
        raise ValueError(f"{name} must have at least one {expected} to draw, got none")


def coloured(items: Iterable) -> Iterator[tuple[Any, str]]:
    """Pair items with colours, which are repeated where there are more items than colours."""
    return zip(items, cycle(COLOURS), strict=False)


def label_rows(axes: plt.Axes, labels: Sequence) -> np.ndarray:
    """Label horizontal rows, the first on top, and return their vertical positions [n]."""
    position = np.arange(len(labels))[::-1]
    axes.set_yticks(position, labels)
    axes.grid(axis="y", visible=False)
    return position


def interval_rows(axes: plt.Axes, labels: Sequence, value: Any, low: Any, high: Any) -> None:
    """Draw a row per label, the first on top: a dot at the value and a bar from `low` to `high`."""
    position = label_rows(axes, labels)
    axes.hlines(position, low, high, color=COLOURS[0], alpha=0.45, linewidth=5)
    axes.plot(value, position, "o", color=COLOURS[0])
    axes.set_ylim(-0.6, len(position) - 0.4)


def bar_rows(
    axes: plt.Axes,
    values: pd.Series,
    texts: Sequence[str],
    labels: Sequence | None = None,
    reach: float = 1.25,
    **style: Any,
) -> None:
    """Draw a horizontal bar per value, the first on top, with a text at its end."""
    position = label_rows(axes, values.index if labels is None else labels)
    axes.barh(position, values, 0.7, **style)
    annotate_rows(axes, values, texts, reach)


def annotate_rows(axes: plt.Axes, ends: Any, texts: Sequence[str], reach: float = 1.25) -> None:
    """Write a text at the end of each horizontal bar, and leave space for it."""
    for y, value, text in zip(np.arange(len(ends))[::-1], ends, texts, strict=True):
        axes.annotate(text, (value, y), (4, 0), textcoords="offset points", va="center", size=9)
    axes.set_xlim(0, reach * max(ends))


def band(axes: plt.Axes, x: Any, low: Any, high: Any, colour: str) -> None:
    """Fill the interval from `low` to `high` along a line."""
    axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)


def reference_lines(
    draw: Callable, values: Mapping[str, float] | None, dashes: Sequence[str] = DASHES, color: str = "black"
) -> None:
    """Draw a dashed line per value with `draw`, `axes.axhline` or `axes.axvline`; its label has name and value."""
    for (name, value), style in zip((values or {}).items(), cycle(dashes), strict=False):
        draw(value, color=color, linestyle=style, linewidth=1.3, zorder=1, label=f"{name}, {value:.3f}")
