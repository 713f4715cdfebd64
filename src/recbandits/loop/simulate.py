"""Simulated users: they ask the endpoint at a set rate, and tell later what they thought of what they were shown.

`python -m recbandits.loop.simulate` is the process of the live loop. Visits and reports leave by two threads, so that a
message service that is away keeps no visitor waiting; what could not be reported is reported when it is back.
"""

import argparse
import heapq
import logging
import signal
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recbandits.config import Config
from recbandits.loop.asking import endpoint_of
from recbandits.loop.simulated_users import SimulatedUsers
from recbandits.platforms import choose
from recbandits.platforms.local.files import read_json, write_json

_LAST = 20.0  # seconds that the last reports get to leave, twice: those that are due, and those that are not yet
_BEHIND = 1.0  # seconds of visits that are made up for; those before are missed
_PAUSE = 0.02  # seconds between two looks at the clock
_AGAIN = 0.2  # seconds until reports that nobody took are tried again
_BATCH = 1000  # rewards published at once
_DRIFT, _COUNTS = "drift.json", "simulator.json"


class Drift(NamedTuple):
    """A turn of taste: nothing before `start`, complete `seconds` later."""

    start: datetime
    seconds: float

    def at(self, time):
        """How far taste has turned at a time, in [0, 1]."""
        return min(max((time - self.start).total_seconds() / self.seconds, 0.0), 1.0)


class Simulator:
    """Visitors of an endpoint.

    Args:
      world: `SimulatedUsers`, who they are and what they like.
      endpoint: has `predict(instances)`, as every `Endpoint`; whatever it raises means that nobody was answered.
      publisher: has `send(records)`, which returns when a list of `Reward` is delivered, and raises if it may not be.
      rate: requests per second.
      seed: of who comes and what they think.
      clock: function that gives the time, with its zone.
      instances: visits in one request.
      candidates: movies to choose from in each visit.
      drift: function from a time to how far taste has turned, in [0, 1].

    Attributes:
      counts: Counter of visits = answered + unanswered, of missed visits (the endpoint was too slow for the rate), and
        of reports that were made and reported.
    """

    def __init__(
        self,
        world,
        endpoint,
        publisher,
        rate,
        seed=0,
        clock=lambda: datetime.now(UTC),
        instances=1,
        candidates=10,
        drift=lambda _: 0.0,
    ):
        if not rate > 0:
            raise ValueError(f"rate must be a positive number of requests per second, got {rate!r}")
        self._world, self._endpoint, self._publisher = world, endpoint, publisher
        self._rate, self._instances, self._candidates = rate, instances, candidates
        self._rng, self._clock, self._drift = np.random.default_rng(seed), clock, drift
        self._start, self._due = None, 0
        self._waiting, self._numbers, self._turn = [], count(), threading.Lock()
        self.counts = Counter(visits=0, answered=0, unanswered=0, missed=0, reports=0, reported=0)

    @property
    def waiting(self):
        """Number of reports that are made but not reported, because it is too early or nobody took them."""
        return len(self._waiting)

    def ask(self, n=1):
        """Let `n` requests come at once, one after the other."""
        for _ in range(n):
            self._ask(*self._world.visits(self._instances, self._rng, self._candidates))

    def ask_due(self):
        """Let those requests come that are due at the rate by now, since the first call."""
        now = self._clock()
        self._start = self._start or now
        due = int((now - self._start).total_seconds() * self._rate) - self._due
        self._due += due
        missed = max(0, due - max(1, int(_BEHIND * self._rate)))
        self.counts["missed"] += missed * self._instances
        self.ask(due - missed)

    def report_due(self):
        """Publish the reports that are due by now; those that nobody takes stay.

        Returns:
          Number of reports published.
        """
        now = self._clock()
        with self._turn:
            due = []
            while self._waiting and len(due) < _BATCH and self._waiting[0][0] <= now:
                due.append(heapq.heappop(self._waiting))
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

    def run(self, stop, watch=lambda: None):
        """Ask and report until a `threading.Event` is set, then report what is due.

        Args:
          stop: `threading.Event`.
          watch: called about once a second.
        """
        reporter = threading.Thread(target=self._report, args=[stop], daemon=True)
        reporter.start()
        seen = 0.0
        while not stop.wait(_PAUSE):
            self.ask_due()
            if time.monotonic() - seen > 1:
                seen = time.monotonic()
                watch()
        reporter.join(_LAST)
        watch()

    def drain(self, patience):
        """Report until nothing waits any more, for at most so many seconds."""
        end = time.monotonic() + patience
        while self.waiting and time.monotonic() < end:
            if not self.report_due():
                time.sleep(_AGAIN)

    def _report(self, stop):
        while not stop.wait(_PAUSE):
            if not self.report_due() and self._waiting and self._waiting[0][0] <= self._clock():
                stop.wait(_AGAIN)
        self.report_due()

    def _ask(self, users, items):
        self.counts["visits"] += len(users)
        try:
            predictions = self._endpoint.predict(self._world.requests(users, items))
        except Exception as error:
            self.counts["unanswered"] += len(users)
            logging.info("nobody was answered: %s", error)
            return
        now = self._clock()
        self.counts["answered"] += len(users)
        shown = self._world.find_items([each["item_ids"][:1] for each in predictions])
        values = self._world.rate(self._world.expected(users, shown, self._drift(now))[:, 0], self._rng)
        events = [each["event_id"] for each in predictions]
        reports = self._world.reports(events, [now] * len(events), values, self._rng)
        self.counts["reports"] += len(reports)
        self._keep([(reward.time, next(self._numbers), reward) for reward in reports])

    def _keep(self, entries):
        with self._turn:
            for entry in entries:
                heapq.heappush(self._waiting, entry)


def drift_of(directory):
    """Function of a time that gives how far taste has turned, as `begin_drift` had it; nothing before that."""
    told = read_json(directory / _DRIFT)
    return Drift(datetime.fromisoformat(told["start"]), told["seconds"]).at if told else lambda _: 0.0


def begin_drift(directory, start, seconds):
    """Have taste turn from `start` on within so many seconds, for the users of a process that reads the directory."""
    write_json(directory / _DRIFT, {"start": start.isoformat(), "seconds": seconds})


def counts_of(directory):
    """What the simulator of a directory has counted, dict; empty before it began."""
    return read_json(directory / _COUNTS) or {}


def main(arguments=None):
    """Simulate users until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m recbandits.loop.simulate", description=main.__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="with the world; counts are written there")
    parser.add_argument("--endpoint", default=None, help="name (default: as configured)")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second")
    parser.add_argument("--instances", type=int, default=1, help="visits in one request")
    parser.add_argument("--candidates", type=int, default=10, help="movies to choose from in each visit")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    config = Config.load()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    platform, drift = choose(config), [drift_of(asked.directory)]
    messages = platform.messages
    simulator = Simulator(
        SimulatedUsers.load(asked.directory / "world"),
        endpoint_of(platform, asked.endpoint or config.endpoint),
        messages.publisher(messages.topic("rewards")),
        asked.rate,
        asked.seed,
        instances=asked.instances,
        candidates=asked.candidates,
        drift=lambda time: drift[0](time),
    )

    def watch():
        drift[0] = drift_of(asked.directory)
        write_json(asked.directory / _COUNTS, simulator.counts | {"waiting": simulator.waiting})

    simulator.run(stop, watch)
    simulator.drain(_LAST)
    watch()


if __name__ == "__main__":
    main()
