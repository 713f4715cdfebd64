"""Pub/Sub of Google Cloud: topics, subscriptions, dead letters, and who may publish.

Google's clients use the emulator that PUBSUB_EMULATOR_HOST names.
"""

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial

from google.api_core.exceptions import Forbidden, NotFound

from recbandits.platforms.functions import ATTEMPTS
from recbandits.platforms.gcp.cloud import Service, client, explained, have, project_number, rest
from recbandits.platforms.gcp.project import by_client, grant, service_agent
from recbandits.platforms.protocol import PlatformError
from recbandits.serving.sinks import PubSubSink

_DEADLINE = 60  # seconds until a message that was not acknowledged comes again; Eventarc's 10 are too few
_RETENTION = {"seconds": 7 * 24 * 3600}
_METRIC = "pubsub.googleapis.com/subscription/num_undelivered_messages"


class GcpMessages(Service):
    """See `platforms.protocol.Messages`."""

    _publisher = client("pubsub_v1", "PublisherClient")
    _subscriber = client("pubsub_v1", "SubscriberClient")

    def topic(self, name: str) -> str:
        """See `Messages.topic`."""
        return self._have_topic(self._full("topics", name))

    def subscription(self, name: str, topic: str) -> str:
        """See `Messages.subscription`; it keeps messages for a week, and never expires."""
        return self._have_subscription(self._full("subscriptions", name), topic)

    def publisher(self, topic: str) -> PubSubSink:
        """See `Messages.publisher`."""
        return PubSubSink(topic, self._publisher)

    def add_dead_letters(self, subscription: str, topic: str) -> None:
        """Move what a subscription to a topic has delivered ten times in vain to the topic `<topic>-dead`.

        Pub/Sub's own account moves the messages: it may publish to that topic, and acknowledge in the subscription.
        They wait a week in a subscription of their own.
        """
        agent = service_agent("pubsub", project_number(self._config))
        dead = self._have_topic(f"{topic}-dead")
        self._have_subscription(dead.replace("/topics/", "/subscriptions/"), dead)
        self.allow(dead, "roles/pubsub.publisher", agent)
        self.allow(subscription, "roles/pubsub.subscriber", agent)
        policy = {"dead_letter_topic": dead, "max_delivery_attempts": ATTEMPTS}
        changes = {"dead_letter_policy": policy, "ack_deadline_seconds": _DEADLINE}
        request = {"subscription": {"name": subscription, **changes}, "update_mask": {"paths": list(changes)}}
        with explained(f"subscription {subscription}"):
            self._subscriber.update_subscription(request=request)

    def allow(self, resource: str, role: str, account: str) -> None:
        """Give an account, an e-mail address, a role on one topic or subscription, a full name."""
        service = self._publisher if "/topics/" in resource else self._subscriber
        with explained(f"role {role} on {resource}"):
            grant(by_client(service, resource), [(role, account)])

    def let_publish(self, topic: str, account: str) -> None:
        """Let an account publish to a topic; a step of a pipeline may not give roles, and leaves them as they are."""
        try:
            self.allow(topic, "roles/pubsub.publisher", account)
        except PlatformError as error:
            if not isinstance(error.__cause__, Forbidden):
                raise
            logging.warning("%s may not be allowed to publish: %s", account, error)

    def backlog(self, name: str) -> int:
        """See `Messages.backlog`; as Cloud Monitoring saw it, up to minutes ago.

        Eventarc names the subscriptions of functions itself: the topic knows them.
        """
        names, now = [self._full("subscriptions", name)], datetime.now(UTC)
        with explained(f"backlog of {name}"):
            with suppress(NotFound):  # the name of a subscription alone
                names += self._publisher.list_topic_subscriptions(topic=self._full("topics", name))
            ids = " OR ".join(f'resource.labels.subscription_id="{full.rpartition("/")[2]}"' for full in set(names))
            query = {
                "filter": f'metric.type="{_METRIC}" AND ({ids})',
                "interval.startTime": (now - timedelta(minutes=10)).isoformat(),
                "interval.endTime": now.isoformat(),
            }
            path = f"projects/{self._config.project}/timeSeries"
            series = rest("GET", f"https://monitoring.googleapis.com/v3/{path}", query=query).get("timeSeries", [])
        return sum(int(each["points"][0]["value"]["int64Value"]) for each in series)

    def delete(self, name: str) -> None:
        """See `Messages.delete`."""
        for service, kind in ((self._subscriber, "subscription"), (self._publisher, "topic")):
            full = self._full(f"{kind}s", name)
            with explained(f"{kind} {full}"), suppress(NotFound):
                getattr(service, f"delete_{kind}")(request={kind: full})

    def _full(self, kind, name):
        return f"projects/{self._config.project}/{kind}/{self._config.topic(name)}"

    def _have_topic(self, full):
        request = {"name": full, "labels": self._config.labels}
        with explained(f"topic {full}"):
            find = partial(self._publisher.get_topic, topic=full)
            return have(find, partial(self._publisher.create_topic, request=request)).name

    def _have_subscription(self, full, topic):
        request = {"name": full, "topic": topic, "labels": self._config.labels}
        request |= {"ack_deadline_seconds": _DEADLINE, "message_retention_duration": _RETENTION}
        request["expiration_policy"] = {}  # never: an idle subscription is otherwise removed after 31 days
        with explained(f"subscription {full}"):
            find = partial(self._subscriber.get_subscription, subscription=full)
            return have(find, partial(self._subscriber.create_subscription, request=request)).name
