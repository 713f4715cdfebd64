"""The function that Cloud Scheduler's messages call, through functions-framework."""

import base64
import json
from pathlib import Path

import functions_framework
import pytest
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.functions import EVENT

JOIN = {"window": 5.0, "lowest": 0.0, "highest": 1.0, "default": 0.0}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A configuration of its own, which the function finds; what runs is ended."""
    found = Config(artifacts=str(tmp_path / "artifacts"))
    monkeypatch.setenv("RECBANDITS_CONFIG", str(found.write(tmp_path / "recbandits.toml")))
    monkeypatch.setenv("RECBANDITS_FEATURES", str(tmp_path / "world"))
    monkeypatch.setenv("RECBANDITS_SETTINGS", json.dumps({"join": JOIN, "decisions": 10, "guardrail": {"least": 50}}))
    yield found
    choose(found).endpoints.create().delete()


@pytest.fixture
def call():
    """Function of what a message says that gives the answer of the function."""
    app = functions_framework.create_app("look", str(Path(__file__).with_name("main.py")), "cloudevent")
    client = app.test_client()

    def send(asked):
        message = {"data": base64.b64encode(json.dumps(asked).encode()).decode(), "messageId": "1"}
        about = {"source": "//pubsub.googleapis.com/projects/p/topics/ticks", "type": EVENT, "id": "1"}
        headers, body = to_binary(CloudEvent(about, {"message": message}))
        return client.post("/", headers=headers, data=body)

    return send


def test_a_message_says_what_is_to_be_looked_at(config, call, capfd):
    """Before the start-up pipeline nothing serves: there is nothing to train on from, and nothing to guard."""
    for asked in ({"do": "train"}, {"do": "train", "least_new": 1}, {"do": "guard"}):
        assert call(asked).status_code == 200
    assert capfd.readouterr().out.count("nothing to do") == 3


def test_a_message_that_nobody_understands_comes_again_until_it_is_a_dead_letter(config, call):
    assert call({"do": "dance"}).status_code == 500


def test_the_template_is_packed_with_the_function():
    """It is a link to the one beside the pipelines, which Cloud Functions gets as a file."""
    here = Path(__file__).parent
    assert (here / "re_training.yaml").read_text() == (here.parent / "re_training.yaml").read_text()
