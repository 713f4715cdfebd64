"""What the project asks of Pub/Sub: topics, who reads them, and how much waits."""

from typing import Any, Protocol


class Messages(Protocol):
    """Topics and subscriptions of one platform, named by the configuration; what goes wrong is a `PlatformError`."""

    def topic(self, name: str) -> str:
        """Find a topic, or make it; gives "projects/<project>/topics/<topic>"."""

    def subscription(self, name: str, topic: str) -> str:
        """Find a subscription, or make it: it keeps what is published to a topic from now on until it is read.

        Args:
          name: its id without the configuration's names.
          topic: "projects/<project>/topics/<topic>".

        Returns:
          "projects/<project>/subscriptions/<subscription>".
        """

    def publisher(self, topic: str) -> Any:
        """Sink of `serving.outbox.Outbox` for a topic: `send` takes a list of records with `event_id` and `to_json`."""

    def backlog(self, name: str) -> int:
        """How many messages a subscription has not delivered."""

    def delete(self, name: str) -> None:
        """Remove a topic, and the subscription of the same name; what is gone already is no error."""
