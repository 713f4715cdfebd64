"""Nothing is lost, wrong or double: publishers, functions and readers of the platform are killed while they work.

PROFILE=full kills 100 times in place of 20.
"""

import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.functions import Function

KILLS = 100 if os.environ.get("PROFILE") == "full" else 20
LOGGER = Path(__file__).parents[2] / "04-pipelines" / "02-mlops_pipeline_tf_agents_bandit" / "src" / "logger"
START = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = 180.0  # seconds until everything that waits must be in the warehouse

COMMON = """
import random, sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.records import Interaction, Reward

platform = choose(Config(artifacts=sys.argv[1]))
START = datetime(2026, 1, 1, tzinfo=UTC)
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
# What is read must be right at every moment: no reward but that of its pair, and never fewer rows than before.
READER = (
    COMMON
    + """
before = 0
while True:
    table = platform.warehouse.decisions(START, START + timedelta(days=30), 60, -1.0)
    for event, reward in zip(table["event_id"].to_pylist(), table["reward"].to_pylist()):
        assert reward in (-1.0, float(int(event.rpartition("-")[2]) % 5)), (event, reward)
    assert len(table) >= before
    before = len(table)
    print(before, flush=True)
"""
)


class Place:
    """The platform of a directory, with processes that write, read and log."""

    def __init__(self, directory):
        self.directory, self.platform = directory, choose(Config(artifacts=str(directory / "artifacts")))
        self.topics = {name: self.platform.messages.topic(name) for name in ("interactions", "rewards")}
        self.kinds = {
            "publisher": [self._publisher(name) for name in "pq"],
            "function": [self._function("interactions"), self._function("rewards")],
            "reader": [lambda: self._start("reader", READER)],
        }
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
        for process in self.processes.values():
            process.kill()
            process.wait()
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


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.stop()


def test_whoever_is_killed_every_acknowledged_pair_is_there_once_with_its_reward(place):
    rng, kinds = random.Random(7), list(place.kinds)
    victims = [kinds[number % len(kinds)] for number in range(KILLS)]
    rng.shuffle(victims)
    for victim in victims:
        time.sleep(rng.uniform(0.05, 0.6))
        place.kill(victim, rng)
    for number in range(2):
        place.processes["publisher", number].kill()
        place.processes["publisher", number].wait()
    noted = {event for name in "pq" for event in (place.directory / f"{name}.notes").read_text().split()}
    messages, warehouse, deadline = place.platform.messages, place.platform.warehouse, time.monotonic() + PATIENCE
    while any(map(messages.backlog, place.topics)):
        assert time.monotonic() < deadline, place.platform.functions.logs("log-reward")[-2000:]
        time.sleep(0.1)
    table = warehouse.decisions(START, START + timedelta(days=30), 60, -1.0)
    rewards = dict(zip(table["event_id"].to_pylist(), table["reward"].to_pylist(), strict=True))
    assert len(noted) > 5 * KILLS
    assert noted <= rewards.keys()
    assert len(table) == len(rewards) <= len(noted) + KILLS, "a pair that was published but not noted is there as well"
    assert {event: rewards[event] for event in noted} == {
        event: float(int(event.rpartition("-")[2]) % 5) for event in noted
    }
    counts = warehouse.counts(START, datetime.now(UTC), 60)
    assert (counts.duplicate, counts.late, counts.orphan) == (0, 0, 0)
    assert counts.joined >= len(noted)
    assert counts.quarantined >= len(noted) // 100
    assert (messages.backlog("interactions-dead"), messages.backlog("rewards-dead")) == (0, 0)
    assert "Error" not in place.log("reader") + place.log("publisher")
