"""No event is lost, wrong or duplicated when processes of any kind of the platform are killed.

PROFILE=full kills 20 of each kind in place of 3.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from recbandits.config import Config
from recbandits.loop.core import FUNCTIONS
from recbandits.platforms import choose
from recbandits.platforms.functions import Function
from recbandits.platforms.jobs import Job
from recbandits.platforms.local import forkserver
from recbandits.platforms.local.jobs import LocalJobs
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.warehouse import Join
from tests.waiting import until

KILLS = 20 if os.environ.get("PROFILE") == "full" else 3  # of each kind
LOGGER = FUNCTIONS / "logger"
START = datetime(2026, 1, 1, tzinfo=UTC)
JOIN = Join(60.0, lowest=-1e9, highest=1e9, default=-1.0)
PATIENCE = 180.0  # seconds until everything that waits must be in the warehouse

COMMON = f"""
import random, sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.warehouse import Join
from recbandits.records import Interaction, Reward

platform = choose(Config(artifacts=sys.argv[1]))
START = datetime(2026, 1, 1, tzinfo=UTC)
JOIN = {JOIN}
"""
# Pair n of a publisher has the reward n % 5. It notes a pair once both are published; after a kill it goes on after its
# last note, so that what it had published without a note is published again. Three rewards in ten are published twice,
# and one message in a hundred pairs is no record.
PUBLISHER = (
    COMMON
    + """
name, notes = sys.argv[2], Path(sys.argv[3])
messages, draws = platform.messages, random.Random(time.time_ns())
decisions, rewards = (messages.topic(kind) for kind in ("interactions", "rewards"))
publishers = messages.publisher(decisions), messages.publisher(rewards)
number = len(notes.read_text().split("\\n")) - 1
while True:
    event, at = f"{name}-{number}", START + timedelta(seconds=number)
    publishers[0].send([Interaction(event, at, "v", "u", "{}", ("a", "b"), "a", 0.5)])
    reward = Reward(event, at + timedelta(seconds=1), float(number % 5))
    for _ in range(2 if draws.random() < 0.3 else 1):
        publishers[1].send([reward])
    if number % 100 == 0:
        messages.publish(rewards, [(b"no record", {})])
    with notes.open("a") as file:
        file.write(f"{event}\\n")
    number += 1
    time.sleep(0.005)
"""
)
# A forked child of the job counts: each number once, from the last number on. Two at once are an error.
TASK = """
import fcntl, os, sys, time
from pathlib import Path

directory = Path(os.environ["AIP_MODEL_DIR"]).parent
if child := os.fork():
    sys.exit(os.waitpid(child, 0)[1] != 0)
alone = (directory / "alone").open("w")
fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
with (directory / "numbers").open("a+") as file:
    file.seek(0)
    number = len(file.readlines())
    while not Path(sys.argv[1]).exists():
        file.write(f"{number}\\n")
        file.flush()
        number += 1
        time.sleep(0.01)
"""
# What is read must be right at every moment: no reward but that of its pair, and never fewer rows than before.
READER = (
    COMMON
    + """
before = 0
while True:
    table = platform.warehouse.decisions(START, START + timedelta(days=30), JOIN)
    for event, reward in zip(table["event_id"].to_pylist(), table["reward"].to_pylist()):
        assert reward in (-1.0, float(int(event.rpartition("-")[2]) % 5)), (event, reward)
    assert len(table) >= before
    before = len(table)
    print(before, flush=True)
"""
)


class SystemUnderTest:
    """The platform of a directory, with processes that write, read and log, jobs and an endpoint."""

    def __init__(self, directory, policy):
        self.directory, self.platform = directory, choose(Config(artifacts=str(directory / "artifacts")))
        self.topics = {name: self.platform.messages.topic(name) for name in ("interactions", "rewards")}
        self.jobs = [_Job(self, victim) for victim in ("command", "child", "runner", "forkserver")]
        self.server = _Server(self.platform, policy)
        self.kinds = {
            "publisher": [self._publisher(name) for name in "pq"],
            "function": [self._function("interactions"), self._function("rewards")],
            "reader": [lambda: self._start("reader", READER)],
            "server": [self.server.start],
        } | {job.victim: [job.start] for job in self.jobs}
        self.processes = {(kind, n): start() for kind, starts in self.kinds.items() for n, start in enumerate(starts)}

    def kill(self, kind, rng):
        """SIGKILL for one process of a kind, which is started again."""
        number = rng.randrange(len(self.kinds[kind]))
        process = self.processes[kind, number]
        assert process.poll() is None, f"{kind} {number} must end by a signal only: {self.log(kind)}"
        process.kill()
        process.wait()
        self.processes[kind, number] = self.kinds[kind][number]()

    def log(self, name):
        file = self.directory / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def stop(self):
        for job in self.jobs:
            job.stop()
        self.server.delete()
        for kind, number in self.processes:
            if kind in ("publisher", "reader"):
                self.processes[kind, number].kill()
                self.processes[kind, number].wait()
        for name in ("log-interaction", "log-reward"):
            self.platform.functions.delete(name)

    def _publisher(self, name):
        notes = self.directory / f"{name}.notes"
        notes.touch()
        return lambda: self._start("publisher", PUBLISHER, name, str(notes))

    def _function(self, topic):
        target = f"log_{topic.removesuffix('s')}"
        name = target.replace("_", "-")
        self.platform.functions.deploy(Function(name, LOGGER, target, self.topics[topic]))

        def start():
            self.platform.functions.ensure(name)
            return _Function(self.platform.functions.unit(name))

        return start

    def _start(self, kind, code, *arguments):
        with (self.directory / f"{kind}.log").open("ab") as log:
            command = [sys.executable, "-c", code, str(self.directory / "artifacts"), *arguments]
            return subprocess.Popen(command, stdout=log, stderr=log)


class _Function:
    """The process of a function, as `subprocess.Popen` has it."""

    def __init__(self, unit):
        self._unit = unit

    def poll(self):
        return None if self._unit.running else -1

    def kill(self):
        self._unit.kill()

    def wait(self):
        return -signal.SIGKILL


class _Job:
    """A forked job, of which one process is killed: command, child, runner, or the forkserver while it forks."""

    def __init__(self, system, victim):
        self.victim, self.was_forked, self._file = victim, False, system.directory / "counted"
        self._jobs = LocalJobs(system.platform.config, module="warm_counter")
        self._unit = self._jobs.unit(f"count-{victim}")

    def start(self):
        self._run(wait=False)
        return self

    def finish(self):
        """Let it end; its `Record`."""
        self._file.touch()
        return self._run(wait=True)

    def stop(self):
        self._unit.kill()

    def poll(self):
        return None if self._unit.running else -1

    def kill(self):
        self.was_forked |= any(forkserver.__name__ in process.cmdline() for process in self._unit.members())
        if self.victim == "forkserver":
            self._unit.kill()
            threading.Timer(random.uniform(0, 0.02), _kill_forkservers).start()
            return
        until(lambda: len(self._processes()) == 3, PATIENCE)
        self._processes()[self.victim].kill()
        if self.victim == "runner":
            assert self._unit.running, "its command goes on"
            self._unit.kill()

    def wait(self):
        self._unit.wait()

    def numbers(self):
        """All that was counted."""
        return [int(line) for line in (self._unit.directory / "numbers").read_text().split()]

    def log(self):
        return self._unit.log()

    def _run(self, wait):
        return self._jobs.run(Job(self._unit.directory.name, (str(self._file),)), wait)

    def _processes(self):
        """Dict of the processes: each is the child of the one before it."""
        members, processes = {process.pid: process for process in self._unit.members()}, {}
        for process in members.values():
            with contextlib.suppress(psutil.Error):
                depth = sum(parent.pid in members for parent in process.parents())
                processes[("runner", "command", "child")[depth]] = process
        return processes


def _kill_forkservers():
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if forkserver.__name__ in process.cmdline():
                process.kill()


class _Server:
    """The prediction server, and a thread that sends requests all the time."""

    def __init__(self, platform, policy):
        messages = platform.messages
        topic = messages.topic("decisions")
        self._subscription, self._messages = messages.subscription("decisions", topic), messages
        self._endpoint, self.answers, self._stopped = platform.endpoints.create(topic=topic), [], threading.Event()
        self.version = self._endpoint.deploy(policy)
        self._client = threading.Thread(target=self._ask)
        self._client.start()

    def start(self):
        """Wait until it answers again, restarted by its runner alone."""
        before = len(self.answers)
        until(lambda: len(self.answers) > before, PATIENCE)
        return self

    def poll(self):
        return None if self._endpoint.unit.running else -1

    def kill(self):
        (process,) = [each for each in self._endpoint.unit.members() if "recbandits.serving.server" in each.cmdline()]
        process.kill()

    def wait(self):
        return -signal.SIGKILL

    def logged(self):
        """Ids of all decisions that it has logged."""
        self.finish()
        return [each.attributes["event_id"] for each in self._messages.take(self._subscription, 10**6)]

    def finish(self):
        self._stopped.set()
        self._client.join()

    def delete(self):
        self.finish()
        self._endpoint.delete()

    def _ask(self):
        while not self._stopped.wait(0.01):
            with contextlib.suppress(PlatformError):  # it was killed
                self.answers += self._endpoint.predict([{"user_id": "7"}])


@pytest.fixture
def system(tmp_path, exported, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "warm_counter.py").write_text(TASK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"), prepend=os.pathsep)
    monkeypatch.setattr(forkserver, "FORKED", ("warm_",))
    monkeypatch.setattr(forkserver, "MODULES", ("json",))
    system = SystemUnderTest(tmp_path, exported[0])
    yield system
    system.stop()


def test_after_any_sigkill_every_acknowledged_pair_is_stored_once_with_its_reward(system):
    rng, victims = random.Random(7), list(system.kinds) * KILLS
    rng.shuffle(victims)
    for victim in victims:
        time.sleep(rng.uniform(0.05, 0.6))
        system.kill(victim, rng)
    for number in range(2):
        system.processes["publisher", number].kill()
        system.processes["publisher", number].wait()
    noted_events = {event for name in "pq" for event in (system.directory / f"{name}.notes").read_text().split()}
    messages, warehouse = system.platform.messages, system.platform.warehouse
    until(lambda: not any(map(messages.backlog, system.topics)), PATIENCE)
    table = warehouse.decisions(START, START + timedelta(days=30), JOIN)
    rewards = dict(zip(table["event_id"].to_pylist(), table["reward"].to_pylist(), strict=True))
    assert len(noted_events) > len(victims)
    assert noted_events <= rewards.keys()
    assert len(table) == len(rewards) <= len(noted_events) + KILLS + 2, (
        "a pair that was published but not noted is there as well"
    )
    assert {event: rewards[event] for event in noted_events} == {
        event: float(int(event.rpartition("-")[2]) % 5) for event in noted_events
    }
    counts = warehouse.counts(START, datetime.now(UTC), JOIN)
    assert (counts.duplicate, counts.late, counts.orphan) == (0, 0, 0)
    assert counts.joined >= len(noted_events)
    assert counts.quarantined >= len(noted_events) // 100
    assert (messages.backlog("interactions-dead"), messages.backlog("rewards-dead")) == (0, 0)
    assert "Error" not in system.log("reader") + system.log("publisher")
    logged = system.server.logged()
    assert {answer["event_id"] for answer in system.server.answers} <= set(logged)
    assert len(set(logged)) == len(logged)
    assert {answer["policy_version"] for answer in system.server.answers} == {system.server.version}
    for job in system.jobs:
        assert job.finish().state == "succeeded"
        assert job.numbers() == list(range(len(job.numbers())))
        assert len(job.numbers()) > 10 * KILLS
        assert "Error" not in job.log()
        assert job.was_forked
