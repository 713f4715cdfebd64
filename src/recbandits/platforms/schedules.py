"""Schedules: at the times of a cron string, a message to a topic or a request to an address.

A cron string has the five fields of Unix: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday),
in UTC. Where both the day of the month and that of the week are restricted, either is enough.
"""

import builtins
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from cronsim import CronSim, CronSimError

from recbandits.platforms.jobs import NAME

_CRON = r"([\d*,/-]+ ){4}[\d*,/-]+"
_TARGET = r"projects/[^/]+/topics/[^/]+|https?://[^/]+(/.*)?"


@dataclass(frozen=True)
class Schedule:
    """One schedule.

    Attributes:
      name: at most 63 lower-case letters, digits and single hyphens.
      cron: when, in UTC; see `next_time`.
      target: "projects/<project>/topics/<topic>" as `platform.messages.topic` gives it, or the address of an HTTP
        function, which gets a POST.
      payload: dict that JSON can say: the data of each message, or the body.
      paused: whether it is silent for now.

    Raises:
      ValueError: a field is not as said here.
    """

    name: str
    cron: str
    target: str
    payload: dict = field(default_factory=dict)
    paused: bool = False

    def __post_init__(self):
        if not isinstance(self.name, str) or not re.fullmatch(NAME, self.name):
            raise ValueError(
                f"Schedule: name must be at most 63 lower-case letters, digits and single hyphens, got {self.name!r}"
            )
        next_time(self.cron, datetime.now(UTC))
        if not isinstance(self.target, str) or not re.fullmatch(_TARGET, self.target):
            raise ValueError(
                f"Schedule: target must be 'projects/<project>/topics/<topic>' or a web address, got {self.target!r}"
            )
        if not isinstance(self.payload, dict):
            raise ValueError(f"Schedule: payload must be a dict, got {self.payload!r}")
        object.__setattr__(self, "payload", json.loads(json.dumps(self.payload)))


class Schedules(Protocol):
    """The schedules of one platform; what goes wrong is a `PlatformError` of one sentence."""

    def create(self, name: str, cron: str, target: str, payload: dict | None = None) -> Schedule:
        """Make a `Schedule`, or change the one of this name; gives it. It is not paused any more."""

    def list(self) -> builtins.list[Schedule]:
        """List every `Schedule` of this configuration, in order of name."""

    def pause(self, name: str) -> None:
        """Silence a schedule until it is created again."""

    def delete(self, name: str) -> None:
        """Remove a schedule; one that is gone already is no error."""


def next_time(cron: str, after: datetime) -> datetime:
    """Return the first time of a cron string after an aware datetime, in UTC.

    Raises:
      ValueError: it is not a cron string, or has no time in the next 50 years.
    """
    if not isinstance(cron, str) or not re.fullmatch(_CRON, cron):
        raise ValueError(
            f"cron must have five fields of numbers, *, commas, - and /, such as '*/10 * * * *', got {cron!r}"
        )
    try:
        return next(CronSim(cron, after.astimezone(UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"cron must be as Unix reads it, got {cron!r}: {error or 'there is no such day'}") from None
