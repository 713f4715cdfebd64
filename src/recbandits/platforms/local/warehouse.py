"""The warehouse on this machine: SQLite keeps the records, DuckDB answers BigQuery's SQL from a copy in memory.

Keys are unique, so a record is kept once, however often it is written, by any writer. Each object has its own copy,
which takes the new rows before every query: rows are numbered in the order of their commits.
"""

import contextlib
import functools
import json
import os
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from recbandits.platforms import warehouse_sql as sql
from recbandits.platforms.local.sqlite import Database
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.warehouse import Warehouse, digest_of
from recbandits.records import arrow_schema

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_ROWS = 50_000  # rows that are copied at once


class LocalWarehouse(Warehouse):
    """See `Warehouse`; any number of processes and threads may use a file. Without one, records go with this object."""

    def __init__(self, file: str | Path | None = None):
        if file is None:
            self._temporary = tempfile.TemporaryDirectory()
            file = Path(self._temporary.name, "warehouse.sqlite")
        self._database = Database(file, ";".join(map(_schema, sql.TABLES.values())))
        self._lock, self._copy = threading.Lock(), None

    def create(self) -> None:
        """See `Warehouse.create`."""
        self.query("SELECT 1")

    def query(self, text: str, parameters: dict | None = None) -> pa.Table:
        """See `Warehouse.query`."""
        with _explained(self._database.file):
            statement, names = translated(text)
            values = {name: value for name, value in (parameters or {}).items() if name in names}
            with self._lock:
                copy = self._updated_copy()
                statements = copy.extract_statements(statement)
                kinds = [each.type.name for each in statements]
                if kinds != ["SELECT"]:  # what another one changed would be in the copy alone
                    raise PlatformError(
                        f"warehouse {self._database.file} could not be asked: statement must be one query, got "
                        f"{' and '.join(kinds)}"
                    )
                return copy.sql(statements[0], params=values).to_arrow_table()

    def _merge(self, groups):
        with self._database.write() as connection:
            before = connection.total_changes
            for table, records in groups.items():
                # Of two records with one key the earliest is kept.
                rows = sorted((_row(table, record) for record in records), key=lambda row: row[1:3])
                marks = ", ".join("?" * len(rows[0]))
                connection.executemany(f"INSERT OR IGNORE INTO {table.name} VALUES (NULL, {marks})", rows)
            return connection.total_changes - before

    def _delete(self, statements, parameters):
        values = {name: _microseconds(value) if name == "time" else value for name, value in parameters.items()}
        with self._database.write() as connection:
            for statement in statements:
                connection.execute(statement, values)
            (state,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute(f"PRAGMA user_version = {state + 1}")

    def _updated_copy(self):
        """Return the connection to the copy, which has every row that is committed by now."""
        with self._database.read() as connection:
            (state,) = connection.execute("PRAGMA user_version").fetchone()
            # A forked process, one that rows were taken from, and another file need another copy.
            owner = os.getpid(), state, self._database.identity
            if self._copy is None or self._copy.owner != owner:
                # To close that of the parent process would wait for threads that are not in this one.
                self._inherited = self._copy if self._copy and self._copy.owner[0] != owner[0] else None
                self._copy = _Copy(owner)
            for name in sql.BY_NAME:
                self._copy.take(name, connection)
        return self._copy.connection


class _Copy:
    """Tables in memory, and the number of the last row of each."""

    def __init__(self, owner):
        import duckdb

        self.owner, self._last = owner, dict.fromkeys(sql.BY_NAME, 0)
        # With one thread sums are added up in the same order every time.
        # What does not fit into memory would be written to the working directory, for every user to read.
        settings = {"threads": 1, "enable_external_access": False, "temp_directory": ""}
        self.connection = duckdb.connect(":memory:", config=settings)
        self.connection.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")
        self._forms = {}  # of the JSON in the column `record`, by table
        for table in sql.TABLES.values():
            schema = arrow_schema(table.record).append(pa.field(sql.DIGEST, pa.string()))
            self.connection.register("batch", schema.empty_table())
            self.connection.execute(f"CREATE TABLE {table.name} AS FROM batch")
            described = self.connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table.name})")
            types = dict(described.fetchall())
            self._forms[table.name] = json.dumps({name: types[name] for name in table.record.fields})
        view = "CREATE VIEW decisions AS " + sql.VIEW.format(dataset="")
        self.connection.execute(translated(view)[0])

    def take(self, name, database):
        """Add the rows that are new in a table of a database."""
        new = f"SELECT row, digest, record FROM {name} WHERE row > ? ORDER BY row LIMIT {_ROWS}"
        while rows := database.execute(new, [self._last[name]]).fetchall():
            numbers, digests, records = zip(*rows, strict=True)
            self.connection.register("batch", pa.table({"digest": digests, "record": records}))
            columns = f"unnest(from_json(record, '{self._forms[name]}'))"
            self.connection.execute(f"INSERT INTO {name} SELECT {columns}, digest FROM batch")
            self.connection.unregister("batch")
            self._last[name] = numbers[-1]


@contextlib.contextmanager
def _explained(file):
    import duckdb
    from sqlglot.errors import SqlglotError

    try:
        yield
    except (duckdb.Error, SqlglotError, RecursionError) as error:
        line = str(error).strip().splitlines()[0]
        raise PlatformError(f"warehouse {file} could not be asked: {line}") from error


@functools.lru_cache(maxsize=200)
def translated(text: str) -> tuple[str, tuple[str, ...]]:
    """A statement of BigQuery's for DuckDB, and the tuple of names of its parameters."""
    import sqlglot
    from sqlglot import expressions
    from sqlglot.errors import ErrorLevel, ParseError

    statements = sqlglot.parse(text, read="bigquery")
    if len(statements) != 1 or statements[0] is None:
        raise ParseError(f"one statement is expected, got {len(statements)}")
    names = {parameter.name for parameter in statements[0].find_all(expressions.Parameter)}
    return statements[0].sql("duckdb", unsupported_level=ErrorLevel.RAISE), tuple(sorted(names))


def _schema(table):
    """Statement that makes the table of SQLite: number, key, time and digest of a record, and the JSON of all of it."""
    return (
        f"CREATE TABLE IF NOT EXISTS {table.name} (row INTEGER PRIMARY KEY, {table.key[0]} TEXT NOT NULL, "
        f"time INTEGER NOT NULL, {sql.DIGEST} TEXT NOT NULL, record TEXT NOT NULL, "
        f"user_id TEXT AS (json_extract(record, '$.user_id')), UNIQUE ({', '.join(table.key)}))"
    )


def _row(table, record):
    text = record.to_json()
    return getattr(record, table.key[0]), _microseconds(record.time), digest_of(text), text


def _microseconds(time):
    return (time - _EPOCH) // _MICROSECOND
