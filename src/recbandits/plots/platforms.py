"""Pictures of platforms: names of resources, container images, and the trials of a study."""

import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure

from recbandits.checks import require
from recbandits.config import Config
from recbandits.plots import style
from recbandits.plots.style import COLOURS, MARKERS, REFERENCE, bar_rows, coloured, figure, panels, reference_lines

SETTINGS = ("project", "region", "prefix", "version")


def resource_names(config: Config) -> Figure:
    """Show every resource name of a `Config` with a project, its parts in the colours of their settings."""
    names = {
        "bucket": config.bucket,
        "BigQuery dataset": config.dataset,
        "container image": config.image("train"),
        "service account": config.account("train"),
        "Pub/Sub topic": config.topic("interactions"),
        "endpoint": config.endpoint,
    }
    colours = dict(zip(SETTINGS, COLOURS, strict=False))
    rows = [("settings", [(f"{name}  ", colours[name]) for name in SETTINGS])]
    rows += [(label, coloured_parts(config, name, colours)) for label, name in names.items()]
    with figure(9.5, 0.36 * (len(rows) + 1)) as (fig, axes):
        axes.set(xlim=(0, 1), ylim=(0.2 - len(rows), 0.8))
        axes.axis("off")
        for row, (label, pieces) in enumerate(rows):
            axes.text(0, -row, label, va="bottom")
            anchor, start = axes.transData, (0.2, -row)
            for text, colour in pieces:  # each piece starts at the right end of the one before it
                style = {"color": colour, "family": "monospace", "weight": "bold", "va": "bottom"}
                anchor, start = axes.annotate(text, start, xycoords=anchor, **style), (1, 0)
    return fig


def coloured_parts(config: Config, name: str, colours: dict[str, str]) -> list[tuple[str, str]]:
    """Cut a name into (text, colour) pieces, one for each setting in it and one for the text between them."""
    by_value = {getattr(config, setting): colours[setting] for setting in SETTINGS}
    by_value[config.prefix.replace("-", "_")] = colours["prefix"]
    values = "|".join(re.escape(value) for value in sorted(by_value, key=len, reverse=True))
    pieces = re.split(rf"(?<![a-z0-9])({values})(?![a-z0-9])", name)
    return [(piece, by_value.get(piece, style.GREY_TEXT)) for piece in pieces if piece]


def sizes(megabytes: pd.Series, total: float, title: str | None = None) -> Figure:
    """Draw the largest parts of a whole, megabytes by name of `total` megabytes, a bar each, the first on top."""
    with figure(7.5, 1.0 + 0.27 * len(megabytes)) as (fig, axes):
        bar_rows(axes, megabytes, [f"{value:,.0f} MB, {value / total:.0%}" for value in megabytes])
        axes.set(xlabel=f"size [MB], {total:,.0f} MB in total", title=title)
    return fig


def footprints(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw resources of programs, an axis per column (its name has the unit), a bar per row, the first on top."""
    with panels(8.5, 1.2 + 0.45 * len(table), table.shape[1], title) as (fig, axes):
        for axis, ((name, values), colour) in zip(axes, coloured(table.items()), strict=False):
            texts = [f"{value:,.0f}" if value >= 10 else f"{value:.2f}" for value in values]
            bar_rows(axis, values, texts, table.index, reach=1.2, color=colour)
            axis.set_xlabel(name)
    return fig


def rebuilds(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw which steps of a Dockerfile, rows of bool, are repeated after which change, a column each."""
    with figure(8.5, 1.1 + 0.26 * len(table)) as (fig, axes):
        axes.pcolormesh(table, cmap=ListedColormap(["#e2e8f0", COLOURS[1]]), vmin=0, vmax=1, ec="white", lw=2)
        axes.invert_yaxis()
        axes.set_yticks(np.arange(len(table)) + 0.5, table.index, family="monospace", size=9)
        axes.set_xticks(np.arange(table.shape[1]) + 0.5, [f"{name}\nchanges" for name in table.columns])
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        for (row, column), repeated in np.ndenumerate(table.to_numpy()):
            text, colour = ("repeated", "white") if repeated else ("cached", style.GREY_TEXT)
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, size=9)
        axes.set_title(title)
    return fig


def trials(
    study: Any,
    trials: Sequence,
    parameter: str,
    by: str | None = None,
    references: Mapping[str, float] | None = None,
    title: str | None = None,
    metric: str = "mean reward [rating points]",
) -> Figure:
    """Draw the value of every trial over one parameter, with its interval; the best is ringed, failures are crosses.

    `study` is a `platforms.jobs.Study`, whose parameters say which axes are logarithmic, and `trials` are its `Trial`s.
    `parameter`, a `Float` or an `Integer`, is on the horizontal axis; `by` is shown by colour, a text also by a marker.
    `references` map a label to a value to draw as a grey line, `metric` is the label of the values. ValueError for a
    parameter that the study does not have, or no trial that succeeded.
    """
    for name in filter(None, (parameter, by)):
        require(name in study.parameters, "parameter", f"one of {', '.join(study.parameters)}", name)
    succeeded = [trial for trial in trials if trial.state == "succeeded"]
    style.require_content(succeeded, f"study {study.job.name}", "trial that succeeded")
    best = (max if study.maximise else min)(succeeded, key=lambda trial: trial.value)
    with figure(7.5, 4.2) as (fig, axes):
        reference_lines(axes.axhline, references, color=REFERENCE)
        for trial in succeeded:
            if trial.interval is not None:
                axes.vlines(trial.parameters[parameter], *trial.interval, color=REFERENCE, linewidth=3, alpha=0.5)
        _scatter(fig, axes, study, succeeded, parameter, by)
        ring = {"markersize": 15, "markerfacecolor": "none", "markeredgecolor": "black"}
        axes.plot(best.parameters[parameter], best.value, "o", **ring, label=f"best, {best.value:.3f}")
        failed = [trial.parameters[parameter] for trial in trials if trial.state == "failed"]
        if failed:  # at the lower edge, without a value
            edge = {"transform": axes.get_xaxis_transform(), "clip_on": False}
            axes.plot(failed, [0] * len(failed), "x", color=COLOURS[1], label="failed", **edge)
        axes.set(xlabel=parameter, ylabel=metric, title=title)
        if _is_logarithmic(study, parameter):
            axes.set_xscale("log")
        fig.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def _scatter(fig, axes, study, trials, parameter, by):
    """Draw trials as dots; another parameter has a colour bar for numbers, a marker and a colour for each text."""
    table = pd.DataFrame([{"value": trial.value, **trial.parameters} for trial in trials])
    if by is None:
        axes.scatter(table[parameter], table["value"], color=COLOURS[0], zorder=3)
    elif isinstance(table[by].iloc[0], str):
        for ((text, part), colour), marker in zip(coloured(table.groupby(by)), cycle(MARKERS), strict=False):
            axes.scatter(part[parameter], part["value"], color=colour, marker=marker, label=f"{by} {text}", zorder=3)
    else:
        norm = (LogNorm if _is_logarithmic(study, by) else Normalize)(table[by].min(), table[by].max())
        dots = axes.scatter(table[parameter], table["value"], c=table[by], norm=norm, cmap="viridis", zorder=3)
        fig.colorbar(dots, ax=axes, label=by)


def _is_logarithmic(study, name):
    return getattr(study.parameters[name], "log", False)
