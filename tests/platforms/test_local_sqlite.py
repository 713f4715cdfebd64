"""One SQLite file that many connections of many processes write to: no commit is lost."""

import subprocess
import sys

import pytest

from recbandits.platforms.local.sqlite import Database
from recbandits.platforms.protocol import PlatformError

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
    command = [sys.executable, "-c", _OTHER, file, *names]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


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
