"""The contract between the real Pub/Sub client and the server that stands in for the service."""

import os
import subprocess
import sys
import threading

import pytest
from google.api_core import exceptions
from google.cloud import pubsub_v1

from recbandits.platforms.local.pubsub import PubSub

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


@pytest.fixture
def clients(clock):
    """(publisher, subscriber) with a topic and a subscription whose deadline is 10 seconds."""
    with PubSub(clock=clock):
        publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
        publisher.create_topic(name=TOPIC)
        subscriber.create_subscription(name=SUBSCRIPTION, topic=TOPIC)
        yield publisher, subscriber
        publisher.stop()
        publisher.transport.close()
        subscriber.close()


def publish(publisher, *texts):
    for future in [publisher.publish(TOPIC, text.encode(), kind="test") for text in texts]:
        future.result(timeout=10)


def pull(subscriber, **options):
    request = {"subscription": SUBSCRIPTION, "max_messages": 10, "return_immediately": True} | options
    return subscriber.pull(request=request, timeout=10).received_messages


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


def test_what_is_handed_back_comes_again_at_once(clients):
    publisher, subscriber = clients
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


def test_every_subscription_gets_its_copy_of_what_is_published_after_it(clients):
    publisher, subscriber = clients
    publish(publisher, "early")
    other = subscriber.create_subscription(name="projects/p/subscriptions/late", topic=TOPIC).name
    publish(publisher, "late")
    assert sorted(each.message.data for each in pull(subscriber)) == [b"early", b"late"]
    assert [each.message.data for each in pull(subscriber, subscription=other)] == [b"late"]


def test_no_more_than_asked_for_comes_in_one_pull(clients):
    publisher, subscriber = clients
    publish(publisher, *"abcde")
    assert [len(pull(subscriber, max_messages=2)) for _ in range(4)] == [2, 2, 1, 0]


def test_a_pull_waits_for_a_message(clients):
    publisher, subscriber = clients
    late = threading.Timer(0.2, publish, [publisher, "a"])
    late.start()
    assert [each.message.data for each in pull(subscriber, return_immediately=False)] == [b"a"]
    late.join()


def test_a_stream_delivers_redelivers_what_is_refused_and_stops_at_what_is_acknowledged(clients):
    publisher, subscriber = clients
    publish(publisher, *map(str, range(50)))
    seen, done = [], threading.Event()

    def receive(message):
        again = message.data in seen
        seen.append(message.data)
        (message.ack if again else message.nack)()
        if len(seen) == 100:
            done.set()

    stream = subscriber.subscribe(SUBSCRIPTION, receive)
    assert done.wait(20)
    stream.cancel()
    stream.result(timeout=10)
    assert sorted(seen) == sorted(2 * [str(number).encode() for number in range(50)])
    assert pull(subscriber) == []


def test_resources_are_made_found_listed_and_removed(clients):
    publisher, subscriber = clients
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
        lambda publisher, _: publisher.publish("projects/p/topics/none", b"x").result(timeout=10),
        lambda publisher, _: publisher.get_topic(topic="projects/p/topics/none"),
        lambda publisher, _: publisher.delete_topic(topic="projects/p/topics/none"),
        lambda _, subscriber: subscriber.create_subscription(name=f"{SUBSCRIPTION}2", topic="projects/p/topics/none"),
        lambda _, subscriber: subscriber.delete_subscription(subscription="projects/p/subscriptions/none"),
        lambda _, subscriber: pull(subscriber, subscription="projects/p/subscriptions/none"),
    ],
)
def test_what_is_not_there_is_not_found(clients, act):
    with pytest.raises(exceptions.NotFound, match="none was not found"):
        act(*clients)


def test_a_name_is_given_once(clients):
    publisher, subscriber = clients
    with pytest.raises(exceptions.AlreadyExists, match="events exists already"):
        publisher.create_topic(name=TOPIC)
    with pytest.raises(exceptions.AlreadyExists, match="reader exists already"):
        subscriber.create_subscription(name=SUBSCRIPTION, topic=TOPIC)


def test_an_empty_message_is_refused(clients):
    with pytest.raises(exceptions.InvalidArgument, match="must have data or attributes"):
        clients[0].publish(TOPIC, b"").result(timeout=10)


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
