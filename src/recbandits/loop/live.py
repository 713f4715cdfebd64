"""The loop as processes of this machine: an endpoint, two functions, visitors and the trigger.

Each is a server with a directory of its own below `loop` of the artifacts directory, so that nothing else on this
machine is touched. Whatever dies is started again; when the loop ends, all of them do.
"""

import contextlib
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from recbandits.loop import simulate
from recbandits.loop.models import Models
from recbandits.loop.simulated_users import SimulatedUsers
from recbandits.loop.steps import config_parameter, models_uri, start_up_parameters
from recbandits.loop.trigger import PIPELINE
from recbandits.platforms.functions import Function
from recbandits.platforms.local import LocalPlatform
from recbandits.platforms.local.endpoints import LocalEndpoint
from recbandits.platforms.local.files import held, write_json
from recbandits.platforms.local.units import Unit
from recbandits.platforms.protocol import PlatformError

SOURCE = Path(__file__).parents[3] / "04-pipelines" / "02-mlops_pipeline_tf_agents_bandit" / "src"
START_UP = "start-up"
TOPICS = {"interactions": "log_interaction", "rewards": "log_reward"}  # and what logs each
_MARK, _SETTINGS, _WORLD = "loop.json", "settings.json", "world"  # the first is in no other directory
_TURN = "loop-turn"  # directory beside the loop's, with the lock of the one who runs it
_REPORTS = 60.0  # seconds that visitors get to report what they thought, more than they take for it
_EVERY = 2.0  # seconds between two looks of the trigger
_DRAIN = 60.0  # seconds that the last events get to the warehouse
_POLL = 0.1  # seconds between two looks


class Part(NamedTuple):
    """One of the processes."""

    start: Callable  # of nothing; no effect where it runs
    stop: Callable
    running: Callable  # whether it does


class Loop:
    """All that runs; as a context, it ends what it started, whatever happens.

    Args:
      config: Config; the loop's own differs from it in the artifacts directory alone.
      settings: `Settings`; its rate is of visits.
      instances: visits in one request.
      cron: times of re-training, as `platforms.schedules` says; None to train as soon as enough is new.

    Attributes:
      settings: as given.
      directory: `pathlib.Path` of all that it makes.
      config: of the loop.
      models: `Models`, all that were trained.
      endpoint: `LocalEndpoint`
      restarts: Counter of how often each was started again.
    """

    def __init__(self, config, settings, instances=5, cron=None):
        self.settings, self._outer, self._instances, self._cron = settings, config, instances, cron
        self.directory = config.artifacts_dir / "loop"
        self.config = replace(config, platform="local", artifacts=str(self.directory))
        self.endpoint = LocalEndpoint(self.config.endpoint, self.directory / "endpoints" / self.config.endpoint)
        self.models = Models(models_uri(self.config))
        self.restarts, self._wanted = Counter(), []
        self._prepared, self._turn = False, contextlib.ExitStack()  # which holds the directory from `prepare` on

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self._turn:
            self.stop()

    @cached_property
    def platform(self):
        """`LocalPlatform` of the loop, which enters what it makes on a manifest in the directory."""
        return LocalPlatform(self.config)

    @cached_property
    def parts(self):
        """Dict from name to `Part`, in the order in which they start."""
        return self._parts()

    @cached_property
    def world(self):
        """The `SimulatedUsers` of the loop, once it was prepared."""
        return SimulatedUsers.load(self.directory / _WORLD)

    @cached_property
    def topics(self):
        """Dict from "interactions" and "rewards" to the full name of the topic."""
        return {name: self.platform.messages.topic(name) for name in TOPICS}

    def prepare(self, data):
        """Forget an earlier loop, and make the world of this one.

        Args:
          data: MovieLens.

        Raises:
          PlatformError: the directory is that of something else, or of a loop that runs.
        """
        if self.directory.exists() and not (self.directory / _MARK).exists():
            raise PlatformError(f"{self.directory} must be the directory of a loop, it has no {_MARK}: move it away")
        (self.directory.parent / _TURN).mkdir(parents=True, exist_ok=True)
        if self._turn.enter_context(held(self.directory.parent / _TURN)) is None:
            raise PlatformError(f"a loop in {self.directory} is running already")
        self._prepared = True
        self.stop()  # what is left of an earlier one that was killed
        if self.directory.exists():
            shutil.rmtree(self.directory)
        self.directory.mkdir()
        settings = self.settings
        write_json(self.directory / _MARK, {"data": str(data)})
        write_json(self.directory / _SETTINGS, asdict(settings))
        reports = {"never": settings.never, "twice": settings.twice, "delay": settings.delay}
        SimulatedUsers.make(data, settings.movies, settings.rank, settings.seed, **reports).save(
            self.directory / _WORLD
        )

    def start(self, *names):
        """Start parts of these names, all at once, and start them again from now on when they die."""
        with ThreadPoolExecutor() as threads:
            for started in [threads.submit(self.parts[name].start) for name in names]:
                started.result()
        self._wanted += names

    def start_up(self, stop=None):
        """Run the start-up pipeline to its end: first interactions, and the first policy.

        Args:
          stop: `threading.Event`, which ends the waiting; None for none.

        Raises:
          PlatformError: it failed, with the sentence of the step that did.
        """
        end = datetime.now(UTC) - timedelta(seconds=2 * self.settings.join.window)
        start = end - timedelta(seconds=self.settings.first / self.settings.rate)
        world, topic = self.directory / _WORLD, self.topics["interactions"]
        asked = start_up_parameters(self.config, self.settings, world, start, end, topic)
        run = self.platform.pipelines.run(SOURCE / "start_up.yaml", START_UP, asked)
        while run.state == "running" and not (stop and stop.is_set()):
            time.sleep(_POLL)
            run = self.platform.pipelines.status(START_UP)
        if run.state not in ("succeeded", "running"):
            raise PlatformError(f"the start-up pipeline did not succeed: {run.error}")

    def watch(self):
        """Start again what died; gives the names."""
        dead = [name for name in dict.fromkeys(self._wanted) if not self.parts[name].running()]
        for name in dead:
            self.parts[name].start()
        self.restarts.update(dead)
        return dead

    def drain(self, patience=_DRAIN):
        """Let nobody come and nothing be trained any more, and wait until all that was said is in the warehouse.

        Args:
          patience: seconds until it is given up.

        Returns:
          Whether it is there; what the functions could not take in many attempts is not.
        """
        self._wanted = [name for name in self._wanted if name not in ("trigger", "simulator")]
        with ThreadPoolExecutor() as beside:
            ended = beside.submit(self._end_work)
            while not ended.done():  # the last reports need all the others
                with contextlib.suppress(PlatformError):
                    self.watch()
                time.sleep(_POLL)
            ended.result()
        end = time.monotonic() + patience
        while time.monotonic() < end:
            with contextlib.suppress(PlatformError):  # somebody has just died, and is back at the next look
                self.watch()
                if not any(map(self.backlog, TOPICS)):
                    return not any(self.platform.messages.backlog(f"{topic}-dead") for topic in TOPICS)
            time.sleep(_POLL)
        return False

    def backlog(self, topic):
        """Number of messages of a topic that wait for their function."""
        return self.platform.messages.backlog(f"{topic}-{_function(topic)}")

    def stop(self):
        """End every process of the loop, if it was prepared here: another may run in the same directory."""
        self._wanted = []
        if not self._prepared or not (self.directory / _MARK).exists():
            return
        self._end_work()
        for name in ("endpoint", *map(_function, TOPICS)):
            self.parts[name].stop()

    def _end_work(self):
        """End those that make work for others."""
        self.parts["trigger"].stop()
        for pipeline in (START_UP, PIPELINE):
            if run := self.platform.pipelines.running(pipeline):
                self.platform.pipelines.stop(run)
        self.parts["simulator"].stop()

    def _parts(self):
        functions = self.platform.functions
        endpoint, visitors = self.endpoint, Unit(self.directory / "simulator", "the simulator")
        trigger = Unit(self.directory / "trigger", "the trigger")
        logs = {
            _function(topic): Part(
                partial(self._start_function, topic),
                partial(functions.stop, _function(topic)),
                partial(_runs, functions, _function(topic)),
            )
            for topic in TOPICS
        }
        return {
            "endpoint": Part(
                lambda: endpoint.start(self.topics["interactions"]),
                endpoint.delete,
                lambda: endpoint.unit.running,
            ),
            **logs,
            "simulator": Part(
                self._starting(visitors, self._visit), partial(visitors.stop, _REPORTS), lambda: visitors.running
            ),
            "trigger": Part(self._starting(trigger, self._trigger), trigger.stop, lambda: trigger.running),
        }

    def _starting(self, unit, command):
        """Function that starts a process which finds the configuration of the loop."""
        settings = config_parameter(self.config).items()
        variables = {f"RECBANDITS_{name.upper()}": str(value) for name, value in settings}
        return lambda: unit.start([sys.executable, "-m", *command()], variables)

    def _visit(self):
        rate = self.settings.rate / self._instances
        options = {"rate": rate, "instances": self._instances, "candidates": self.settings.candidates}
        options |= {"directory": self.directory, "seed": self.settings.seed}
        return [simulate.__name__, *(f"--{name}={value}" for name, value in options.items())]

    def _trigger(self):
        options = {"settings": self.directory / _SETTINGS, "template": SOURCE / "re_training.yaml"}
        options |= {"features": self.directory / _WORLD, "topic": self.topics["interactions"], "every": _EVERY}
        options |= {"cron": self._cron} if self._cron else {}
        return ["recbandits.loop.trigger", *(f"--{name}={value}" for name, value in options.items())]

    def _start_function(self, topic):
        name = _function(topic)
        if (self.directory / "functions" / name / "function.json").exists():
            self.platform.functions.ensure(name)
        else:
            self.platform.functions.deploy(Function(name, SOURCE / "logger", TOPICS[topic], self.topics[topic]))


def _function(topic):
    return TOPICS[topic].replace("_", "-")


def _runs(functions, name):
    return functions.unit(name).running
