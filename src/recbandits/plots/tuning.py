"""Pictures of a study: which values were tried, what they were worth, which one won."""

from matplotlib.colors import LogNorm, Normalize

from recbandits.platforms.tuning import best_trial
from recbandits.plots.style import COLOURS, REFERENCE, figure

_DASHES = ["--", "-.", ":"]


def trials(study, trials, parameter, by=None, references=None, title=None, metric="mean reward (rating points)"):
    """Draw the value of every trial over one parameter, with its interval; the best is ringed, failures are crosses.

    Args:
      study: Study; its parameters say which axes are logarithmic.
      trials: list of `Trial`, at least one that succeeded.
      parameter: name of the one on the horizontal axis, a `Float` or an `Integer`.
      by: name of another one, shown by colour; None for none.
      references: mapping from a label to a value to draw as a grey line.
      title: of the picture.
      metric: label of the values.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: a parameter that the study does not have.
      PlatformError: no trial has succeeded.
    """
    for name in filter(None, (parameter, by)):
        if name not in study.parameters:
            raise ValueError(f"parameter must be one of {', '.join(study.parameters)}, got {name!r}")
    best = best_trial(study.job.name, trials, study.maximise)
    done = [trial for trial in trials if trial.state == "succeeded"]
    with figure(7.5, 4.2) as (fig, axes):
        for (label, value), dashes in zip((references or {}).items(), _DASHES * len(references or {}), strict=False):
            axes.axhline(
                value, color=REFERENCE, linestyle=dashes, linewidth=1.2, label=f"{label}, {value:.3f}", zorder=1
            )
        for trial in done:
            if trial.interval is not None:
                axes.vlines(trial.parameters[parameter], *trial.interval, color=REFERENCE, linewidth=3, alpha=0.5)
        _points(fig, axes, study, done, parameter, by)
        at = best.parameters[parameter], best.value
        axes.plot(
            *at, "o", markersize=15, markerfacecolor="none", markeredgecolor="black", label=f"best, {best.value:.3f}"
        )
        for trial in trials:
            if trial.state == "failed":
                axes.plot(trial.parameters[parameter], axes.get_ylim()[0], "x", color=COLOURS[1], clip_on=False)
        axes.set(xlabel=parameter, ylabel=metric, title=title)
        if _is_logarithmic(study, parameter):
            axes.set_xscale("log")
        fig.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def _points(fig, axes, study, done, parameter, by):
    """The trials that succeeded, coloured by another parameter: numbers by a bar, texts by the legend."""
    x, y = [trial.parameters[parameter] for trial in done], [trial.value for trial in done]
    if by is None:
        axes.scatter(x, y, color=COLOURS[0], zorder=3)
        return
    values = [trial.parameters[by] for trial in done]
    if not isinstance(values[0], str):
        norm = (LogNorm if _is_logarithmic(study, by) else Normalize)(min(values), max(values))
        fig.colorbar(axes.scatter(x, y, c=values, norm=norm, cmap="viridis", zorder=3), ax=axes, label=by)
        return
    for value, colour in zip(sorted(set(values)), COLOURS * len(values), strict=False):
        places = [place for place, other in enumerate(values) if other == value]
        axes.scatter(
            [x[place] for place in places],
            [y[place] for place in places],
            color=colour,
            label=f"{by} {value}",
            zorder=3,
        )


def _is_logarithmic(study, name):
    return getattr(study.parameters[name], "log", False)
