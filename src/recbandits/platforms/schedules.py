"""What the project asks of a scheduler: at the times of a cron string, say something to a topic or to an address.

A cron string has the five fields of Unix: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday),
in UTC. Where both the day of the month and that of the week are restricted, either is enough.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Protocol

from recbandits.platforms.jobs import NAME

_FIELDS = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "day_of_week": (0, 7)}
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TARGET = r"projects/[^/]+/topics/[^/]+|https?://[^/]+(/.*)?"


@dataclass(frozen=True)
class Schedule:
    """One schedule.

    Attributes:
      name: at most 63 lower-case letters, digits and single hyphens.
      cron: when, in UTC; see `fields_of`.
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
        fields_of(self.cron)
        if not isinstance(self.target, str) or not re.fullmatch(_TARGET, self.target):
            raise ValueError(
                f"Schedule: target must be 'projects/<project>/topics/<topic>' or a web address, got {self.target!r}"
            )
        if not isinstance(self.payload, dict):
            raise ValueError(f"Schedule: payload must be a dict, got {self.payload!r}")
        object.__setattr__(self, "payload", json.loads(json.dumps(self.payload)))


class Schedules(Protocol):
    """The schedules of one platform; what goes wrong is a `PlatformError` of one sentence."""

    def create(self, name, cron, target, payload=None):
        """Make a `Schedule`, or change the one of this name; gives it. It is not paused any more."""

    def list(self):
        """List every `Schedule` of this configuration, in order of name."""

    def pause(self, name):
        """Silence a schedule until it is created again."""

    def delete(self, name):
        """Remove a schedule; one that is gone already is no error."""


def fields_of(cron):
    """Read a cron string.

    Args:
      cron: five fields, each "*", numbers, ranges "a-b", lists "a,b", steps "*/n" or "a-b/n".

    Returns:
      dict from "minute", "hour", "day", "month" and "day_of_week" to a sorted list of whole numbers (Sunday is 0), or
      to None for every one.

    Raises:
      ValueError: it is not a cron string, in a sentence that names the field.
    """
    texts = cron.split() if isinstance(cron, str) else []
    if len(texts) != len(_FIELDS):
        raise ValueError(f"cron must have five fields, such as '*/10 * * * *', got {cron!r}")
    return {name: _values(name, text) for name, text in zip(_FIELDS, texts, strict=True)}


def trigger_of(cron):
    """The `apscheduler.triggers` that fires at the times of a cron string, in UTC.

    APScheduler's own `from_crontab` takes 0 for Monday, and asks for both days where Unix asks for either.

    Raises:
      ValueError: it is not a cron string.
    """
    from apscheduler.triggers.combining import OrTrigger
    from apscheduler.triggers.cron import CronTrigger

    fields = fields_of(cron)
    if days := fields["day_of_week"]:
        fields["day_of_week"] = [_DAYS[day] for day in days]
    given = {name: ",".join(map(str, values)) for name, values in fields.items() if values}
    if not {"day", "day_of_week"} <= given.keys():
        return CronTrigger(timezone="UTC", **{name: given.get(name, "*") for name in _FIELDS})
    either = [{name: text for name, text in given.items() if name != other} for other in ("day", "day_of_week")]
    return OrTrigger([CronTrigger(timezone="UTC", **{"minute": "*", "hour": "*"} | part) for part in either])


def _values(name, text):
    low, high = _FIELDS[name]
    found = set()
    for part in text.split(","):
        match = re.fullmatch(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/([1-9]\d?))?", part)
        if not match:
            raise ValueError(f"cron: {name} must be *, numbers, ranges or steps, got {part!r}")
        first, last, step = (match[1], match[2], int(match[3] or 1))
        begin = low if first is None else int(first)
        end = int(last) if last else high if first is None or match[3] else begin
        if not low <= begin <= end <= high:
            raise ValueError(f"cron: {name} must be within {low} to {high}, got {part!r}")
        found |= set(range(begin, end + 1, step))
    if name == "day_of_week":
        found = {day % 7 for day in found}
    everything = range(low, 7 if name == "day_of_week" else high + 1)
    return None if found == set(everything) else sorted(found)
