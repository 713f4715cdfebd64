"""One SQLite file that many connections of many processes write to: no commit is lost."""

import shutil

import pytest

from recbandits.platforms.local.sqlite import Database
from recbandits.platforms.protocol import PlatformError
from tests.commands import run_python

_SCHEMA = "CREATE TABLE IF NOT EXISTS names (name TEXT PRIMARY KEY)"
_OTHER = f"""
import sys
from pathlib import Path
from recbandits.platforms.local.sqlite import Database
database = Database(Path(sys.argv[1]), {_SCHEMA!r})
with database.write() as connection:
    connection.executemany("INSERT INTO names VALUES (?)", [[name] for name in sys.argv[2:]])
with database.read() as connection:
    print(*(name for (name,) in connection.execute("SELECT name FROM names ORDER BY name")))
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "names" / "names.sqlite"


def _write(database, name):
    with database.write() as connection:
        connection.execute("INSERT INTO names VALUES (?)", [name])


def _other(file, *names):
    """Write names in a process of its own, which closes its connection, and return all names it sees."""
    return run_python(_OTHER, file, *names).split()


def test_a_second_connection_of_a_process_keeps_the_locks_of_the_first(file):
    """Otherwise another process that ends takes itself for the last one and removes the log that is written to."""
    first, second = Database(file, _SCHEMA), Database(file, _SCHEMA)
    _write(first, "a")
    _write(second, "b")
    assert _other(file, "c") == ["a", "b", "c"]
    _write(first, "d")
    _write(second, "e")
    assert _other(file) == ["a", "b", "c", "d", "e"]


def test_a_transaction_that_fails_writes_nothing(file):
    database = Database(file, _SCHEMA)
    with pytest.raises(PlatformError, match="could not be written: UNIQUE"), database.write() as connection:
        connection.executemany("INSERT INTO names VALUES (?)", [["a"], ["a"]])
    _write(database, "b")
    assert _other(file) == ["b"]


def test_a_new_reader_does_not_wait_for_a_writer(file):
    """Readers are other processes, such as the steps of a pipeline, each with a connection of its own."""
    writer = Database(file, _SCHEMA)
    _write(writer, "a")
    with writer.write(), Database(file, _SCHEMA).read() as connection:
        assert connection.execute("SELECT name FROM names").fetchall() == [("a",)]


def test_tables_that_are_new_in_the_schema_are_added(file):
    _write(Database(file, _SCHEMA), "a")
    grown = Database(file, f"{_SCHEMA}; CREATE TABLE IF NOT EXISTS ages (age INTEGER)")
    with grown.write() as connection:
        connection.execute("INSERT INTO ages VALUES (7)")
    assert _other(file) == ["a"]


@pytest.mark.parametrize("remade", [True, False])
def test_what_is_written_after_the_file_was_removed_is_in_the_one_that_others_read(file, remade):
    """As after the clean-up of another process, whether it has made the file again or not."""
    database, names = Database(file, _SCHEMA), ["b", "c"]
    _write(database, "a")
    shutil.rmtree(file.parent)
    if remade:
        names = [*_other(file, "a"), *names]
    _write(database, "b")
    _write(database, "c")
    assert _other(file) == names
