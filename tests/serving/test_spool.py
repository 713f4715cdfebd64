"""Events that cannot be published stay on the disk, survive a SIGKILL, and are published by the next process."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from recbandits.records import Interaction
from recbandits.serving import sinks
from recbandits.serving.outbox import Outbox
from recbandits.serving.sinks import Event, Spool, count_missing, open_spool
from tests.waiting import until

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Decision:
    size = 1000

    def __init__(self, number):
        self.number = number

    def interaction(self, time, pass_prob):
        return Interaction(f"e{self.number}", time, "v1", "煎茶", "{}", ("a", "b"), "b", 0.5, pass_prob)


class Sink(list):
    """A sink that keeps events and their attributes, unless it is unavailable."""

    reachable = False

    def send(self, events):
        if not self.reachable:
            raise ConnectionError("out of reach")
        self.extend(events)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spool" / "events.sqlite"


def stored(path):
    """The ids of the events in a file that no process has."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return [event_id for (event_id,) in database.execute("SELECT event_id FROM events ORDER BY number")]


def make_outbox(sink, spool, **options):
    return Outbox(lambda: sink, **{"batch": 10, "seconds": 0.001, "open_spool": lambda: spool} | options)


def events(*numbers):
    records = [Decision(number).interaction(NOW, 1.0) for number in numbers]
    return [Event(each.event_id, each.to_json(), {"instance": "a", "sequence": "0"}) for each in records]


def fill(path, numbers):
    """Leave events in a file, as a process that never reached its sink does."""
    outbox = make_outbox(Sink(), Spool(path))
    for number in numbers:
        outbox.put(Decision(number), NOW)
    return outbox.close()


def test_what_cannot_be_published_goes_to_the_disk_and_is_published_when_the_sink_is_reached(path):
    sink = Sink()
    outbox = make_outbox(sink, Spool(path))
    for number in range(100):
        outbox.put(Decision(number), NOW)
    until(lambda: outbox.counters["spooled"] == 100)
    assert (outbox.counters["bytes"], outbox.counters["waiting"], outbox.counters["dropped"]) == (0, 0, 0)
    sink.reachable = True
    until(lambda: outbox.counters["replayed"] == 100)
    outbox.put(Decision(100), NOW)
    counters = outbox.close()
    assert (counters["put"], counters["delivered"], counters["spooled"], counters["replayed"]) == (101, 1, 100, 100)
    assert [event_id for event_id, _, _ in sink] == [f"e{number}" for number in range(101)]
    assert [text for _, text, _ in sink] == [Decision(number).interaction(NOW, 1.0).to_json() for number in range(101)]
    assert count_missing(attributes for _, _, attributes in sink) == 0
    assert stored(path) == []


def test_the_next_process_publishes_without_a_decision_of_its_own(path):
    assert fill(path, range(35))["spooled"] == 35
    sink = Sink()
    sink.reachable = True
    outbox = make_outbox(sink, Spool(path))
    until(lambda: outbox.counters["replayed"] == 35)
    counters = outbox.close()
    assert (counters["put"], counters["delivered"]) == (0, 0)
    assert [event_id for event_id, _, _ in sink] == [f"e{number}" for number in range(35)]
    assert stored(path) == []


def test_a_replay_that_is_interrupted_goes_on_where_it_was(path):
    """Batches of 10; the third attempt finds the sink out of reach."""

    class Failing(Sink):
        reachable = True
        attempts = 0

        def send(self, events):
            self.attempts += 1
            if self.attempts == 3:
                raise ConnectionError("out of reach")
            super().send(events)

    fill(path, range(35))
    sink = Failing()
    outbox = make_outbox(sink, Spool(path))
    until(lambda: outbox.counters["replayed"] == 35)
    assert [event_id for event_id, _, _ in sink] == [f"e{number}" for number in range(35)]
    assert outbox.close()["retried"] == 1


def test_a_file_that_others_could_read_becomes_that_of_this_user_alone(path):
    fill(path, range(3))
    path.chmod(0o644)
    Spool(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stored(path) == ["e0", "e1", "e2"]


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_a_file_that_is_damaged_is_left_alone(path, content, monkeypatch):
    path.parent.mkdir()
    path.write_bytes(content)
    monkeypatch.setenv("RECBANDITS_EVENT_SPOOL", str(path.parent))
    assert open_spool("events") is None
    assert path.read_bytes() == content


def test_new_events_go_first_and_a_replay_does_not_keep_a_process_from_ending(path):
    """A sink that takes a batch in 20 ms would need 2 s for the spool; what is new arrives within a batch of it."""

    class Slow(Sink):
        reachable = True

        def send(self, events):
            time.sleep(0.02)
            super().send(events)

    fill(path, range(1000))
    sink = Slow()
    outbox = make_outbox(sink, Spool(path))
    until(lambda: outbox.counters["replayed"] >= 20)
    for number in range(1000, 1050):
        outbox.put(Decision(number), NOW)
    counters = outbox.close()
    event_ids = [event_id for event_id, _, _ in sink]
    assert (counters["delivered"], counters["failed"]) == (50, 0)
    assert event_ids.index("e1049") - event_ids.index("e1000") == 49
    assert counters["replayed"] < 1000
    assert stored(path)
    second_sink = Sink()
    second_sink.reachable = True
    outbox = make_outbox(second_sink, Spool(path))
    until(lambda: outbox.counters["replayed"] == 1000 - counters["replayed"])
    outbox.close()
    assert {f"e{number}" for number in range(1000)} <= {event_id for event_id, _, _ in [*sink, *second_sink]}


def test_events_that_the_disk_does_not_remove_are_published_once(path):
    """A full disk refuses to remove them, too; a process that comes later publishes them again."""
    fill(path, range(35))
    spool, sink = Spool(path), Sink()
    spool._database.execute("CREATE TRIGGER t BEFORE DELETE ON events BEGIN SELECT RAISE(FAIL, 'full'); END")
    sink.reachable = True
    outbox = make_outbox(sink, spool)
    until(lambda: outbox.counters["replayed"] == 35)
    time.sleep(0.05)
    assert outbox.close()["replayed"] == 35
    assert [event_id for event_id, _, _ in sink] == [f"e{number}" for number in range(35)]
    assert len(stored(path)) == 35


def test_what_a_sink_refuses_is_not_counted_as_published(path):
    class Refusing(Sink):
        def send(self, events):
            raise ValueError("too large")

    fill(path, range(30))
    outbox = make_outbox(Refusing(), Spool(path))
    until(lambda: outbox.counters["replay_failed"] == 30)
    counters = outbox.close()
    assert (counters["put"], counters["replayed"], counters["failed"], counters["waiting"]) == (0, 0, 0, 0)


def test_a_sink_that_hangs_keeps_nothing_from_the_disk_at_the_end(path):
    """One attempt of 0.3 s is in progress; a second one would leave no time for the other batches."""

    class Hanging(Sink):
        def send(self, events):
            time.sleep(0.3)
            raise ConnectionError("out of reach")

    outbox = make_outbox(Hanging(), Spool(path), seconds=0.01)
    for number in range(400):
        outbox.put(Decision(number), NOW)
    counters = outbox.close(timeout=5)
    assert (counters["spooled"], counters["failed"], counters["waiting"]) == (400, 0, 0)


def test_counters_stand_after_the_end_although_the_thread_goes_on(path):
    class Waiting(Sink):
        def send(self, events):
            time.sleep(0.5)

    outbox = make_outbox(Waiting(), None)
    for number in range(30):
        outbox.put(Decision(number), NOW)
    counters = outbox.close(timeout=0.1)
    outbox._thread.join(20)
    assert counters | {"bytes": 0} == outbox.counters | {"bytes": 0}
    assert (counters["failed"] + counters["delivered"], counters["waiting"]) == (30, 0)


def test_a_process_that_starts_before_another_one_ends_gets_its_spool(path, monkeypatch):
    monkeypatch.setattr("recbandits.serving.outbox._SPOOL_PAUSE", 0.01)
    monkeypatch.setenv("RECBANDITS_EVENT_SPOOL", str(path.parent))
    old, sink = open_spool("log"), Sink()
    sink.reachable = True
    old.append(events(0, 1, 2))
    outbox = Outbox(lambda: sink, seconds=0.001, open_spool=lambda: open_spool("log"))
    outbox.put(Decision(3), NOW)
    until(lambda: outbox.counters["delivered"] == 1)
    old.close()
    until(lambda: outbox.counters["replayed"] == 3)
    outbox.close()
    assert [event_id for event_id, _, _ in sink] == ["e3", "e0", "e1", "e2"]


def test_a_spool_that_another_process_leaves_while_the_sink_is_not_reached_is_taken_then(path, monkeypatch):
    monkeypatch.setattr("recbandits.serving.outbox._SPOOL_PAUSE", 0.01)
    monkeypatch.setenv("RECBANDITS_EVENT_SPOOL", str(path.parent))
    old = open_spool("log")
    outbox = Outbox(Sink, seconds=0.001, open_spool=lambda: open_spool("log"))
    outbox.put(Decision(0), NOW)
    until(lambda: outbox.counters["retried"])
    old.close()
    until(lambda: outbox.counters["spooled"] == 1, 10)
    assert outbox.close()["failed"] == 0


def test_the_file_is_bounded_in_bytes_and_what_it_does_not_take_waits(path, monkeypatch):
    """Each event has about 380 bytes: a few batches of 10 fit into seven pages, and the next ones wait."""
    monkeypatch.setattr(sinks, "MAX_SPOOL_BYTES", 7 * 4096)
    sink = Sink()
    outbox = make_outbox(sink, Spool(path), seconds=0.05)
    for number in range(90):
        outbox.put(Decision(number), NOW)
    until(lambda: outbox.counters["retried"] > 2)
    assert 5_000 < path.stat().st_size <= 7 * 4096
    assert 10 <= outbox.counters["spooled"] < 80
    assert outbox.counters["spooled"] + outbox.counters["waiting"] == 90
    sink.reachable = True
    until(lambda: outbox.counters["replayed"] == outbox.counters["spooled"])
    assert outbox.close()["waiting"] == 0
    assert sorted(event_id for event_id, _, _ in sink) == sorted(f"e{number}" for number in range(90))
    assert path.stat().st_size <= 4 * 4096, "the space comes back"


def test_one_process_at_a_time_has_the_file_of_a_topic(tmp_path, monkeypatch):
    monkeypatch.setenv("RECBANDITS_EVENT_SPOOL", str(tmp_path / "spool"))
    first, other = (open_spool(f"projects/p/topics/{topic}") for topic in ("log", "other"))
    with pytest.raises(BlockingIOError):
        open_spool("projects/p/topics/log")
    files = [tmp_path / "spool" / f"projects.p.topics.{topic}.sqlite" for topic in ("log", "other")]
    assert set(files) <= set((tmp_path / "spool").iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
    code = "from recbandits.serving.sinks import open_spool; open_spool('projects/p/topics/log')"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "BlockingIOError" in process.stderr, "the refusal of a second spool has not ended the lock of the first"
    first.close()
    open_spool("projects/p/topics/log").close()
    other.close()


def test_a_file_of_another_user_or_behind_a_link_is_not_used(path, monkeypatch):
    fill(path, range(3))
    monkeypatch.setenv("RECBANDITS_EVENT_SPOOL", str(path.parent))
    (path.parent / "linked.sqlite").symlink_to(path)
    assert open_spool("linked") is None
    monkeypatch.setattr(sinks.os, "geteuid", lambda: os.getuid() + 1)
    assert open_spool("events") is None


@pytest.mark.parametrize("fault", ["mode", "link", "owner"])
def test_a_temporary_folder_that_others_can_write_to_is_not_used(tmp_path, monkeypatch, fault):
    monkeypatch.delenv("RECBANDITS_EVENT_SPOOL", raising=False)
    monkeypatch.setattr(sinks.tempfile, "gettempdir", lambda: str(tmp_path))
    user = os.geteuid()
    folder = tmp_path / f"recbandits-{user}"
    if fault == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir(mode=0o700)
    if fault == "mode":
        folder.chmod(0o777)
    if fault == "owner":
        folder.rename(tmp_path / f"recbandits-{user + 1}")
        monkeypatch.setattr(sinks.os, "geteuid", lambda: user + 1)
    assert open_spool("log") is None


def test_a_file_that_was_removed_takes_no_events(path):
    spool = Spool(path)
    path.unlink()
    assert not spool.append(events(0))
    spool.close()


def test_a_server_without_a_writable_directory_does_without(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RECBANDITS_EVENT_SPOOL", str(tmp_path / "file"))
    assert open_spool("log") is None


SERVER = """
import json, os, sys, time
from datetime import UTC, datetime
from pathlib import Path
from recbandits.records import Interaction
from recbandits.serving.outbox import Outbox
from recbandits.serving.sinks import Spool

folder, count, stored = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

class Decision:
    size = 1000
    def __init__(self, name): self.name = name
    def interaction(self, time, pass_prob): return Interaction(self.name, time, "v", "u", "{}", ("a",), "a", 1.0)

class Sink:
    def send(self, events):
        if not (folder / "reachable").exists():
            raise ConnectionError("out of reach")
        with (folder / "received").open("a") as file:
            file.writelines(json.dumps([event.event_id, event.attributes]) + "\\n" for event in events)

outbox = Outbox(Sink, batch=7, seconds=0.001, open_spool=lambda: Spool(folder / "events.sqlite"))
for number in range(count):
    outbox.put(Decision(f"{os.getpid()}-{number}"), datetime.now(UTC))
    print(outbox.counters["spooled"], flush=True)
    time.sleep(0.0005)
while outbox.counters["replayed"] < stored:
    time.sleep(0.01)
outbox.close()
"""


def start(folder, count, stored=0):
    command = [sys.executable, "-c", SERVER, str(folder), str(count), str(stored)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_what_was_on_the_disk_of_killed_processes_is_published_by_the_next(tmp_path):
    """Three processes are killed at random moments; at least what each has counted as on the disk arrives, once."""
    rng, counts_by_process = random.Random(0), {}
    for _ in range(3):
        process, minimum = start(tmp_path, 1_000_000), rng.randint(20, 200)
        with process:
            counts = iter(process.stdout)
            counts_by_process[process.pid] = next(count for count in map(int, counts) if count >= minimum)
            process.send_signal(signal.SIGKILL)
    (tmp_path / "reachable").touch()
    with start(tmp_path, 0, len(stored(tmp_path / "events.sqlite"))) as process:
        assert process.wait(60) == 0
    events = [json.loads(line) for line in (tmp_path / "received").read_text().splitlines()]
    event_ids = [event_id for event_id, _ in events]
    expected = {f"{pid}-{number}" for pid, count in counts_by_process.items() for number in range(count)}
    assert expected <= set(event_ids)
    assert len(event_ids) == len(set(event_ids))
    assert count_missing(attributes for _, attributes in events) == 0
    assert len({attributes["instance"] for _, attributes in events}) == 3
    assert stored(tmp_path / "events.sqlite") == []
