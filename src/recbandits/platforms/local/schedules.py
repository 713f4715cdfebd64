"""Schedules on this machine: a process that looks at the clock, and says what is to be said when it is time.

The directory has `jobs/<name>.json` for each schedule, and the files of a server, see `services`. As with Cloud
Scheduler, times that pass while nobody looks are not made up for.

`python -m recbandits.platforms.local.schedules DIRECTORY` is that process.
"""

import json
import signal
import sys
import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import Request, urlopen

from recbandits.config import Config
from recbandits.platforms.jobs import Job
from recbandits.platforms.local.messages import LocalMessages
from recbandits.platforms.local.processes import read_json
from recbandits.platforms.local.services import Service
from recbandits.platforms.local.supervisor import write_json
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.schedules import Schedule, trigger_of

_POLL = 0.25  # seconds between two looks at the clock
_PATIENCE = 60  # seconds until a function must answer, or a message be taken


class LocalSchedules:
    """See `platforms.schedules.Schedules`.

    Args:
      config: Config

    Attributes:
      service: `Service` of the process, which runs from the first schedule on.
    """

    def __init__(self, config):
        self._config = config
        self.service = Service(config.artifacts_dir / "schedules", "the scheduler")

    def create(self, name, cron, target, payload=None):
        """See `Schedules.create`.

        Raises:
          ValueError: of `Schedule`.
          PlatformError: the process did not start.
        """
        schedule = Schedule(name, cron, target, payload or {})
        self._keep(schedule)
        command = [sys.executable, "-m", __name__, str(self.service.directory)]
        variables = {"RECBANDITS_ARTIFACTS": str(self._config.artifacts_dir)}
        self.service.start(lambda _: command, variables, ready=lambda _: True)
        return schedule

    def list(self):
        """See `Schedules.list`."""
        return read(self.service.directory)

    def pause(self, name):
        """See `Schedules.pause`.

        Raises:
          PlatformError: there is no such schedule.
        """
        found = next((schedule for schedule in self.list() if schedule.name == name), None)
        if found is None:
            raise PlatformError(f"there is no schedule {name}")
        self._keep(replace(found, paused=True))

    def delete(self, name):
        """See `Schedules.delete`; without any, the process ends."""
        _file(self.service.directory, name).unlink(missing_ok=True)
        if not self.list():
            self.service.stop()

    def stop(self):
        """End the process; the schedules stay, for the next one that is created."""
        self.service.stop()

    def _keep(self, schedule):
        file = _file(self.service.directory, schedule.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, asdict(schedule))


def read(directory):
    """The schedules of a directory, list of `Schedule` in order of name."""
    files = sorted(Path(directory, "jobs").glob("*.json"))
    found = (read_json(file) for file in files)  # None for one that has been deleted since
    return [Schedule(**known) for known in found if known]


def fired(schedules, after, until):
    """Which schedules have a time in a span.

    Args:
      schedules: list of `Schedule`; paused ones have none.
      after: aware datetime, not included.
      until: aware datetime, included.

    Returns:
      list of those, each once.
    """

    def is_due(schedule):
        time = trigger_of(schedule.cron).get_next_fire_time(after, after)
        return time is not None and time <= until

    return [schedule for schedule in schedules if not schedule.paused and is_due(schedule)]


def send(schedule):
    """Say what a schedule has to say: publish its payload, or post it.

    Raises:
      Exception: nobody takes it.
    """
    data = json.dumps(schedule.payload).encode()
    if schedule.target.startswith("projects/"):
        LocalMessages(Config.load()).publish(schedule.target, [(data, {})])
        return
    with urlopen(Request(schedule.target, data, {"content-type": "application/json"}), timeout=_PATIENCE) as answer:
        answer.read()


def run(directory, stop, say=send, clock=lambda: datetime.now(UTC)):
    """Look at the clock again and again, and have everything said that is due.

    Args:
      directory: `pathlib.Path` with `jobs`.
      stop: `threading.Event`, or whatever has its `wait`.
      say: as `send`.
      clock: function that gives the time.
    """
    looked = clock()
    while not stop.wait(_POLL):
        now = clock()
        for schedule in fired(read(directory), looked, now):
            try:
                say(schedule)
                outcome = "said"
            except Exception as error:  # whatever it was, the others are due as well
                outcome = f"not said: {error!r}"
            print(f"{now.isoformat()} {schedule.name} {outcome}", file=sys.stderr, flush=True)
        looked = now


def _file(directory, name):
    return directory / "jobs" / f"{Job(name).name}.json"


if __name__ == "__main__":
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    run(Path(sys.argv[1]), ended)
