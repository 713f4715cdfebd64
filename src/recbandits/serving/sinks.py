"""Where an outbox puts events: Pub/Sub, and a file on the disk for those that cannot be published now."""

import contextlib
import errno
import itertools
import json
import logging
import mmap
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbandits.checks import flush

TOPIC_VARIABLE = "RECBANDITS_EVENT_TOPIC"  # "projects/<project>/topics/<topic>"; without it nothing is logged
SINK_VARIABLE = "RECBANDITS_EVENT_SINK"  # "module:function" that opens a sink of the topic on this machine
SPOOL_VARIABLE = "RECBANDITS_EVENT_SPOOL"  # a directory; without it, one of this user in the system's temporary folder
MAX_SPOOL_BYTES = 64_000_000  # of a file
_PUBLISH_TIMEOUT = 5.0  # seconds for one request to Pub/Sub
_MAX_REQUEST_BYTES = 5_000_000  # bytes in one request to Pub/Sub, which takes 10 MB


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
    """A file of events, one JSON object per line, for one process at a time, which locks it.

    A batch that a full disk has taken only in part is removed, and so is a last line that a killed process has left
    incomplete. The directory of the file is created. BlockingIOError says that another process has the file, OSError
    that it cannot be written, and ImportError that this system has no locks.
    """

    def __init__(self, path: str | Path):
        import fcntl  # not on Windows

        path, self._position, self._size = Path(path), 0, 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._file).st_uid != os.geteuid():  # its events would be published as this server's
                raise PermissionError(f"{path} must belong to this user")
            os.fchmod(self._file, 0o600)
            if os.fstat(self._file).st_size:
                with mmap.mmap(self._file, 0, access=mmap.ACCESS_READ) as content:
                    self._size = content.rfind(b"\n") + 1
            os.ftruncate(self._file, self._size)
            flush(path.parent)
        except OSError:
            os.close(self._file)
            raise

    @property
    def has_events(self) -> bool:
        """True while there are events to be replayed."""
        return self._position < self._size

    def append(self, events: Sequence[Event]) -> bool:
        """Flush a batch to the disk; False where the file was removed or would be too large, or the disk is full."""
        lines = [{"event_id": each.event_id, "attributes": each.attributes, "event": each.text} for each in events]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        if self._size + len(content) > MAX_SPOOL_BYTES:
            return False
        try:
            if os.fstat(self._file).st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, "the file was removed")
            os.ftruncate(self._file, self._size)  # a torn line is left where a full disk refused this before
            if os.write(self._file, content) < len(content):
                raise OSError(errno.ENOSPC, "the disk is full")
            os.fsync(self._file)
        except OSError as error:
            logging.warning("events cannot be kept on the disk: %r", error)
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            return False
        self._size += len(content)
        return True

    def replay(self, batch: int) -> Iterator[list[Event]]:
        """Yield batches of at most `batch` events, each done when the next one is requested; then empty the file.

        A process that ends before has the next one replay all of them, so readers must ignore events that they have. A
        line that cannot be read is left out.
        """
        with open(os.dup(self._file), "rb") as file:
            file.seek(self._position)
            while lines := list(itertools.islice(file, batch)):
                yield list(_parse(lines))
                self._position += sum(map(len, lines))
        os.ftruncate(self._file, 0)
        self._position = self._size = 0

    def close(self) -> None:
        """Leave the file to the next process."""
        os.close(self._file)


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
        return Spool(Path(folder, f"{topic.replace('/', '.')}.jsonl"))
    except BlockingIOError:
        raise
    except (OSError, ImportError) as error:
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


def _parse(lines):
    for line in lines:
        try:
            fields = json.loads(line)
            event = Event(fields["event_id"], fields["event"], dict(fields["attributes"]))
            if not all(isinstance(text, str) for text in (*event[:2], *event.attributes.values())):
                raise TypeError("its values must be texts")
            yield event
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            logging.warning("an event on the disk cannot be read: %r", error)


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
