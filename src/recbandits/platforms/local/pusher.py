"""What Eventarc does: every message of a subscription is posted to a function as a CloudEvent until that takes it.

FUNCTION=127.0.0.1:8080 python -m recbandits.platforms.local.pusher projects/p/subscriptions/s projects/p/topics/t
"""

import argparse
import base64
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

from recbandits.platforms.functions import EVENT

_AT_ONCE = 32  # messages at the function
_ANSWER = 60  # seconds until it must answer, as long as Pub/Sub's own push waits at most by default
_POLL = 0.1  # seconds between two calls of a function that is away
_local = threading.local()


def event(message, topic, subscription):
    """A message as an HTTP request: a CloudEvent in binary mode.

    Args:
      message: has `message_id`, `publish_time`, `data`, `attributes`, `delivery_attempt`, as the client's messages.
      topic: "projects/<project>/topics/<topic>".
      subscription: "projects/<project>/subscriptions/<subscription>".

    Returns:
      (dict of headers, bytes of the body).
    """
    when = message.publish_time.isoformat().replace("+00:00", "Z")
    headers = {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": message.message_id,
        "ce-source": f"//pubsub.googleapis.com/{topic}",
        "ce-type": EVENT,
        "ce-time": when,
    }
    said = {
        "messageId": message.message_id,
        "publishTime": when,
        "data": base64.b64encode(message.data).decode(),
        "attributes": dict(message.attributes),
    }
    attempt = {"deliveryAttempt": message.delivery_attempt} if message.delivery_attempt else {}
    return headers, json.dumps({"message": said, "subscription": subscription} | attempt).encode()


def post(address, headers, body):
    """Post to a function; one that is away, or goes away before it answers, is asked again when it is back.

    Args:
      address: "<host>:<port>".
      headers: dict.
      body: bytes.

    Returns:
      The status of its answer; 504 if it gave none in time.
    """
    while True:
        try:
            connection = _connection(address)
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except TimeoutError:
            _local.connection.close()
            return HTTPStatus.GATEWAY_TIMEOUT.value
        except (OSError, HTTPException):
            _local.connection.close()
            time.sleep(_POLL)


def _connection(address):
    """This thread's connection."""
    if not hasattr(_local, "connection"):
        _local.connection = HTTPConnection(address, timeout=_ANSWER)
    return _local.connection


def main():
    """Push until the subscription is gone; what is not acknowledged when this ends comes again."""
    from google.cloud.pubsub_v1 import SubscriberClient
    from google.cloud.pubsub_v1.subscriber.scheduler import ThreadScheduler
    from google.cloud.pubsub_v1.types import FlowControl

    parser = argparse.ArgumentParser(prog="python -m recbandits.platforms.local.pusher", description=main.__doc__)
    for name in ("subscription", "topic"):
        parser.add_argument(name)
    asked = parser.parse_args()

    def push(message):
        status = post(os.environ["FUNCTION"], *event(message, asked.topic, asked.subscription))
        if 200 <= status < 300:
            message.ack()
        else:
            print(f"message {message.message_id} was answered {status}, it comes again", file=sys.stderr)
            message.nack()

    SubscriberClient().subscribe(
        asked.subscription,
        push,
        flow_control=FlowControl(max_messages=_AT_ONCE),
        scheduler=ThreadScheduler(ThreadPoolExecutor(_AT_ONCE)),
    ).result()


if __name__ == "__main__":
    main()
