"""Checks of values, each with one sentence for a value that is refused."""

import math
import numbers


def positive(parameters, field):
    """Refuse a field that is not a positive finite number."""
    value = getattr(parameters, field)
    require(parameters, field, _is_number(value) and 0 < value < math.inf, "positive and finite")


def at_least_zero(parameters, field):
    """Refuse a field that is not a finite number of 0 or more."""
    value = getattr(parameters, field)
    require(parameters, field, _is_number(value) and 0 <= value < math.inf, "0 or more and finite")


def finite(parameters, field):
    """Refuse a field that is not a finite number."""
    value = getattr(parameters, field)
    require(parameters, field, _is_number(value) and math.isfinite(value), "finite")


def probability(parameters, field):
    """Refuse a field that is not in [0, 1]."""
    value = getattr(parameters, field)
    require(parameters, field, _is_number(value) and 0 <= value <= 1, "in [0, 1]")


def share(parameters, field):
    """Refuse a field that is not in (0, 1]."""
    value = getattr(parameters, field)
    require(parameters, field, _is_number(value) and 0 < value <= 1, "in (0, 1]")


def one_of(parameters, field, values):
    """Refuse a field that is none of some values."""
    require(parameters, field, getattr(parameters, field) in values, f"one of {', '.join(map(str, values))}")


def is_count(value):
    """Whether a value is a positive whole number."""
    return isinstance(value, numbers.Integral) and value > 0


def require(parameters, field, allowed, expected):
    """Refuse a field, unless it is allowed, by what was expected.

    Raises:
      ValueError: it is not.
    """
    if not allowed:
        name = type(parameters).__name__
        raise ValueError(f"{name}: {field} must be {expected}, got {getattr(parameters, field)!r}")


def _is_number(value):
    return isinstance(value, numbers.Real)
