"""The function that Cloud Scheduler calls, through functions-framework: visits at a rate, and rewards in the topic."""

import json
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import functions_framework
import pytest

from recbandits.config import Config
from recbandits.data import synthetic
from recbandits.loop.simulated_users import SimulatedUsers
from recbandits.platforms.local import LocalPlatform
from recbandits.platforms.local.files import write_json
from recbandits.records import Reward
from tests.sockets import SocketServer


class FirstChoice(BaseHTTPRequestHandler):
    """An endpoint that shows everybody the first candidate."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self):
        """Answer a request."""
        instances = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"]
        predictions = []
        for instance in instances:
            type(self).asked += 1
            predictions.append({"event_id": f"event-{self.asked}", "item_ids": instance["candidates"][:1]})
        body = json.dumps({"predictions": predictions}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Keep silent."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Directory of a world."""
    directory = tmp_path_factory.mktemp("world")
    SimulatedUsers.make(synthetic.generate(), movies=20, rank=2, delay=0.05).save(directory)
    return directory


@pytest.fixture
def config(world, tmp_path, monkeypatch):
    """A configuration of its own, which the function finds, with a world."""
    found = Config(artifacts=str(tmp_path))
    monkeypatch.setenv("RECBANDITS_CONFIG", str(found.write(tmp_path / "recbandits.toml")))
    monkeypatch.setenv("RECBANDITS_WORLD", str(world))
    return found


@pytest.fixture
def client():
    """A client of the function."""
    return functions_framework.create_app("simulate", str(Path(__file__).with_name("main.py"))).test_client()


def test_visitors_are_answered_and_their_rewards_are_published(config, client):
    """2 s at 20 requests/s of 2 visits, as many as this machine manages; what is reported is what the topic has."""
    messages = LocalPlatform(config).messages
    seen = messages.subscription("seen", messages.topic("rewards"))
    server = SocketServer(config.artifacts_dir / "s", FirstChoice)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    directory = config.artifacts_dir / "endpoints" / config.endpoint
    directory.mkdir(parents=True)
    write_json(directory / "run.json", {"command": [str(config.artifacts_dir / "s")]})
    counts = client.post("/", json={"seconds": 2, "rate": 20, "instances": 2}).get_json()
    server.shutdown()
    assert 2 <= counts["visits"] == counts["answered"] == FirstChoice.asked
    assert counts["visits"] % 2 == 0
    assert counts["reports"] == counts["reported"] == messages.backlog("seen")
    assert counts["waiting"] == 0
    rewards = [Reward.from_json(message.data.decode()) for message in messages.take(seen, 100)]
    assert {reward.event_id for reward in rewards} <= {f"event-{number + 1}" for number in range(FirstChoice.asked)}
    assert all(1 <= reward.value <= 5 for reward in rewards)


def test_an_endpoint_that_is_away_is_told_in_the_counts(config, client):
    counts = client.post("/", json={"seconds": 2, "rate": 20}).get_json()
    assert counts["visits"] == counts["unanswered"] > 0
    assert counts["reports"] == 0


@pytest.mark.parametrize(
    ("body", "name"),
    [({"rate": 0}, "rate"), ({"rate": True}, "rate"), ({"speed": 3}, "speed"), ({"instances": 0.5}, "instances")],
)
def test_what_cannot_be_asked_is_refused_by_name(client, body, name):
    answer = client.post("/", json=body)
    assert answer.status_code == 400
    assert answer.get_json()["error"].startswith(f"{name} must be one of seconds, rate, instances")
