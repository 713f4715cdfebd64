"""Where an outbox puts events: Pub/Sub, and a file on the disk for those that cannot be published now."""

import contextlib
import json
import logging
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from recbandits.checks import flush

TOPIC_VARIABLE = "RECBANDITS_EVENT_TOPIC"  # "projects/<project>/topics/<topic>"; without it nothing is logged
SINK_VARIABLE = "RECBANDITS_EVENT_SINK"  # "module:function" that opens a sink of the topic on this machine
SPOOL_VARIABLE = "RECBANDITS_EVENT_SPOOL"  # a directory; without it, one of this user in the system's temporary folder
MAX_SPOOL_BYTES = 64_000_000  # of a file
_OPEN = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA synchronous = FULL;
PRAGMA auto_vacuum = FULL;
PRAGMA max_page_count = {pages};
BEGIN EXCLUSIVE;
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT, text TEXT, attributes TEXT
);
COMMIT;
"""
_PUBLISH_TIMEOUT = 5.0  # seconds for one request to Pub/Sub
_MAX_REQUEST_BYTES = 5_000_000  # bytes in one request to Pub/Sub, which takes 10 MB


# Open ones by `_identity`. SQLite locks a file for the process: to open and close it once more would end the lock.
_SPOOLS: WeakValueDictionary[tuple[int, ...], "Spool"] = WeakValueDictionary()


class Event(NamedTuple):
    """An event as a sink takes it: its id, its JSON, and the attributes of its message."""

    event_id: str
    text: str
    attributes: dict[str, str]

    def to_json(self) -> str:
        """Return the JSON."""
        return self.text


class PubSubSink:
    """Publishes events as JSON to a topic of Pub/Sub, with the event id as attribute, many in one request."""

    def __init__(self, topic: str, client: Any = None):
        from google.cloud import pubsub_v1

        self._topic, self._open = topic, pubsub_v1.PublisherClient if client is None else lambda: client
        self._client = self._open()

    def send(self, events: Sequence[Any]) -> None:
        """Publish records, or `Event`s with their attributes; see `serving.outbox` for what is raised."""
        from google.api_core.exceptions import GoogleAPICallError, InvalidArgument
        from google.pubsub_v1 import PublisherClient, PublishRequest, PubsubMessage

        message, request = PubsubMessage.pb(), PublishRequest.pb()
        attributes = [{"event_id": each.event_id, **getattr(each, "attributes", {})} for each in events]
        messages = [
            message(data=each.to_json().encode(), attributes=more)
            for each, more in zip(events, attributes, strict=True)
        ]
        try:
            for part in _parts(messages):
                # The client's own `publish` batches too, with a future for each message; this is the one below it.
                message_batch = request(topic=self._topic, messages=part)
                PublisherClient.publish(self._client, message_batch, retry=None, timeout=_PUBLISH_TIMEOUT)
        except InvalidArgument as error:
            raise ValueError(str(error)) from error
        except GoogleAPICallError:
            # A connection that broke waits longer after each attempt, up to two minutes: another one takes its place.
            before, self._client = self._client, self._open()
            if self._client is not before:
                before.transport.close()
            raise


class Spool:
    """A SQLite file of events, for one process at a time, which locks it; a batch is in it as a whole or not at all.

    The directory of the file is created. BlockingIOError says that a spool of another process, or another one of this
    process, has the file, OSError that it cannot be written.
    """

    def __init__(self, path: str | Path):
        self._path, self._replayed = Path(path), 0
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if _identity(self._path.lstat()) in _SPOOLS:
                raise BlockingIOError(f"{path} cannot be opened: this process has it")
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            status = os.fstat(file)
            if status.st_uid != os.geteuid():  # its events would be published as this server's
                raise PermissionError(f"{path} must belong to this user")
            os.fchmod(file, 0o600)
        finally:
            os.close(file)
        flush(self._path.parent)
        self._database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._database.executescript(_OPEN.format(pages=MAX_SPOOL_BYTES // 4096))
        except sqlite3.DatabaseError as error:
            self._database.close()
            busy = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            raise (BlockingIOError if busy else OSError)(f"{path} cannot be opened: {error}") from error
        self._identity = _identity(status)
        _SPOOLS[self._identity] = self

    def append(self, events: Sequence[Event]) -> bool:
        """Flush a batch to the disk; False where the file was removed or would be too large, or the disk is full."""
        rows = [(each.event_id, each.text, json.dumps(each.attributes)) for each in events]
        try:
            self._path.stat()
            self._database.execute("BEGIN")
            with self._database:
                self._database.executemany("INSERT INTO events (event_id, text, attributes) VALUES (?, ?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            logging.warning("events cannot be kept on the disk: %r", error)
            return False
        return True

    def replay(self, batch: int) -> Iterator[list[Event]]:
        """Yield batches of at most `batch` events, and remove each when the next one is requested.

        A process that ends before has the next one replay its last batch, so readers must ignore events that they have.
        """
        select = "SELECT number, event_id, text, attributes FROM events WHERE number > ? ORDER BY number LIMIT ?"
        while rows := self._database.execute(select, [self._replayed, batch]).fetchall():
            yield [Event(event_id, text, json.loads(attributes)) for _, event_id, text, attributes in rows]
            self._replayed = rows[-1][0]  # a full disk may refuse to remove them
            self._database.execute("DELETE FROM events WHERE number <= ?", [self._replayed])

    def close(self) -> None:
        """Leave the file to the next process."""
        self._database.close()
        _SPOOLS.pop(self._identity, None)


def _identity(status):
    """Return the file of a status with this process: one that is forked has no lock of its parent's."""
    return os.getpid(), status.st_dev, status.st_ino


def count_missing(attributes: Iterable[Mapping[str, str]]) -> int:
    """Count the events that outboxes have numbered and that are not among those received, in any order, perhaps twice.

    What an outbox that was killed had numbered last is not known, and not counted.
    """
    received: dict[str, set[int]] = {}
    for each in attributes:
        received.setdefault(each["instance"], set()).add(int(each["sequence"]))
    return sum(max(numbers) + 1 - len(numbers) for numbers in received.values())


def open_spool(topic: str) -> Spool | None:
    """Open the spool of a topic in the directory that $RECBANDITS_EVENT_SPOOL names; BlockingIOError if another has it.

    Where it cannot be written, the result is None: what cannot be published is then lost with the process.
    """
    try:
        folder = os.environ.get(SPOOL_VARIABLE) or temporary_folder()
        return Spool(Path(folder, f"{topic.replace('/', '.')}.sqlite"))
    except BlockingIOError:
        raise
    except (OSError, AttributeError) as error:  # Windows has no owners of files
        logging.warning("events that cannot be published will not be kept on the disk: %r", error)
        return None


def temporary_folder() -> Path:
    """Return a folder of this user, to which no other user can write, in the system's temporary folder."""
    folder = Path(tempfile.gettempdir(), f"recbandits-{os.geteuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} must be a directory to which this user alone can write")
    return folder


def _parts(messages):
    """Split messages into lists small enough for one request; one that is too large by itself stays alone."""
    part, size = [], 0
    for message in messages:
        if part and size + message.ByteSize() > _MAX_REQUEST_BYTES:
            yield part
            part, size = [], 0
        part.append(message)
        size += message.ByteSize()
    if part:
        yield part
