"""The two functions as Cloud Functions runs them, with the warehouse of this machine."""

from datetime import UTC, datetime

import functions_framework
import pytest
from cloudevents.conversion import to_binary

from recbandits.config import Config
from recbandits.loop.core import FUNCTIONS
from recbandits.platforms import choose
from recbandits.platforms.local.functions import event
from recbandits.platforms.local.messages import Message
from recbandits.platforms.warehouse import Join
from recbandits.records import Interaction, Reward

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DECISION = Interaction("e", NOON, "v1", "7", "{}", ("1", "2"), "2", 0.25)
REWARD = Reward("e", NOON, 4.0)
SOURCE = FUNCTIONS / "logger" / "main.py"


def posted(target, data, number="1"):
    """Status of the answer to a message."""
    client = functions_framework.create_app(target, SOURCE, "cloudevent").test_client()
    message = Message(1, number, NOON.timestamp(), data, {}, 1)
    headers, body = to_binary(event(message, "projects/p/topics/t", "projects/p/subscriptions/s"))
    return client.post("/", headers=headers, data=body).status_code


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One warehouse for all tests, with its directory."""
    directory = str(tmp_path_factory.mktemp("artifacts"))
    return choose(Config(artifacts=directory)).warehouse, directory


@pytest.fixture
def warehouse(one, monkeypatch):
    """The one that the functions write to."""
    monkeypatch.setenv("RECBANDITS_ARTIFACTS", one[1])
    return one[0]


def test_decisions_and_rewards_are_joined_in_the_warehouse(warehouse):
    for _ in range(2):
        assert posted("log_interaction", DECISION.to_json().encode()) == 200
        assert posted("log_reward", REWARD.to_json().encode()) == 200
    (row,) = warehouse.decisions(NOON, NOON.replace(hour=13), Join(60.0, 1.0, 5.0, 1.0)).to_pylist()
    assert (row["event_id"], row["action"], row["reward"]) == ("e", "2", 4.0)


def test_what_is_no_record_is_taken_and_kept_aside(warehouse):
    """A message that was refused would come again, and say the same."""
    assert posted("log_reward", DECISION.to_json().encode()) == 200
    (row,) = warehouse.query("SELECT topic, reason FROM quarantine").to_pylist()
    assert row["topic"] == "rewards"
    assert row["reason"].startswith("field of Reward must be one of event_id, time, value, got ")


def test_where_the_warehouse_cannot_be_written_the_message_is_refused_so_that_it_comes_again(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RECBANDITS_ARTIFACTS", str(tmp_path / "file"))
    assert posted("log_reward", REWARD.to_json().encode()) == 500
