"""What cannot be learnt from is refused before anything is learnt."""

from numbers import Integral

import numpy as np

from recbandits.data.slates import SlateExamples
from recbandits.environments.base import GLOBAL, PER_ARM
from recbandits.training.distribution import strategy_of

WEIGHTS = (None, "ips")


def check_new(agent, event):
    """Refuse events that a linear model has learnt before, or would learn twice."""
    events, times = np.unique(event, return_counts=True)
    if (times > 1).any():
        first, second = np.flatnonzero(event == events[times > 1][0])[:2]
        raise ValueError(f"examples must be of different events, rows {first} and {second} are of the same one")
    again = int(np.isin(events, agent.learned_events.numpy()).sum())
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
    sizes, slots = [features[name].shape[-1] for name in (GLOBAL, PER_ARM)], agent.action_spec.shape
    if slots.rank:
        _check_ranking(agent, weights)
    for name, part in parts.items():
        if isinstance(part, SlateExamples) != bool(slots.rank):
            kind = (
                "SlateExamples for an agent that ranks" if slots.rank else "Examples for an agent that chooses one arm"
            )
            raise ValueError(f"{name} must be {kind}, got {type(part).__name__}")
        if slots.rank:
            _check_slots(name, part, slots[0], isinstance(agent.time_step_spec.reward, dict))
        _check_examples(name, part, sizes)


def _check_ranking(agent, weights):
    """Refuse what is not defined for slates."""
    if weights is not None:
        raise ValueError(f"weights must be None for an agent that ranks, which weighs slots itself, got {weights!r}")
    replicas = strategy_of(agent).num_replicas_in_sync
    if replicas > 1:  # its loss is divided by the sum of its weights, which every replica would know a part of
        raise ValueError(f"an agent that ranks must be made on one replica, it has {replicas}")


def _check_slots(name, part, slots, cascading):
    if part.arm.ndim != 3 or part.reward.shape != part.arm.shape[:2]:
        shapes = f"{list(part.arm.shape)} and {list(part.reward.shape)}"
        raise ValueError(f"{name} must have arm [n, slots, features] and reward [n, slots], got {shapes}")
    if part.arm.shape[1] != slots:
        raise ValueError(f"{name} must have slates of {slots} movies, as the agent, got {part.arm.shape[1]}")
    if cascading and slots > 1 and (part.reward > 0).all():  # such as ratings: each first movie would be the click
        raise ValueError(f"{name} must have rewards of 0 where nothing was clicked, for cascading feedback, got none")


def _check_examples(name, part, sizes):
    got = [part.context.shape[1], part.arm.shape[-1]]
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
