"""The contract between the real Pub/Sub client and the server that stands in for the service."""

import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from google.api_core import exceptions
from google.cloud import pubsub_v1

from recbandits.platforms.local.pubsub import PubSub
from recbandits.platforms.local.services import Service

TOPIC = "projects/p/topics/events"
SUBSCRIPTION = "projects/p/subscriptions/reader"

# A test does not wait for what must not come.
pytestmark = pytest.mark.filterwarnings("ignore:The return_immediately flag is deprecated")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """Address of Google's emulator: the executable that PUBSUB_EMULATOR names, or the one that gcloud has installed."""
    gcloud = shutil.which("gcloud")
    beside = gcloud and Path(gcloud).resolve().parents[1] / "platform/pubsub-emulator/bin/cloud-pubsub-emulator"
    program = os.environ.get("PUBSUB_EMULATOR") or beside
    if not (program and Path(program).exists()):
        pytest.skip("needs Google's emulator: set PUBSUB_EMULATOR to cloud-pubsub-emulator, or install it with gcloud")
    service = Service(tmp_path_factory.mktemp("emulator"), "Google's emulator")
    service.start(lambda port: [str(program), "--host=127.0.0.1", f"--port={port}"])
    yield f"127.0.0.1:{service.port}"
    service.kill()


@contextmanager
def connected():
    """(publisher, subscriber) with a topic and a subscription whose deadline is 10 seconds, removed at the end."""
    with pubsub_v1.PublisherClient() as publisher, pubsub_v1.SubscriberClient() as subscriber:
        publisher.create_topic(name=TOPIC)
        subscriber.create_subscription(name=SUBSCRIPTION, topic=TOPIC)
        yield publisher, subscriber
        for topic in publisher.list_topics(project="projects/p"):
            publisher.delete_topic(topic=topic.name)
        for subscription in subscriber.list_subscriptions(project="projects/p"):
            subscriber.delete_subscription(subscription=subscription.name)


@pytest.fixture
def clients(clock, tmp_path):
    """`connected` to a server whose clock stands still."""
    with PubSub(clock=clock, file=tmp_path / "messages.sqlite"), connected() as clients:
        yield clients


@pytest.fixture(params=["in memory", "in a file", "Google's emulator"])
def either(request, tmp_path, monkeypatch):
    """`connected` to whatever keeps the contract."""
    if request.param == "Google's emulator":
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", request.getfixturevalue("emulator"))
        server = nullcontext()
    else:
        server = PubSub(file=tmp_path / "messages.sqlite" if request.param == "in a file" else None)
    with server, connected() as clients:
        yield clients


def publish(publisher, *texts):
    for future in [publisher.publish(TOPIC, text.encode(), kind="test") for text in texts]:
        future.result(timeout=60)


def pull(subscriber, **options):
    request = {"subscription": SUBSCRIPTION, "max_messages": 10, "return_immediately": True} | options
    return subscriber.pull(request=request, timeout=60).received_messages


def test_a_published_message_is_pulled_once_and_gone_when_acknowledged(clients, clock):
    publisher, subscriber = clients
    publish(publisher, "a", "b", "c")
    received = pull(subscriber)
    assert sorted(each.message.data for each in received) == [b"a", b"b", b"c"]
    assert {each.message.attributes["kind"] for each in received} == {"test"}
    assert len({each.message.message_id for each in received}) == 3
    assert pull(subscriber) == []
    subscriber.acknowledge(subscription=SUBSCRIPTION, ack_ids=[each.ack_id for each in received])
    clock.now = 11
    assert pull(subscriber) == []


def test_what_is_handed_back_comes_again_at_once(either):
    publisher, subscriber = either
    publish(publisher, "a")
    (first,) = pull(subscriber)
    subscriber.modify_ack_deadline(subscription=SUBSCRIPTION, ack_ids=[first.ack_id], ack_deadline_seconds=0)
    (second,) = pull(subscriber)
    assert second.message == first.message
    assert second.ack_id != first.ack_id


def test_what_is_not_acknowledged_before_the_deadline_comes_again(clients, clock):
    publisher, subscriber = clients
    publish(publisher, "a")
    (first,) = pull(subscriber)
    clock.now = 9.9
    assert pull(subscriber) == []
    clock.now = 10
    (second,) = pull(subscriber)
    assert second.message == first.message


def test_more_time_is_given_to_who_asks(clients, clock):
    publisher, subscriber = clients
    publish(publisher, "a")
    (first,) = pull(subscriber)
    subscriber.modify_ack_deadline(subscription=SUBSCRIPTION, ack_ids=[first.ack_id], ack_deadline_seconds=60)
    clock.now = 59
    assert pull(subscriber) == []
    clock.now = 60
    assert len(pull(subscriber)) == 1


def test_every_subscription_gets_its_copy_of_what_is_published_after_it(either):
    publisher, subscriber = either
    publish(publisher, "early")
    other = subscriber.create_subscription(name="projects/p/subscriptions/late", topic=TOPIC).name
    publish(publisher, "late")
    assert sorted(each.message.data for each in pull(subscriber)) == [b"early", b"late"]
    assert [each.message.data for each in pull(subscriber, subscription=other)] == [b"late"]


def test_no_more_than_asked_for_comes_in_one_pull(either):
    publisher, subscriber = either
    publish(publisher, *"abcde")
    assert [len(pull(subscriber, max_messages=2)) for _ in range(4)] == [2, 2, 1, 0]


def test_a_pull_waits_for_a_message(either):
    publisher, subscriber = either
    late = threading.Timer(0.2, publish, [publisher, "a"])
    late.start()
    assert [each.message.data for each in pull(subscriber, return_immediately=False)] == [b"a"]
    late.join()


def test_a_stream_delivers_redelivers_what_is_refused_and_stops_at_what_is_acknowledged(either):
    publisher, subscriber = either
    publish(publisher, *map(str, range(50)))
    seen, done = [], threading.Event()

    def receive(message):
        again = message.data in seen
        seen.append(message.data)
        (message.ack if again else message.nack)()
        if len(seen) == 100:
            done.set()

    stream = subscriber.subscribe(SUBSCRIPTION, receive)
    assert done.wait(60)
    stream.cancel()
    stream.result(timeout=60)
    assert sorted(seen) == sorted(2 * [str(number).encode() for number in range(50)])
    assert pull(subscriber) == []


def test_resources_are_made_found_listed_and_removed(either):
    publisher, subscriber = either
    assert publisher.get_topic(topic=TOPIC).name == TOPIC
    assert subscriber.get_subscription(subscription=SUBSCRIPTION).ack_deadline_seconds == 10
    assert [topic.name for topic in publisher.list_topics(project="projects/p")] == [TOPIC]
    assert [each.name for each in subscriber.list_subscriptions(project="projects/p")] == [SUBSCRIPTION]
    assert list(publisher.list_topics(project="projects/other")) == []
    publisher.delete_topic(topic=TOPIC)
    assert subscriber.get_subscription(subscription=SUBSCRIPTION).topic == "_deleted-topic_"
    subscriber.delete_subscription(subscription=SUBSCRIPTION)
    assert list(publisher.list_topics(project="projects/p")) == []
    assert list(subscriber.list_subscriptions(project="projects/p")) == []


@pytest.mark.parametrize(
    "act",
    [
        lambda publisher, _: publisher.publish("projects/p/topics/none", b"x").result(timeout=60),
        lambda publisher, _: publisher.get_topic(topic="projects/p/topics/none"),
        lambda publisher, _: publisher.delete_topic(topic="projects/p/topics/none"),
        lambda _, subscriber: subscriber.create_subscription(name=f"{SUBSCRIPTION}2", topic="projects/p/topics/none"),
        lambda _, subscriber: subscriber.delete_subscription(subscription="projects/p/subscriptions/none"),
        lambda _, subscriber: pull(subscriber, subscription="projects/p/subscriptions/none"),
    ],
)
def test_what_is_not_there_is_not_found(either, act):
    with pytest.raises(exceptions.NotFound):
        act(*either)


def test_a_name_is_given_once(either):
    publisher, subscriber = either
    with pytest.raises(exceptions.AlreadyExists):
        publisher.create_topic(name=TOPIC)
    with pytest.raises(exceptions.AlreadyExists):
        subscriber.create_subscription(name=SUBSCRIPTION, topic=TOPIC)


def test_an_empty_message_is_refused(either):
    with pytest.raises(exceptions.InvalidArgument):
        either[0].publish(TOPIC, b"").result(timeout=60)


def with_policies(subscriber, **policies):
    """A subscription `patient` of the topic, and a function that hands its message back; gives (attempt, ack id)."""
    name = "projects/p/subscriptions/patient"
    subscriber.create_subscription(request={"name": name, "topic": TOPIC, "ack_deadline_seconds": 10} | policies)

    def refuse():
        received = pull(subscriber, subscription=name)
        for each in received:
            subscriber.modify_ack_deadline(subscription=name, ack_ids=[each.ack_id], ack_deadline_seconds=0)
        return [each.delivery_attempt for each in received]

    return refuse


def test_what_is_refused_too_often_goes_to_the_dead_letters_and_says_where_it_comes_from(either):
    publisher, subscriber = either
    dead, cemetery = "projects/p/topics/dead", "projects/p/subscriptions/dead"
    publisher.create_topic(name=dead)
    subscriber.create_subscription(name=cemetery, topic=dead)
    policy = {"dead_letter_topic": dead, "max_delivery_attempts": 5}
    refuse = with_policies(subscriber, dead_letter_policy=policy)
    publish(publisher, "a")
    seen = [attempt for _ in range(10) for attempt in refuse()]
    assert seen == [1, 2, 3, 4, 5]
    (letter,) = pull(subscriber, subscription=cemetery, return_immediately=False)
    assert letter.message.data == b"a"
    assert letter.message.attributes["kind"] == "test"
    assert letter.message.attributes["CloudPubSubDeadLetterSourceSubscription"] == "patient"
    assert letter.message.attributes["CloudPubSubDeadLetterSourceDeliveryCount"] == "5"
    assert len(pull(subscriber)) == 1, "a subscription without a policy keeps its copy"


def test_what_cannot_be_buried_comes_again(clients):
    publisher, subscriber = clients
    policy = {"dead_letter_topic": "projects/p/topics/none", "max_delivery_attempts": 5}
    refuse = with_policies(subscriber, dead_letter_policy=policy)
    publish(publisher, "a")
    assert [refuse() for _ in range(7)] == [[1], [2], [3], [4], [5], [6], [7]]


@pytest.mark.parametrize("attempts", [4, 101])
def test_attempts_are_from_5_to_100(clients, attempts):
    policy = {"dead_letter_topic": TOPIC, "max_delivery_attempts": attempts}
    with pytest.raises(exceptions.InvalidArgument, match=f"must be from 5 to 100, got {attempts}"):
        with_policies(clients[1], dead_letter_policy=policy)


def test_the_pause_before_another_attempt_doubles_up_to_the_longest(clients, clock):
    """1, 2, 4, 5, 5 seconds."""
    publisher, subscriber = clients
    refuse = with_policies(
        subscriber, retry_policy={"minimum_backoff": {"seconds": 1}, "maximum_backoff": {"seconds": 5}}
    )
    publish(publisher, "a")
    assert len(refuse()) == 1
    for pause in (1, 2, 4, 5, 5):
        before = clock.now
        clock.now = before + pause - 0.1
        assert refuse() == []
        clock.now = before + pause
        assert len(refuse()) == 1


def test_a_stream_that_ends_gives_back_what_it_held(clients):
    """The clock stands still, so no deadline passes."""
    publisher, subscriber = clients
    publish(publisher, *"abc")
    taken = threading.Semaphore(0)
    with pubsub_v1.SubscriberClient() as other:
        stream = other.subscribe(SUBSCRIPTION, lambda message: taken.release())
        for _ in range(3):
            assert taken.acquire(timeout=60)
        assert pull(subscriber) == []
        stream.cancel()
        stream.result(timeout=60)
    assert sorted(each.message.data for each in pull(subscriber, return_immediately=False)) == [b"a", b"b", b"c"]


def test_children_find_the_server_and_the_environment_is_restored():
    before = os.environ.get("PUBSUB_EMULATOR_HOST")
    code = (
        "from google.cloud import pubsub_v1\n"
        f"print([topic.name for topic in pubsub_v1.PublisherClient().list_topics(project='projects/p')] == [{TOPIC!r}])"
    )
    with PubSub() as server:
        assert os.environ["PUBSUB_EMULATOR_HOST"] == server.address
        pubsub_v1.PublisherClient().create_topic(name=TOPIC)
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"
    assert os.environ.get("PUBSUB_EMULATOR_HOST") == before
