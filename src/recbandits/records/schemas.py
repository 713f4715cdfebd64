"""Tables of records, and their schemas."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbandits.checks import require, require_rows
from recbandits.records.fields import WRONG_TYPE, Field
from recbandits.records.records import Record

# Names of the Arrow types, in lists of those of the elements, in BigQuery.
_BIGQUERY_TYPES = {pa.string(): "STRING", pa.timestamp("us", "UTC"): "TIMESTAMP", pa.float64(): "FLOAT"}

AnyRecord = TypeVar("AnyRecord", bound=Record)


def arrow_schema(kind: type[Record]) -> pa.Schema:
    """Return the schema of a table of records in Arrow and Parquet."""
    return pa.schema([pa.field(name, field.arrow, field.optional) for name, field in kind.fields.items()])


def bigquery_schema(kind: type[Record]) -> list[dict[str, str]]:
    """Return the columns of a table of records in BigQuery, as `SchemaField.from_api_repr` takes them."""
    return [
        {
            "name": name,
            "type": _BIGQUERY_TYPES[field.arrow.value_type if pa.types.is_list(field.arrow) else field.arrow],
            "mode": "REPEATED" if pa.types.is_list(field.arrow) else "NULLABLE" if field.optional else "REQUIRED",
            "description": field.expected,
        }
        for name, field in kind.fields.items()
    ]


def to_table(records: Sequence[Record], kind: type[Record] | None = None) -> pa.Table:
    """Return records of one class as a table with their `arrow_schema`, one row for each.

    The class is needed where there are no records. Records of two classes raise ValueError.
    """
    kinds = {type(record) for record in records} | (set() if kind is None else {kind})
    require(len(kinds) == 1, "records", "of one kind", sorted(each.__name__ for each in kinds) or "none")
    return pa.Table.from_pylist([vars(record) for record in records], arrow_schema(kinds.pop()))


def from_table(table: pa.Table | pd.DataFrame, kind: type[AnyRecord]) -> list[AnyRecord]:
    """Return the rows of a table as records; a missing value in a typed column of pandas is None where it may be.

    ValueError as of `convert_table`; or with the number of a row that makes no record, and the sentence of the record.
    """
    if isinstance(table, pd.DataFrame):
        _require_columns(table.columns, kind)
        rows = zip(*(_list_values(table[name], field) for name, field in kind.fields.items()), strict=True)
    else:
        rows = zip(*convert_table(table, kind).to_pydict().values(), strict=True)
    records = []
    for number, values in enumerate(rows):
        try:
            records.append(kind(*values))
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from None
    return records


def convert_table(table: pa.Table | pd.DataFrame, kind: type[Record]) -> pa.Table:
    """Convert the columns of a table to the types of a class of records; texts and lists are not checked.

    Returns:
      Table of the fields with `arrow_schema(kind)`; narrow numbers become wider, times are converted to UTC.

    Raises:
      ValueError: a column is missing, has another type, or lacks a value; the sentence names it. That of a table of
        pandas is the one of `from_table`.
    """
    if isinstance(table, pd.DataFrame):
        _require_columns(table.columns, kind)
        try:
            columns = {name: _as_arrow(table[name], field) for name, field in kind.fields.items()}
            return convert_table(pa.table(columns), kind)
        except WRONG_TYPE:
            return to_table(from_table(table, kind), kind)  # refuses the first row that makes no record
    _require_columns(table.column_names, kind)
    converted = []
    for name, field in kind.fields.items():
        column = table[name]
        try:
            if not _can_hold(field.arrow, column.type) and not pa.types.is_null(column.type):
                raise TypeError
            converted.append(column.cast(field.arrow))
            if pa.types.is_timestamp(field.arrow):
                pc.min_max(converted[-1]).as_py()  # raises an error for years that a datetime cannot have
        except WRONG_TYPE:
            raise ValueError(f"{name} must be {field.expected}, got a column of {column.type}") from None
        known = np.full(len(column), field.optional) | column.is_valid().to_numpy()
        require_rows(known, name, field.expected, np.full(len(column), None))
    return pa.Table.from_arrays(converted, schema=arrow_schema(kind))


def _require_columns(names: Iterable, kind: type[Record]) -> None:
    names = list(map(str, names))
    for name in kind.fields:
        require(name in names, f"columns of {kind.__name__}", f"complete, with {name!r}", names)


def _list_values(column: pd.Series, field: Field) -> list:
    if field.optional and column.dtype != object:
        column = column.astype(object).where(column.notna(), None)
    return column.tolist()


def _as_arrow(column: pd.Series, field: Field) -> pa.Array:
    """Return a column of pandas in Arrow, which would take True for a number and bytes for text in one of objects."""
    if column.dtype == object:
        return pa.array([field.accept(column.name, value) for value in column.tolist()], field.arrow)
    return pa.array(column, from_pandas=field.optional)


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
