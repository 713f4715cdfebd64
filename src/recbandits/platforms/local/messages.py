"""Pub/Sub on this machine: an SQLite file in which a message waits until its reader has acknowledged it.

A message is delivered at least once to every subscription that its topic had when it was published. A subscription has
one reader, so there are no leases: what a killed reader had taken waits for the next one. A publisher is answered when
its messages are committed.
"""

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from recbandits.config import Config
from recbandits.platforms.functions import ATTEMPTS
from recbandits.platforms.local.sqlite import Database
from recbandits.records import Interaction, Reward

# Seconds before a message comes again, doubled each time: ten attempts take 51 seconds, in which a warehouse may be
# away; Eventarc begins with 10 s and ends at 600 s.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 60.0
_ATTEMPTS_ATTRIBUTE = "CloudPubSubDeadLetterSourceDeliveryCount"
_FIELDS = "id, message_id, time, data, attributes, attempts"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS subscriptions (name TEXT PRIMARY KEY, topic TEXT NOT NULL, dead_letters TEXT);
CREATE TABLE IF NOT EXISTS waiting (
  id INTEGER PRIMARY KEY AUTOINCREMENT, subscription TEXT NOT NULL, message_id TEXT NOT NULL, time REAL NOT NULL,
  data BLOB NOT NULL, attributes TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS in_order ON waiting (subscription, due, id);
CREATE INDEX IF NOT EXISTS exhausted ON waiting (subscription) WHERE attempts >= {ATTEMPTS};
"""
# What is due later than any pause allows was written before the clock was set back. Each part is a range of the index;
# one with OR would read all messages that wait for their pause.
_DUE = f"""
SELECT id FROM (
  SELECT id, due FROM waiting WHERE subscription = ?1 AND due <= ?2 UNION ALL
  SELECT id, due FROM waiting WHERE subscription = ?1 AND due > ?2 + {_LONGEST_PAUSE} ORDER BY due, id LIMIT ?3
)
"""
_EXHAUSTED = f"""
SELECT waiting.id, dead_letters, data, attributes, attempts FROM waiting
JOIN subscriptions ON name = subscription AND dead_letters IS NOT NULL
WHERE subscription = ? AND attempts >= {ATTEMPTS}
"""
_OF_NAME = "FROM waiting JOIN subscriptions ON name = subscription WHERE name = ? OR topic = ?"


class Message(NamedTuple):
    """A message as its reader gets it."""

    number: int  # by which the reader settles it
    message_id: str  # that all deliveries have in common
    time: float  # of its publication, seconds since 1970
    data: bytes
    attributes: dict[str, str]
    attempts: int  # deliveries so far, this one included


class LocalMessages:
    """See `platforms.protocol.Messages`; any number of processes and threads may publish."""

    def __init__(self, config: Config):
        self._config = config
        self._database = Database(config.artifacts_dir / "messages" / "messages.sqlite", _SCHEMA)

    def topic(self, name: str) -> str:
        """See `Messages.topic`."""
        return self._full("topics", name)

    def subscription(self, name: str, topic: str, dead_letters: str | None = None) -> str:
        """See `Messages.subscription`; after ten attempts a message goes to the topic of dead letters, if any."""
        full = self._full("subscriptions", name)
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO subscriptions VALUES (?, ?, ?)", (full, topic, dead_letters))
        return full

    def publisher(self, topic: str) -> "Publisher":
        """See `Messages.publisher`."""
        return Publisher(self, topic)

    def backlog(self, name: str) -> int:
        """Count the messages of a subscription, or of all those of a topic, that were not acknowledged yet."""
        names = self._full("subscriptions", name), self._full("topics", name)
        with self._database.read() as connection:
            return connection.execute(f"SELECT count(*) {_OF_NAME}", names).fetchone()[0]

    def delete(self, name: str) -> None:
        """See `Messages.delete`."""
        names = self._full("subscriptions", name), self._full("topics", name)
        with self._database.write() as connection:
            connection.execute(f"DELETE FROM waiting WHERE id IN (SELECT id {_OF_NAME})", names)
            connection.execute("DELETE FROM subscriptions WHERE name = ? OR topic = ?", names)

    def publish(self, topic: str, messages: Iterable[tuple[bytes, dict[str, str]]]) -> None:
        """Commit messages, pairs of data and attributes, to the full name of a topic; after an error none is kept."""
        with self._database.write() as connection:
            _insert(connection, topic, messages)

    def take(self, subscription: str, limit: int) -> list[Message]:
        """Give the only reader of a subscription, a full name, the messages that are due, and count the attempt.

        There are at most `limit`, those that have waited longest first. Each must be settled, or is due again at once.
        """
        due = subscription, time.time(), limit
        with self._database.read() as connection:
            if not connection.execute(_DUE, due).fetchone():
                return []
        with self._database.write() as connection:
            _bury(connection, subscription)
            update = f"UPDATE waiting SET attempts = attempts + 1 WHERE id IN ({_DUE}) RETURNING {_FIELDS}"
            rows = sorted(connection.execute(update, due).fetchall())
        return [Message(*row)._replace(attributes=json.loads(row[4])) for row in rows]

    def settle(self, subscription: str, done: Iterable[int], failed: Iterable[Message] = ()) -> None:
        """Acknowledge messages by number, and have others come again after a pause, or go to the dead letters."""
        now, deleted = time.time(), [(number,) for number in done]
        later = [(now + pause(message.attempts), message.number) for message in failed]
        with self._database.write() as connection:
            connection.executemany("DELETE FROM waiting WHERE id = ?", deleted)
            connection.executemany("UPDATE waiting SET due = ? WHERE id = ?", later)
            _bury(connection, subscription)

    def _full(self, kind, name):
        return f"projects/{self._config.project or 'local'}/{kind}/{self._config.topic(name)}"


class Publisher(NamedTuple):
    """Publishes records as JSON, the event id as attribute, all of a call in one transaction."""

    messages: LocalMessages
    topic: str

    def send(self, records: Sequence[Interaction | Reward]) -> None:
        """Publish; a `PlatformError` says that none of them is kept."""
        self.messages.publish(self.topic, [(each.to_json().encode(), {"event_id": each.event_id}) for each in records])


def open_sink(topic: str) -> Publisher:
    """Open the sink of a topic for a prediction server, whose environment has the configuration."""
    return LocalMessages(Config.load()).publisher(topic)


def pause(attempts: int) -> float:
    """Seconds until a message that was tried so many times comes again."""
    return min(_FIRST_PAUSE * 2 ** (attempts - 1), _LONGEST_PAUSE)


def _insert(connection, topic, messages):
    now = time.time()
    rows = [(secrets.token_hex(8), now, data, json.dumps(attributes), now, topic) for data, attributes in messages]
    fields = "subscription, message_id, time, data, attributes, due"
    select = "SELECT name, ?, ?, ?, ?, ? FROM subscriptions WHERE topic = ?"
    connection.executemany(f"INSERT INTO waiting ({fields}) {select}", rows)


def _bury(connection, subscription):
    """Move the messages of a subscription that were tried ten times to its dead letters."""
    for number, topic, data, attributes, attempts in connection.execute(_EXHAUSTED, [subscription]).fetchall():
        _insert(connection, topic, [(data, json.loads(attributes) | {_ATTEMPTS_ATTRIBUTE: str(attempts)})])
        connection.execute("DELETE FROM waiting WHERE id = ?", [number])
