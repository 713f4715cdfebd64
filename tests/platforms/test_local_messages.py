"""Messages of the local platform: a file whose publishers are killed, and that loses nothing."""

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.local.messages import _DUE, pause
from recbandits.records import Reward
from tests.commands import run_python

NOON = datetime(2026, 1, 1, tzinfo=UTC)
PUBLISHER = """
import sys
from datetime import UTC, datetime
from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.records import Reward
messages = choose(Config(artifacts=sys.argv[1])).messages
publisher = messages.publisher(messages.topic("rewards"))
for turn in range(10**6):
    names = [f"{sys.argv[2]}-{turn}-{number}" for number in range(5)]
    publisher.send([Reward(name, datetime(2026, 1, 1, tzinfo=UTC), 1.0) for name in names])
    print(*names, flush=True)
"""


@pytest.fixture
def messages(tmp_path):
    return choose(Config(artifacts=str(tmp_path))).messages


@pytest.fixture
def topic(messages):
    """A topic with the subscription "reader"."""
    topic = messages.topic("rewards")
    messages.subscription("reader", topic)
    return topic


READER = "projects/local/subscriptions/recbandits-v1-reader"


def rewards(*names):
    return [Reward(name, NOON, 1.0) for name in names]


def names(messages):
    return [message.attributes["event_id"] for message in messages]


def test_what_one_process_publishes_another_one_takes_in_its_order(messages, topic, tmp_path):
    code = PUBLISHER.replace("range(10**6)", "range(2)")
    run_python(code, tmp_path, "p")
    batch = messages.take(READER, 10)
    assert names(batch) == [f"p-{turn}-{number}" for turn in range(2) for number in range(5)]
    assert [Reward.from_json(message.data.decode()).event_id for message in batch] == names(batch)
    assert len({message.message_id for message in batch}) == 10
    assert abs(batch[0].time - time.time()) < 60
    messages.settle(READER, [message.number for message in batch])
    assert messages.backlog("reader") == messages.backlog("rewards") == 0


def test_what_was_acknowledged_to_a_publisher_outlives_its_sigkill_and_no_call_is_kept_in_part(
    messages, topic, tmp_path
):
    """Each call publishes 5: what is waiting are whole calls, and all those that were acknowledged."""
    acknowledged_names = set()
    for turn in range(2):
        command = [sys.executable, "-c", PUBLISHER, str(tmp_path), str(turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as publisher:
            for _ in range(10):
                acknowledged_names |= set(publisher.stdout.readline().split())
            publisher.send_signal(signal.SIGKILL)
            acknowledged_names |= set(publisher.stdout.read().split())
    backlog_names = names(messages.take(READER, 10**6))
    assert acknowledged_names <= set(backlog_names)
    assert len(backlog_names) == len(set(backlog_names))
    assert len(backlog_names) % 5 == 0


def test_a_message_waits_in_each_subscription_that_was_there_when_it_was_published(messages, topic):
    publisher = messages.publisher(topic)
    publisher.send(rewards("a"))
    messages.subscription("later", topic)
    publisher.send(rewards("b"))
    assert (messages.backlog("reader"), messages.backlog("later"), messages.backlog("rewards")) == (2, 1, 3)
    messages.settle(READER, [message.number for message in messages.take(READER, 10)])
    assert (messages.backlog("reader"), messages.backlog("later")) == (0, 1)


def test_what_a_killed_reader_had_taken_is_due_at_once_with_its_attempts_counted(messages, topic):
    messages.publisher(topic).send(rewards("a"))
    assert [message.attempts for _ in range(3) for message in messages.take(READER, 10)] == [1, 2, 3]


def test_a_message_that_failed_comes_again_after_a_pause(messages, topic, monkeypatch):
    messages.publisher(topic).send(rewards("a", "b"))
    first, second = messages.take(READER, 10)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    messages.settle(READER, [first.number], [second])
    assert messages.take(READER, 10) == []
    now += pause(1)
    assert names(messages.take(READER, 10)) == ["b"]


def test_messages_are_delivered_after_the_clock_was_set_back(messages, topic, monkeypatch):
    """By an hour, which is longer than any pause."""
    messages.publisher(topic).send(rewards("a", "b"))
    now = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: now)
    first, second = messages.take(READER, 10)
    messages.settle(READER, [first.number], [second])
    assert messages.take(READER, 10) == []
    now += pause(1)
    assert names(messages.take(READER, 10)) == ["b"]


def test_pauses_double_from_a_tenth_of_a_second_to_a_minute():
    assert [pause(attempts) for attempts in (1, 2, 3, 10)] == [0.1, 0.2, 0.4, 51.2]
    assert pause(100) == 60


def test_a_message_tried_ten_times_is_a_dead_letter_and_the_others_are_delivered(messages, topic):
    dead = messages.topic("rewards-dead")
    letters = messages.subscription("rewards-dead", dead)
    assert messages.subscription("reader", topic, dead) == READER
    messages.publisher(topic).send(rewards("a", "b"))
    for _ in range(9):
        assert names(messages.take(READER, 1)) == ["a"]
    assert names(messages.take(READER, 10)) == ["a", "b"]
    assert names(messages.take(READER, 10)) == ["b"]
    (letter,) = messages.take(letters, 10)
    assert letter.attributes == {"event_id": "a", "CloudPubSubDeadLetterSourceDeliveryCount": "10"}
    assert (messages.backlog("reader"), messages.backlog("rewards-dead")) == (1, 1)


def test_a_deleted_topic_is_gone_with_its_subscriptions_and_deleting_again_is_no_error(messages, topic):
    messages.publisher(topic).send(rewards("a"))
    for _ in range(2):
        messages.delete("rewards")
    messages.publisher(topic).send(rewards("b"))
    assert (messages.backlog("rewards"), messages.take(READER, 10)) == (0, [])


def test_messages_that_wait_for_their_pause_are_not_read_at_a_look(messages, topic):
    """Two ranges of the index: what is due by now, and what is later than any pause."""
    with messages._database.read() as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {_DUE}", ("reader", 0.0, 1)).fetchall()
    searches = [row[3].partition(" INDEX ")[2] for row in plan if row[3].startswith("SEARCH")]
    assert searches == ["in_order (subscription=? AND due<?)", "in_order (subscription=? AND due>?)"]
