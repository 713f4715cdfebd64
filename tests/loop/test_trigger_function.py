"""The function that Cloud Scheduler's messages call, through functions-framework."""

import base64
import json

import functions_framework
import pytest
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

from recbandits.config import Config
from recbandits.loop.core import FUNCTIONS
from recbandits.platforms import choose
from recbandits.platforms.functions import EVENT

JOIN = {"window": 5.0, "lowest": 0.0, "highest": 1.0, "default": 0.0}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A configuration of its own, which the function finds; what runs is ended."""
    config = Config(artifacts=str(tmp_path / "artifacts"))
    monkeypatch.setenv("RECBANDITS_CONFIG", str(config.write(tmp_path / "recbandits.toml")))
    monkeypatch.setenv("RECBANDITS_FEATURES", str(tmp_path / "users"))
    monkeypatch.setenv("RECBANDITS_SETTINGS", json.dumps({"join": JOIN, "decisions": 10, "guardrail": {"least": 50}}))
    yield config
    choose(config).endpoints.delete()


@pytest.fixture
def call():
    """Function of what a message says that gives the answer of the function."""
    app = functions_framework.create_app("tick", str(FUNCTIONS / "trigger" / "main.py"), "cloudevent")
    client = app.test_client()

    def send(order):
        message = {"data": base64.b64encode(json.dumps(order).encode()).decode(), "messageId": "1"}
        about = {"source": "//pubsub.googleapis.com/projects/p/topics/ticks", "type": EVENT, "id": "1"}
        headers, body = to_binary(CloudEvent(about, {"message": message}))
        return client.post("/", headers=headers, data=body)

    return send


def test_a_message_says_what_is_to_be_done(config, call, capfd):
    """Before the start-up pipeline nothing serves: there is nothing to train on from, and nothing to guard."""
    for order in ({"do": "train"}, {"do": "train", "least_new": 1}, {"do": "guard"}):
        assert call(order).status_code == 200
    assert capfd.readouterr().out.count("nothing to do") == 3


def test_an_unknown_message_comes_again_until_it_is_a_dead_letter(config, call):
    assert call({"do": "dance"}).status_code == 500
