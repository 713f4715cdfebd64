"""The warehouse on this machine: BigQuery's SQL on DuckDB."""

import contextlib
import functools
import threading
from pathlib import Path

from recbandits.platforms import warehouse_sql as sql
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.warehouse import Warehouse, bounds, distinct


class DuckWarehouse(Warehouse):
    """A warehouse in this process, which may be asked and written to by several threads.

    Args:
      path: file that belongs to this process as long as it is open, made with its directory if missing; ":memory:" for
        none.

    Attributes:
      broken: True once it has to be closed and opened again, as after a disk that was full; what was written is there.

    Raises:
      PlatformError: another process has the file, or it is none of DuckDB's.
    """

    def __init__(self, path=":memory:"):
        import duckdb

        self.broken = False
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

    def stop(self):
        """Nothing: it is in this process; `close` ends it."""

    def create(self):
        """See `Warehouse.create`."""
        from recbandits.records import duckdb_schema

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
            given = {name: value for name, value in (parameters or {}).items() if name in names}
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
            for name, batch in batches.items():
                new += _merged(cursor, sql.BY_NAME[name], distinct(name, batch))
        return new

    def _merge(self, batches):
        return len(self.insert(batches))

    def change(self, statements, parameters):
        """Run statements of BigQuery's SQL that give no rows, all or none of them."""
        with self._transaction("changed") as cursor:
            for statement in statements:
                cursor.execute(translated(statement)[0], parameters)

    _change = change

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
        except (duckdb.Error, SqlglotError, OSError) as error:
            self.broken = self.broken or isinstance(error, duckdb.FatalException | duckdb.InternalException)
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
    cursor.register("batch", batch)
    statement, names = translated(sql.merge(table, "batch"))
    given = {name: value for name, value in bounds(batch).items() if name in names}
    return [digest for (digest,) in cursor.execute(f"{statement} RETURNING {sql.DIGEST}", given).fetchall()]


def _line(error):
    """The first line of what DuckDB or sqlglot says."""
    return str(error).strip().splitlines()[0]
