"""What cannot be learnt from is refused before anything is learnt."""

from numbers import Integral

import numpy as np

from recbandits.environments.base import GLOBAL, PER_ARM

WEIGHTS = (None, "ips")


def check_new(agent, event):
    """Refuse events that a linear model has learnt before, or would learn twice."""
    events, times = np.unique(event, return_counts=True)
    if (times > 1).any():
        first, second = np.flatnonzero(event == events[times > 1][0])[:2]
        raise ValueError(f"examples must be of different events, rows {first} and {second} are of the same one")
    again = int(np.isin(events, agent.learnt.numpy()).sum())
    if again:
        raise ValueError(
            f"examples must be new to a linear model, it has learnt {again} of these {len(events)} events before: "
            "the same evidence counted twice would make it too sure of itself"
        )


def check(agent, parts, epochs, batch_size, patience, weights):
    """Refuse options out of their range, and parts (a mapping from names to Examples) that do not fit the agent."""
    for name, value in (
        ("epochs", epochs),
        ("batch_size", batch_size),
        ("patience", 1 if patience is None else patience),
    ):
        if not (isinstance(value, Integral) and value >= 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if patience is not None and "validation" not in parts:
        raise ValueError("patience needs examples for validation, got none")
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be None or 'ips', got {weights!r}")
    features = agent.time_step_spec.observation
    if not isinstance(features, dict):
        raise ValueError("agent must be made for arms with features, as Specs describes them")
    sizes = [features[name].shape[-1] for name in (GLOBAL, PER_ARM)]
    for name, part in parts.items():
        _check_examples(name, part, sizes)


def _check_examples(name, part, sizes):
    got = [part.context.shape[1], part.arm.shape[1]]
    if got != sizes:
        raise ValueError(f"{name} must have {sizes[0]} context and {sizes[1]} arm features, as the agent, got {got}")
    if not len(part.event):
        raise ValueError(f"{name} must have at least one row, got none")
    if part.event.dtype != np.int64:  # others would be rounded beside those that the agent keeps
        raise ValueError(f"{name} must have events as int64, got {part.event.dtype}")
    lengths = {field: len(values) for field, values in zip(part._fields, part, strict=True)}
    for field, length in lengths.items():
        if length != lengths["context"]:
            raise ValueError(f"{name} must have as many {field} as context, {lengths['context']}, got {length}")
    for field, values in zip(part._fields, part, strict=True):
        if field in ("propensity", "pass_prob"):
            good, expected = (values > 0) & (values <= 1), "in (0, 1]"
        else:
            good, expected = np.isfinite(values), "finite"
        if not good.all():
            place = tuple(np.argwhere(~good)[0])
            raise ValueError(f"{name}: {field} of row {place[0]} must be {expected}, got {values[place]}")
