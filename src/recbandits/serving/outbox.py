"""The event log of a server, which sends its decisions to a sink.

A sink is an object with `send(events)`. It returns when all are kept, raises ValueError if it will never take one of
them, and any other exception when another attempt may succeed. `DirectLog` is for a sink on this machine: it keeps
decisions before they are answered, so that a server that is killed loses none. `Outbox` is for a sink that is far away,
such as Pub/Sub: it sends decisions in the background, and never keeps a prediction waiting. A server that is killed
loses what was answered in the last half second, and in the 5 seconds that a request to Pub/Sub may take; without a
spool, since the sink was reached last. Events are numbered, so that `sinks.count_missing` can count the missing ones.

The queue of an outbox is bounded in bytes. While it is at most half full every decision is kept; above that with a
probability that falls from 1 to one in a million when it is full, depends on nothing but how full it is, and is written
into the record as `pass_prob`. So the log is unbiased, with each record weighted by 1 / pass_prob.
"""

import logging
import os
import random
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from recbandits.serving.sinks import Event

_MAX_PAUSE = 3.2  # seconds between two attempts
_SPOOL_PAUSE = 5.0  # seconds until a spool that another process has is tried again
_COUNTERS = ("put", "dropped", "delivered", "failed", "spooled", "replayed", "replay_failed", "retried")


def pass_probability(fill: float) -> float:
    """Return the probability to be kept by a queue that is filled to a share: 1 to 1/2, then 10^(-12 (fill - 1/2))."""
    return min(1.0, 10.0 ** (6.0 - 12.0 * fill))


class Outbox:
    """A bounded queue, and one thread that hands its records in batches to a sink.

    A batch that cannot be published goes to the spool, and is published from there when the sink is reached again, by
    this process or the next that has the spool. Where there is none, or it is full, the batch is tried again until it
    is published, and the queue fills meanwhile and thins out what comes. A forked process needs its own outbox.

    Args:
      open_sink: function without arguments by which the thread opens the sink, which gets objects `sinks.Event`: of
        their attributes, "instance" names this queue, and "sequence" numbers its events from 0.
      batch: records handed over at once, at most.
      seconds: how long a record waits for others; every request to a sink takes processor time from the answers.
      max_bytes: of all decisions in the queue, by their `size`.
      open_spool: function without arguments by which the thread opens the `Spool`, whose events are published as soon
        as there is nothing newer; it gives None where there can be none, and raises BlockingIOError while another
        process has the spool. None for no spool.
    """

    def __init__(
        self,
        open_sink: Callable,
        batch: int = 500,
        seconds: float = 0.5,
        max_bytes: int = 64_000_000,
        open_spool: Callable | None = None,
    ):
        self._open_sink, self._batch, self._seconds = open_sink, batch, seconds
        self._max_bytes, self._open_spool, self._spool = max_bytes, open_spool, None
        self._queue: deque[tuple] = deque()
        self._lock = threading.Lock()
        self._bytes, self._process = 0, os.getpid()
        self._instance, self._sequence = uuid.uuid4().hex, 0
        self._counts: Counter[str] = Counter()
        self._closing, self._given_up = threading.Event(), False
        self._sink, self._pause, self._next_attempt, self._next_opening = None, seconds, 0.0, 0.0
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, decision: Any, when: datetime) -> None:
        """Keep a decision or drop it; never waits, and never raises because of the sink.

        A decision, such as a `Recommendation`, has its `size` in bytes, and `interaction(when, pass_prob)`, which the
        thread calls later. Its time has a zone. RuntimeError in a forked process, which has no such thread.
        """
        if os.getpid() != self._process:
            raise RuntimeError("an Outbox works in the process that made it: make one in each process, after the fork")
        size = decision.size
        with self._lock:  # of the threads of a server
            self._counts["put"] += 1
            fill = (self._bytes + size) / self._max_bytes
            probability = pass_probability(fill)
            if fill < 1 and (probability == 1 or random.random() < probability):
                self._bytes += size
                self._queue.append((decision, when, probability, self._sequence, size))
                self._sequence += 1
            else:
                self._counts["dropped"] += 1

    @property
    def counters(self) -> dict[str, int]:
        """Dict of counts since the start: put = dropped + delivered + failed + spooled + waiting.

        Of these, "spooled" went to the disk. "replayed" events have been sent from there since, and "replay_failed"
        ones were refused, those of earlier processes among them. "retried" counts attempts, and "bytes" is the present
        size of the queue.
        """
        counts = {name: self._counts[name] for name in _COUNTERS}
        settled = sum(counts[name] for name in ("dropped", "delivered", "failed", "spooled"))
        return counts | {"waiting": counts["put"] - settled, "bytes": self._bytes}

    def close(self, timeout: float = 10.0) -> dict[str, int]:
        """Deliver what waits, for at most so many seconds, and end; what is left then has failed. Return `counters`."""
        self._closing.set()
        self._thread.join(timeout)
        with self._lock:
            self._given_up = True
            self._counts["failed"] += self.counters["waiting"]
        return self.counters

    def _run(self):
        ended = False
        while not ended:
            ended = self._closing.wait(self._seconds)
            self._find_spool()
            while self._queue and not self._given_up:
                events, size = self._take()
                self._deliver(events)
                with self._lock:
                    self._bytes -= size
            if self._spool is not None and time.monotonic() >= self._next_attempt:
                self._replay()
        if self._spool is not None:
            self._spool.close()

    def _find_spool(self):
        """Open the spool, unless it is open, another process has it or there can be none."""
        if self._spool is None and self._open_spool is not None and time.monotonic() >= self._next_opening:
            try:
                self._spool = self._open_spool()
                self._next_opening = 0.0 if self._spool else float("inf")
            except BaseException as error:  # BlockingIOError, as a rule; the thread must not end
                self._next_opening = time.monotonic() + _SPOOL_PAUSE
                logging.info("the spool cannot be opened, it is tried again: %r", error)

    def _take(self):
        """Return the next batch as events, and its bytes; a decision that makes no event has failed."""
        events, size = [], 0
        for _ in range(min(self._batch, len(self._queue))):
            decision, when, probability, sequence, bytes_taken = self._queue.popleft()
            size += bytes_taken
            try:
                record = decision.interaction(when, probability)
                attributes = {"instance": self._instance, "sequence": str(sequence)}
                events.append(Event(record.event_id, record.to_json(), attributes))
            except BaseException as error:  # the thread must not end
                self._count("failed", 1)
                logging.warning("a decision could not be logged: %r", error)
        return events, size

    def _deliver(self, events):
        """Send events until the sink takes or refuses them, or keep in the spool what cannot be sent now."""
        while not self._given_up:
            closing = self._closing.is_set() and self._next_attempt  # no time for a sink that was not reached
            if closing and self._keep(events):
                return
            if (refused := self._send(events)) is not None:
                self._count("failed", refused)
                self._count("delivered", len(events) - refused)
                return
            if not closing and self._keep(events):
                return
            time.sleep(max(0.0, self._next_attempt - time.monotonic()))

    def _keep(self, events):
        """Return whether the spool has taken the events."""
        self._find_spool()  # another process may have left it while the sink is not reached
        kept = False
        try:
            kept = self._spool is not None and self._spool.append(events)
        except BaseException as error:  # the thread must not end
            logging.warning("events cannot be kept on the disk: %r", error)
        self._count("spooled", kept * len(events))
        return kept

    def _count(self, name, number):
        """Count events, unless `close` has counted them already."""
        with self._lock:
            self._counts[name] += 0 if self._given_up else number

    def _send(self, events):
        """Return how many events the sink refused; None where it was not reached and is tried again after a pause."""
        if time.monotonic() < self._next_attempt:
            return None
        try:
            if self._sink is None:
                self._sink = self._open_sink()
            self._sink.send(events)
        except ValueError as error:
            if len(events) < 2:
                logging.warning("a decision could not be logged: %s", error)
                return len(events)
            # One event that the sink will never take must not fail the others.
            halves = events[: len(events) // 2], events[len(events) // 2 :]
            if (first := self._send(halves[0])) is None or (second := self._send(halves[1])) is None:
                return None
            return first + second
        except BaseException as error:  # the thread must not end
            logging.warning("the event log is not reached, it is tried again: %r", error)
            self._counts["retried"] += 1
            self._next_attempt = time.monotonic() + self._pause
            self._pause = self._seconds if self._closing.is_set() else min(2 * self._pause, _MAX_PAUSE)
            return None
        self._pause, self._next_attempt = self._seconds, 0.0
        return 0

    def _replay(self):
        """Send what is in the spool, until the sink is not reached or there is something newer to be sent."""
        try:
            for number, events in enumerate(self._spool.replay(self._batch)):
                if number and (self._queue or self._closing.is_set()):
                    return
                if (refused := self._send(events)) is None:
                    return
                self._count("replay_failed", refused)
                self._count("replayed", len(events) - refused)
        except Exception as error:  # the thread must not end
            logging.warning("the events on the disk cannot be read: %r", error)


class DirectLog:
    """Decisions that are kept before they are answered, by a sink on this machine, which gets `Interaction`s."""

    def __init__(self, sink: Any):
        self._sink, self._delivered, self._failed = sink, 0, 0

    def record(self, requests: Sequence[Sequence[Any]], when: datetime) -> list[bool]:
        """Keep the decisions of requests in one write; after a failure each request by itself, all or none of it.

        Decisions and their time are as for `Outbox.put`; the result says for each request whether they are kept.
        """
        if len(requests) > 1 and self._send([decision for decisions in requests for decision in decisions], when):
            return [True] * len(requests)
        kept = [self._send(decisions, when) for decisions in requests]
        self._failed += sum(len(decisions) for decisions, good in zip(requests, kept, strict=True) if not good)
        return kept

    @property
    def counters(self) -> dict[str, int]:
        """Dict of counts since the start, by the names of `Outbox.counters`; nothing is dropped, and nothing waits."""
        put = self._delivered + self._failed
        return {"put": put, "dropped": 0, "delivered": self._delivered, "failed": self._failed, "waiting": 0}

    def _send(self, decisions, when):
        try:
            self._sink.send([decision.interaction(when) for decision in decisions])
        except Exception as error:
            logging.warning("%d decisions could not be logged: %r", len(decisions), error)
            return False
        self._delivered += len(decisions)
        return True

    def close(self) -> dict[str, int]:
        """Return `counters`; nothing waits."""
        return self.counters
