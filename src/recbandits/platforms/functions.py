"""Functions that events or schedules call: Cloud Functions, or a process on this machine.

A function is called at least once for each message of its topic, as Eventarc does it: with a CloudEvent
`google.cloud.pubsub.topic.v1.messagePublished`. It returns when its work is done, and raises when the message is to
come again. What has come ten times goes to the topic `<topic>-dead`.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from recbandits.checks import Rule, check_fields, require, require_field
from recbandits.platforms.jobs import NAME

ATTEMPTS = 10  # deliveries of a message before it goes to the dead letters
EVENT = "google.cloud.pubsub.topic.v1.messagePublished"
TOPIC = r"projects/[^/]+/topics/[^/]+"  # full name
TOPIC_OR_NONE = Rule(
    "'projects/<project>/topics/<topic>' or None",
    lambda topic: topic is None or (isinstance(topic, str) and re.fullmatch(TOPIC, topic)),
    object,
)
_CRON = r"([\d*,/-]+ ){4}[\d*,/-]+"


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
        check_fields(self, name=NAME, target=Rule("a Python name", str.isidentifier, str))
        require_field(self, "source", (self.source / "main.py").is_file(), "a directory with main.py")
        check_fields(self, topic=TOPIC_OR_NONE)
        require_field(self, "environment", all(isinstance(text, str) for text in texts), "a dict of texts")


class Functions(Protocol):
    """The functions of one platform; what goes wrong is a `PlatformError` of one sentence."""

    def deploy(self, function: Function) -> None:
        """Have a `Function` run, in place of the one of this name."""

    def delete(self, name: str) -> None:
        """Remove a function with its subscription; one that is gone already is no error."""

    def health(self, name: str) -> dict:
        """Dict: alive, ready, the reason why not, and the address that HTTP calls."""


def next_time(cron: str, after: datetime) -> datetime:
    """Return the first time of a cron string after an aware datetime, in UTC.

    The fields are minute, hour, day of the month, month, and day of the week (0 and 7 are Sunday), in UTC. Where both
    the day of the month and that of the week are restricted, either is enough. ValueError for another text, or one that
    has no time in the next 50 years.
    """
    from cronsim import CronSim, CronSimError  # the packages of functions do without it

    valid = isinstance(cron, str) and re.fullmatch(_CRON, cron) is not None
    require(valid, "cron", "five fields of numbers, *, commas, - and /, such as '*/10 * * * *'", cron)
    try:
        return next(CronSim(cron, after.astimezone(UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"cron must be as Unix reads it, got {cron!r}: {error or 'there is no such day'}") from None
