"""Pub/Sub on loopback, for the real client: what this project asks of the service, in memory.

It keeps the promises of the service and no others: a message that is not acknowledged before its deadline comes again,
so every message comes at least once, in no particular order.
"""

import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import grpc
from google.protobuf import empty_pb2

VARIABLE = "PUBSUB_EMULATOR_HOST"  # by which the client finds a server that is not Google's
_DEADLINE = 10  # seconds, where a subscription names none
_LARGEST = 10 * 2**20  # bytes in a request
_POLL = 0.05  # seconds between two looks at a clock that may not be the machine's


class PubSub:
    """A server for use in a `with` block, in which clients of this process (and its children) find it.

    Args:
      port: on loopback; 0 for a free one.
      clock: function that gives seconds, by which deadlines pass.

    Attributes:
      address: "127.0.0.1:<port>".
    """

    def __init__(self, port=0, clock=time.monotonic):
        options = [("grpc.max_receive_message_length", 2 * _LARGEST), ("grpc.so_reuseport", 0)]
        self._server = grpc.server(ThreadPoolExecutor(32), options=options)
        self._server.add_generic_rpc_handlers(list(_handlers(_Service(clock))))
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"

    def __enter__(self):
        self._server.start()
        self._before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = self.address
        return self

    def __exit__(self, *_):
        if self._before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = self._before
        self._server.stop(None).wait()


class _Service:
    """The methods of the two services, as gRPC calls them: a request in protobuf and the call that it came with."""

    def __init__(self, clock):
        self._clock = clock
        self._topics, self._subscriptions = {}, {}
        self._numbers, self._turn = count(1), threading.Lock()

    def create_topic(self, topic, call):
        with self._turn:
            _refuse_second(self._topics, topic.name, call)
            self._topics[topic.name] = topic
        return topic

    def get_topic(self, request, call):
        return _found(self._topics, request.topic, call)

    def list_topics(self, request, call):
        return _pb("ListTopicsResponse")(topics=_below(request.project, self._topics))

    def delete_topic(self, request, call):
        _found(self._topics, request.topic, call)
        with self._turn:
            del self._topics[request.topic]
            for subscription in self._subscriptions.values():
                if subscription.settings.topic == request.topic:
                    subscription.settings.topic = "_deleted-topic_"
        return empty_pb2.Empty()

    def publish(self, request, call):
        _found(self._topics, request.topic, call)
        if not all(message.data or message.attributes for message in request.messages):
            call.abort(grpc.StatusCode.INVALID_ARGUMENT, "a message must have data or attributes, one has neither")
        with self._turn:
            for message in request.messages:
                message.message_id = str(next(self._numbers))
                message.publish_time.GetCurrentTime()
            for subscription in self._subscriptions.values():
                if subscription.settings.topic == request.topic:
                    subscription.put(request.messages)
        return _pb("PublishResponse")(message_ids=[message.message_id for message in request.messages])

    def create_subscription(self, settings, call):
        _found(self._topics, settings.topic, call)
        settings.ack_deadline_seconds = settings.ack_deadline_seconds or _DEADLINE
        with self._turn:
            _refuse_second(self._subscriptions, settings.name, call)
            self._subscriptions[settings.name] = _Subscription(settings, self._clock)
        return settings

    def get_subscription(self, request, call):
        return _found(self._subscriptions, request.subscription, call).settings

    def list_subscriptions(self, request, call):
        found = _below(request.project, self._subscriptions)
        return _pb("ListSubscriptionsResponse")(subscriptions=[each.settings for each in found])

    def delete_subscription(self, request, call):
        _found(self._subscriptions, request.subscription, call)
        del self._subscriptions[request.subscription]
        return empty_pb2.Empty()

    def pull(self, request, call):
        subscription = _found(self._subscriptions, request.subscription, call)
        patience = 0 if request.return_immediately else min(call.time_remaining() or 60, 60) - _POLL
        return _pb("PullResponse")(received_messages=subscription.take(request.max_messages, patience))

    def acknowledge(self, request, call):
        _found(self._subscriptions, request.subscription, call).acknowledge(request.ack_ids)
        return empty_pb2.Empty()

    def modify_ack_deadline(self, request, call):
        seconds = [request.ack_deadline_seconds] * len(request.ack_ids)
        _found(self._subscriptions, request.subscription, call).extend(request.ack_ids, seconds)
        return empty_pb2.Empty()

    def streaming_pull(self, requests, call):
        first = next(requests)
        subscription = _found(self._subscriptions, first.subscription, call)
        threading.Thread(target=subscription.obey, args=[requests], daemon=True).start()
        while call.is_active():
            if messages := subscription.take(1000, 0.5):
                yield _pb("StreamingPullResponse")(received_messages=messages)


class _Subscription:
    """Messages that wait, and those that are out until they are acknowledged or their time is up."""

    def __init__(self, settings, clock):
        self.settings, self._clock = settings, clock
        self._waiting, self._out = deque(), {}  # messages; ack id: (message, deadline)
        self._numbers, self._changed = count(1), threading.Condition()

    def put(self, messages):
        with self._changed:
            self._waiting.extend(messages)
            self._changed.notify_all()

    def take(self, limit, patience):
        """Up to `limit` messages as ReceivedMessage; waits up to `patience` seconds for the first."""
        end = time.monotonic() + patience
        with self._changed:
            self._expire()
            while not self._waiting and (left := end - time.monotonic()) > 0:
                self._changed.wait(min(left, _POLL))
                self._expire()
            taken = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
            ids = [f"{self.settings.name}:{next(self._numbers)}" for _ in taken]
            deadline = self._clock() + self.settings.ack_deadline_seconds
            self._out.update({ack_id: (message, deadline) for ack_id, message in zip(ids, taken, strict=True)})
        received = _pb("ReceivedMessage")
        return [received(ack_id=ack_id, message=message) for ack_id, message in zip(ids, taken, strict=True)]

    def acknowledge(self, ack_ids):
        with self._changed:
            for ack_id in ack_ids:
                self._out.pop(ack_id, None)

    def extend(self, ack_ids, seconds):
        """Give messages more time; 0 seconds hand one back."""
        with self._changed:
            for ack_id, more in zip(ack_ids, seconds, strict=True):
                if ack_id in self._out:
                    self._out[ack_id] = (self._out[ack_id][0], self._clock() + more)
            self._expire()
            self._changed.notify_all()

    def obey(self, requests):
        """Do what the requests of a stream say until it ends."""
        try:
            for request in requests:
                self.acknowledge(request.ack_ids)
                self.extend(request.modify_deadline_ack_ids, request.modify_deadline_seconds)
        except grpc.RpcError:
            return  # the client has hung up

    def _expire(self):
        now = self._clock()
        for ack_id in [ack_id for ack_id, (_, deadline) in self._out.items() if deadline <= now]:
            self._waiting.append(self._out.pop(ack_id)[0])


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


def _handlers(service):
    for name, requests in _REQUESTS.items():
        methods = {
            method.title().replace("_", ""): _method(getattr(service, method), _pb(request))
            for method, request in requests.items()
        }
        yield grpc.method_handlers_generic_handler(f"google.pubsub.v1.{name}", methods)


def _method(function, request):
    streams = function.__name__ == "streaming_pull"
    kind = grpc.stream_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    return kind(function, request.FromString, lambda answer: answer.SerializeToString())


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
