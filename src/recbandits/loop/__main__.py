"""The closed loop, live: `python -m recbandits.loop --rounds 5`, or `make loop`."""

import argparse
import signal
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime

from recbandits.config import Config
from recbandits.data import movielens
from recbandits.loop import report
from recbandits.loop.live import Loop
from recbandits.loop.run import run
from recbandits.loop.settings import Settings
from recbandits.loop.simulate import drift_of
from recbandits.loop.view import shown
from recbandits.notebook import PROFILES
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.schedules import fields_of

_RATE = 40.0  # visits per second, which leaves most of two cores to the trainings
# Rounds of half a minute on two cores: users answer sooner, less is waited for, and less is enough to decide by.
_QUICK = {"decisions": 400, "delay": 0.4, "window": 2.0}
_QUICK_GATE, _QUICK_GUARDRAIL = {"effective_sample_size": 60.0}, {"canary": 45, "least": 60, "most": 100}


def main(arguments=None):
    """Run the closed loop on this machine: serve users, log decisions, join rewards, learn, judge, release."""
    asked = parsed(arguments)
    settings = settings_of(asked)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the last is a terminal that is closed
        signal.signal(number, lambda *_: stop.set())
    data = movielens.load()
    try:
        with Loop(Config.load(), settings, cron=asked.cron) as loop:
            with shown() as show:
                whole = run(loop, data, asked.rounds, show, stop, asked.drift)
            tell(loop, data)
    except (PlatformError, ValueError) as error:
        sys.exit(f"the loop ended: {error}")
    if not whole:
        sys.exit("the loop ended before all that was published was in the warehouse")


def parsed(arguments=None):
    """What a command line asks for; one that cannot be ends the process with a sentence."""
    parser = argparse.ArgumentParser(prog="python -m recbandits.loop", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=None, help="re-trainings to decide (default: until Ctrl-C)")
    parser.add_argument("--rate", type=float, default=None, help="visits per second")
    parser.add_argument("--drift", action="store_true", help="taste turns after two rounds, and the learner forgets")
    parser.add_argument("--profile", choices=PROFILES, default="quick", help="how much is learnt from in each round")
    parser.add_argument("--cron", default=None, help="times of re-training, such as '*/5 * * * *', not a number")
    asked = parser.parse_args(arguments)
    if asked.rounds is not None and asked.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {asked.rounds}")
    try:
        if asked.cron is not None:
            fields_of(asked.cron)
    except ValueError as error:
        parser.error(f"--{error}")
    return asked


def tell(loop, data):
    """Write the report of a loop, and print what it says in short."""
    warehouse, end = loop.platform.warehouse, datetime.now(UTC)
    if warehouse.verdicts().empty:
        print("Nothing was served yet, so there is nothing to report.")
        return
    told = report.tables(loop.world, warehouse, loop.models, loop.settings, end, drift_of(loop.directory))
    page = report.write(told, loop.directory / "report", loop.settings, str(data))
    print("\n".join([report.headline(told), *report.alarms(told), f"The report is {page}"]))


def settings_of(asked):
    """`Settings` of what `parsed` gives."""
    settings = Settings(rate=_RATE)
    if asked.profile == "quick":
        gate, guardrail = settings.gate, settings.guardrail
        parts = {"gate": replace(gate, **_QUICK_GATE), "guardrail": replace(guardrail, **_QUICK_GUARDRAIL)}
        settings = replace(settings, **_QUICK, **parts)
    if asked.rate is not None:
        settings = replace(settings, rate=asked.rate)
    if asked.drift:
        settings = replace(settings, agent=replace(settings.agent, gamma=settings.forgetting))
    return settings


if __name__ == "__main__":
    main()
