"""The plan of a re-training: enough new decisions, a window of time, and the model to go on from."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from recbandits.loop import canary
from recbandits.loop.models import Model
from recbandits.loop.steps import serving_model
from recbandits.platforms.protocol import Platform, PlatformError
from recbandits.platforms.warehouse import Join, Warehouse

PIPELINE = "re-training"
OVERLAP = 60.0  # seconds before the end of the data of the serving model, for decisions that were delivered late


class Plan(NamedTuple):
    """A re-training that is due."""

    name: str  # of the run; another one for other data, another window or another model to go on from
    start: datetime  # in UTC, from which on decisions are read
    end: datetime  # in UTC, before which they are read
    snapshot: str  # `Warehouse.snapshot` of that time
    serving: str  # version that serves, to go on from
    new: int  # decisions since the last verdict on a candidate


def due(
    warehouse: Warehouse,
    serving: Model,
    rule: Join,
    now: datetime,
    least_new: int,
    overlap: float = OVERLAP,
    since: datetime | None = None,
    shares: dict[str, int] | None = None,
) -> Plan | None:
    """Plan a re-training if it is due.

    It is due when at least `least_new` decisions are new since the last verdict on a candidate, with a report or with
    the default, and no canary waits for a verdict, as the `shares` of the traffic tell, a dict from version to
    percentage. Decisions before the aware datetime `since` do not count as new. Decisions that users may still report
    on are left for the next re-training. `span` describes the other arguments.
    """
    verdicts = warehouse.verdicts()
    experiment = canary.experiment(shares or {}, verdicts)
    if experiment is not None and not experiment.promoted:
        return None
    start, end = span(warehouse, serving, rule, now, overlap)
    starts = [serving.until, *([] if since is None else [since])]
    judgements = verdicts[verdicts["kind"].isin(["deployed", "held", "refused"])]
    starts += [] if judgements.empty else [judgements["time"].max().to_pydatetime() - timedelta(seconds=rule.window)]
    counts = warehouse.counts(max(starts), end, rule) if max(starts) < end else None
    new = 0 if counts is None else counts.joined + (0 if rule.default is None else counts.defaulted)
    if new < least_new:
        return None
    snapshot = warehouse.snapshot(start, end)
    digest = hashlib.blake2b(f"{start} {end} {snapshot}".encode(), digest_size=8).hexdigest()
    return Plan(f"{PIPELINE}-{digest}-{serving.version[:8]}", start, end, snapshot, serving.version, new)


def span(
    warehouse: Warehouse, serving: Model, rule: Join, now: datetime, overlap: float = OVERLAP
) -> tuple[datetime, datetime]:
    """Compute the window of time of a re-training: (start, end), datetimes in UTC.

    It ends a window before `now`, an aware datetime, or before the newest reward or decision that has been logged,
    whichever is older: where rewards are delayed, decisions wait for them instead of counting as unanswered; where
    decisions are delayed, the window does not skip them. It starts `overlap` seconds before the end of the data of the
    serving model, to include decisions that were delivered late; no event is learnt twice. Decisions that are delivered
    later than that are never learnt.
    """
    state, start = warehouse.state(), serving.until - timedelta(seconds=overlap)
    newest = [state[name]["newest"] or start for name in ("interactions", "rewards")]
    end = min(now, *newest) - timedelta(seconds=rule.window)
    return start, max(start, end.astimezone(UTC))


def plan_now(platform: Platform, rule: Join) -> tuple[datetime, datetime, str]:
    """Plan a re-training that starts now, such as one that a schedule started without a plan.

    It returns (start, end, version that serves), and raises PlatformError if nothing serves yet.
    """
    serving = serving_model(platform)
    if serving is None:
        raise PlatformError("nothing serves yet that a re-training could go on from: run the start-up pipeline first")
    return (*span(platform.warehouse, serving, rule, datetime.now(UTC)), serving.version)
