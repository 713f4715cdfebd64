"""Contract of the messages of every platform."""

import json
from datetime import UTC, datetime

import pytest

from recbandits.records import Reward


class MessagesContract:
    """Subclasses have the fixtures `messages` and `take`: a function that takes what waits in a subscription.

    `take(subscription, number)` returns (data, attributes) of so many messages, and acknowledges them.
    """

    @pytest.fixture
    def topic(self, messages):
        """A topic of its own, removed at the end with the subscription of its name."""
        yield messages.topic("contract")
        messages.delete("contract")

    def test_a_topic_and_a_subscription_are_made_once(self, messages, topic):
        assert messages.topic("contract") == topic
        first, again = (messages.subscription("contract", topic) for _ in range(2))
        assert first == again == topic.replace("/topics/", "/subscriptions/")

    def test_every_subscription_gets_every_record_that_is_published_after_it_was_made(self, messages, topic, take):
        publisher = messages.publisher(topic)
        rewards = [Reward(f"event-{n}", datetime(2026, 1, 1, tzinfo=UTC), n / 10) for n in range(20)]
        first = messages.subscription("contract", topic)
        publisher.send(rewards[:5])
        second = messages.subscription("contract-later", topic)
        publisher.send(rewards[5:])
        assert self.records(take(first, 20)) == rewards
        assert self.records(take(second, 15)) == rewards[5:]
        assert take(first, 0) == []
        messages.delete("contract-later")

    def test_a_record_carries_its_event_id_and_its_json(self, messages, topic, take):
        reader = messages.subscription("contract", topic)
        reward = Reward("säße-1", datetime(2026, 1, 1, tzinfo=UTC), -0.25)
        messages.publisher(topic).send([reward])
        ((data, attributes),) = take(reader, 1)
        assert attributes["event_id"] == "säße-1"
        assert json.loads(data) == json.loads(reward.to_json())

    def test_deleting_what_is_not_there_is_no_error(self, messages):
        messages.delete("contract-absent")

    @staticmethod
    def records(messages):
        """The rewards of messages, in the order of their ids; a topic does not keep the order of its messages."""
        rewards = [Reward.from_json(data.decode()) for data, _ in messages]
        return sorted(rewards, key=lambda reward: int(reward.event_id.rpartition("-")[2]))
