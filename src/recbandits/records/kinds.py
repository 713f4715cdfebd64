"""The kinds of values that records hold: what each must be, and its type wherever records are kept."""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Kind:
    """A kind of value: what it must be, and its type wherever records are kept.

    Attributes:
      expected: what the value must be, in words.
      read: function from a value to the one that a record stores; None for a value of another kind.
      fits: function from an Arrow type to whether its values are of this kind.
      arrow: type of the column, as in the next two.
      bigquery: without REPEATED.
      duckdb: without NOT NULL.
      rule: function of (its column, all columns by name), [n] or [n, length], giving bool [n]; None for no more rules.
      single: the rule of (one value, all values of the record by name), without arrays, which are slow for one record.
      many: True for a list.
      optional: True where there may be no value.
    """

    expected: str
    read: Callable
    fits: Callable
    arrow: pa.DataType
    bigquery: str
    duckdb: str
    rule: Callable | None = None
    single: Callable | None = None
    many: bool = False
    optional: bool = False

    def or_none(self):
        """The same, or None where there is none."""
        return dataclasses.replace(self, expected=f"{self.expected}, or None", optional=True)

    def but(self, expected, rule, single=None):
        """The same with a rule; `single` where the rule does not hold for numbers and text as it does for arrays."""
        return dataclasses.replace(self, expected=expected, rule=rule, single=single or rule)

    def list(self, expected, rule, single):
        """A list of these, with a rule."""

        def read(values):
            values = tuple(map(self.read, values)) if isinstance(values, tuple | list | np.ndarray) else (None,)
            return None if None in values else values

        def fits(type_):
            lists = pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
            return lists and (self.fits(type_.value_type) or pa.types.is_null(type_.value_type))

        return Kind(
            expected, read, fits, pa.list_(self.arrow), self.bigquery, f"{self.duckdb}[]", rule, single, many=True
        )


_WHOLE, _FLOATING = (int, np.integer), (float, np.floating)


def _text(value):
    if not isinstance(value, str):
        return None
    halves = not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value)  # UTF-8 has none
    return None if halves else str(value)


def _received(value):
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else _text(value)


def _utc(value):
    aware = isinstance(value, datetime) and value.tzinfo is not None and value.utcoffset() is not None
    if not aware or getattr(value, "nanosecond", 0):  # pandas has nanoseconds
        return None
    with contextlib.suppress(OverflowError):  # before the year 1 or after 9999
        return datetime.fromisoformat(value.astimezone(UTC).isoformat())
    return None


def _whole(value):
    whole = isinstance(value, _WHOLE) and not isinstance(value, bool)
    return int(value) if whole and -(2**63) <= value < 2**63 else None


def _number(value):
    if isinstance(value, _FLOATING):
        return float(value)
    whole = _whole(value)  # beyond 2^53 a float would be another number
    return float(whole) if whole is not None and abs(whole) <= 2**53 else None


def _is_text(type_):
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _is_aware(type_):
    return pa.types.is_timestamp(type_) and type_.tz is not None


def _is_number(type_):
    return pa.types.is_floating(type_) or pa.types.is_integer(type_)


def _distinct(ids, row):
    ordered = np.sort(ids, axis=1)
    return (ordered[:, 1:] != ordered[:, :-1]).all(axis=1) & (ids.shape[1] > 0)


_VERDICTS = ("deployed", "refused", "promoted", "rolled back")
TEXT = Kind("text", _text, _is_text, pa.string(), "STRING", "VARCHAR")
NAME = TEXT.but("text that is not empty", lambda names, row: names != "")
RECEIVED = Kind("text or bytes", _received, _is_text, pa.string(), "STRING", "VARCHAR")
VERDICT = TEXT.but(
    "'deployed', 'refused', 'promoted' or 'rolled back'",
    lambda words, row: np.isin(words.astype(str), _VERDICTS),
    lambda word, row: word in _VERDICTS,
)
TIME = Kind(
    "a time with its zone, to the microsecond", _utc, _is_aware, pa.timestamp("us", "UTC"), "TIMESTAMP", "TIMESTAMPTZ"
)
ID = Kind("a 64-bit whole number", _whole, pa.types.is_integer, pa.int64(), "INTEGER", "BIGINT")
IDS = ID.list("distinct 64-bit whole numbers, at least one", _distinct, lambda ids, row: 0 < len(ids) == len(set(ids)))
ONE_OF_THEM = ID.but(
    "one of the candidates",
    lambda id_, row: (id_[:, None] == row["candidates"]).any(axis=1),
    lambda id_, row: id_ in row["candidates"],
)
REAL = Kind("a number", _number, _is_number, pa.float64(), "FLOAT", "DOUBLE")
FINITE = REAL.but("a finite number", lambda value, row: np.isfinite(value))
FINITE_OR_NONE = FINITE.or_none()
VECTOR = REAL.list(
    "finite numbers",
    lambda values, row: np.isfinite(values).all(axis=1),
    lambda values, row: all(map(math.isfinite, values)),
)
SHARE = REAL.but("a number in (0, 1]", lambda value, row: (value > 0) & (value <= 1))
