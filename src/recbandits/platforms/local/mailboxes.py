"""What Pub/Sub keeps: subscriptions with the messages that nobody has acknowledged yet, in a file of SQLite.

What is written is safe from the end of the process, also by SIGKILL; from that of the machine up to the last moments
(`synchronous = NORMAL`). Who holds which message until when is known in memory only: after a restart every message that
was not acknowledged waits again, as if its time were up.
"""

import fcntl
import sqlite3
import threading
import time
from collections import OrderedDict
from itertools import count
from typing import Any, NamedTuple

from recbandits.platforms.protocol import PlatformError

_POLL = 0.05  # seconds between two looks at a clock that may not be the machine's
_PAUSES = 10.0, 600.0  # seconds, of a retry policy that does not say
_TABLES = """
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, settings BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS subscriptions (
  name TEXT PRIMARY KEY, topic TEXT NOT NULL, settings BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (
  number INTEGER PRIMARY KEY, subscription TEXT NOT NULL, message BLOB NOT NULL, attempts INTEGER NOT NULL DEFAULT 0
);
"""


class Store:
    """One file that one process writes; every method is a transaction, done when it returns.

    Args:
      file: path, made if missing; None for a store that ends with the process.

    Raises:
      PlatformError: another process writes the file, or it is none of SQLite's.
    """

    def __init__(self, file=None):
        self._lock = file and _locked(file)
        self._turn = threading.Lock()
        # Numbers go on from the time of the start: none is given twice, whatever became of the rows before.
        self._numbers = count(time.time_ns() // 1000)
        try:
            self._database = sqlite3.connect(file or ":memory:", check_same_thread=False)
            self._database.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {_TABLES}")
        except sqlite3.Error as error:
            raise PlatformError(f"the messages in {file} cannot be used: {error}") from error

    def close(self):
        """Give the file free."""
        with self._turn:
            self._database.close()
        if self._lock:
            self._lock.close()

    def rows(self, sql):
        """What a query without parameters finds, list of tuples."""
        with self._turn:
            return self._database.execute(sql).fetchall()

    def change(self, sql, *parameters):
        """Run one statement."""
        with self._turn, self._database:
            self._database.execute(sql, parameters)

    def number(self):
        """A number that nothing else has."""
        return next(self._numbers)

    def add(self, letters, gone=()):
        """Keep messages, and forget others in the same moment.

        Args:
          letters: list of (number, name of the subscription, bytes of the message).
          gone: numbers of those to forget.
        """
        with self._turn, self._database:
            self._database.executemany("INSERT INTO waiting VALUES (?, ?, ?, 0)", letters)
            self._database.executemany("DELETE FROM waiting WHERE number = ?", [(each,) for each in gone])

    def failed(self, numbers):
        """Count one more attempt in vain for each."""
        with self._turn, self._database:
            sql = "UPDATE waiting SET attempts = attempts + 1 WHERE number = ?"
            self._database.executemany(sql, [(each,) for each in numbers])


class Letter(NamedTuple):
    """A message on its way to one subscription."""

    number: int
    message: Any  # PubsubMessage in protobuf
    attempts: int  # in vain so far, counted where there is a policy for dead letters or for retries


class _Out(NamedTuple):
    letter: Letter
    ack_id: str
    deadline: float
    holder: Any  # who took it


class Mailbox:
    """Messages of one subscription that wait, and those that are out until they are acknowledged or their time is up.

    Args:
      settings: `Subscription` in protobuf.
      clock: function that gives seconds, by which deadlines pass.
      store: `Store` in which the messages are.
      bury: function of this mailbox and of letters that were tried as often as they may be; gives whether they have
        gone elsewhere.
    """

    def __init__(self, settings, clock, store, bury):
        self.settings, self._clock, self._store, self._bury = settings, clock, store, bury
        self._limit = settings.dead_letter_policy.max_delivery_attempts
        self._pauses = _pauses(settings)
        self._waiting, self._later, self._out = OrderedDict(), {}, {}  # number: letter, (letter, when), `_Out`
        self._dead = []
        self._changed = threading.Condition()

    def put(self, letters):
        """Take letters that are in the store already."""
        with self._changed:
            self._waiting.update((letter.number, letter) for letter in letters)
            self._changed.notify_all()

    def take(self, limit, patience, holder=None):
        """Hand out up to `limit` letters to a holder; waits up to `patience` seconds for the first.

        Returns:
          list of (ack id, `Letter`).
        """
        end = time.monotonic() + patience
        with self._changed:
            self._expire()
            while not self._waiting and (left := end - time.monotonic()) > 0:
                self._changed.wait(min(left, _POLL))
                self._expire()
            letters = [self._waiting.popitem(last=False)[1] for _ in range(min(limit, len(self._waiting)))]
            taken = [(f"{letter.number}:{self._store.number()}", letter) for letter in letters]
            deadline = self._clock() + self.settings.ack_deadline_seconds
            self._out.update((letter.number, _Out(letter, ack_id, deadline, holder)) for ack_id, letter in taken)
        self._bury_dead()
        return taken

    def acknowledge(self, ack_ids):
        """Forget messages for good, also such as were handed out before a restart or whose time was up."""
        numbers = [_number(ack_id) for ack_id in ack_ids]
        if not numbers:
            return
        with self._changed:
            self._store.add([], gone=numbers)
            for number in numbers:
                for letters in (self._waiting, self._later, self._out):
                    letters.pop(number, None)

    def extend(self, ack_ids, seconds):
        """Give messages more time; 0 seconds hand one back."""
        if not ack_ids:
            return
        with self._changed:
            for ack_id, more in zip(ack_ids, seconds, strict=True):
                out = self._out.get(_number(ack_id))
                if out and out.ack_id == ack_id:
                    self._out[out.letter.number] = out._replace(deadline=self._clock() + more)
            self._expire()
            self._changed.notify_all()
        self._bury_dead()

    def give_back(self, holder):
        """Have all wait again that a holder took who is gone; this is no attempt of theirs."""
        with self._changed:
            for number, out in list(self._out.items()):
                if out.holder is holder:
                    self._waiting[number] = self._out.pop(number).letter
            self._changed.notify_all()

    def _expire(self):
        """Have those wait again whose time is up, after a pause, unless they were tried as often as they may be."""
        now = self._clock()
        back = [out.letter for out in self._out.values() if out.deadline <= now]
        if back and (self._limit or self._pauses):
            self._store.failed(letter.number for letter in back)
            back = [letter._replace(attempts=letter.attempts + 1) for letter in back]
        for letter in back:
            del self._out[letter.number]
            if self._limit and letter.attempts >= self._limit:
                self._dead.append(letter)
            else:
                self._later[letter.number] = letter, now + self._pause(letter.attempts)
        for number in [number for number, (_, when) in self._later.items() if when <= now]:
            self._waiting[number] = self._later.pop(number)[0]

    def _pause(self, attempts):
        """Seconds before another attempt: twice as long each time."""
        if not self._pauses:
            return 0.0
        shortest, longest = self._pauses
        return min(shortest * 2.0 ** min(attempts - 1, 100), longest)

    def _bury_dead(self):
        """Without the lock of this mailbox, as others are locked meanwhile; what cannot be buried waits again."""
        with self._changed:
            dead, self._dead = self._dead, []
        gone = not dead
        try:
            gone = gone or self._bury(self, dead)
        finally:
            if not gone:
                self.put(dead)


def _pauses(settings):
    """Shortest and longest pause before another attempt in seconds, None without a retry policy."""
    if not settings.HasField("retry_policy"):
        return None
    policy = settings.retry_policy
    given = policy.HasField("minimum_backoff"), policy.HasField("maximum_backoff")
    pauses = policy.minimum_backoff.ToTimedelta(), policy.maximum_backoff.ToTimedelta()
    return [
        pause.total_seconds() if is_given else usual
        for is_given, pause, usual in zip(given, pauses, _PAUSES, strict=True)
    ]


def _number(ack_id):
    """The number of the letter that was handed out by an ack id; one that nobody has for an id of somebody else."""
    number = ack_id.partition(":")[0]
    return int(number) if number.isdecimal() else -1


def _locked(file):
    """The open lock file of a store, which no other process gets meanwhile."""
    lock = open(f"{file}.lock", "w")  # noqa: SIM115, it stays open
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise PlatformError(f"the messages in {file} are another server's, which runs") from error
    return lock
