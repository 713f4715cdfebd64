"""Tables of records, checked column by column by the rules of the records."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbandits.records.fields import WRONG_TYPE, Field
from recbandits.records.records import Record, arrow_schema

AnyRecord = TypeVar("AnyRecord", bound=Record)


def to_table(records: Sequence[Record], kind: type[Record] | None = None) -> pa.Table:
    """Return records of one kind as a table with their `arrow_schema`, one row for each.

    Args:
      records: of one class, such as `Interaction`.
      kind: the class; needed where there are no records.

    Raises:
      ValueError: the records are of two kinds, or none of an unknown kind.
    """
    kinds = {type(record) for record in records} | (set() if kind is None else {kind})
    if len(kinds) != 1:
        raise ValueError(f"records must all be of one kind, got {sorted(each.__name__ for each in kinds) or 'none'}")
    return pa.Table.from_pylist([vars(record) for record in records], arrow_schema(kinds.pop()))


def from_table(table: pa.Table | pd.DataFrame, kind: type[AnyRecord]) -> list[AnyRecord]:
    """Return the rows of a table as records, after `check_table`."""
    return [kind(**row) for row in check_table(table, kind).to_pylist()]


def check_table(table: pa.Table | pd.DataFrame, kind: type[Record]) -> pa.Table:
    """Check that every row of a table makes a record of a class, such as `Interaction`.

    Returns:
      Table of the fields with `arrow_schema(kind)`; narrow numbers become wider, times are converted to UTC.

    Raises:
      ValueError: a column is missing, or a row makes no record; the sentence names the row, counted from 0, and is
        otherwise that of the record.
    """
    names = list(table.columns if isinstance(table, pd.DataFrame) else table.column_names)
    for name in kind.fields:
        if name not in names:
            raise ValueError(f"column {name!r} of {kind.__name__} is missing, there is {', '.join(map(str, names))}")
    columns: dict[str, pa.Array] = {}
    accepted = np.ones(len(table), bool)
    for name, field in kind.fields.items():
        try:
            columns[name] = _convert(table[name], field)
        except WRONG_TYPE:
            _refuse_rows(table, kind, range(len(table)))
            found = table[name].dtype if isinstance(table, pd.DataFrame) else table[name].type
            raise ValueError(f"{name} must be {field.expected}, got a column of {found}") from None
        accepted &= field.accepted_rows(columns[name], columns)
    _refuse_rows(table, kind, np.flatnonzero(~accepted))
    return pa.Table.from_arrays(list(columns.values()), schema=arrow_schema(kind))


def _convert(values: pa.ChunkedArray | pd.Series, field: Field) -> pa.Array:
    """Convert a column to the Arrow type of its field; raise one of WRONG_TYPE where a value would change."""
    if isinstance(values, pd.Series) and values.dtype == object:  # Arrow would take True for a number
        read = [None if value is None and field.optional else field.read(value) for value in values]
        return pa.array(read, field.arrow)
    # where a field is optional, NaN in a column of numbers of pandas is None
    column = pa.array(values, from_pandas=field.optional) if isinstance(values, pd.Series) else values
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not _can_hold(field.arrow, column.type) and not (field.optional and pa.types.is_null(column.type)):
        raise TypeError
    column = column.cast(field.arrow)
    if pa.types.is_timestamp(column.type):
        pc.min_max(column).as_py()  # raises an error for years that a datetime cannot have
    return column


def _can_hold(wanted: pa.DataType, given: pa.DataType) -> bool:
    """Return whether a type is the wanted one in a wider or narrower form."""
    if pa.types.is_list(wanted):
        lists = pa.types.is_list(given) or pa.types.is_large_list(given) or pa.types.is_fixed_size_list(given)
        return lists and (pa.types.is_null(given.value_type) or _can_hold(wanted.value_type, given.value_type))
    if pa.types.is_timestamp(wanted):
        return pa.types.is_timestamp(given) and given.tz is not None
    if pa.types.is_string(wanted):
        return pa.types.is_string(given) or pa.types.is_large_string(given)
    return pa.types.is_integer(given) or pa.types.is_floating(given)


def _refuse_rows(table: pa.Table | pd.DataFrame, kind: type[Record], rows: Iterable[int]) -> None:
    """Raise the sentence of the first of some rows that makes no record."""
    for row in rows:
        values = {}
        for name, field in kind.fields.items():
            try:
                values[name] = _read_value(table[name], row, field)
            except (ValueError, OverflowError) as error:  # a time that a datetime cannot be
                values[name] = str(error)
        try:
            kind(**values)
        except ValueError as error:
            raise ValueError(f"row {row}: {error}") from None


def _read_value(column: pa.ChunkedArray | pd.Series, row: int, field: Field) -> Any:
    if not isinstance(column, pd.Series):
        return column[row].as_py()
    value = column.iloc[row]
    return None if field.optional and column.dtype != object and pd.isna(value) else value
