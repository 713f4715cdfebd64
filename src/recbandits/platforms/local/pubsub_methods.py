"""The methods of Pub/Sub's two services, on mailboxes."""

import contextlib
import functools
import sqlite3
import threading

import grpc
from google.protobuf import empty_pb2

from recbandits.platforms.local.mailboxes import Letter, Mailbox

_DEADLINE = 10  # seconds, where a subscription names none
_MARGIN = 0.05  # seconds before the end of a call in which it is answered
_ATTEMPTS = range(5, 101)  # of a dead letter policy, as the service has it
_DELETED = "_deleted-topic_"
_DEAD = "CloudPubSubDeadLetterSource"  # begins the attributes that tell where a dead letter comes from


# What each method of a service is asked with.
_REQUESTS = {
    "Publisher": {
        "create_topic": "Topic",
        "get_topic": "GetTopicRequest",
        "list_topics": "ListTopicsRequest",
        "delete_topic": "DeleteTopicRequest",
        "publish": "PublishRequest",
    },
    "Subscriber": {
        "create_subscription": "Subscription",
        "get_subscription": "GetSubscriptionRequest",
        "list_subscriptions": "ListSubscriptionsRequest",
        "delete_subscription": "DeleteSubscriptionRequest",
        "pull": "PullRequest",
        "acknowledge": "AcknowledgeRequest",
        "modify_ack_deadline": "ModifyAckDeadlineRequest",
        "streaming_pull": "StreamingPullRequest",
    },
}


def handlers(clock, store):
    """Handlers of both services, as a gRPC server takes them.

    Args:
      clock: function that gives seconds, by which deadlines pass.
      store: `Store` of what they keep.
    """
    service = _Methods(clock, store)
    for name, requests in _REQUESTS.items():
        methods = {
            method.title().replace("_", ""): _method(getattr(service, method), _pb(request))
            for method, request in requests.items()
        }
        yield grpc.method_handlers_generic_handler(f"google.pubsub.v1.{name}", methods)


def _method(function, request):
    streams = function.__name__ == "streaming_pull"
    kind = grpc.stream_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler

    @functools.wraps(function)
    def careful(asked, call):
        try:
            return function(asked, call)
        except sqlite3.Error as error:  # nothing was done; clients try again
            call.abort(grpc.StatusCode.UNAVAILABLE, f"the messages cannot be written: {error}")

    return kind(careful, request.FromString, lambda answer: answer.SerializeToString())


class _Methods:
    """The methods of both, as gRPC calls them: with a request in protobuf and the call that it came with."""

    def __init__(self, clock, store):
        self._clock, self._store, self._turn = clock, store, threading.Lock()
        read = _pb("Topic").FromString
        self._topics = {name: read(each) for name, each in store.rows("SELECT name, settings FROM topics")}
        read = _pb("Subscription").FromString
        found = store.rows("SELECT name, settings FROM subscriptions")
        self._mailboxes = {name: self._mailbox(read(each)) for name, each in found}
        for name, letter in _letters(store):
            self._mailboxes[name].put([letter])

    def create_topic(self, topic, call):
        with self._turn:
            _refuse_second(self._topics, topic.name, call)
            self._store.change("INSERT INTO topics VALUES (?, ?)", topic.name, topic.SerializeToString())
            self._topics[topic.name] = topic
        return topic

    def get_topic(self, request, call):
        return _found(self._topics, request.topic, call)

    def list_topics(self, request, call):
        return _pb("ListTopicsResponse")(topics=_below(request.project, self._topics))

    def delete_topic(self, request, call):
        _found(self._topics, request.topic, call)
        with self._turn:
            for mailbox in self._readers(request.topic):
                mailbox.settings.topic = _DELETED
                self._write_down(mailbox.settings)
            self._store.change("DELETE FROM topics WHERE name = ?", request.topic)
            del self._topics[request.topic]
        return empty_pb2.Empty()

    def publish(self, request, call):
        _found(self._topics, request.topic, call)
        if not all(message.data or message.attributes for message in request.messages):
            call.abort(grpc.StatusCode.INVALID_ARGUMENT, "a message must have data or attributes, one has neither")
        for message in request.messages:
            message.message_id = str(self._store.number())
            message.publish_time.GetCurrentTime()
        self._deliver(request.topic, request.messages)
        return _pb("PublishResponse")(message_ids=[message.message_id for message in request.messages])

    def create_subscription(self, settings, call):
        _found(self._topics, settings.topic, call)
        settings.ack_deadline_seconds = settings.ack_deadline_seconds or _DEADLINE
        if settings.HasField("dead_letter_policy"):
            _check_policy(settings.dead_letter_policy, call)
        with self._turn:
            _refuse_second(self._mailboxes, settings.name, call)
            self._write_down(settings)
            self._mailboxes[settings.name] = self._mailbox(settings)
        return settings

    def get_subscription(self, request, call):
        return _found(self._mailboxes, request.subscription, call).settings

    def list_subscriptions(self, request, call):
        found = _below(request.project, self._mailboxes)
        return _pb("ListSubscriptionsResponse")(subscriptions=[each.settings for each in found])

    def delete_subscription(self, request, call):
        _found(self._mailboxes, request.subscription, call)
        with self._turn:
            self._store.change("DELETE FROM waiting WHERE subscription = ?", request.subscription)
            self._store.change("DELETE FROM subscriptions WHERE name = ?", request.subscription)
            del self._mailboxes[request.subscription]
        return empty_pb2.Empty()

    def pull(self, request, call):
        mailbox = _found(self._mailboxes, request.subscription, call)
        patience = 0 if request.return_immediately else min(call.time_remaining() or 60, 60) - _MARGIN
        return _pb("PullResponse")(received_messages=_received(mailbox, request.max_messages, patience))

    def acknowledge(self, request, call):
        _found(self._mailboxes, request.subscription, call).acknowledge(request.ack_ids)
        return empty_pb2.Empty()

    def modify_ack_deadline(self, request, call):
        seconds = [request.ack_deadline_seconds] * len(request.ack_ids)
        _found(self._mailboxes, request.subscription, call).extend(request.ack_ids, seconds)
        return empty_pb2.Empty()

    def streaming_pull(self, requests, call):
        first = next(requests)
        mailbox = _found(self._mailboxes, first.subscription, call)
        threading.Thread(target=_obey, args=[mailbox, requests], daemon=True).start()
        try:
            while call.is_active():
                if messages := _received(mailbox, 1000, 0.5, call):
                    yield _pb("StreamingPullResponse")(received_messages=messages)
        finally:  # others need not wait for the deadlines of a client that is gone
            mailbox.give_back(call)

    def _mailbox(self, settings):
        return Mailbox(settings, self._clock, self._store, self._bury)

    def _write_down(self, settings):
        written = settings.name, settings.topic, settings.SerializeToString()
        self._store.change("INSERT OR REPLACE INTO subscriptions VALUES (?, ?, ?)", *written)

    def _readers(self, topic):
        return [mailbox for mailbox in list(self._mailboxes.values()) if mailbox.settings.topic == topic]

    def _deliver(self, topic, messages, gone=()):
        """Give messages to the subscriptions of a topic, and forget others, on disk first."""
        with self._turn:
            mailboxes = self._readers(topic)
            delivered = [[Letter(self._store.number(), message, 0) for message in messages] for _ in mailboxes]
            bodies = [message.SerializeToString() for message in messages]
            rows = [
                (letter.number, mailbox.settings.name, body)
                for mailbox, letters in zip(mailboxes, delivered, strict=True)
                for letter, body in zip(letters, bodies, strict=True)
            ]
            self._store.add(rows, gone)
        for mailbox, letters in zip(mailboxes, delivered, strict=True):
            mailbox.put(letters)

    def _bury(self, mailbox, letters):
        """Publish to the dead letter topic what was delivered too often; whether there is such a topic."""
        topic = mailbox.settings.dead_letter_policy.dead_letter_topic
        if topic not in self._topics:
            return False
        messages = [_dead(letter, mailbox.settings.name, str(self._store.number())) for letter in letters]
        self._deliver(topic, messages, gone=[letter.number for letter in letters])
        return True


def _letters(store):
    """(name of the subscription, letter) of all that was not acknowledged, in the order of publication."""
    read = _pb("PubsubMessage").FromString
    for number, name, body, attempts in store.rows("SELECT * FROM waiting ORDER BY number"):
        yield name, Letter(number, read(body), attempts)


def _received(mailbox, limit, patience, holder=None):
    """As ReceivedMessage what `Mailbox.take` gives; with attempts, from 1, where there is a dead letter policy."""
    received, counted = _pb("ReceivedMessage"), mailbox.settings.HasField("dead_letter_policy")
    return [
        received(ack_id=ack_id, message=letter.message, delivery_attempt=letter.attempts + 1 if counted else 0)
        for ack_id, letter in mailbox.take(limit, patience, holder)
    ]


def _obey(mailbox, requests):
    """Do what the requests of a stream say until it ends."""
    with contextlib.suppress(grpc.RpcError):  # the client has hung up
        for request in requests:
            with contextlib.suppress(sqlite3.Error):  # not done: the message comes again
                mailbox.acknowledge(request.ack_ids)
                mailbox.extend(request.modify_deadline_ack_ids, request.modify_deadline_seconds)


def _dead(letter, subscription, number):
    """The message by which a dead letter is published, with a number of its own and attributes that say why."""
    message = _pb("PubsubMessage")()
    message.CopyFrom(letter.message)
    message.message_id = number
    message.publish_time.GetCurrentTime()
    _, project, _, name = subscription.split("/")
    message.attributes[f"{_DEAD}DeliveryCount"] = str(letter.attempts)
    message.attributes[f"{_DEAD}Subscription"] = name
    message.attributes[f"{_DEAD}SubscriptionProject"] = project
    message.attributes[f"{_DEAD}TopicPublishTime"] = letter.message.publish_time.ToJsonString()
    return message


def _check_policy(policy, call):
    policy.max_delivery_attempts = policy.max_delivery_attempts or _ATTEMPTS[0]
    if policy.max_delivery_attempts not in _ATTEMPTS:
        call.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"max_delivery_attempts must be from {_ATTEMPTS[0]} to {_ATTEMPTS[-1]}, got {policy.max_delivery_attempts}",
        )


def _pb(name):
    """The protobuf class of a message of google.pubsub.v1."""
    from google.pubsub_v1 import types

    return getattr(types, name).pb()


def _found(resources, name, call):
    if name not in resources:
        call.abort(grpc.StatusCode.NOT_FOUND, f"{name} was not found")
    return resources[name]


def _refuse_second(resources, name, call):
    if name in resources:
        call.abort(grpc.StatusCode.ALREADY_EXISTS, f"{name} exists already")


def _below(project, resources):
    return [resource for name, resource in resources.items() if name.startswith(f"{project}/")]
