"""Rules of the fields of records: one declaration checks a value alone and all values of a column."""

import contextlib
import functools
import json
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recbandits import checks

WRONG_TYPE = (TypeError, ValueError, OverflowError)  # the errors of pyarrow are among them
VERDICTS = ("deployed", "held", "refused", "ramped", "promoted", "rolled back", "withdrawn")
ANY = -1  # count of a JSON text that describes no list
_SHORT = 1000  # letters of a JSON text that is remembered
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
      among: name of the list field, declared before this one, that must contain the value, or have as many elements as
        the value describes; empty for none.
      count: of JSON, function from the text to the number of elements that it describes, or ANY; raises one of
        WRONG_TYPE for a text against the rule. None where the field is no JSON.
      optional: whether there may be no value, None.
    """

    expected: str
    arrow: pa.DataType
    read: Callable[[Any], Any]
    holds: Callable[[Any], Any] | None = None
    distinct: bool = False
    among: str = ""
    count: Callable[[str], int] | None = None
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
            among = (record or {})[self.among] if self.among else ()
            if self.count is not None:
                accepted = self.count(stored) in (ANY, len(among))
            elif self.among:
                accepted = accepted and stored in among
        except WRONG_TYPE:
            accepted = False
        checks.require(accepted, name, self.expected, value)
        return stored

    def accepted_rows(self, column: pa.Array, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Find the rows whose values `accept` accepts, bool [rows], given the columns before this one, by name."""
        is_list = pa.types.is_list(column.type)
        values = pc.list_flatten(column).dictionary_encode() if is_list else column  # equal ids are looked at once
        accepted = _is_valid(values)
        if self.holds is not None:
            accepted = accepted & _holds(self.holds, values)
        if is_list:
            refused = pc.list_parent_indices(column).to_numpy()[~accepted]
            accepted = _is_valid(column) & (np.bincount(refused, minlength=len(column)) == 0)
        if self.distinct:
            accepted = accepted & _is_distinct(column, values.indices)
        if self.count is not None:
            sizes = pc.list_value_length(columns[self.among]).fill_null(0).to_numpy() if self.among else ANY
            counts = _count(self.count, column)
            accepted = accepted & ((counts == ANY) | (counts == sizes))
        elif self.among:
            rows = pc.list_parent_indices(columns[self.among])
            found = rows.filter(pc.equal(pc.list_flatten(columns[self.among]), column.take(rows))).to_numpy()
            accepted = accepted & (np.bincount(found, minlength=len(column)) > 0)
        return accepted | ~_is_valid(column) if self.optional else accepted


def _is_valid(column: pa.Array) -> np.ndarray:
    return column.is_valid().to_numpy(zero_copy_only=False)


def _holds(holds: Callable[[Any], Any], values: pa.Array) -> np.ndarray:
    if pa.types.is_dictionary(values.type):
        held = np.append(_holds(holds, values.dictionary), False)  # the last one is that of null
        return held[values.indices.fill_null(-1).to_numpy()]
    return holds(values.to_numpy(zero_copy_only=False))


def _count(count: Callable[[str], int], texts: pa.Array) -> np.ndarray:
    """Count what JSON texts describe, int [rows], less than ANY for one against the rule; parse equal ones once."""
    encoded = texts.dictionary_encode()
    counts = np.full(len(encoded.dictionary) + 1, ANY - 1)  # the last one is that of null
    for number, text in enumerate(encoded.dictionary.to_pylist()):
        with contextlib.suppress(*WRONG_TYPE):
            counts[number] = count(text)
    return counts[encoded.indices.fill_null(-1).to_numpy()]


def _is_distinct(column: pa.ListArray, codes: pa.Array) -> np.ndarray:
    """Find the lists that have an element, and none twice, bool [rows], given a number for each different element."""
    lengths = pc.list_value_length(column).fill_null(0).to_numpy()
    values, ends = codes.fill_null(-1).to_numpy(), lengths.cumsum()
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


def _read_number(value):
    whole = isinstance(value, _WHOLE) and not isinstance(value, bool)
    if not whole and not isinstance(value, _FLOATING):
        raise TypeError
    if whole and abs(value) > 2**53:  # as a float it could be another number
        raise ValueError
    return float(value)


def _list_of(read):
    def read_list(values):
        if not isinstance(values, _LISTS):
            raise TypeError
        return tuple(map(read, values))

    return read_list


def _is_named(text):
    return text != ""


def _is_verdict(text):
    return functools.reduce(operator.or_, (text == kind for kind in VERDICTS))


def read_json(text: str) -> dict[str, Any]:
    """Read a JSON object; raise one of WRONG_TYPE for another text, and a name that occurs twice."""
    try:
        values = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(values, ensure_ascii=False).encode()  # raises an error for half a surrogate pair
    except RecursionError:
        raise ValueError from None
    if type(values) is not dict:
        raise TypeError
    return values


def _read_object(pairs):
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_read_object, parse_constant=float)


def _require_number(value):
    finite = math.isfinite(value) if type(value) is float else type(value) is int and abs(value) <= 2**53
    if not finite:  # a larger whole number could be another one as a float
        raise ValueError


def _count_context(text):
    for value in read_json(text).values():
        if value is not None and type(value) not in (str, bool):
            _require_number(value)
    return ANY


def _count_numbers(text):
    lists = read_json(text).values()
    for values in lists:
        if type(values) is not list:
            raise TypeError
        for value in values:
            _require_number(value)
    sizes = set(map(len, lists))
    if len(sizes) > 1:
        raise ValueError
    return sizes.pop() if sizes else ANY


def _remember(count):
    """Return a function that counts a short text once: many decisions have the same context, and are read twice."""
    remembered = lru_cache(4096)(count)
    return lambda text: remembered(text) if len(text) < _SHORT else count(text)


TEXT = Field("text", pa.string(), _read_text)
NAME = Field("text that is not empty", pa.string(), _read_text, _is_named)
NAME_OR_NONE = Field("text that is not empty, or None", pa.string(), _read_text, _is_named, optional=True)
NAMES = Field("distinct texts, none empty, at least one", pa.list_(pa.string()), _list_of(_read_text), _is_named, True)
CANDIDATE = Field("one of the candidates", pa.string(), _read_text, among="candidates")
CONTEXT = Field(
    "a JSON object of texts, finite numbers, true, false and null",
    pa.string(),
    _read_text,
    count=_remember(_count_context),
)
CANDIDATE_FEATURES = Field(
    "a JSON object of lists of finite numbers, one for each candidate",
    pa.string(),
    _read_text,
    among="candidates",
    count=_remember(_count_numbers),
)
VERDICT = Field(f"one of {', '.join(VERDICTS)}", pa.string(), _read_text, _is_verdict)
RECEIVED = Field("text or bytes", pa.string(), _read_received)
TIME = Field("a time with its zone, to the microsecond", pa.timestamp("us", "UTC"), _read_time)
FINITE = Field("a finite number", pa.float64(), _read_number, checks.FINITE.holds)
FINITE_OR_NONE = Field("a finite number, or None", pa.float64(), _read_number, checks.FINITE.holds, optional=True)
PROBABILITY = Field("a number in (0, 1]", pa.float64(), _read_number, checks.POSITIVE_PROBABILITY.holds)
