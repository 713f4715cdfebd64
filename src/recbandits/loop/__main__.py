"""The closed loop on this machine: `python -m recbandits.loop --rounds 5`, or `make loop`."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

import pandas as pd
import tyro

from recbandits.checks import require
from recbandits.config import Config
from recbandits.data import movielens
from recbandits.data.tables import MovieLens
from recbandits.loop.canary import JUDGED, find_experiment
from recbandits.loop.core import LOGGERS
from recbandits.loop.deployment import deploy_loop, follow_loop, remove_loop, show_verdicts, status_line
from recbandits.loop.live import Loop
from recbandits.loop.page import write_page
from recbandits.loop.settings import Gate, Guardrail, Settings
from recbandits.loop.simulate import linear_drift
from recbandits.loop.simulated_users import STARS
from recbandits.platforms.functions import next_time
from recbandits.platforms.protocol import PlatformError

_RATE = 50.0  # visits per second, which leaves most of two cores to the trainings
# Rounds of half a minute on two cores: users answer sooner, less is waited for, and less is enough to decide by.
_QUICK: dict = {"decisions": 400, "delay": 0.4, "gate": Gate(effective_sample_size=60.0)}
_QUICK |= {"join": replace(STARS, window=2.0), "guardrail": Guardrail(canary=45, ramp=45, least=60, most=500)}
_DRIFT_AFTER, _DRIFT_SECONDS = (2, 10.0)  # rounds before the preference drift, and how long it takes
_TICK, _LINE = 1.0, 6.0  # seconds between two ticks, and between two status lines
_BLIND = 60.0  # seconds after which a loop that does not answer is given up
_SETTLE = 45.0  # seconds that the last canary gets for its verdict


def main(
    rounds: int | None = None,
    rate: float = _RATE,
    drift: bool = False,
    profile: Literal["quick", "full"] = "quick",
    cron: str | None = None,
    remove: bool = False,
) -> None:
    """Run the closed loop: serve users, log decisions, join rewards, learn, evaluate, deploy.

    On Google Cloud the loop is deployed, and goes on when this command ends.

    Args:
      rounds: re-trainings to decide; None runs until Ctrl-C.
      rate: visits per second; on Google Cloud in five seconds of each minute.
      drift: let preferences drift after two rounds, and the learner forget.
      profile: "full" learns from more in each round.
      cron: times of re-training, such as '*/5 * * * *', instead of a number of new decisions.
      remove: remove what is deployed on Google Cloud, and do nothing else.
    """
    stop, finished = threading.Event(), True
    try:
        require(rounds is None or rounds >= 1, "rounds", "at least 1", rounds)
        if cron is not None:
            next_time(cron, datetime.now(UTC))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the last is a terminal that is closed
            signal.signal(number, lambda *_: stop.set())
        config = Config.load()
        if remove:
            remove_loop(config)
        elif config.platform == "gcp":
            start_up = deploy_loop(config, Settings(STARS, rate=rate), movielens.load())
            follow_loop(config, stop, start_up)
            print("The loop goes on. To remove it: python -m recbandits.loop --remove")
        else:
            with Loop(config, settings_of(profile, rate, drift)) as loop:
                finished = run(loop, movielens.load(), rounds, stop, drift, cron)
                if not loop.platform.warehouse.verdicts().empty:
                    page, rewards, sentences = write_page(loop, datetime.now(UTC))
                    print(rewards, *sentences, f"The pictures are on {page}", sep="\n")
    except (PlatformError, ValueError) as error:
        sys.exit(f"the loop ended: {error}")
    if not finished:
        sys.exit("the loop ended before all that was published was in the warehouse")


def run(
    loop: Loop,
    data: MovieLens,
    rounds: int | None,
    stop: threading.Event,
    drift: bool = False,
    cron: str | None = None,
    show: Callable = print,
) -> bool:
    """Run a `live.Loop` from nothing until so many verdicts of the gate, and the guardrail's on the last canary.

    `stop` ends it early, and `show` is given lines of text; `main` describes the other arguments. It returns whether
    everything that was published is in the warehouse. PlatformError says that a part does not start or come back.
    """
    start = last = line = time.monotonic()
    show("servers start, the first policy is trained")
    loop.prepare(data)
    with ThreadPoolExecutor() as threads:
        servers = threads.submit(loop.start)
        loop.start_up(stop)
        servers.result()
    loop.visit()
    due = next_time(cron, datetime.now(UTC)) if cron else None
    shown, settling = 0, None
    while not stop.is_set():
        try:
            loop.start()  # again, if it was killed
            now = datetime.now(UTC)
            if due is None or now >= due:
                loop.core.tick(now, least_new=1 if cron else None)
                due = next_time(cron, now) if cron else None
            else:
                loop.core.guard(now)
            verdicts, last = loop.platform.warehouse.verdicts(), time.monotonic()
        except PlatformError:  # what was killed a moment ago is back at the next tick
            if time.monotonic() - last > _BLIND:
                raise
            stop.wait(_TICK)
            continue
        show_verdicts(verdicts, shown, show)
        if len(verdicts) > shown or last - line >= _LINE:
            counts, total = loop.simulator.counts, f"/{rounds}" if rounds else ""
            parts = [f"{last - start:4.0f} s", f"round {decided(verdicts)}{total}"]
            parts += [f"{counts['answered']:,} visits answered, {counts['unanswered'] + counts['missed']:,} not"]
            parts += [f"{sum(map(loop.backlog, LOGGERS))} events to log"]
            show(status_line(parts, loop.endpoint))
            shown, line = len(verdicts), last
        if drift and decided(verdicts) >= _DRIFT_AFTER:
            loop.simulator.drift, drift = linear_drift(now, _DRIFT_SECONDS), False
            show("       preferences drift from now on")
        if rounds and decided(verdicts) >= rounds:
            settling = settling or last
            experiment = find_experiment(loop.endpoint.traffic_split, verdicts)
            if experiment is None or experiment.promoted or last - settling > _SETTLE:
                break
        stop.wait(_TICK)
    return loop.drain()


def decided(verdicts: pd.DataFrame) -> int:
    """Return the number of re-trainings that ended with a verdict of the gate: all but the first policy."""
    return max(0, int(verdicts["kind"].isin(JUDGED).sum()) - 1)


def settings_of(profile: str, rate: float = _RATE, drift: bool = False) -> Settings:
    """Return the `Settings` of a profile."""
    settings = Settings(**{"join": STARS, "rate": rate} | (_QUICK if profile == "quick" else {}))
    return replace(settings, agent=replace(settings.agent, gamma=settings.forgetting)) if drift else settings


if __name__ == "__main__":
    tyro.cli(main, prog="python -m recbandits.loop", config=(tyro.conf.FlagCreatePairsOff,))
