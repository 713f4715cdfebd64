"""The plan of a re-training: enough new decisions, a window of time, and the model to go on from."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from recbandits.loop.canary import experiment
from recbandits.loop.steps import serving_model
from recbandits.platforms.protocol import PlatformError

PIPELINE = "re-training"
OVERLAP = 60.0  # seconds before the end of what serves has learnt: decisions that were delivered late are read then


class Plan(NamedTuple):
    """A re-training that is due.

    Attributes:
      name: of the run; another one for other data, another window or another model to go on from.
      start: datetime in UTC, from which on decisions are read.
      end: before which.
      snapshot: what the warehouse has of that time, in one word.
      serving: version that serves, to go on from.
      new: decisions since it was last decided about a candidate.
    """

    name: str
    start: datetime
    end: datetime
    snapshot: str
    serving: str
    new: int


def due(warehouse, serving, rule, now, least_new, overlap=OVERLAP, since=None, shares=None):
    """Whether it is time to train again.

    It is when so many decisions are new since the last verdict about a candidate, with a report or with the default,
    and no canary waits for a verdict. Decisions that people may still answer are left for the next time.

    Args:
      warehouse: `Warehouse`
      serving: `loop.models.Model` that serves.
      rule: `settings.Join`
      now: aware datetime.
      least_new: decisions that are enough.
      overlap: seconds, see `span`.
      since: aware datetime; decisions before it do not count as new. None for none.
      shares: traffic of the endpoint, dict from version to percentage, which tells whether a canary waits.

    Returns:
      `Plan`, or None.
    """
    verdicts = warehouse.verdicts()
    decided = verdicts[verdicts["kind"].isin(["deployed", "held", "refused"])]
    under = experiment(shares or {}, verdicts)
    if under is not None and not under.promoted:
        return None
    start, end = span(warehouse, serving, rule, now, overlap)
    news = [serving.until, *([] if since is None else [since])]
    news += [] if decided.empty else [decided["time"].max().to_pydatetime() - _seconds(rule.window)]
    counts = warehouse.counts(max(news), end, **vars(rule)) if max(news) < end else None
    new = 0 if counts is None else counts.joined + (0 if rule.default is None else counts.defaulted)
    if new < least_new:
        return None
    snapshot = warehouse.snapshot(start, end)
    about = hashlib.blake2b(f"{start} {end} {snapshot}".encode(), digest_size=8).hexdigest()
    return Plan(f"{PIPELINE}-{about}-{serving.version[:8]}", start, end, snapshot, serving.version, new)


def span(warehouse, serving, rule, now, overlap=OVERLAP):
    """The window of time of a re-training: (start, end), datetimes in UTC.

    It ends a window before now, or before the newest reward or decision that has been logged, whichever is older:
    where rewards wait on their way, decisions wait for them instead of counting as unanswered; where decisions wait,
    the model's time does not pass them by. It starts a while before the end of what the model has learnt from, to find
    what was delivered late; nothing is learnt twice. What is delivered later still is never learnt.

    Args:
      warehouse: `Warehouse`
      serving: `loop.models.Model`
      rule: `settings.Join`
      now: aware datetime.
      overlap: seconds.
    """
    state, start = warehouse.state(), serving.until - _seconds(overlap)
    newest = [state[name]["newest"] or start for name in ("interactions", "rewards")]
    end = min(now, *newest) - _seconds(rule.window)
    return start, max(start, end.astimezone(UTC))


def plan_now(platform, rule):
    """The window and the model of a re-training that was not planned before it began, as those of a schedule are.

    Args:
      platform: `Platform`
      rule: `settings.Join`

    Returns:
      (start, end, version that serves).

    Raises:
      PlatformError: nothing serves yet.
    """
    serving = serving_model(platform)
    if serving is None:
        raise PlatformError("nothing serves yet that a re-training could go on from: run the start-up pipeline first")
    return (*span(platform.warehouse, serving, rule, datetime.now(UTC)), serving.version)


def _seconds(number):
    return timedelta(seconds=number)
