"""Rules of the fields of records, each with the type of its column."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

WRONG_TYPE = (TypeError, ValueError, OverflowError)  # the errors of pyarrow are among them
VERDICTS = ("deployed", "held", "refused", "ramped", "promoted", "rolled back", "withdrawn")


@dataclass(frozen=True)
class Field:
    """The rule of a field, and the type of its column.

    Attributes:
      expected: completes the sentence "the field must be ...".
      arrow: Arrow type of its column.
      read: function from a value to the value that a record stores; raises one of WRONG_TYPE for one against the rule.
      optional: whether there may be no value, None.
    """

    expected: str
    arrow: pa.DataType
    read: Callable[[Any], Any]
    optional: bool = False

    def accept(self, name: str, value: Any) -> Any:
        """Return a value as a record stores it; ValueError for one that is refused, the sentence names the field."""
        if value is None and self.optional:
            return None
        try:
            return self.read(value)
        except WRONG_TYPE:
            raise ValueError(f"{name} must be {self.expected}, got {value!r}") from None


def parse_context(text: str) -> dict[str, Any]:
    """Parse raw columns of a request, a JSON object; raise one of WRONG_TYPE for another text."""
    values = _parse(text)
    for value in values.values():
        if value is not None and type(value) not in (str, bool):
            _require_number(value)
    return values


def parse_candidate_features(text: str) -> dict[str, list]:
    """Parse a JSON object of lists of numbers of one length; raise one of WRONG_TYPE for another text."""
    lists = _parse(text)
    for values in lists.values():
        if type(values) is not list:
            raise TypeError
        for value in values:
            _require_number(value)
    _require(len(set(map(len, lists.values()))) <= 1)
    return lists


def _parse(text):
    """Parse a JSON object, in which no name occurs twice."""
    try:
        values = _DECODER.decode(text)
    except RecursionError:
        raise ValueError from None
    if "\\u" in text:
        json.dumps(values, ensure_ascii=False).encode()  # raises an error for half a surrogate pair
    if type(values) is not dict:
        raise TypeError
    return values


def _read_object(pairs):
    values = dict(pairs)
    _require(len(values) == len(pairs))
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_read_object, parse_constant=float)


def _require(allowed):
    if not allowed:
        raise ValueError


def _require_number(value):
    """Refuse what is not finite, and whole numbers that could be others as floats."""
    _require(math.isfinite(value) if type(value) is float else type(value) is int and abs(value) <= 2**53)


def _read_text(value):
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # raises an error for half a surrogate pair, which UTF-8 cannot hold
    return str(value)


def _read_name(value):
    _require(value != "")
    return _read_text(value)


def _read_names(values):
    if not isinstance(values, (tuple, list, np.ndarray)):
        raise TypeError
    names = tuple(map(_read_text, values))
    _require("" not in names and 0 < len(names) == len(set(names)))
    return names


def _read_text_of(parse):
    def read(value):
        parse(value)
        return _read_text(value)

    return read


def _read_verdict(value):
    _require(value in VERDICTS)
    return _read_text(value)


def _read_received(value):
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else _read_text(value)


def _read_time(value):
    if not isinstance(value, datetime) or value.utcoffset() is None or getattr(value, "nanosecond", 0):
        raise TypeError
    time = value.astimezone(UTC)
    return time if type(time) is datetime else datetime.fromisoformat(time.isoformat())


def _read_finite(value):
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole and not isinstance(value, (float, np.floating)):
        raise TypeError
    _require(abs(value) <= 2**53 if whole else math.isfinite(value))  # a larger one could be another one as a float
    return float(value)


def _read_probability(value):
    number = _read_finite(value)
    _require(0 < number <= 1)
    return number


TEXT = Field("text", pa.string(), _read_text)
NAME = Field("text that is not empty", pa.string(), _read_name)
NAME_OR_NONE = replace(NAME, expected="text that is not empty, or None", optional=True)
ID = replace(NAME, expected="text or a whole number")
NAMES = Field("distinct texts, none empty, at least one", pa.list_(pa.string()), _read_names)
CANDIDATE = replace(TEXT, expected="one of the candidates")
CONTEXT = Field(
    "a JSON object of texts, finite numbers, true, false and null", pa.string(), _read_text_of(parse_context)
)
CANDIDATE_FEATURES = Field(
    "a JSON object of lists of finite numbers, one for each candidate",
    pa.string(),
    _read_text_of(parse_candidate_features),
)
VERDICT = Field(f"one of {', '.join(VERDICTS)}", pa.string(), _read_verdict)
RECEIVED = Field("text or bytes", pa.string(), _read_received)
TIME = Field("a datetime with its zone, to the microsecond", pa.timestamp("us", "UTC"), _read_time)
FINITE = Field("a finite number", pa.float64(), _read_finite)
FINITE_OR_NONE = replace(FINITE, expected="a finite number, or None", optional=True)
PROBABILITY = Field("a number in (0, 1]", pa.float64(), _read_probability)


def read_id(name: str, value: Any) -> str:
    """Return an id as text: text as it is, a whole number as its text; ValueError with the name for anything else."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return str(value) if whole else ID.accept(name, value)
