"""Simulated users at an endpoint: they visit at a set rate, and report rewards later.

Visits and reports leave by two threads, so that an unavailable message service delays no visit; reports that it did
not take are sent again.
"""

import heapq
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any

import numpy as np

from recbandits.checks import POSITIVE, require_each
from recbandits.loop.simulated_users import SimulatedUsers

_LAST = 20.0  # seconds that the reports that are due get to leave at the end
_BEHIND = 1.0  # seconds of visits that are made up for; those before are missed
_PAUSE = 0.02  # seconds between two looks at the clock
_AGAIN = 0.2  # seconds until reports that were not taken are tried again
_BATCH = 1000  # rewards published at once


def linear_drift(start: datetime, seconds: float) -> Callable[[datetime], float]:
    """Return the function from a time to the degree of a preference drift: 0 before `start`, 1 some seconds later."""
    return lambda time: min(max((time - start).total_seconds() / seconds, 0.0), 1.0)


class Simulator:
    """Visits of an endpoint.

    The endpoint gets `rate` requests per second, each of so many instances, which are visits; any error means that they
    were not answered. The publisher has `send(records)`, which returns when a list of `Reward` is delivered, and raises
    if it may not be. The clock, by default the time of day, returns an aware datetime, and `drift` is a function from
    that to the degree of the preference drift, in [0, 1].

    Attributes:
      counts: Counter of visits = answered + unanswered, of missed visits (the endpoint was too slow for the rate), and
        of reports that were made and reported.
    """

    def __init__(
        self,
        users: SimulatedUsers,
        endpoint: Any,
        publisher: Any,
        rate: float,
        seed: int | None = 0,
        clock: Callable[[], datetime] | None = None,
        instances: int = 1,
        candidates: int = 10,
        drift: Callable[[datetime], float] = lambda _: 0.0,
    ):
        require_each(POSITIVE, rate=rate)
        self._users, self._endpoint, self._publisher = users, endpoint, publisher
        self._rate, self._instances, self._candidates = rate, instances, candidates
        self._rng, self._clock, self._drift = np.random.default_rng(seed), clock or (lambda: datetime.now(UTC)), drift
        self._start: datetime | None = None
        self._requests, self._numbers, self._lock = 0, count(), threading.Lock()
        self._reports: list[tuple] = []
        self.counts = Counter(visits=0, answered=0, unanswered=0, missed=0, reports=0, reported=0)

    @property
    def waiting(self) -> int:
        """Number of reports that are made but not reported, because it is too early or they were not taken."""
        return len(self._reports)

    def ask(self, n: int = 1) -> None:
        """Make `n` requests now, one after the other."""
        for _ in range(n):
            users, items = self._users.visits(self._instances, self._rng, self._candidates)
            self.counts["visits"] += len(users)
            try:
                predictions = self._endpoint.predict(self._users.requests(users, items))
            except Exception as error:
                self.counts["unanswered"] += len(users)
                logging.info("the visits were not answered: %s", error)
                continue
            now = self._clock()
            self.counts["answered"] += len(users)
            actions = self._users.find_items([prediction["item_ids"][:1] for prediction in predictions])
            ratings = self._users.rate(self._users.expected(users, actions, self._drift(now))[:, 0], self._rng)
            event_ids = [prediction["event_id"] for prediction in predictions]
            reports = self._users.reports(event_ids, [now] * len(event_ids), ratings, self._rng)
            self.counts["reports"] += len(reports)
            self._keep([(reward.time, next(self._numbers), reward) for reward in reports])

    def ask_due(self) -> None:
        """Make the requests that are due at the rate by now, since the first call."""
        now = self._clock()
        self._start = self._start or now
        due = int((now - self._start).total_seconds() * self._rate) - self._requests
        self._requests += due
        missed = max(0, due - max(1, int(_BEHIND * self._rate)))
        self.counts["missed"] += missed * self._instances
        self.ask(due - missed)

    def report_due(self) -> int:
        """Publish the reports that are due by now; return their number. Those that are not taken stay."""
        due: list = []
        with self._lock:
            while len(due) < _BATCH and self._is_due():
                due.append(heapq.heappop(self._reports))
        if not due:
            return 0
        try:
            self._publisher.send([reward for *_, reward in due])
        except Exception as error:
            logging.warning("rewards cannot be reported, it is tried again: %s", error)
            self._keep(due)
            return 0
        self.counts["reported"] += len(due)
        return len(due)

    def run(self, stop: threading.Event) -> None:
        """Ask and report until a `threading.Event` is set, then report what is due."""
        reporter = threading.Thread(target=self._report, args=[stop], daemon=True)
        reporter.start()
        while not stop.wait(_PAUSE):
            self.ask_due()
        reporter.join(_LAST)

    def drain(self, patience: float) -> None:
        """Report until no report waits any more, for at most so many seconds."""
        end = time.monotonic() + patience
        while self.waiting and time.monotonic() < end:
            if not self.report_due():
                time.sleep(_AGAIN)

    def _report(self, stop):
        while not stop.wait(_PAUSE):
            if not self.report_due() and self._is_due():
                stop.wait(_AGAIN)
        self.report_due()

    def _is_due(self):
        return self._reports and self._reports[0][0] <= self._clock()

    def _keep(self, entries):
        with self._lock:
            for entry in entries:
                heapq.heappush(self._reports, entry)
