"""Tables of records: the same rules, column by column."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbandits.records.records import FIELDS, arrow_schema

_OTHER_KIND = (TypeError, ValueError, OverflowError)  # pyarrow's errors are among them
_FOUR_DIGIT_YEARS = (-62_135_596_800_000_000, 253_402_300_799_999_999)  # microseconds since 1970


def to_table(records, kind=None):
    """Records of one kind as an Arrow table.

    Args:
      records: list of records, such as `Interaction` or `Reward`.
      kind: which of them; needed for an empty list only.

    Returns:
      pyarrow.Table with `arrow_schema(kind)`, one row a record.

    Raises:
      ValueError: records of two kinds, or none of an unknown kind.
    """
    found = {type(record) for record in records} | ({kind} - {None})
    if len(found) != 1:
        raise ValueError(f"records must all be of one kind, got {sorted(each.__name__ for each in found) or 'none'}")
    return pa.Table.from_pylist([vars(record) for record in records], arrow_schema(found.pop()))


def from_table(table, kind):
    """Rows of a table as a list of records; the table is checked first, as `check_table` says."""
    return [kind(**row) for row in check_table(table, kind).to_pylist()]


def check_table(table, kind):
    """Hold every row of a table to the rules of a record.

    Args:
      table: pyarrow.Table or pandas.DataFrame with at least the fields of the record as columns.
      kind: `Interaction` or `Reward`.

    Returns:
      pyarrow.Table of these columns with `arrow_schema(kind)`. Types change only where nothing is lost: narrow numbers
      get wider, times in another zone are told in UTC.

    Raises:
      ValueError: a missing column, or a row that makes no record; the sentence names the row, counted from 0, and is
        otherwise that of the record.
    """
    names = list(table.columns if isinstance(table, pd.DataFrame) else table.column_names)
    columns = []
    for name, field in FIELDS[kind].items():
        if name not in names:
            raise ValueError(f"column {name!r} of {kind.__name__} is missing, there is {', '.join(map(str, names))}")
        try:
            columns.append(_column(table[name], field))
        except _OTHER_KIND:
            _refuse_column(table, kind, name)
    checked = pa.Table.from_arrays(columns, schema=arrow_schema(kind))
    good = ~np.any([_holes(column) for column in columns], axis=0)
    if good.all():
        for rows, values in _dense(checked):
            for name, field in FIELDS[kind].items():
                if field.rule is not None:
                    good[rows] &= field.rule(values[name], values)
    if not good.all():
        _refuse(table, kind, int(np.argmin(good)))
    return checked


def _column(values, field):
    """A column in the Arrow type of its field; raises one of _OTHER_KIND where a value is of another kind."""
    if isinstance(values, pd.Series) and values.dtype == object:
        read = [field.read(value) for value in values]  # Arrow would take True for a number, and noon without a zone
        if None in read:
            raise TypeError
        return pa.array(read, field.arrow)
    if isinstance(values, pd.Series):
        values = pa.array(values, from_pandas=False)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not field.fits(values.type):
        raise TypeError
    return values.cast(field.arrow)


def _holes(column):
    """True, bool [rows], where a value is missing, or a time is in a year that has not four digits."""
    holes = column.is_null().to_numpy(zero_copy_only=False).copy()
    if pa.types.is_list(column.type):
        missing = pc.list_flatten(column).is_null()
        holes[pc.list_parent_indices(column).filter(missing).to_numpy()] = True
    if pa.types.is_timestamp(column.type):
        first, last = _FOUR_DIGIT_YEARS
        time = column.cast(pa.int64()).fill_null(0).to_numpy()
        holes |= (time < first) | (time > last)
    return holes


def _dense(table):
    """Split a table by the lengths of its lists: row numbers [m], and NumPy arrays [m] or [m, length]."""
    lists = [name for name in table.column_names if pa.types.is_list(table.schema.field(name).type)]
    lengths = pd.DataFrame({name: pc.list_value_length(table[name]).to_numpy() for name in lists})
    groups = lengths.groupby(lists).indices.values() if lists else [np.arange(len(table))]
    for rows in groups:
        part = table if len(rows) == len(table) else table.take(rows)
        values = {name: part[name].to_numpy() for name in table.column_names if name not in lists}
        yield rows, values | {name: pc.list_flatten(part[name]).to_numpy().reshape(len(rows), -1) for name in lists}


def _refuse_column(table, kind, name):
    """Raise the sentence for the first value of another kind, or for the type of a column that has no value."""
    column, field = table[name], FIELDS[kind][name]
    for row, value in enumerate(column.tolist() if isinstance(column, pd.Series) else column.to_pylist()):
        if field.read(value) is None:
            _refuse(table, kind, row)
    found = column.dtype if isinstance(column, pd.Series) else column.type
    raise ValueError(f"{name} must be {field.expected}, got a column of {found}")


def _refuse(table, kind, row):
    """Raise the sentence of the record that a row does not make."""
    values = {}
    for name in FIELDS[kind]:
        try:
            values[name] = table[name].iloc[row] if isinstance(table, pd.DataFrame) else table[name][row].as_py()
        except (ValueError, OverflowError) as error:  # a time that Python has not
            values[name] = str(error)
    try:
        kind(**values)
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from None
    raise AssertionError(f"row {row}: the rules of tables and of records disagree")
