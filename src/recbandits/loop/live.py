"""The loop with real processes: an endpoint, two functions that log, and pipelines; visits come from this process."""

import contextlib
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

from recbandits.config import Config
from recbandits.data.tables import MovieLens
from recbandits.loop.core import LOGGERS, START_UP, TEMPLATES, PipelineCore, logger_of, start_up_parameters
from recbandits.loop.models import models_of
from recbandits.loop.settings import Settings
from recbandits.loop.simulate import Simulator, write_first_log
from recbandits.loop.simulated_users import SimulatedUsers
from recbandits.platforms.local import LocalPlatform
from recbandits.platforms.local.endpoints import LocalEndpoint
from recbandits.platforms.local.files import held, one_sentence, write_json
from recbandits.platforms.local.units import units_below
from recbandits.platforms.protocol import PlatformError

_MARK = "loop.json"  # which no other directory has
_INSTANCES = 5  # visits in one request
_REPORTS = 60.0  # seconds that the last reports get to be published, more than users wait with them
_DRAIN = 60.0  # seconds that the last events get to the warehouse
_POLL = 0.1  # seconds between two looks


class Loop:
    """One loop on this machine; as a context, it ends the processes that it started.

    Its configuration differs from the one that is given in the artifacts directory alone, which is `directory` and has
    all that it makes. `models` is the directory of the models that were trained, by version. After `prepare` there are
    also `users`, `topics` (dict from "interactions" and "rewards" to the full name), `core` and `simulator`.
    """

    def __init__(self, config: Config, settings: Settings):
        self.settings, self.directory = settings, config.artifacts_dir / "loop"
        self.config = replace(config, platform="local", artifacts=str(self.directory))
        self.platform, self.models = LocalPlatform(self.config), models_of(self.config)
        self.endpoint = LocalEndpoint(self.config.endpoint, self.directory / "endpoints" / self.config.endpoint)
        self._turn = contextlib.ExitStack()  # holds the directory, and ends the processes, from `prepare` on
        self._leave = threading.Event()
        self._visits: threading.Thread | None = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._turn.close()

    def prepare(self, data: MovieLens) -> None:
        """Remove an earlier loop, and make the simulated users of this one, of MovieLens.

        PlatformError if the directory is that of something else, or of a loop that runs.
        """
        directory, lock_directory = self.directory, self.directory.with_name("loop-lock")
        with one_sentence("loop", "started"):
            if directory.exists() and not (directory / _MARK).exists():
                raise PlatformError(f"{directory} must be the directory of a loop, it has no {_MARK}: move it away")
            lock_directory.mkdir(parents=True, exist_ok=True)
        if self._turn.enter_context(held(lock_directory)) is None:
            raise PlatformError(f"a loop in {self.directory} is running already")
        self._turn.callback(self._stop)
        self._stop_units("pipelines")  # of an earlier loop that was killed; its steps would start the endpoint again
        self._stop_units()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        write_json(self.directory / _MARK, {"data": str(data)})
        self.users = SimulatedUsers.of(self.settings, data)
        self.users.save(self.directory / "users")
        messages = self.platform.messages
        self.topics = {name: messages.topic(name) for name in LOGGERS}
        log = self.topics["interactions"]
        self.core = PipelineCore(self.platform, self.endpoint, self.settings, self.directory / "users", log)
        rewards = messages.publisher(self.topics["rewards"])
        settings = self.settings
        options: dict = {"seed": settings.seed, "instances": _INSTANCES, "candidates": settings.candidates}
        self.simulator = Simulator(self.users, self.endpoint, rewards, settings.rate, **options)

    def start(self) -> None:
        """Start the endpoint and the functions, all at once, unless they run: also those that were killed."""
        with ThreadPoolExecutor() as threads:
            starts = [threads.submit(self.endpoint.start, self.topics["interactions"])]
            starts += [threads.submit(self._start_function, topic) for topic in LOGGERS]
            for start in starts:
                start.result()

    def start_up(self, stop: threading.Event) -> None:
        """Run the start-up pipeline to its end: a log of a uniform random policy, and the first policy.

        The `threading.Event` ends the waiting. PlatformError has the sentence of the step that failed.
        """
        users, log, pipelines = self.directory / "users", self.directory / "log", self.platform.pipelines
        write_first_log(log, self.users, self.settings, datetime.now(UTC))
        parameters = start_up_parameters(self.config, self.settings, log, users, self.topics["interactions"])
        run = pipelines.run(TEMPLATES / "start_up.yaml", START_UP, parameters)
        while run.state == "running" and not stop.wait(_POLL):
            run = pipelines.status(START_UP)
        if run.state not in ("succeeded", "running"):
            raise PlatformError(f"the start-up pipeline did not succeed: {run.error}")

    def visit(self) -> None:
        """Let users visit, by a thread of this process, until `drain` or the end of the context."""
        self._visits = threading.Thread(target=self.simulator.run, args=[self._leave], daemon=True)
        self._visits.start()

    def drain(self, patience: float = _DRAIN) -> bool:
        """End visits and training, and wait so many seconds until all that was published is in the warehouse.

        It returns whether it is there; dead letters are not.
        """
        self._stop_work()
        deadline = time.monotonic() + patience
        while any(map(self.backlog, LOGGERS)):
            if time.monotonic() > deadline:
                return False
            with contextlib.suppress(PlatformError):  # what was killed a moment ago is back at the next look
                self.start()
            time.sleep(_POLL)
        return not any(self.platform.messages.backlog(f"{topic}-dead") for topic in LOGGERS)

    def backlog(self, topic: str) -> int:
        """Return the number of messages of a topic that wait for their function."""
        return self.platform.messages.backlog(f"{topic}-{LOGGERS[topic]}")

    def _stop(self):
        self._stop_work()
        self._stop_units()

    def _stop_work(self):
        """End what makes work for the endpoint and the functions."""
        self._leave.set()
        self._stop_units("pipelines")
        if self._visits:
            self._visits.join(_REPORTS)
            self.simulator.drain(_REPORTS)

    def _stop_units(self, name=""):
        for unit in units_below(self.directory / name):
            unit.stop()

    def _start_function(self, topic):
        name, functions = LOGGERS[topic], self.platform.functions
        if functions.unit(name).run:
            functions.ensure(name)
        else:
            functions.deploy(logger_of(topic, self.topics[topic]))
