"""Messages of the local platform: a real server that is killed, fills the disk, and loses nothing."""

import itertools
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from google.api_core import exceptions
from google.cloud import pubsub_v1

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.local.mailboxes import Store
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Reward

pytestmark = pytest.mark.filterwarnings("ignore:The return_immediately flag is deprecated")


@pytest.fixture
def messages(tmp_path, monkeypatch):
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "")
    messages = choose(Config(artifacts=str(tmp_path))).messages
    yield messages
    messages.stop()


def rewards(*names):
    return [Reward(name, datetime(2026, 1, 1, tzinfo=UTC), 1.0) for name in names]


def ask(action, patience=60):
    """Do something as soon as the server is reached again."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return action()
        except (exceptions.ServerError, exceptions.Cancelled):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def pull(client, subscription, limit=10):
    request = {"subscription": subscription, "max_messages": limit, "return_immediately": True}
    return ask(lambda: client.pull(request=request, timeout=60, retry=None).received_messages)


def names(received):
    return sorted(each.message.attributes["event_id"] for each in received)


def test_what_was_acknowledged_by_either_side_outlives_a_killed_server(messages):
    """Of a, b, c the first is acknowledged, the second is out, the third waits: b and c are there after the kill."""
    topic = messages.topic("rewards")
    reader = messages.subscription("reader", topic)
    publisher = messages.publisher(topic)
    publisher.send(rewards("a", "b", "c"))
    with pubsub_v1.SubscriberClient() as client:
        (first,), (second,) = pull(client, reader, 1), pull(client, reader, 1)
        client.acknowledge(subscription=reader, ack_ids=[first.ack_id])
        messages.service.kill()
        assert messages.backlog("rewards") == messages.backlog("reader") == 2
        assert messages.topic("rewards") == topic
        assert messages.subscription("reader", topic) == reader
        again = pull(client, reader)
        assert names(again) == ["b", "c"]
        ask(lambda: client.acknowledge(subscription=reader, ack_ids=[second.ack_id]))
        assert messages.backlog("reader") == 1, "an acknowledgement holds although the server knows its reader no more"
    ask(lambda: publisher.send(rewards("d")))
    assert messages.backlog("rewards") == 2


def test_nothing_that_a_publisher_was_told_is_kept_is_lost_when_the_server_is_killed_in_the_middle(messages):
    """While requests of 50 messages follow each other: what is told counts, what fails may be there or not."""
    topic = messages.topic("rewards")
    reader, told = messages.subscription("reader", topic), []
    sent, ended = threading.Semaphore(0), threading.Event()

    def publish():
        publisher = messages.publisher(topic)
        for turn in itertools.count():
            if ended.is_set():
                return
            some = [f"{turn}-{number}" for number in range(50)]
            ask(lambda: publisher.send(rewards(*some)))  # noqa: B023, it is called at once
            told.extend(some)
            sent.release()

    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(publish)
        for _ in range(3):
            for _ in range(10):
                assert sent.acquire(timeout=60), publishing.exception(timeout=0)
            messages.service.kill()
            messages.start()
        ended.set()
        publishing.result()
    with pubsub_v1.SubscriberClient() as client:
        received = pull(client, reader, 100_000)
    assert set(told) <= set(names(received))
    assert len(received) == len({each.message.message_id for each in received})


def test_attempts_are_counted_across_restarts(messages):
    topic = messages.topic("rewards")
    dead = messages.topic("rewards-dead")
    reader = messages.subscription("reader", topic, dead)
    messages.publisher(topic).send(rewards("a"))
    with pubsub_v1.SubscriberClient() as client:
        (first,) = pull(client, reader)
        client.modify_ack_deadline(subscription=reader, ack_ids=[first.ack_id], ack_deadline_seconds=0)
        messages.service.kill()
        messages.start()
        (second,) = pull(client, reader)
    assert (first.delivery_attempt, second.delivery_attempt) == (1, 2)


def test_a_full_disk_is_an_error_for_the_publisher_and_nothing_else(messages):
    topic = messages.topic("rewards")
    reader, publisher = messages.subscription("reader", topic), messages.publisher(topic)
    publisher.send(rewards("before"))
    size = max(file.stat().st_size for file in messages.service.directory.iterdir())
    resource.prlimit(messages.service.process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    with pytest.raises(exceptions.ServiceUnavailable, match="the messages cannot be written"):
        publisher.send(rewards(*map(str, range(5_000))))
    kept = messages.backlog("rewards")
    resource.prlimit(messages.service.process, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    ask(lambda: publisher.send(rewards("after")))
    assert messages.backlog("rewards") == kept + 1
    with pubsub_v1.SubscriberClient() as client:
        assert "before" in names(pull(client, reader, 2))


def test_a_second_server_on_the_same_messages_is_refused_in_a_sentence(messages, tmp_path):
    messages.start()
    file = tmp_path / "messages" / "messages.sqlite"
    with pytest.raises(PlatformError, match="are another server's, which runs"):
        Store(file)


def test_a_file_that_is_not_sqlites_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "messages.sqlite").write_text("something else, and long enough that nobody takes it for a header")
    with pytest.raises(PlatformError, match=r"messages\.sqlite cannot be used: file is not a database"):
        Store(tmp_path / "messages.sqlite")


def test_a_backlog_that_cannot_be_read_is_a_sentence(messages):
    messages.service.directory.mkdir(parents=True)
    (messages.service.directory / "messages.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(PlatformError, match=r"topics/.*rewards could not be looked into: file is not a database"):
        messages.backlog("rewards")


def test_names_derive_from_the_configuration_and_children_find_the_server(messages):
    topic = messages.topic("rewards")
    assert topic == "projects/local/topics/recbandits-v1-rewards"
    assert messages.subscription("reader", topic) == "projects/local/subscriptions/recbandits-v1-reader"
    code = (
        "from google.cloud import pubsub_v1\n"
        f"print(pubsub_v1.PublisherClient().get_topic(topic={topic!r}).name == {topic!r})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_a_deleted_topic_is_gone_with_its_subscription_and_deleting_again_is_no_error(messages):
    messages.subscription("rewards", messages.topic("rewards"))
    for _ in range(2):
        messages.delete("rewards")
    with pytest.raises(PlatformError, match=r"subscriptions/recbandits-v1-reader could not be made: .*was not found"):
        messages.subscription("reader", "projects/local/topics/recbandits-v1-rewards")
    with sqlite3.connect(messages.service.directory / "messages.sqlite") as database:
        assert database.execute("SELECT count(*) FROM topics").fetchone() == (0,)


def test_before_its_first_start_there_is_no_backlog_and_nothing_to_stop(messages):
    assert messages.backlog("rewards") == 0
    messages.stop()
    assert not messages.service.running
    assert os.environ["PUBSUB_EMULATOR_HOST"] == ""


def test_the_server_does_not_load_tensorflow():
    modules = "recbandits.platforms.local.pubsub, recbandits.platforms.local.pusher"
    code = f"import sys, {modules}; print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
