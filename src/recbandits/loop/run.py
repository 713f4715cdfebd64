"""One run of the live loop: from nothing to a first policy, then round after round, with a view of it all the time."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from recbandits.loop.simulate import begin_drift, counts_of
from recbandits.loop.trigger import PIPELINE
from recbandits.loop.view import Sight
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Verdict, to_table

DRIFT_AFTER = 2  # rounds
DRIFT_SECONDS = 10.0
_LOOK = 2.0  # seconds between two looks
_BLIND = 60.0  # seconds after which a loop that cannot be seen is given up
_SETTLE = 45.0  # seconds that the last canary gets to be promoted or taken back


def run(loop, data, rounds, show, stop, drift=False):
    """Run a loop from nothing, until so many re-trainings are decided or until it is told to stop.

    Args:
      loop: `Loop`; its processes run when this returns, so that what they know can be asked.
      data: MovieLens.
      rounds: number of re-trainings that end with a verdict of the gate; None for no end. The last candidate that was
        deployed is waited for until it is promoted or taken back, for a while.
      show: function of a `Sight`.
      stop: `threading.Event`, by which it ends early.
      drift: whether taste turns after two rounds.

    Returns:
      Whether everything that was published is in the warehouse.

    Raises:
      PlatformError: a part does not start, the start-up pipeline failed, or something does not come back.
    """
    observer = Observer(loop, rounds)
    with _meanwhile(observer, show, "a world is made"):
        loop.prepare(data)
    with _meanwhile(observer, show, "servers start, the first policy is trained"), ThreadPoolExecutor() as beside:
        others = beside.submit(loop.start, "endpoint", "log-interaction", "log-reward")
        loop.start_up(stop)
        others.result()
    if stop.is_set():
        return loop.drain()
    loop.start("simulator", "trigger")
    settling, turned, seen = None, False, time.monotonic()
    while not stop.is_set():
        try:
            loop.watch()
            sight, seen = observer.look(), time.monotonic()
        except PlatformError:  # somebody has just died: the next look may find all of them again
            if time.monotonic() - seen > _BLIND:
                raise
            stop.wait(_LOOK)
            continue
        show(sight)
        if drift and not turned and sight.rounds[0] >= DRIFT_AFTER:
            begin_drift(loop.directory, sight.time, DRIFT_SECONDS)
            turned = True
        if rounds and sight.rounds[0] >= rounds:
            settling = settling or time.monotonic()
            if not canary_waits(sight.verdicts) or time.monotonic() - settling > _SETTLE:
                break
        stop.wait(_LOOK)
    return loop.drain()


def decided(verdicts):
    """Number of re-trainings that ended with a verdict of the gate: all but the first policy."""
    return max(0, int(verdicts["kind"].isin(["deployed", "refused"]).sum()) - 1)


def canary_waits(verdicts):
    """Whether the version that was deployed last is neither promoted nor taken back."""
    return not verdicts.empty and verdicts["kind"].iloc[-1] == "deployed" and verdicts["against"].iloc[-1] != ""


class Observer:
    """What there is to see of a loop.

    Args:
      loop: `Loop`
      wanted: number of rounds, or None.
    """

    def __init__(self, loop, wanted):
        self._loop, self._wanted, self._begun = loop, wanted, time.monotonic()
        self._last = None  # time, requests and rows at the last look

    def look(self, doing=""):
        """A `Sight` of now; with a phrase of what is done, one of a loop of which nothing else can be seen yet."""
        now, seconds = datetime.now(UTC), time.monotonic() - self._begun
        if doing:
            empty = to_table([], Verdict).to_pandas()
            return Sight(now, seconds, doing, (0, self._wanted), 0, 0, {}, None, {}, {}, {}, empty.iloc[:0], empty, {})
        loop, warehouse = self._loop, self._loop.platform.warehouse
        state, verdicts = warehouse.state(), warehouse.verdicts()
        rows = {name: told["rows"] for name, told in state.items()}
        joined = state["joined"]["newest"]
        rule = loop.settings.join
        span = now - timedelta(days=1), now - timedelta(seconds=rule.window)
        versions = warehouse.by_version(*span, **vars(rule))
        requests, events = self._rates(rows["interactions"] + rows["rewards"])
        return Sight(
            time=now,
            seconds=seconds,
            doing=self._doing(verdicts),
            rounds=(decided(verdicts), self._wanted),
            requests=requests,
            events=events,
            rows=rows,
            lag=joined and (now - joined).total_seconds(),
            visits=counts_of(loop.directory),
            backlog={topic: loop.backlog(topic) for topic in ("interactions", "rewards")},
            shares=loop.endpoint.traffic_split,
            versions=versions,
            verdicts=verdicts,
            restarts=dict(loop.restarts),
        )

    def _rates(self, rows):
        """(requests, rows) per second since the last look; nothing at the first one and where counting began anew."""
        try:
            requests = self._loop.endpoint.metrics()["requests"]
        except PlatformError:
            requests = 0
        now, last = (time.monotonic(), requests, rows), self._last
        self._last = now
        if last is None:
            return 0.0, 0.0
        return tuple(max(0, new - old) / (now[0] - last[0]) for new, old in zip(now[1:], last[1:], strict=True))

    def _doing(self, verdicts):
        if self._loop.platform.pipelines.running(PIPELINE):
            return "a candidate is trained"
        return "a canary is watched" if canary_waits(verdicts) else "events are collected"


@contextlib.contextmanager
def _meanwhile(observer, show, doing):
    """Show now and then what is done, as long as the block takes."""
    ended = threading.Event()

    def tell():
        while not ended.wait(_LOOK):
            show(observer.look(doing))

    show(observer.look(doing))
    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
