"""The warehouse on this machine: BigQuery's SQL on DuckDB."""

import contextlib
import functools
import threading
from pathlib import Path

from recbandits.platforms import PlatformError
from recbandits.platforms import warehouse_sql as sql
from recbandits.platforms.warehouse import Warehouse


class DuckWarehouse(Warehouse):
    """A warehouse in this process, which may be asked and written to by several threads.

    Args:
      path: file that belongs to this process as long as it is open, made with its directory if missing; ":memory:" for
        none.

    Raises:
      PlatformError: another process has the file, or it is none of DuckDB's.
    """

    def __init__(self, path=":memory:"):
        import duckdb

        self._name, self._turn = f"warehouse {path}", threading.Lock()
        with self._explained("opened"):
            if path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            # One thread a statement: sums are added up in the same order every time.
            self._connection = duckdb.connect(str(path), config={"threads": 1})
            self._connection.execute("SET GLOBAL TimeZone = 'UTC'")
        self.create()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Let go of the file."""
        self._connection.close()

    def create(self):
        """See `Warehouse.create`."""
        from recbandits.interactions import duckdb_schema

        with self._transaction("created") as cursor:
            for table in sql.TABLES.values():
                columns = f"{duckdb_schema(table.record)}, {sql.DIGEST} VARCHAR NOT NULL"
                cursor.execute(f"CREATE TABLE IF NOT EXISTS {table.name} ({columns})")
            view = "CREATE OR REPLACE VIEW decisions AS " + sql.VIEW.format(dataset="")
            cursor.execute(translated(view)[0])

    def query(self, text, parameters=None):
        """See `Warehouse.query`."""
        with self._cursor("asked") as cursor:
            statement, names = translated(text)
            given = {name: (parameters or {})[name] for name in names}
            return cursor.sql(statement, params=given).to_arrow_table()

    def insert(self, batches):
        """Add rows in one transaction, unless they are there.

        Args:
          batches: dict from name of a table to pyarrow.Table with its columns.

        Returns:
          list of the digests of those that are new.
        """
        new = []
        with self._transaction("written to") as cursor:
            for table in sql.TABLES.values():
                if table.name in batches:
                    new += _merged(cursor, table, batches[table.name])
        return new

    def _merge(self, batches):
        return len(self.insert(batches))

    def _change(self, statements, parameters):
        with self._transaction("changed") as cursor:
            for statement in statements:
                cursor.execute(translated(statement)[0], parameters)

    @contextlib.contextmanager
    def _cursor(self, done):
        with self._explained(done):
            cursor = self._connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()

    @contextlib.contextmanager
    def _transaction(self, done):
        """What one thread does at a time, all or nothing; ends when it is on the disk."""
        with self._turn, self._cursor(done) as cursor:
            cursor.begin()
            try:
                yield cursor
                cursor.commit()
            except BaseException:
                with contextlib.suppress(Exception):  # a commit that failed has ended the transaction
                    cursor.rollback()
                raise

    @contextlib.contextmanager
    def _explained(self, done):
        import duckdb
        from sqlglot.errors import SqlglotError

        try:
            yield
        except KeyError as error:
            raise PlatformError(f"{self._name} could not be {done}: there is no value for @{error.args[0]}") from error
        except (duckdb.Error, SqlglotError, OSError) as error:
            raise PlatformError(f"{self._name} could not be {done}: {_line(error)}") from error


@functools.lru_cache(maxsize=200)
def translated(text):
    """A statement of BigQuery's for DuckDB, and the tuple of names of its parameters."""
    import sqlglot
    from sqlglot import expressions
    from sqlglot.errors import ErrorLevel, ParseError

    statements = sqlglot.parse(text, read="bigquery")
    if len(statements) != 1 or statements[0] is None:
        raise ParseError(f"one statement is expected, got {len(statements)}")
    names = {parameter.name for parameter in statements[0].find_all(expressions.Parameter)}
    return statements[0].sql("duckdb", unsupported_level=ErrorLevel.RAISE), tuple(sorted(names))


def _merged(cursor, table, batch):
    """Digests of the rows that a batch adds to a table."""
    import pyarrow.compute as pc

    cursor.register("batch", batch)
    statement, names = translated(sql.merge(table, "batch"))
    times = pc.min_max(batch["time"]).as_py()
    bounds = {"first": times["min"], "last": times["max"]}
    return [
        digest
        for (digest,) in cursor.execute(
            f"{statement} RETURNING {sql.DIGEST}", {name: bounds[name] for name in names}
        ).fetchall()
    ]


def _line(error):
    """The first line of what DuckDB or sqlglot says."""
    return str(error).strip().splitlines()[0]
