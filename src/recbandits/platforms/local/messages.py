"""Pub/Sub on this machine: one durable server, started on demand, found by clients of this process and its children."""

import contextlib
import os
import sqlite3
import sys
from datetime import timedelta

from recbandits.platforms.functions import ATTEMPTS
from recbandits.platforms.local.services import Service
from recbandits.platforms.messages import VARIABLE
from recbandits.platforms.protocol import PlatformError
from recbandits.serving.outbox import PubSubSink

_ACK_DEADLINE = 10  # seconds, the least that Pub/Sub has: what a killed reader held comes again that soon
# Ten attempts take 51 seconds, in which a warehouse may be away; Eventarc begins with 10 s and ends at 600 s.
_RETRY = {"minimum_backoff": timedelta(seconds=0.1), "maximum_backoff": timedelta(minutes=1)}
_BACKLOG = """
SELECT count(*) FROM waiting JOIN subscriptions ON waiting.subscription = subscriptions.name
WHERE subscriptions.name = ? OR subscriptions.topic = ?
"""


class LocalMessages:
    """See `platforms.messages.Messages`.

    Attributes:
      service: `Service` of the server.
    """

    def __init__(self, config):
        self._config = config
        self.service = Service(config.artifacts_dir / "messages", "the Pub/Sub server")
        self._file = self.service.directory / "messages.sqlite"

    def start(self):
        """Start the server unless it runs, and have clients of this process find it.

        Raises:
          PlatformError: it did not start.
        """
        module = [sys.executable, "-m", "recbandits.platforms.local.pubsub"]
        self.service.start(lambda port: [*module, "--port", str(port), "--file", str(self._file)])
        os.environ[VARIABLE] = f"127.0.0.1:{self.service.port}"

    def stop(self):
        """See `Messages.stop`."""
        self.service.stop()

    def topic(self, name):
        """See `Messages.topic`."""
        from google.api_core.exceptions import AlreadyExists
        from google.cloud.pubsub_v1 import PublisherClient

        self.start()
        full = self._full("topics", name)
        with _explained(full, "made"), PublisherClient() as client, contextlib.suppress(AlreadyExists):
            client.create_topic(name=full)
        return full

    def subscription(self, name, topic, dead_letters=None):
        """See `Messages.subscription`.

        Args:
          name: as there.
          topic: as there.
          dead_letters: topic to which goes what was tried ten times, with pauses that double; None for no pauses and
            no end of attempts.
        """
        from google.api_core.exceptions import AlreadyExists
        from google.cloud.pubsub_v1 import SubscriberClient

        self.start()
        full = self._full("subscriptions", name)
        request = {"name": full, "topic": topic, "ack_deadline_seconds": _ACK_DEADLINE}
        if dead_letters:
            request["retry_policy"] = _RETRY
            request["dead_letter_policy"] = {"dead_letter_topic": dead_letters, "max_delivery_attempts": ATTEMPTS}
        with _explained(full, "made"), SubscriberClient() as client, contextlib.suppress(AlreadyExists):
            client.create_subscription(request=request)
        return full

    def publisher(self, topic):
        """See `Messages.publisher`."""
        self.start()
        return PubSubSink(topic)

    def backlog(self, name):
        """How many messages were not acknowledged yet, whether the server runs or not.

        Args:
          name: of a subscription, or of a topic for all its subscriptions; 0 if there is none.

        Raises:
          PlatformError: the server's file cannot be read.
        """
        if not self._file.exists():
            return 0
        names = self._full("subscriptions", name), self._full("topics", name)
        with _explained(names[1], "looked into"), contextlib.closing(sqlite3.connect(self._file)) as database:
            return database.execute(_BACKLOG, names).fetchone()[0]

    def delete(self, name):
        """See `Messages.delete`."""
        from google.api_core.exceptions import NotFound
        from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

        self.start()
        subscription, topic = self._full("subscriptions", name), self._full("topics", name)
        with _explained(subscription, "removed"), SubscriberClient() as client, contextlib.suppress(NotFound):
            client.delete_subscription(subscription=subscription)
        with _explained(topic, "removed"), PublisherClient() as client, contextlib.suppress(NotFound):
            client.delete_topic(topic=topic)

    def _full(self, kind, name):
        return f"projects/{self._config.project or 'local'}/{kind}/{self._config.topic(name)}"


@contextlib.contextmanager
def _explained(name, done):
    from google.api_core.exceptions import GoogleAPICallError

    try:
        yield
    except (GoogleAPICallError, sqlite3.Error) as error:
        raise PlatformError(f"{name} could not be {done}: {getattr(error, 'message', error)}") from error
