"""Functions of the local platform: the real functions-framework and what pushes messages to it, both killed at will."""

import json
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from google.cloud import pubsub_v1

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.functions import Function
from recbandits.platforms.local import pusher
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Reward

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOURCE = """
import base64, json, os, threading
import functions_framework

turn = threading.Lock()

@functions_framework.cloud_event
def note(event):
    message = event.data["message"]
    reward = json.loads(base64.b64decode(message["data"]))
    if reward["value"] < 0:
        raise ValueError("this one is refused")
    noted = {"id": event["id"], "source": event["source"], "type": event["type"], "time": event["time"]}
    with turn, open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps(noted | {"message": message, "data": event.data, "reward": reward}) + "\\n")

@functions_framework.http
def greet(request):
    return f"{os.environ['GREETING']} from {os.environ['RECBANDITS_PREFIX']}"
"""


class Place:
    """A platform with a topic "rewards" and a function that notes what it gets, one line of JSON each."""

    def __init__(self, directory):
        self.platform = choose(Config(artifacts=str(directory / "artifacts")))
        self.functions, self.messages = self.platform.functions, self.platform.messages
        self._notes, self._source = directory / "notes", directory / "source"
        self._source.mkdir()
        (self._source / "main.py").write_text(SOURCE)
        self.topic = self.messages.topic("rewards")
        self.publisher = self.messages.publisher(self.topic)

    def function(self, target="note", topic=True):
        environment = {"NOTES": str(self._notes), "GREETING": "hello"}
        return Function(target, self._source, target, self.topic if topic else None, environment)

    def send(self, *names, value=1.0):
        self.publisher.send([Reward(name, NOON, value) for name in names])

    def notes(self, count):
        """What was noted, as soon as `count` different rewards are."""
        return until(lambda: [json.loads(line) for line in self._notes.read_text().splitlines()], count)


def until(look, count):
    deadline = time.monotonic() + 60
    while True:
        try:
            found = look()
        except FileNotFoundError:
            found = []
        if len({each["reward"]["event_id"] for each in found}) >= count:
            return found
        assert time.monotonic() < deadline, f"{len(found)} of {count} came"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUB_EMULATOR_HOST", "")
        patch.setattr(
            "recbandits.platforms.local.messages._RETRY",
            {"minimum_backoff": timedelta(seconds=0.01), "maximum_backoff": timedelta(seconds=0.02)},
        )
        place = Place(tmp_path_factory.mktemp("functions"))
        try:
            place.functions.deploy(place.function())
            yield place
        finally:
            for name in ("note", "greet"):
                place.functions.delete(name)
            place.messages.stop()


def test_a_message_arrives_as_the_cloud_event_that_eventarc_sends(place):
    place.send("first")
    (note,) = place.notes(1)
    assert note["type"] == "google.cloud.pubsub.topic.v1.messagePublished"
    assert note["source"] == f"//pubsub.googleapis.com/{place.topic}"
    assert note["id"] == note["message"]["messageId"]
    assert datetime.fromisoformat(note["time"]) == datetime.fromisoformat(note["message"]["publishTime"])
    assert abs(datetime.fromisoformat(note["time"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert note["message"]["attributes"] == {"event_id": "first"}
    assert note["data"]["subscription"] == "projects/local/subscriptions/recbandits-v1-rewards-note"
    assert note["data"]["deliveryAttempt"] == 1
    assert Reward(**note["reward"] | {"time": datetime.fromisoformat(note["reward"]["time"])}) == Reward(
        "first", NOON, 1
    )


@pytest.mark.parametrize("part", ["server", "pusher"])
def test_every_message_comes_although_a_part_is_killed_in_between(place, part):
    names = [f"{part} {number}" for number in range(300)]
    place.send(*names[:150])
    service = getattr(place.functions.parts("note"), part)
    service.kill()
    assert place.functions.health("note")["ready"] is False
    assert service.what in place.functions.health("note")["reason"]
    place.send(*names[150:])
    place.functions.ensure("note")
    assert place.functions.health("note")["ready"] is True
    found = until(lambda: [note for note in place.notes(1) if note["reward"]["event_id"].startswith(part)], 300)
    assert {note["reward"]["event_id"] for note in found} == set(names)


def test_every_message_comes_although_pubsub_is_killed_in_between(place):
    names = [f"pubsub {number}" for number in range(300)]
    place.send(*names)
    place.messages.service.kill()
    place.messages.start()
    found = until(lambda: [note for note in place.notes(1) if note["reward"]["event_id"].startswith("pubsub")], 300)
    assert {note["reward"]["event_id"] for note in found} == set(names)


def test_what_a_function_refuses_ten_times_goes_to_the_dead_letters(place):
    place.send("refused", value=-1.0)
    dead = "projects/local/subscriptions/recbandits-v1-rewards-dead"
    with pubsub_v1.SubscriberClient() as client:
        received = client.pull(subscription=dead, max_messages=10, timeout=60).received_messages
    assert [each.message.attributes["event_id"] for each in received] == ["refused"]
    assert received[0].message.attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "10"
    logs = place.functions.logs("note")
    assert logs.count("ValueError: this one is refused") == 10
    assert "was answered 500, it comes again" in logs


def test_a_function_that_does_not_answer_in_time_has_not_taken_its_message(monkeypatch):
    """Somebody listens there and says nothing: without an answer the message would be waited with for ever."""
    monkeypatch.setattr(pusher, "_ANSWER", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert pool.submit(pusher.post, address, {}, b"").result(timeout=30) == 504


def test_a_function_without_a_topic_is_called_by_http_until_it_is_deleted_and_deleting_again_is_no_error(place):
    place.functions.deploy(place.function("greet", topic=False))
    health = place.functions.health("greet")
    assert health["alive"]
    with urllib.request.urlopen(health["address"]) as answer:
        assert answer.read() == b"hello from recbandits"
    server = place.functions.parts("greet").server
    process = server.process
    place.functions.ensure("greet")
    assert server.process == process, "what runs is left alone"
    place.functions.stop("greet")
    assert place.functions.health("greet") == {
        "alive": False,
        "ready": False,
        "reason": "function greet not running",
        "address": health["address"],
    }
    place.functions.deploy(place.function("greet", topic=False))
    assert server.process != process
    for _ in range(2):
        place.functions.delete("greet")
    assert not server.running
    with pytest.raises(PlatformError, match="function greet does not exist"):
        place.functions.health("greet")


def test_a_function_that_cannot_be_loaded_is_an_error_with_its_last_words(place, tmp_path):
    (tmp_path / "main.py").write_text("raise RuntimeError('nothing works')")
    with pytest.raises(PlatformError, match=r"(?s)function broken did not start.*RuntimeError: nothing works"):
        place.functions.deploy(Function("broken", tmp_path, "broken"))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("name", "Log_it", "at most 63 lower-case letters, digits and single hyphens"),
        ("source", "nowhere", "a directory with main.py"),
        ("target", "a b", "a Python name"),
        ("topic", "rewards", "'projects/<project>/topics/<topic>' or None"),
        ("environment", {"A": 1}, "a dict of texts"),
    ],
)
def test_a_function_that_no_platform_would_take_is_refused_in_a_sentence(tmp_path, field, value, expected):
    (tmp_path / "main.py").touch()
    fields = {"name": "f", "source": tmp_path, "target": "f", "topic": "projects/p/topics/t", "environment": {}}
    with pytest.raises(ValueError, match=f"Function: {field} must be {expected}, got "):
        Function(**fields | {field: value})
