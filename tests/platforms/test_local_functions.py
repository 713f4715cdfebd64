"""Functions of the local platform: real processes, killed at will."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.functions import Function
from recbandits.platforms.local.files import in_turn
from recbandits.platforms.local.functions import call
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Reward
from tests.waiting import until

DEAD = "projects/local/subscriptions/recbandits-v1-rewards-dead"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOURCE = """
import base64, json, os, signal, threading
import functions_framework

turn = threading.Lock()

@functions_framework.cloud_event
def note(event):
    message = event.data["message"]
    reward = json.loads(base64.b64decode(message["data"]))
    if reward["event_id"] == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    if reward["value"] < 0:
        raise ValueError("this one is refused")
    noted = {"id": event["id"], "source": event["source"], "type": event["type"], "time": event["time"]}
    with turn, open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps(noted | {"message": message, "data": event.data, "reward": reward}) + "\\n")
"""


class FunctionDeployment:
    """A platform with a topic "rewards" and a function that notes what it gets, one line of JSON each."""

    def __init__(self, directory):
        self.platform = choose(Config(artifacts=str(directory / "artifacts, ä and 日本")))
        self.functions, self.messages = self.platform.functions, self.platform.messages
        self._notes, self._source = directory / "notes", directory / "source, ä and 日本"
        self._source.mkdir()
        (self._source / "main.py").write_text(SOURCE)
        self.topic = self.messages.topic("rewards")
        self.publisher = self.messages.publisher(self.topic)

    def function(self):
        return Function("note", self._source, "note", self.topic, {"NOTES": str(self._notes)})

    def send(self, *names, value=1.0):
        self.publisher.send([Reward(name, NOON, value) for name in names])

    def notes(self, count, name):
        """Wait for `count` notes of rewards whose names have a prefix, and return them."""

        def read():
            notes = map(json.loads, self._notes.read_text().splitlines() if self._notes.exists() else [])
            return [note for note in notes if note["reward"]["event_id"].startswith(name)]

        until(lambda: len(read()) >= count, 60)
        return read()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    deployment = FunctionDeployment(tmp_path_factory.mktemp("functions"))
    deployment.functions.deploy(deployment.function())
    yield deployment
    deployment.functions.delete("note")


def test_a_message_arrives_as_the_cloud_event_that_eventarc_sends(deployment):
    deployment.send("first")
    (note,) = deployment.notes(1, "first")
    assert note["type"] == "google.cloud.pubsub.topic.v1.messagePublished"
    assert note["source"] == f"//pubsub.googleapis.com/{deployment.topic}"
    assert note["id"] == note["message"]["messageId"]
    assert datetime.fromisoformat(note["time"]) == datetime.fromisoformat(note["message"]["publishTime"])
    assert abs(datetime.fromisoformat(note["time"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert note["message"]["attributes"] == {"event_id": "first"}
    assert note["data"]["subscription"] == "projects/local/subscriptions/recbandits-v1-rewards-note"
    assert note["data"]["deliveryAttempt"] == 1
    assert Reward(**note["reward"] | {"time": datetime.fromisoformat(note["reward"]["time"])}) == Reward(
        "first", NOON, 1
    )


def test_what_runs_is_left_alone_and_what_was_stopped_starts_again_with_what_waited(deployment):
    name = deployment.functions.unit("note").run["name"]
    deployment.functions.ensure("note")
    assert deployment.functions.unit("note").run["name"] == name
    deployment.functions.stop("note")
    health = {"alive": False, "ready": False, "reason": "function note is not running", "address": ""}
    assert deployment.functions.health("note") == health
    deployment.send("while it was stopped")
    deployment.functions.deploy(deployment.function())
    assert deployment.functions.unit("note").run["name"] != name
    assert deployment.functions.health("note")["ready"] is True
    assert len(deployment.notes(1, "while")) == 1


def test_a_message_that_kills_its_process_becomes_a_dead_letter_and_takes_no_neighbour_along(deployment):
    """Of 20 messages the eleventh is the poison: ten starts later the others are noted, with it in the dead letters."""
    names = [f"neighbour {number}" for number in range(19)]
    deployment.send(*names[:10], "poison", *names[10:])

    def is_dead():
        deployment.functions.ensure("note")
        return deployment.messages.backlog("rewards-dead")

    until(is_dead, 120)
    assert [note["reward"]["event_id"] for note in deployment.notes(19, "neighbour")] == names
    letters = deployment.messages.take(DEAD, 10)
    assert [letter.attributes["event_id"] for letter in letters] == ["poison"]
    deployment.messages.settle(DEAD, [letter.number for letter in letters])


@pytest.mark.parametrize("error", [ValueError("this one is refused"), SystemExit(0)], ids=("error", "exit"))
def test_what_a_function_refuses_ten_times_goes_to_the_dead_letters(tmp_path, monkeypatch, error):
    """Without pauses, in this process: the messages beside it are done."""
    monkeypatch.setattr("recbandits.platforms.local.messages._FIRST_PAUSE", 0.0)
    messages = choose(Config(artifacts=str(tmp_path))).messages
    topic, dead = messages.topic("rewards"), messages.topic("rewards-dead")
    letters = messages.subscription("rewards-dead", dead)
    reader = messages.subscription("reader", topic, dead)
    messages.publisher(topic).send([Reward(name, NOON, 1.0) for name in "abc"])
    calls, stop = [], threading.Event()

    def target(event):
        calls.append((event.data["message"]["attributes"]["event_id"], event.data["deliveryAttempt"]))
        if calls[-1] == ("b", 10):
            stop.set()
        if calls[-1][0] == "b":
            raise error

    call(target, messages, topic, reader, stop)
    assert sorted(calls) == [("a", 1), *(("b", attempt) for attempt in range(1, 11)), ("c", 1)]
    assert [letter.attributes["event_id"] for letter in messages.take(letters, 10)] == ["b"]
    assert messages.backlog("reader") == 0


def test_a_function_without_a_topic_is_refused_in_a_sentence(deployment, tmp_path):
    (tmp_path / "main.py").touch()
    with pytest.raises(PlatformError, match=r"function greet: topic must be .* got None; call greet with a request"):
        deployment.functions.deploy(Function("greet", tmp_path, "greet"))


def test_a_file_in_the_way_of_a_function_is_a_sentence(deployment, tmp_path):
    (tmp_path / "main.py").touch()
    (deployment.platform.config.artifacts_dir / "functions" / "blocked").write_text("mine")
    with pytest.raises(
        PlatformError, match=r"^function blocked could not be deployed: .*: (Not a directory|File exists)"
    ):
        deployment.functions.deploy(Function("blocked", tmp_path, "f", deployment.topic))


def test_a_function_that_is_deleted_is_gone_with_its_subscription_and_deleting_again_is_no_error(deployment, tmp_path):
    (tmp_path / "main.py").write_text("def ignore(event): pass")
    deployment.functions.deploy(Function("ignore", tmp_path, "ignore", deployment.topic))
    unit = deployment.functions.unit("ignore")
    assert unit.running
    for _ in range(2):
        deployment.functions.delete("ignore")
    assert not unit.running
    assert not unit.directory.exists()
    with pytest.raises(PlatformError, match="function ignore does not exist"):
        deployment.functions.health("ignore")
    deployment.send("after")
    assert deployment.messages.backlog("rewards-ignore") == 0


@pytest.mark.parametrize("action", ["deploy", "ensure", "stop", "delete"])
def test_a_function_that_another_process_changes_is_left_alone(deployment, monkeypatch, action):
    """Without the lock, a deletion beside a deployment would leave a process that no platform knows."""
    monkeypatch.setattr("recbandits.platforms.local.files._TURN", 0.0)
    unit = deployment.functions.unit("note")
    name, argument = unit.run["name"], deployment.function() if action == "deploy" else "note"
    with in_turn(unit.directory, unit.label), pytest.raises(PlatformError, match="function note is being changed by"):
        getattr(deployment.functions, action)(argument)
    assert unit.running
    assert unit.run["name"] == name


def test_a_function_that_cannot_be_loaded_is_an_error_with_its_last_words(deployment, tmp_path):
    (tmp_path / "main.py").write_text("raise RuntimeError('nothing works')")
    with pytest.raises(PlatformError, match=r"(?s)function broken did not start.*RuntimeError: nothing works"):
        deployment.functions.deploy(Function("broken", tmp_path, "broken", deployment.topic))


def test_no_process_of_a_function_listens(deployment):
    runner, process = deployment.functions.unit("note").members()
    assert (runner.children(), process.children()) == ([process], [])
    assert (runner.net_connections(), process.net_connections()) == ([], [])


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
