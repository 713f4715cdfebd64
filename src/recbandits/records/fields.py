"""Rules of the fields of records: one declaration checks a value alone and all values of a column."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbandits import checks

WRONG_TYPE = (TypeError, ValueError, OverflowError)  # the errors of pyarrow are among them
_WHOLE, _FLOATING, _LISTS = (int, np.integer), (float, np.floating), (tuple, list, np.ndarray)


@dataclass(frozen=True)
class Field:
    """The rule of a field, and the type of its column.

    Attributes:
      expected: completes the sentence "the field must be ...".
      arrow: Arrow type of its column.
      read: function from a value to the value that a record stores; raises one of WRONG_TYPE for another type.
      holds: condition on a stored value, in lists on each element; takes an array of them as well. None for no more.
      distinct: whether a list must have at least one element, and no element twice.
      among: name of the list field, declared before this one, that must contain the value; empty for none.
      optional: whether there may be no value, None.
    """

    expected: str
    arrow: pa.DataType
    read: Callable[[Any], Any]
    holds: Callable[[Any], Any] | None = None
    distinct: bool = False
    among: str = ""
    optional: bool = False

    def accept(self, name: str, value: Any, record: Mapping[str, Any] | None = None) -> Any:
        """Return a value as a record stores it, given the stored values of the fields before this one, by name.

        Raises:
          ValueError: the value is refused; the sentence names the field.
        """
        if value is None and self.optional:
            return None
        try:
            stored = self.read(value)
            elements = stored if type(stored) is tuple else (stored,)
            accepted = self.holds is None or all(map(self.holds, elements))
            accepted = accepted and (not self.distinct or 0 < len(elements) == len(set(elements)))
            accepted = accepted and (not self.among or stored in (record or {})[self.among])
        except WRONG_TYPE:
            accepted = False
        checks.require(accepted, name, self.expected, value)
        return stored

    def accepted_rows(self, column: pa.Array, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Find the rows whose values `accept` accepts, bool [rows], given the columns before this one, by name."""
        is_list = pa.types.is_list(column.type)
        values = pc.list_flatten(column) if is_list else column
        accepted = _is_valid(values)
        if self.holds is not None:
            accepted = accepted & self.holds(values.to_numpy(zero_copy_only=False))
        if is_list:
            refused = pc.list_parent_indices(column).to_numpy()[~accepted]
            accepted = _is_valid(column) & (np.bincount(refused, minlength=len(column)) == 0)
        if self.distinct:
            accepted = accepted & _is_distinct(column)
        if self.among:
            rows = pc.list_parent_indices(columns[self.among])
            found = rows.filter(pc.equal(pc.list_flatten(columns[self.among]), column.take(rows))).to_numpy()
            accepted = accepted & (np.bincount(found, minlength=len(column)) > 0)
        return accepted | ~_is_valid(column) if self.optional else accepted


def _is_valid(column: pa.Array) -> np.ndarray:
    return column.is_valid().to_numpy(zero_copy_only=False)


def _is_distinct(column: pa.ListArray) -> np.ndarray:
    """Find the lists that have an element, and none twice, bool [rows]."""
    lengths = pc.list_value_length(column).fill_null(0).to_numpy()
    values, ends = pc.list_flatten(column).to_numpy(zero_copy_only=False), lengths.cumsum()
    distinct = np.zeros(len(column), bool)
    for length in np.unique(lengths[lengths > 0]):
        rows = np.flatnonzero(lengths == length)
        lists = values if len(rows) == len(column) else values[(ends[rows] - length)[:, None] + np.arange(length)]
        distinct[rows] = checks.distinct(lists.reshape(-1, length))
    return distinct


def _read_text(value):
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # raises an error for half a surrogate pair, which UTF-8 cannot hold
    return str(value)


def _read_received(value):
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else _read_text(value)


def _read_time(value):
    if not isinstance(value, datetime) or value.utcoffset() is None or getattr(value, "nanosecond", 0):
        raise TypeError
    time = value.astimezone(UTC)
    return time if type(time) is datetime else datetime.fromisoformat(time.isoformat())


def _read_whole(value):
    if isinstance(value, bool) or not isinstance(value, _WHOLE) or not -(2**63) <= value < 2**63:
        raise TypeError
    return int(value)


def _read_number(value):
    if isinstance(value, _FLOATING):
        return float(value)
    whole = _read_whole(value)
    if abs(whole) > 2**53:  # as a float it could be another number
        raise ValueError
    return float(whole)


def _list_of(read):
    def read_list(values):
        if not isinstance(values, _LISTS):
            raise TypeError
        return tuple(map(read, values))

    return read_list


def _is_verdict(text):
    return (text == "deployed") | (text == "refused") | (text == "promoted") | (text == "rolled back")


TEXT = Field("text", pa.string(), _read_text)
NAME = Field("text that is not empty", pa.string(), _read_text, lambda text: text != "")
VERDICT = Field("'deployed', 'refused', 'promoted' or 'rolled back'", pa.string(), _read_text, _is_verdict)
RECEIVED = Field("text or bytes", pa.string(), _read_received)
TIME = Field("a time with its zone, to the microsecond", pa.timestamp("us", "UTC"), _read_time)
ID = Field("a 64-bit whole number", pa.int64(), _read_whole)
ID_OR_NONE = Field("a 64-bit whole number, or None", pa.int64(), _read_whole, optional=True)
IDS = Field("distinct 64-bit whole numbers, at least one", pa.list_(pa.int64()), _list_of(_read_whole), distinct=True)
CANDIDATE = Field("one of the candidates", pa.int64(), _read_whole, among="candidates")
FINITE = Field("a finite number", pa.float64(), _read_number, checks.FINITE.holds)
FINITE_OR_NONE = Field("a finite number, or None", pa.float64(), _read_number, checks.FINITE.holds, optional=True)
VECTOR = Field("finite numbers", pa.list_(pa.float64()), _list_of(_read_number), checks.FINITE.holds)
PROBABILITY = Field("a number in (0, 1]", pa.float64(), _read_number, checks.POSITIVE_PROBABILITY.holds)
