"""SQLite files that many processes and threads of this machine write to at once.

A committed transaction survives the end of every process. A power failure may undo the last ones, because
`synchronous = NORMAL` does not flush the log at each commit. The write-ahead log needs a local disk.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from recbandits import checks
from recbandits.platforms.local.files import require_local
from recbandits.platforms.protocol import PlatformError

_PATIENCE = 30.0  # seconds to wait for other writers
_CHECKPOINT = 500  # commits of one connection between two checkpoints


class Database:
    """One file, created with its tables, for its owner alone, when it is used and not there.

    Each thread has a connection, and another one when the file was replaced or removed, as `clean_up` of another
    process does.
    """

    def __init__(self, file: str | Path, schema: str) -> None:
        self.file, self._schema, self._thread = Path(file), schema, threading.local()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection in a transaction that excludes other writers; commit it at the end, or roll back.

        A PlatformError says that SQLite refused, and nothing was written.
        """
        with self._transaction("IMMEDIATE", "written") as connection:
            yield connection
        self._thread.commits += 1
        if self._thread.commits % _CHECKPOINT == 0:
            # SQLite before 3.51.3 can damage a file when two connections checkpoint beside a writer. Its automatic
            # checkpoints do not exclude writers and are off; this kind does. One that is refused is made up for later.
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(FULL)")

    def read(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Yield the connection in a transaction that sees one state of the file; a PlatformError says why not."""
        return self._transaction("DEFERRED", "read")

    @contextlib.contextmanager
    def _transaction(self, kind: str, action: str) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._connect()
            connection.execute(f"BEGIN {kind}")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            why = f"{denied} {checks.EXPECTED}" if (denied := _denied(self.file)) else checks.reason(error)
            raise PlatformError(f"{self.file} could not be {action}: {why}") from error

    @property
    def identity(self) -> tuple[int, int] | None:
        """Device and number of the file to which the last transaction of this thread was connected."""
        return self._thread.identity

    def _connect(self) -> sqlite3.Connection:
        """Return the connection of this thread; a forked process leaves that of its parent alone."""
        thread = self._thread
        forked = getattr(thread, "process", None) != os.getpid()
        if forked or thread.identity != _identity(self.file):
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_local(self.file.parent)
            # A file that exists is not opened here: to close it would drop the locks of this process's connections.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            identity = _identity(self.file)  # read first: a file that replaces it meanwhile is another one
            connection = sqlite3.connect(self.file, timeout=_PATIENCE, isolation_level=None)
            if (mode := _use_log(connection, self.file)) != "wal":
                raise sqlite3.OperationalError(f"journal_mode must be wal, got {mode}: move it to a local disk")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            with contextlib.closing(sqlite3.connect(":memory:")) as empty:
                empty.executescript(self._schema)
                expected, names = (set(each.execute("SELECT name FROM sqlite_master")) for each in (empty, connection))
            if not expected <= names:  # a reader must not wait for a writer
                connection.executescript(f"BEGIN IMMEDIATE; {self._schema}; COMMIT")
            if forked:
                thread.inherited = getattr(thread, "connection", None)
            thread.connection, thread.process, thread.identity, thread.commits = connection, os.getpid(), identity, 0
        return thread.connection


def _identity(file: Path) -> tuple[int, int] | None:
    """Return device and number of a file, which no other one gets while it is open; None where there is none."""
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _use_log(connection: sqlite3.Connection, file: Path) -> str:
    """Switch a file to its write-ahead log and return the mode; SQLite does not wait for others who do the same."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError:
            if time.monotonic() > deadline or _denied(file):
                raise
            time.sleep(0.01)


def _denied(file: Path) -> str | None:
    """Return the path of the file or of its log where this user may not use it, else None."""
    files = (f"{file}{end}" for end in ("", "-wal", "-shm"))
    return next((each for each in files if not os.access(each, os.R_OK | os.W_OK) and os.path.exists(each)), None)
