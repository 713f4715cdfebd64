"""Histograms from TensorBoard's event files, read with its own reader: over time, as ridge lines or as percentiles."""

from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator

from recbandits.plots.style import COLOURS, figure

# of a normal distribution: the median, and what lies within 0.5, 1 and 1.5 standard deviations of the mean
PERCENTILES = (6.68, 15.87, 30.85, 50.0, 69.15, 84.13, 93.32)
_RIDGES = 12  # at most
_POINTS = 60  # of a ridge
_HEIGHT = 1.8  # of a ridge, in distances between them


class Histograms(NamedTuple):
    """Histograms of one thing at several steps.

    Attributes:
      steps: int [n], ascending.
      buckets: a float array [buckets, 3] for each step: left edge, right edge, count; ascending.
    """

    steps: np.ndarray
    buckets: list

    def share_below(self, values):
        """Share of each step's numbers at or below some values [m], float [n, m]; a bucket is spread over its width."""
        rows = [_cumulated(buckets) for buckets in self.buckets]
        return np.stack([np.interp(values, edges, share) for edges, share in rows])

    def percentiles(self, percentiles=PERCENTILES):
        """Values below which these percentages [m] of each step's numbers are, float [n, m]."""
        rows = [_cumulated(buckets) for buckets in self.buckets]
        return np.stack([np.interp(np.divide(percentiles, 100), share, edges) for edges, share in rows])


def read_histograms(directory):
    """Read all histograms in a directory of event files.

    Args:
      directory: of one training, as `training.offline.fit` was given for `tensorboard`.

    Returns:
      dict from tag, such as "variables/head 1 kernel", to Histograms.

    Raises:
      ValueError: there is no histogram.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    files = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    files.Reload()
    found = {}
    for tag in files.Tags()["tensors"]:
        if files.SummaryMetadata(tag).plugin_data.plugin_name == "histograms":
            events = {event.step: tensor_util.make_ndarray(event.tensor_proto) for event in files.Tensors(tag)}
            found[tag] = Histograms(np.array(sorted(events)), [events[step] for step in sorted(events)])
    if not found:
        raise ValueError("directory must hold event files with histograms, found none")
    return found


def ridges(histograms, title=None):
    """Draw histograms as ridge lines, the first step in the back: how the numbers spread, step after step.

    Ridges have equal areas, spikes are cut off. The range is that of the later half of the steps: what was wider before
    is a low ridge that goes on outside. Of many steps some are drawn, evenly spaced from the last one.

    Args:
      histograms: mapping from a label to Histograms, a panel each.
      title: of the picture.

    Returns:
      The matplotlib figure.
    """
    with _panels(histograms, title) as (fig, axes):
        for ax, (label, whole), colour in zip(axes, histograms.items(), _colours(histograms), strict=True):
            every = -(-len(whole.steps) // _RIDGES)
            part = Histograms(whole.steps[::-every][::-1], whole.buckets[::-every][::-1])
            ends = part.percentiles([0.5, 99.5])[len(part.steps) // 2 :]
            grid = np.linspace(ends.min(), ends.max(), _POINTS + 1)
            share = np.diff(part.share_below(grid), axis=1)
            middle, gap = (grid[1:] + grid[:-1]) / 2, _gap(part.steps)
            height = _HEIGHT * gap * np.minimum(share / np.median(share.max(axis=1)), 1.2)
            for step, row in zip(part.steps, height, strict=True):
                ax.fill_between(middle, step, step - row, color=colour, alpha=0.25, linewidth=0, zorder=step + 3)
                ax.plot(middle, step - row, color=colour, linewidth=0.8, zorder=step + 3)
            ax.set(yticks=part.steps)
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.invert_yaxis()
            ax.set(title=label, xlabel="value")
            ax.grid(visible=False, axis="y")
        axes[0].set(ylabel="epoch")
    return fig


def bands(histograms, title=None):
    """Draw percentiles over the steps: the median as a line, and bands that hold 38, 68 and 87 % of the numbers.

    Of a normal distribution these are 0.5, 1 and 1.5 standard deviations around the mean.

    Args:
      histograms: as for `ridges`.
      title: of the picture.

    Returns:
      The matplotlib figure.
    """
    with _panels(histograms, title) as (fig, axes):
        for ax, (label, part), colour in zip(axes, histograms.items(), _colours(histograms), strict=True):
            values, last = part.percentiles(), len(PERCENTILES) - 1
            for low in range(len(PERCENTILES) // 2):
                ax.fill_between(part.steps, values[:, low], values[:, last - low], color=colour, alpha=0.2, linewidth=0)
            ax.plot(part.steps, values[:, last // 2], color=colour)
            ax.set(title=label, xlabel="epoch")
        axes[0].set(ylabel="value")
    return fig


@contextmanager
def _panels(histograms, title):
    """A figure with a panel for each part, in a row."""
    with figure(max(4.0, 3.0 * len(histograms)), 3.2, ncols=len(histograms), squeeze=False) as (fig, axes):
        if title:
            fig.suptitle(title)
        yield fig, axes[0]


def _colours(histograms):
    return [COLOURS[number % len(COLOURS)] for number in range(len(histograms))]


def _gap(steps):
    """Distance between neighbouring steps; 1 for a single one."""
    return float(np.diff(steps).min()) if len(steps) > 1 else 1.0


def _cumulated(buckets):
    """(edges, share of the numbers up to each edge) of a histogram's buckets, both ascending."""
    left, right, count = np.asarray(buckets, float).T
    total = max(count.sum(), 1.0)
    after = np.cumsum(count) / total
    edges = np.stack([left, right], axis=1).ravel()
    return edges, np.stack([after - count / total, after], axis=1).ravel()
