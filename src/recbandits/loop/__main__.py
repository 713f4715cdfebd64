"""The closed loop, live: `python -m recbandits.loop --rounds 5`, or `make loop`."""

import signal
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

import tyro

from recbandits.checks import require
from recbandits.config import Config
from recbandits.data import movielens
from recbandits.loop import report
from recbandits.loop.live import Loop
from recbandits.loop.run import run
from recbandits.loop.settings import Settings
from recbandits.loop.simulate import drift_of
from recbandits.loop.simulated_users import STARS
from recbandits.loop.view import shown
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.schedules import fields_of

_RATE = 40.0  # visits per second, which leaves most of two cores to the trainings
# Rounds of half a minute on two cores: users answer sooner, less is waited for, and less is enough to decide by.
_QUICK = {"decisions": 400, "delay": 0.4, "join": replace(STARS, window=2.0)}
_QUICK_GATE, _QUICK_GUARDRAIL = {"effective_sample_size": 60.0}, {"canary": 45, "least": 60, "most": 100}


def main(
    rounds: int | None = None,
    rate: float = _RATE,
    drift: bool = False,
    profile: Literal["quick", "full"] = "quick",
    cron: str | None = None,
) -> None:
    """Run the closed loop on this machine: serve users, log decisions, join rewards, learn, evaluate, deploy.

    Args:
      rounds: re-trainings to decide; None runs until Ctrl-C.
      rate: visits per second.
      drift: let preferences drift after two rounds, and the learner forget.
      profile: "full" learns from more in each round.
      cron: times of re-training, such as '*/5 * * * *', instead of a number of new decisions.
    """
    stop = threading.Event()
    try:
        require(rounds is None or rounds >= 1, "rounds", "at least 1", rounds)
        if cron is not None:
            fields_of(cron)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the last is a terminal that is closed
            signal.signal(number, lambda *_: stop.set())
        data = movielens.load()
        with Loop(Config.load(), settings_of(profile, rate, drift), cron=cron) as loop:
            with shown() as show:
                finished = run(loop, data, rounds, show, stop, drift)
            tell(loop, data)
    except (PlatformError, ValueError) as error:
        sys.exit(f"the loop ended: {error}")
    if not finished:
        sys.exit("the loop ended before all that was published was in the warehouse")


def tell(loop, data):
    """Write the report of a loop, and print what it says in short."""
    warehouse, end = loop.platform.warehouse, datetime.now(UTC)
    if warehouse.verdicts().empty:
        print("Nothing was served yet, so there is nothing to report.")
        return
    told = report.tables(loop.world, warehouse, loop.models, loop.settings, end, drift_of(loop.directory))
    page = report.write(told, loop.directory / "report", loop.settings, str(data))
    print("\n".join([report.headline(told), *report.alarms(told), f"The report is {page}"]))


def settings_of(profile: str, rate: float = _RATE, drift: bool = False) -> Settings:
    """Return the `Settings` of a profile."""
    settings = Settings(STARS, rate=rate)
    if profile == "quick":
        gate, guardrail = settings.gate, settings.guardrail
        parts = {"gate": replace(gate, **_QUICK_GATE), "guardrail": replace(guardrail, **_QUICK_GUARDRAIL)}
        settings = replace(settings, **_QUICK, **parts)
    if drift:
        settings = replace(settings, agent=replace(settings.agent, gamma=settings.forgetting))
    return settings


if __name__ == "__main__":
    tyro.cli(main, prog="python -m recbandits.loop", config=(tyro.conf.FlagCreatePairsOff,))
