"""The event log of a server: decisions leave by a background thread, and never keep a prediction waiting.

The queue is bounded. While it is at most half full every decision is kept; above that with a probability that falls
from 1 to one in a million at the brim, depends on nothing but how full it is, and is written into the record as
`pass_prob`. So what is left of the log still tells without bias what happened, each record weighted by 1 / pass_prob.
"""

import dataclasses
import logging
import os
import random
import threading
import time
from collections import deque

_LONGEST_PAUSE = 3.2  # seconds between two attempts
_PATIENCE = 5.0  # seconds for one request to Pub/Sub
_REQUEST = 5_000_000  # bytes in one request to Pub/Sub, which takes 10 MB


def pass_probability(fill):
    """Probability to be kept by a queue that is filled to this share: 1 up to 1/2, then 10^(-12 (fill - 1/2))."""
    return min(1.0, 10.0 ** (6.0 - 12.0 * fill))


class Outbox:
    """A bounded queue, and one thread that hands its records in batches to a sink.

    A batch that does not get through is tried again until it does; the queue fills meanwhile and thins out what comes.
    In a forked process the queue begins empty, with a thread of its own.

    Args:
      open_sink: function without arguments by which the thread opens the sink, an object with `send(interactions)`. It
        returns when a list of `Interaction` is delivered, raises ValueError if it will never take them, and any other
        exception when another attempt may succeed.
      size: of the queue.
      batch: records handed over at once, at most.
      seconds: how long a record waits for others; every request to a sink takes processor time from the answers.
      seed: of the draws that keep or drop; None for fresh entropy.
    """

    def __init__(self, open_sink, size=20_000, batch=500, seconds=0.5, seed=None):
        if not 1 <= batch <= size:
            raise ValueError(f"batch must be from 1 to the size of the queue, {size}, got {batch}")
        self._open_sink, self._size, self._batch, self._seconds = open_sink, size, batch, seconds
        self._random = random.Random(seed)
        self._process = None
        self._reset()

    def put(self, decision, when):
        """Keep a decision or drop it; never waits, and never raises because of the sink.

        Args:
          decision: has `interaction(when)`, such as a `Recommendation`; the thread calls it later.
          when: datetime of the decision, with its zone.
        """
        if self._process != os.getpid():
            self._reset()
            self._process = os.getpid()
            self._thread.start()
        self._put += 1
        fill = len(self._queue) / self._size
        probability = pass_probability(fill)
        if fill < 1 and (probability == 1 or self._random.random() < probability):
            self._queue.append((decision, when, probability))
        else:
            self._dropped += 1

    @property
    def counters(self):
        """Dict of counts since the start: put = dropped + delivered + failed + waiting; retried is of attempts."""
        return {
            "put": self._put,
            "dropped": self._dropped,
            "delivered": self._delivered,
            "failed": self._failed,
            "waiting": self._put - self._dropped - self._delivered - self._failed,
            "retried": self._retried,
        }

    def close(self, timeout=10.0):
        """Deliver what waits, for at most `timeout` seconds, and end; what is left then has failed.

        Returns:
          `counters` at the end.
        """
        if self._process == os.getpid():
            self._closing.set()
            self._thread.join(timeout)
            self._given_up = True
            self._failed += self.counters["waiting"]
        return self.counters

    def _reset(self):
        self._queue = deque()
        self._put = self._dropped = self._delivered = self._failed = self._retried = 0
        self._closing, self._given_up = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def _run(self):
        sink, ended = None, False
        while not ended:
            ended = self._closing.wait(self._seconds)
            while self._queue and not self._given_up:
                interactions = self._take()
                sink = self._deliver(interactions, sink)

    def _take(self):
        """The next batch as interactions; what makes none has failed."""
        interactions = []
        for _ in range(min(self._batch, len(self._queue))):
            decision, when, probability = self._queue.popleft()
            try:
                interaction = decision.interaction(when)
                if probability < 1:
                    interaction = dataclasses.replace(interaction, pass_prob=probability)
                interactions.append(interaction)
            except ValueError as error:
                self._failed += 1
                logging.warning("a decision could not be logged: %s", error)
        return interactions

    def _deliver(self, interactions, sink):
        """Send until it is done or refused for good; gives the open sink."""
        pause = self._seconds
        while not self._given_up:
            try:
                sink = sink or self._open_sink()
                sink.send(interactions)
                self._delivered += len(interactions)
                return sink
            except ValueError as error:
                self._failed += len(interactions)
                logging.warning("%d decisions could not be logged: %s", len(interactions), error)
                return sink
            except Exception as error:
                self._retried += 1
                logging.warning("the event log is not reached, it is tried again: %s", error)
            time.sleep(pause)
            pause = self._seconds if self._closing.is_set() else min(2 * pause, _LONGEST_PAUSE)
        return sink


class PubSubSink:
    """Publishes interactions as JSON, the event id as attribute, many in one request.

    Args:
      topic: "projects/<project>/topics/<topic>".
      client: `google.pubsub_v1.PublisherClient`; None for one that is made here.
    """

    def __init__(self, topic, client=None):
        from google.cloud import pubsub_v1

        self._topic, self._open = topic, pubsub_v1.PublisherClient if client is None else lambda: client
        self._client = self._open()

    def send(self, interactions):
        """Publish; see `Outbox` for what is raised."""
        from google.api_core.exceptions import GoogleAPICallError, InvalidArgument
        from google.pubsub_v1 import PublisherClient, PublishRequest, PubsubMessage

        message, request = PubsubMessage.pb(), PublishRequest.pb()
        messages = [
            message(data=each.to_json().encode(), attributes={"event_id": each.event_id}) for each in interactions
        ]
        try:
            for part in _parts(messages):
                # The client's own `publish` batches too, with a future for each message; this is the one below it.
                asked = request(topic=self._topic, messages=part)
                PublisherClient.publish(self._client, asked, retry=None, timeout=_PATIENCE)
        except InvalidArgument as error:
            raise ValueError(str(error)) from error
        except GoogleAPICallError:
            self._reconnect()
            raise

    def _reconnect(self):
        """Begin anew: a connection that broke waits longer after each attempt, up to two minutes."""
        before, self._client = self._client, self._open()
        if self._client is not before:
            before.transport.close()


def _parts(messages):
    """Split messages into lists small enough for one request; one that is too large by itself stays alone."""
    part, size = [], 0
    for message in messages:
        if part and size + message.ByteSize() > _REQUEST:
            yield part
            part, size = [], 0
        part.append(message)
        size += message.ByteSize()
    if part:
        yield part
