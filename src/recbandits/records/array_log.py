"""Base of logs: dataclasses of arrays with one row for each decision, checked when made."""

import inspect
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self, get_origin

import numpy as np
import pandas as pd

from recbandits import checks

_FIRST, _LAST = (np.datetime64(time, "us") for time in (datetime.min, datetime.max))


def _are_names(ids: np.ndarray) -> np.ndarray:
    listed = ids.tolist()
    try:
        "".join(listed).encode()  # fails for what is no text, and for half a surrogate pair, which UTF-8 cannot hold
    except (TypeError, UnicodeEncodeError):
        listed = [
            each if isinstance(each, str) and each.encode(errors="ignore").decode() == each else "" for each in listed
        ]
    return np.ones(len(listed), bool) if all(listed) else np.array([bool(each) for each in listed])


EVENT_ID = checks.Rule("text that is not empty", _are_names)
TIME = checks.Rule("a time of the years 1 to 9999", lambda times: (times >= _FIRST) & (times <= _LAST))


@dataclass(frozen=True)
class Column:
    """The declaration of an array of a log.

    Attributes:
      type: NumPy scalar type.
      width: name of the second dimension, which has one size in all arrays of the log; empty for one dimension.
      rule: condition on each value, or None.
      optional: whether there may be no array, None.
    """

    type: type
    width: str = ""
    rule: checks.Rule | None = None
    optional: bool = False

    def convert(self, name: str, value: Any) -> np.ndarray:
        """Convert an array to the type of the column, times to microseconds; refuse it where a value would change."""
        array = np.asarray(value, dtype=object if self.type is object else None)
        if self.type is np.datetime64:
            checks.require(array.dtype.kind == "M", name, "an array of datetime64 in UTC", str(array.dtype))
            rounded = array.astype("datetime64[us]", copy=False)
            checks.require_rows((rounded == array) | np.isnat(array), name, "in microseconds", array)
            return rounded
        castable = np.can_cast(array.dtype, self.type)
        checks.require(castable, name, f"an array of {self.type.__name__}", str(array.dtype))
        return array.astype(self.type, copy=False)


class ArrayLog:
    """Base of frozen dataclasses with arrays, annotated with their `Column`; the first is `event_id`."""

    columns: ClassVar[dict[str, Column]]
    event_id: np.ndarray

    def __init_subclass__(cls) -> None:
        hints = inspect.get_annotations(cls).items()
        cls.columns = {name: hint.__metadata__[0] for name, hint in hints if get_origin(hint) is Annotated}

    def __post_init__(self) -> None:
        widths: dict[str, int] = {}
        for name, column in self.columns.items():
            if column.optional and getattr(self, name) is None:
                continue
            array = vars(self)[name] = column.convert(name, getattr(self, name))
            if array.ndim == 2:
                widths.setdefault(column.width, array.shape[1])
            width = [widths.get(column.width, column.width)] if column.width else []
            checks.require_shape(array, name, self.event_id.size, *width)
            if column.rule is not None:
                self._require(column.rule.holds(array), name, column.rule.expected)
        self._require(~pd.Index(self.event_id).duplicated(), "event_id", "different from all others")

    def __len__(self) -> int:
        return len(self.event_id)

    def take(self, rows: Any) -> Self:
        """Return the log of some rows, each at most once: row numbers, a bool array or a slice."""
        return type(self)(**vars(self) | self._take_parts(rows))

    def _take_parts(self, rows: Any) -> dict[str, Any]:
        """Return some rows of every field that has rows, by name."""
        arrays = {name: getattr(self, name) for name in self.columns}
        return {name: array[rows] for name, array in arrays.items() if array is not None}

    def _require(self, allowed: np.ndarray, name: str, expected: str) -> None:
        checks.require_rows(allowed, name, expected, getattr(self, name), self.event_id)
