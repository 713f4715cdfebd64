"""Simulated users at an endpoint: they visit at a set rate, and report rewards later; and their logs."""

import logging
import threading
import time
import uuid
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recbandits.checks import POSITIVE, require_each, whole
from recbandits.loop.ingest import write_log
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import SimulatedUsers
from recbandits.records import Interaction, Reward, to_table

_BEHIND = 1.0  # seconds of visits that are made up for; those before are missed
_PAUSE = 0.02  # seconds between two looks at the clock
_AGAIN = 0.2  # seconds until reports that were not taken are tried again
UNIFORM = "uniform"  # version of the policy of simulated logs
_NAMESPACE = uuid.UUID("5f0c1b1e-6d0a-5c39-9d2f-8a5e8c1f7b60")  # of the event ids of simulated logs
_BATCH = 1000  # rewards published at once
_TIME = attrgetter("time")


def linear_drift(start: datetime, seconds: float) -> Callable[[datetime], float]:
    """Return the function from a time to the degree of a preference drift: 0 before `start`, 1 some seconds later."""
    return lambda time: min(max((time - start).total_seconds() / seconds, 0.0), 1.0)


class Simulator:
    """Visits of an endpoint.

    The endpoint gets `rate` visits per second, `instances` of them in a request; any error means that they were not
    answered. The publisher has `send(records)`, which returns when a list of `Reward` is delivered, and raises if it
    may not be. The clock, by default the time of day, returns an aware datetime.

    Attributes:
      drift: function from a time to the degree of the preference drift, in [0, 1]; it may be replaced at any time.
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
    ):
        require_each(POSITIVE, rate=rate)
        self._users, self._endpoint, self._publisher = users, endpoint, publisher
        self._rate, self._instances, self._candidates = rate, instances, candidates
        self._rng, self._clock = np.random.default_rng(seed), clock or (lambda: datetime.now(UTC))
        self.drift: Callable[[datetime], float] = lambda _: 0.0
        self._start: datetime | None = None
        self._requests = 0
        self._reports: list[Reward] = []  # in order of time
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
            ratings = self._users.rate(self._users.expected(users, actions, self.drift(now))[:, 0], self._rng)
            event_ids = [prediction["event_id"] for prediction in predictions]
            reports = self._users.reports(event_ids, [now] * len(event_ids), ratings, self._rng)
            self.counts["reports"] += len(reports)
            for report in reports:
                insort(self._reports, report, key=_TIME)

    def ask_due(self) -> None:
        """Make the requests that are due by now, since the first call."""
        now = self._clock()
        self._start = self._start or now
        rate = self._rate / self._instances
        due = int((now - self._start).total_seconds() * rate) - self._requests
        self._requests += due
        missed = max(0, due - max(1, int(_BEHIND * rate)))
        self.counts["missed"] += missed * self._instances
        self.ask(due - missed)

    def report_due(self) -> int:
        """Publish the reports that are due by now; return their number. Those that are not taken stay."""
        due = self._reports[: min(bisect_right(self._reports, self._clock(), key=_TIME), _BATCH)]
        try:
            if due:
                self._publisher.send(due)
        except Exception as error:
            logging.warning("rewards cannot be reported, it is tried again: %s", error)
            time.sleep(_AGAIN)
            return 0
        del self._reports[: len(due)]
        self.counts["reported"] += len(due)
        return len(due)

    def run(self, stop: threading.Event) -> None:
        """Ask and report until a `threading.Event` is set."""
        while not stop.wait(_PAUSE):
            self.ask_due()
            self.report_due()

    def drain(self, patience: float) -> None:
        """Report until no report waits any more, for at most so many seconds."""
        end = time.monotonic() + patience
        while self.waiting and time.monotonic() < end:
            if not self.report_due():
                time.sleep(_AGAIN)


def write_first_log(directory: str | Path, users: SimulatedUsers, settings: Settings, now: datetime) -> None:
    """Write the first decisions of a loop by a uniform random policy, so old that their rewards are there by `now`."""
    seconds = settings.first / settings.rate
    start = now - timedelta(seconds=2 * settings.join.window + seconds)
    write_log(directory, *simulate_log(users, settings.first, start, seconds, settings.candidates, settings.seed))


def simulate_log(
    users: SimulatedUsers, n: int, start: datetime, seconds: float = 60.0, candidates: int = 10, seed: int = 0
) -> tuple[pa.Table, pa.Table]:
    """Simulate n decisions of a uniform random policy among so many candidates, and what the users report of them.

    They come evenly within some seconds from `start`, and are a table of `Interaction`s and one of `Reward`s. The same
    arguments give the same log, others other event ids, so that no decision gets the reward of another one.
    """
    require_each(whole(), n=n)
    require_each(POSITIVE, seconds=seconds)
    rng = np.random.default_rng(seed)
    people, items = users.visits(n, rng, candidates)
    action = rng.integers(candidates, size=n)
    ratings = users.rate(users.expected(people, items)[np.arange(n), action], rng)
    batch = uuid.uuid5(_NAMESPACE, f"{seed} {n} {candidates} {start.astimezone(UTC).isoformat()} {float(seconds)}")
    event_ids = [uuid.uuid5(batch, str(row)).hex for row in range(n)]
    times = [start + timedelta(seconds=seconds * row / n) for row in range(n)]
    propensity = np.full(n, 1.0 / candidates)
    decisions = users.interactions((people, items), event_ids, times, [UNIFORM] * n, action, propensity)
    return to_table(decisions, Interaction), to_table(users.reports(event_ids, times, ratings, rng), Reward)
