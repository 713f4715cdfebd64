"""The look that all pictures share."""

from contextlib import contextmanager

import matplotlib.pyplot as plt

COLOURS = ["#2b6cb0", "#c05621", "#2f855a", "#b83280", "#6b46c1", "#b7791f", "#2c7a7b", "#c53030"]
REFERENCE = "#718096"

_STYLE = {
    "axes.grid": True,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.dpi": 80,
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.bbox": "tight",
}


@contextmanager
def figure(width=7.0, height=4.0, nrows=1, ncols=1, **subplots):
    """Give a figure and its axes in the shared style, laid out and closed when the block ends.

    A closed figure is shown exactly once by a notebook: as the value of the cell that made it.

    Args:
      width: inches.
      height: inches.
      nrows: rows of axes.
      ncols: columns of axes.
      **subplots: passed on to `matplotlib.pyplot.subplots`.

    Yields:
      `(figure, axes)`, axes as `matplotlib.pyplot.subplots` gives them.
    """
    with plt.rc_context(_STYLE):
        fig, axes = plt.subplots(nrows, ncols, figsize=(width, height), layout="constrained", **subplots)
        try:
            yield fig, axes
        finally:
            plt.close(fig)
