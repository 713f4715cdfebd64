"""Tuning on every platform: the best trial of a study, and its parameters for the job that follows."""

import math
from collections.abc import Mapping, Sequence
from operator import attrgetter

from recbandits.platforms.jobs import Choice, Float, Integer, Trial
from recbandits.platforms.protocol import PlatformError
from recbandits.training.problems import as_text

_SHARE = 0.05  # of a range, on the scale of the search, that counts as its bound


def with_parameters(arguments: Sequence[str], parameters: dict) -> tuple[str, ...]:
    """Return arguments of the command line with these parameters in the place of others of the same name, and last.

    Arguments are texts, `--name=value` or `--name` and `value`; parameters are a dict such as that of a `Trial`.
    `dataclasses.replace(job, arguments=with_parameters(job.arguments, best.parameters))` hands a study over to the job
    that follows it.
    """
    kept, replaced = [], False
    for text in arguments:
        is_flag = text.startswith("--")
        replaced = text[2:].partition("=")[0] in parameters if is_flag else replaced
        if not replaced:
            kept.append(text)
        replaced = replaced and is_flag and "=" not in text
    return (*kept, *(f"--{name}={as_text(value)}" for name, value in parameters.items()))


def best_trial(name: str, trials: Sequence[Trial], maximise: bool) -> Trial:
    """Return the succeeded trial with the best value, the first one on ties; PlatformError if none has succeeded."""
    succeeded = [trial for trial in trials if trial.state == "succeeded"]
    if not succeeded:
        raise PlatformError(f"study {name} must have a trial that succeeded to have a best one, it has none")
    return (max if maximise else min)(succeeded, key=attrgetter("value"))


def at_bounds(ranges: Mapping[str, Float | Integer | Choice], parameters: dict) -> dict[str, float]:
    """Return the parameters in the outer 5 % of their ranges, where a wider range may have a better value.

    It is a dict from name to the bound, the lowest or highest value of the range. Ranges are those of a `Study`, of
    which a `Choice` has no bounds, and parameters for example those of the best trial.
    """
    bounds: dict[str, float] = {}
    for name, value in parameters.items():
        values = ranges[name]
        if isinstance(values, Choice):
            continue
        scale = math.log if getattr(values, "log", False) else float
        position = (scale(value) - scale(values.low)) / (scale(values.high) - scale(values.low))
        if not _SHARE < position < 1 - _SHARE:
            bounds[name] = values.low if position <= _SHARE else values.high
    return bounds
