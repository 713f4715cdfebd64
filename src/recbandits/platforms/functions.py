"""What the project asks of functions that events call: Cloud Functions, or a process on this machine.

A function is called at least once for each message of its topic, as Eventarc does it: with a CloudEvent
`google.cloud.pubsub.topic.v1.messagePublished`. It returns when its work is done, and raises when the message is to
come again. What has come ten times goes to the topic `<topic>-dead`.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from recbandits.checks import Rule, check_fields, require_field
from recbandits.platforms.jobs import NAME

ATTEMPTS = 10  # deliveries of a message before it goes to the dead letters
EVENT = "google.cloud.pubsub.topic.v1.messagePublished"
TOPIC = r"projects/[^/]+/topics/[^/]+"  # full name


@dataclass(frozen=True)
class Function:
    """One function, decorated by `functions_framework.cloud_event`, or by `functions_framework.http` without a topic.

    HTTP calls the latter, which only Google Cloud serves.
    """

    name: str  # at most 63 lower-case letters, digits and single hyphens
    source: Path  # directory with `main.py`
    target: str  # name of the Python function in it
    topic: str | None = None  # full name, as `platform.messages.topic` gives it, of the topic whose messages call it
    environment: dict = field(default_factory=dict)  # variables

    def __post_init__(self):
        object.__setattr__(self, "source", Path(self.source).absolute())
        object.__setattr__(self, "environment", dict(self.environment))
        texts = [text for pair in self.environment.items() for text in pair]
        named = self.topic is None or re.fullmatch(TOPIC, self.topic) is not None
        check_fields(self, name=NAME, target=Rule("a Python name", str.isidentifier, str))
        require_field(self, "source", (self.source / "main.py").is_file(), "a directory with main.py")
        require_field(self, "topic", named, "'projects/<project>/topics/<topic>' or None")
        require_field(self, "environment", all(isinstance(text, str) for text in texts), "a dict of texts")


class Functions(Protocol):
    """The functions of one platform; what goes wrong is a `PlatformError` of one sentence."""

    def deploy(self, function: Function) -> None:
        """Have a `Function` run, in place of the one of this name."""

    def delete(self, name: str) -> None:
        """Remove a function with its subscription; one that is gone already is no error."""

    def health(self, name: str) -> dict:
        """Dict: alive, ready, the reason why not, and the address that HTTP calls."""
