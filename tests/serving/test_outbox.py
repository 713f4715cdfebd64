"""Events of a server are sent in the background with the right weights, or counted as lost."""

import json
import os
import random
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest
from google.api_core.exceptions import NotFound

from recbandits.config import Config
from recbandits.platforms.gcp.messages import GcpMessages
from recbandits.records import Interaction
from recbandits.serving.decisions import Recommendation
from recbandits.serving.outbox import DirectLog, Outbox, pass_probability
from recbandits.serving.sinks import PubSubSink, count_missing
from tests.recorder import Recorder
from tests.waiting import until

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
TOPIC = "projects/p/topics/log"


class Decision:
    def __init__(self, number, propensity=0.5):
        self.number, self.propensity = number, propensity

    size = 1000

    def interaction(self, time, pass_prob=1.0):
        user = f"user {self.number:03}"
        more = '{"hour": 7}', ("a", "b"), "b", self.propensity, pass_prob
        return Interaction(f"e{self.number}", time, "v1", user, *more)


class ListSink(list):
    """A sink that keeps what it gets as `Interaction`s, and waits for `open` before."""

    def __init__(self):
        self.open = threading.Event()

    def send(self, events):
        self.open.wait()
        self.extend(Interaction.from_json(each.text) for each in events)


def waiting_sink():
    sink = ListSink()
    return sink, Outbox(lambda: sink, batch=10, seconds=0.001, max_bytes=100_000)


class Cloud:
    """A Pub/Sub in memory that refuses to publish to a topic before it is made; `messages` are those that it took."""

    def __init__(self, recorder):
        self._recorder, self.requests, self.messages = recorder, recorder.requests, []
        self._adapter = GcpMessages(Config(platform="gcp", project="movie-lab-42"))
        recorder.answers["Publish"] = self._publish

    def make_topic(self):
        self._adapter.topic("log")

    def open_sink(self):
        return self._adapter.publisher("projects/movie-lab-42/topics/recbandits-v1-log")

    def received(self):
        """Pairs (`Interaction`, attributes)."""
        return [(Interaction.from_json(each.data.decode()), dict(each.attributes)) for each in self.messages]

    def _publish(self, request):
        if request.topic not in self._recorder.resources:
            return NotFound("Resource not found")
        self.messages += request.messages
        return {"message_ids": [str(number) for number in range(len(request.messages))]}


@pytest.fixture
def cloud(monkeypatch):
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    with Recorder() as recorder:
        yield Cloud(recorder)


def test_a_forked_process_is_refused_and_the_decisions_of_its_parent_are_delivered():
    """It has no thread that would send them."""
    sink, outbox = waiting_sink()
    outbox.put(Decision(0), NOW)
    child = os.fork()
    if child == 0:
        try:
            outbox.put(Decision(1), NOW)
        except RuntimeError as error:
            os._exit(0 if "make one in each process, after the fork" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sink.open.set()
    assert outbox.close()["delivered"] == 1


def test_threads_may_put_at_the_same_time():
    """A server may have many; without a lock two events get one number, and counts are missing."""
    numbers, interval = [], sys.getswitchinterval()

    class Sink:
        def send(self, events):
            numbers.extend(int(each.attributes["sequence"]) for each in events)

    outbox = Outbox(Sink, seconds=0.001)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: outbox.put(Decision(number), NOW), range(20_000)))
    finally:
        sys.setswitchinterval(interval)
    counters = outbox.close()
    assert counters["put"] == counters["delivered"] == 20_000
    assert sorted(numbers) == list(range(20_000))


def test_decisions_arrive_in_pubsub_as_they_were_with_their_event_id_as_attribute(cloud):
    cloud.make_topic()
    outbox = Outbox(cloud.open_sink, batch=30)
    for number in range(100):
        outbox.put(Decision(number), NOW)
    assert outbox.close()["delivered"] == 100
    messages = cloud.received()
    assert [interaction for interaction, _ in messages] == [Decision(number).interaction(NOW) for number in range(100)]
    assert [attributes["event_id"] for _, attributes in messages] == [f"e{number}" for number in range(100)]
    assert count_missing(attributes for _, attributes in messages) == 0
    assert len({attributes["sequence"] for _, attributes in messages}) == 100


def test_messages_put_without_a_consumer_arrive_when_a_consumer_starts(cloud):
    outbox = Outbox(cloud.open_sink)
    for number in range(50):
        outbox.put(Decision(number), NOW)
    until(lambda: outbox.counters["retried"] > 0)
    cloud.make_topic()
    assert outbox.close(30)["delivered"] == 50
    assert len(cloud.received()) == 50


def test_a_server_that_never_answers_blocks_no_caller_and_the_remaining_messages_fail(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{silent.getsockname()[1]}")
        outbox = Outbox(lambda: PubSubSink(TOPIC), batch=10, max_bytes=100_000)
        for number in range(1000):
            outbox.put(Decision(number), NOW)
        counters = outbox.close(0.2)
    assert counters["delivered"] == counters["waiting"] == 0
    assert counters["put"] == 1000 == counters["dropped"] + counters["failed"]
    assert 50 < counters["failed"] <= 110


def test_the_probability_to_be_kept_falls_from_half_full_to_the_brim():
    fills = [0.0, 0.5, 0.75, 1.0]
    np.testing.assert_allclose([pass_probability(fill) for fill in fills], [1, 1, 1e-3, 1e-6])


def test_records_weighted_by_their_pass_probability_count_what_was_put():
    """E[sum of 1 / pass_prob over what is kept] = number put, for any behaviour of the sink meanwhile."""
    counts = []
    for seed in range(60):
        sink = ListSink()
        random.seed(seed)
        outbox = Outbox(lambda sink=sink: sink, batch=20, seconds=0.001, max_bytes=200_000)
        for number in range(5000):
            outbox.put(Decision(number), NOW)
            if number == 2500:
                sink.open.set()  # for a while it keeps up again
                until(lambda outbox=outbox: outbox.counters["waiting"] == 0)
                sink.open.clear()
        sink.open.set()
        outbox.close()
        counts.append([sum(1 / each.pass_prob for each in sink), len(sink)])
    weighted, plain = np.array(counts).T
    assert plain.max() < 500
    assert abs(weighted.mean() - 5000) < 4 * weighted.std(ddof=1) / np.sqrt(len(counts))
    assert weighted.std() / np.sqrt(len(counts)) < 500


def test_a_decision_that_makes_no_record_fails_alone():
    sink, outbox = waiting_sink()
    sink.open.set()
    for number, propensity in enumerate([0.5, 0.0, 1.0]):
        outbox.put(Decision(number, propensity), NOW)
    counters = outbox.close()
    assert (counters["delivered"], counters["failed"]) == (2, 1)
    assert [each.event_id for each in sink] == ["e0", "e2"]


def test_an_event_that_a_sink_will_never_take_fails_alone():
    class RejectingSink(ListSink):
        def send(self, events):
            if any(each.event_id == "e3" for each in events):
                raise ValueError("not this one")
            super().send(events)

    sink = RejectingSink()
    sink.open.set()
    outbox = Outbox(lambda: sink, batch=4, seconds=60)
    for number in range(6):
        outbox.put(Decision(number), NOW)
    counters = outbox.close()
    assert (counters["delivered"], counters["failed"], counters["retried"]) == (5, 1, 0)
    assert [each.event_id for each in sink] == ["e0", "e1", "e2", "e4", "e5"]


def test_many_large_records_go_in_several_requests(cloud):
    """200 records of about 100 kB: 20 MB, where Pub/Sub takes 10 at once."""
    items = tuple(f"item {number:05}" for number in range(7_000))
    records = [Interaction(f"e{number}", NOW, "v1", str(number), "{}", items, items[0], 1.0) for number in range(200)]
    cloud.make_topic()
    cloud.open_sink().send(records)
    assert len(cloud.received()) == 200
    sizes = [len(json.dumps(each)) for each in cloud.requests("Publish")]
    assert len(sizes) > 3
    assert max(sizes) < 10_000_000


def test_the_queue_is_bounded_in_bytes():
    """1,000 decisions of 1 kB come while the sink waits; half of 100 kB is kept as it is, and little more."""
    sink = ListSink()
    outbox = Outbox(lambda: sink, batch=10, seconds=0.001, max_bytes=100_000)
    for number in range(1000):
        outbox.put(Decision(number), NOW)
        assert outbox.counters["bytes"] <= 100_000
    assert 50 <= outbox.counters["waiting"] < 100
    sink.open.set()
    counters = outbox.close()
    assert (counters["bytes"], counters["waiting"]) == (0, 0)
    assert [each.pass_prob for each in sink[:49]] == [1.0] * 49
    assert sink[-1].pass_prob < 1


def test_a_decision_counts_about_as_many_bytes_as_its_record_has():
    ids = [f"item {number}" for number in range(500)]
    common = {"titles": [], "scores": [], "propensity": 1.0, "propensities": [1.0], "item_ids": ids[:1]}
    large = Recommendation(
        "e", "v", "u", candidates=ids, context={"a": "b" * 3000}, candidate_features={"p": [1.5] * 500}, **common
    )
    for record in (large, large._replace(user_id="u" * 1_400_000)):
        assert 1 < record.size / len(record.interaction(NOW).to_json()) < 2.5


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, TypeError])
def test_the_thread_outlives_any_exception_of_a_sink_or_a_decision(error):
    class Broken(ListSink):
        failures = 2

        def send(self, events):
            if self.failures:
                self.failures -= 1
                raise error("out of order")
            super().send(events)

    class Unreadable(Decision):
        def interaction(self, time, pass_prob):
            raise error("no record")

    class FullMemory:
        def append(self, events):
            raise error("no memory")

        def replay(self, batch):
            return []

        def close(self):
            pass

    sink, spools = Broken(), iter([error("no folder"), FullMemory()])
    sink.open.set()

    def open_spool():
        if isinstance(spool := next(spools), BaseException):
            raise spool
        return spool

    outbox = Outbox(lambda: sink, seconds=0.001, open_spool=open_spool)
    for decision in (Decision(0), Unreadable(1), Decision(2)):
        outbox.put(decision, NOW)
    until(lambda: outbox.counters["waiting"] == 0)
    outbox.put(Decision(3), NOW)
    counters = outbox.close()
    assert [each.event_id for each in sink] == ["e0", "e2", "e3"]
    assert (counters["delivered"], counters["failed"], counters["retried"]) == (3, 1, 2)


def test_events_are_numbered_so_that_what_is_missing_can_be_counted():
    """Of two outboxes 10 and 5 events were numbered; four are lost in between, one arrives twice."""
    events = []

    class Numbers(ListSink):
        def send(self, sent):
            events.extend(each.attributes for each in sent)

    for count in (10, 5):
        outbox = Outbox(Numbers, batch=2)
        for number in range(count):
            outbox.put(Decision(number), NOW)
        outbox.close()
    assert [int(each["sequence"]) for each in events] == [*range(10), *range(5)]
    assert len({each["instance"] for each in events}) == 2
    assert count_missing(events) == 0
    assert count_missing([*events[:2], *events[4:11], events[12], events[14], events[14]]) == 4
    assert count_missing(events[:8]) == 0, "the last ones are not known"


def test_a_direct_log_says_whether_decisions_are_kept():
    class Sometimes(list):
        def send(self, interactions):
            if interactions[0].event_id == "e1":
                raise OSError("the disk is full")
            self.extend(interactions)

    sink = Sometimes()
    log = DirectLog(sink)
    assert [log.record([[Decision(number)]], NOW) for number in range(3)] == [[True], [False], [True]]
    assert [each.event_id for each in sink] == ["e0", "e2"]
    assert log.close() == {"put": 3, "dropped": 0, "delivered": 2, "failed": 1, "waiting": 0}
