"""Messages of the local platform: a file whose publishers are killed, and that loses nothing."""

import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.local.messages import pause
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Reward

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
    subprocess.run([sys.executable, "-c", code, str(tmp_path), "p"], check=True, stdout=subprocess.PIPE)
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
    for turn in range(3):
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


def test_a_message_that_failed_comes_again_after_a_pause(messages, topic):
    messages.publisher(topic).send(rewards("a", "b"))
    first, second = messages.take(READER, 10)
    messages.settle(READER, [first.number], [second])
    assert messages.take(READER, 10) == []
    time.sleep(pause(1))
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


def test_names_derive_from_the_configuration(messages):
    topic = messages.topic("rewards")
    assert topic == "projects/local/topics/recbandits-v1-rewards"
    assert messages.subscription("reader", topic) == READER


def test_a_deleted_topic_is_gone_with_its_subscriptions_and_deleting_again_is_no_error(messages, topic):
    messages.publisher(topic).send(rewards("a"))
    for _ in range(2):
        messages.delete("rewards")
    messages.publisher(topic).send(rewards("b"))
    assert (messages.backlog("rewards"), messages.take(READER, 10)) == (0, [])


def test_only_its_owner_can_read_it(messages, topic, tmp_path):
    assert stat.S_IMODE((tmp_path / "messages").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "messages").iterdir()} == {0o600}


def test_a_file_that_is_not_sqlites_is_refused_in_a_sentence(messages, tmp_path):
    (tmp_path / "messages").mkdir(exist_ok=True)
    (tmp_path / "messages" / "messages.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(PlatformError, match=r"messages\.sqlite could not be read: file is not a database"):
        messages.backlog("rewards")


def fill_the_disk(directory, pipe):
    messages = choose(Config(artifacts=directory)).messages
    publisher, count, error = messages.publisher(messages.topic("rewards")), 0, ""
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
    while not error:
        try:
            publisher.send(rewards(*map(str, range(count, count + 100))))
            count += 100
        except PlatformError as refusal:
            error = str(refusal)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    publisher.send(rewards("after"))
    pipe.send((count, error))
    os._exit(9)


def test_a_full_disk_is_an_error_for_the_publisher_and_nothing_else(messages, topic, tmp_path):
    """Files may have 500 kB: what was acknowledged is there, what was refused is not, and then there is free space."""
    parent_pipe, child_pipe = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=fill_the_disk, args=(str(tmp_path), child_pipe))
    child.start()
    count, error = parent_pipe.recv()
    child.join()
    assert error.startswith(f"{tmp_path / 'messages' / 'messages.sqlite'} could not be written: ")
    assert "\n" not in error
    assert names(messages.take(READER, 10**6)) == [*map(str, range(count)), "after"]


def test_publishing_takes_neither_tensorflow_nor_a_client_of_google(tmp_path):
    code = (
        "import sys\nfrom recbandits.config import Config\nfrom recbandits.platforms import choose\n"
        "choose(Config(artifacts=sys.argv[1])).messages.publisher('projects/p/topics/t').send([])\n"
        "print(sorted({'tensorflow', 'grpc', 'google.cloud.pubsub_v1'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True).stdout == b"[]\n"
