"""Pub/Sub of Google Cloud: topics, subscriptions, and what becomes of messages that nobody can take."""

from datetime import UTC, datetime, timedelta

from recbandits.platforms.functions import ATTEMPTS
from recbandits.platforms.gcp.assets import have
from recbandits.platforms.gcp.errors import explained
from recbandits.platforms.gcp.resources import remove
from recbandits.platforms.protocol import Resource
from recbandits.serving.sinks import PubSubSink

_DEADLINE = 60  # seconds that a reader has; Eventarc gives 10, too few for a busy warehouse
_KEPT = {"seconds": 7 * 24 * 3600}  # how long a message waits for its reader
_COUNT = "pubsub.googleapis.com/subscription/num_undelivered_messages"


class GcpMessages:
    """See `platforms.messages.Messages`.

    Args:
      config: Config
      clients: `Clients`
    """

    def __init__(self, config, clients):
        self._config, self._clients = config, clients

    def topic(self, name):
        """Find a topic, or make it.

        Args:
          name: such as "interactions"; the topic's id begins with the configuration's names.

        Returns:
          "projects/<project>/topics/<topic>".

        Raises:
          PlatformError: Pub/Sub refused.
        """
        return self._topic(f"projects/{self._config.project}/topics/{self._config.topic(name)}")

    def subscription(self, name, topic):
        """Find a subscription, or make it: it keeps what is published to a topic from now on until it is read.

        Args:
          name: its id without the configuration's names.
          topic: "projects/<project>/topics/<topic>".

        Returns:
          "projects/<project>/subscriptions/<subscription>".

        Raises:
          PlatformError: Pub/Sub refused.
        """
        full = f"projects/{self._config.project}/subscriptions/{self._config.topic(name)}"
        return self._subscription(full, topic)

    def bury(self, subscription, topic):
        """Send what a subscription has delivered ten times in vain to the topic `<topic>-dead`, where it waits a week.

        Pub/Sub's own account moves the messages: it may publish to that topic, and acknowledge in the subscription.

        Args:
          subscription: "projects/<project>/subscriptions/<subscription>".
          topic: "projects/<project>/topics/<topic>" that it reads.

        Returns:
          "projects/<project>/subscriptions/<topic>-dead", in which the dead letters wait.

        Raises:
          PlatformError: Pub/Sub refused.
        """
        dead = self._topic(f"{topic}-dead")
        kept = self._subscription(dead.replace("/topics/", "/subscriptions/"), dead)
        with explained(Resource("subscription", subscription), "given dead letters"):
            self._allow(self._clients.publisher, dead, "roles/pubsub.publisher")
            self._allow(self._clients.subscriber, subscription, "roles/pubsub.subscriber")
            policy = {"dead_letter_topic": dead, "max_delivery_attempts": ATTEMPTS}
            document = {"dead_letter_policy": policy, "ack_deadline_seconds": _DEADLINE}
            request = {"subscription": {"name": subscription, **document}, "update_mask": {"paths": list(document)}}
            self._clients.subscriber.update_subscription(request=request)
        return kept

    def publisher(self, topic):
        """`serving.sinks.PubSubSink` of a topic: `send` a list of records with `event_id` and `to_json`."""
        return PubSubSink(topic, self._clients.publisher)

    def backlog(self, name):
        """How many messages a subscription has not delivered, as Cloud Monitoring saw it last: up to minutes ago.

        Args:
          name: of the subscription, without the configuration's names.

        Raises:
          PlatformError: Cloud Monitoring refused.
        """
        now, subscription = datetime.now(UTC), self._config.topic(name)
        query = {
            "filter": f'metric.type="{_COUNT}" AND resource.labels.subscription_id="{subscription}"',
            "interval.startTime": (now - timedelta(minutes=10)).isoformat(),
            "interval.endTime": now.isoformat(),
        }
        with explained(Resource("subscription", subscription), "looked at"):
            path = f"v3/projects/{self._config.project}/timeSeries"
            series = self._clients.rest("monitoring", "GET", path, query=query).get("timeSeries", [])
        return int(series[0]["points"][0]["value"]["int64Value"]) if series else 0

    def delete(self, name):
        """Remove a topic, and the subscription of the same name; what is gone already is no error."""
        for kind in ("subscription", "topic"):
            resource = Resource(kind, f"projects/{self._config.project}/{kind}s/{self._config.topic(name)}")
            with explained(resource, "removed"):
                remove(self._clients, resource)

    def _topic(self, full):
        client = self._clients.publisher
        request = {"name": full, "labels": self._config.labels}
        have(
            self._config,
            Resource("topic", full),
            lambda: client.get_topic(topic=full),
            lambda: client.create_topic(request=request, retry=None),
        )
        return full

    def _subscription(self, full, topic):
        client = self._clients.subscriber
        request = {
            "name": full,
            "topic": topic,
            "ack_deadline_seconds": 60,
            "message_retention_duration": _KEPT,
            "expiration_policy": {},  # never: an idle subscription is otherwise gone after 31 days
            "labels": self._config.labels,
        }
        have(
            self._config,
            Resource("subscription", full),
            lambda: client.get_subscription(subscription=full),
            lambda: client.create_subscription(request=request, retry=None),
        )
        return full

    def _allow(self, client, resource, role):
        """Let Pub/Sub's own account do something to a topic or a subscription."""
        project = self._clients.projects.get_project(request={"name": f"projects/{self._config.project}"})
        number = project.name.removeprefix("projects/")
        member = f"serviceAccount:service-{number}@gcp-sa-pubsub.iam.gserviceaccount.com"
        policy = client.get_iam_policy(request={"resource": resource})
        if any(binding.role == role and member in binding.members for binding in policy.bindings):
            return
        policy.bindings.add(role=role, members=[member])
        client.set_iam_policy(request={"resource": resource, "policy": policy})
