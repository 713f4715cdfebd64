"""What logs of decisions have in common: columns with one row a decision, checked when made, never repaired."""

from dataclasses import fields

import numpy as np
import pandas as pd


class Records:
    """Base of frozen dataclasses of arrays [n, ...]; one of them is `event_id`, text that names the row."""

    def __len__(self):
        return len(self.event_id)

    def take(self, rows):
        """Log of some of the rows: row numbers, a bool array or a slice, each row at most once."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: None if column is None else column[rows] for name, column in columns.items()})

    def _set_columns(self, types):
        """Make every field an array of its type (see `typed`), event_id one of objects; None stays."""
        object.__setattr__(self, "event_id", np.asarray(self.event_id, dtype=object))
        for name, kind in types.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, typed(name, getattr(self, name), kind))

    def _check_shapes(self, wide):
        """Refuse a column that is not [n], or for the names in `wide` not [n, wide[name]]."""
        for field in fields(self):
            column = getattr(self, field.name)
            expected = (self.event_id.size, *([wide[field.name]] if field.name in wide else []))
            if column is not None and column.shape != expected:
                raise ValueError(f"{field.name} must have the shape {list(expected)}, got {list(column.shape)}")

    def _check_events(self):
        named = np.array([isinstance(name, str) and name != "" for name in self.event_id], bool)
        self._refuse(named, "event_id", "text that is not empty", self.event_id)
        again = pd.Index(self.event_id).duplicated()
        self._refuse(~again, "event_id", "different from all others", self.event_id)

    def _refuse(self, valid, name, expected, value):
        """Raise the sentence about the first row where `valid` [n, ...] is not true throughout."""
        if not valid.all():
            row = np.argwhere(~valid)[0, 0]
            raise ValueError(f"row {row} ({self.event_id[row]}): {name} must be {expected}, got {value[row]}")


def typed(name, value, kind):
    """Array of the type `kind`; float32 becomes float64, but nothing loses a digit or a meaning.

    Args:
      name: of the column, for the sentence.
      value: array.
      kind: NumPy scalar type.

    Returns:
      Array of that type; times in microseconds.

    Raises:
      ValueError: the array is of a type that `kind` cannot hold.
    """
    value = np.asarray(value)
    if kind is np.datetime64:
        if value.dtype.kind != "M":
            raise ValueError(f"{name} must be an array of datetime64 in UTC, got {value.dtype}")
        rounded = value.astype("datetime64[us]", copy=False)
        if (lost := (rounded != value) & ~np.isnat(value)).any():
            raise ValueError(f"{name} must be told in microseconds, got {value[lost][0]}")
        return rounded
    if not np.can_cast(value.dtype, kind):
        raise ValueError(f"{name} must be an array of {kind.__name__}, got {value.dtype}")
    return value.astype(kind, copy=False)
