"""The warehouse: decisions, their rewards, messages in quarantine, and verdicts about policies.

Writing is idempotent: a record that is written again has no effect, so a writer that is not sure writes it again.
Reading is a function of times that are given, never of a clock.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from recbandits import checks
from recbandits.platforms import warehouse_sql as sql
from recbandits.records import REPORT_RULES, Interaction, Verdict, arrow_schema
from recbandits.records.fields import TIME, read_id
from recbandits.records.records import Record

_LONGEST = 10**9  # seconds, 32 years; so that a time plus a window is a time
_REWARD = (pa.field("reward", pa.float64(), nullable=False), pa.field("reward_time", TIME.arrow))
_DECISIONS = pa.schema([*arrow_schema(Interaction), *_REWARD])


@dataclass(frozen=True)
class Join:
    """The rule by which decisions get their rewards.

    A report counts if it is known at most `window` seconds after the decision. Where silence is an answer, as no click
    is, it has a default reward. Where reports are missing at random, for all actions alike, a default scales all
    differences by the share of decisions that have a report, and changes no order.

    Decisions with a reward outside [lowest, highest] are quarantined for every reader. One of several reports of a
    decision is taken, or their sum, by one of `records.REPORT_RULES`. `skew` is for clients whose clocks are behind.
    """

    window: float  # seconds, positive
    lowest: float  # smallest reward that is possible
    highest: float  # largest one, above `lowest`
    default: float | None = None  # of a decision without a report, in [lowest, highest]; None leaves such decisions out
    take: str = "first"  # or "last", "sum", "max"
    skew: float = 1.0  # seconds, 0 or more, by which a report may be from before its decision

    def __post_init__(self):
        checks.check_fields(self, window=checks.POSITIVE, lowest=checks.FINITE, highest=checks.FINITE)
        checks.check_fields(self, skew=checks.NON_NEGATIVE, take=checks.one_of(REPORT_RULES))
        for name in ("window", "skew"):
            checks.require_field(self, name, getattr(self, name) <= _LONGEST, f"at most {_LONGEST} seconds")
        checks.require_field(self, "highest", self.lowest < self.highest, f"above lowest, {self.lowest:g}")
        known = checks.FINITE.accepts(self.default) and self.lowest <= self.default <= self.highest
        expected = f"None or a number from lowest to highest, {self.lowest:g} to {self.highest:g}"
        checks.require_field(self, "default", self.default is None or known, expected)


class Counts(NamedTuple):
    """Counts of all decisions and rewards of a span of time, by their state; `total` is the sum of all but `skewed`."""

    total: int  # rows of interactions, rewards and quarantine, a joined pair taken as one
    joined: int  # decisions with a reward in the window and in the range
    defaulted: int  # decisions without, which have the default reward or stay out
    late: int  # first reports of defaulted decisions, after the window or before the decision
    duplicate: int  # any further row of an event, also where the rule for several reports takes it
    orphan: int  # rewards without a decision
    quarantined: int  # messages that make no record, and decisions with a reward outside the range
    skewed: int  # decisions whose reward is from before them, within the tolerance; they are counted above, too


class Warehouse(ABC):
    """Interactions, rewards, quarantined messages and verdicts of one project.

    A decision is the earliest row of an event. It gets its reward by a `Join`, whose window includes both ends; of
    reports at one time the smallest value is first. Of a decision whose reward is outside the range only `outside` and
    `counts` know. A span of time [start, end), aware datetimes, bounds the times of decisions, of rewards without one,
    and of quarantined messages; all else that an event has belongs to its decision.

    All methods raise ValueError for arguments that are not as described, and `PlatformError` with one sentence where
    the warehouse does not answer; what was to be written may be written then or not.
    """

    @abstractmethod
    def create(self) -> None:
        """Make the tables, and a view `decisions` of them for people, unless they are there."""

    @abstractmethod
    def query(self, text: str, parameters: dict | None = None) -> pa.Table:
        """Ask anything.

        Args:
          text: one statement in BigQuery's SQL; tables are `interactions`, `rewards`, `quarantine`, `verdicts`.
          parameters: dict from name to text, number or datetime, for `@name` in the statement.
        """

    @abstractmethod
    def _merge(self, groups):
        """Add the records of a dict from `Table` to list, unless they are there; how many were new."""

    @abstractmethod
    def _delete(self, statements, parameters):
        """Run statements that delete rows, all or none of them."""

    def write(self, records: Sequence[Record]) -> int:
        """Keep records of all kinds, in any mix, and return the number of those that are new.

        When this returns, they are on the disk.
        """
        groups = defaultdict(list)
        for record in records:
            checks.require(type(record) in sql.TABLES, "records", "Interaction, Reward, Verdict or Quarantined", record)
            groups[sql.TABLES[type(record)]].append(record)
        return self._merge(groups) if groups else 0

    def decisions(self, start: datetime, end: datetime, rule: Join) -> pa.Table:
        """Return the decisions of a span of time with their rewards, in order of time and event id.

        The table has the columns of `Interaction`, `reward` float64, and `reward_time` (of the report that was taken,
        of a sum the last one), null where the reward is the default.
        """
        return self._query_joined(sql.DECISIONS, start, end, rule).cast(_DECISIONS)

    def outside(self, start: datetime, end: datetime, rule: Join) -> pa.Table:
        """The decisions that are quarantined because of their rewards, which are outside the range; as `decisions`."""
        return self._query_joined(sql.OUTSIDE, start, end, rule).cast(_DECISIONS)

    def by_user(self, start: datetime, end: datetime, rule: Join) -> pd.DataFrame:
        """Add up what each user got from each version, in order of policy_version and user_id (text).

        Beside these, the DataFrame has the number of `decisions`, int64, and the `total` of their rewards, float64.
        Each decision for a user without an id, which is missing, is a row.
        """
        return self._query_joined(sql.BY_USER, start, end, rule).to_pandas()

    def served(self, start: datetime, end: datetime, version: str) -> int:
        """Count the decisions of a version in a span of time, whether they have a reward or not."""
        return self.query(sql.SERVED, _span(start, end) | {"version": version})["number"][0].as_py()

    def counts(self, start: datetime, end: datetime, rule: Join) -> Counts:
        """`Counts` of a span of time; see `decisions`."""
        rows = self._query_joined(sql.COUNTS, start, end, rule).to_pylist()
        numbers = dict.fromkeys(Counts._fields[1:], 0) | {row["fate"]: row["number"] for row in rows}
        numbers.pop("reward of a decision", None)
        return Counts(sum(numbers.values()) - numbers["skewed"], **numbers)

    def snapshot(self, start: datetime, end: datetime) -> str:
        """Text that stands for all rows on which `decisions` and `counts` of a span of time depend."""
        (row,) = self.query(sql.SNAPSHOT, _span(start, end)).to_pylist()
        return digest_of(f"{row['number']} {row['first']} {row['second']}")

    def verdicts(self) -> pd.DataFrame:
        """All verdicts in order of time: DataFrame with the fields of `Verdict`."""
        return self.query(sql.VERDICTS).cast(arrow_schema(Verdict)).to_pandas()

    def state(self) -> dict[str, dict]:
        """Count rows and find the newest time: dict of table to {"rows": int, "newest": datetime or None}."""
        rows = ((row["name"], row["number"], row["newest"]) for row in self.query(sql.STATE).to_pylist())
        return {name: {"rows": number, "newest": time and TIME.accept("newest", time)} for name, number, time in rows}

    def drop_before(self, time: datetime) -> None:
        """Forget decisions, rewards and quarantined messages from before a time; with a decision all of its event."""
        self._delete(sql.DROP, {"time": TIME.accept("time", time)})

    def forget(self, user_id: str | int) -> None:
        """Forget a user, text or a whole number: the decisions for this user, and their rewards."""
        self._delete(sql.FORGET, {"user": read_id("user_id", user_id)})

    def _query_joined(self, statement, start, end, rule):
        text = statement.format(joined=sql.joined(rule.take, rule.default is not None))
        return self.query(text, _span(start, end) | _join_parameters(start, end, rule))


def digest_of(text: str) -> str:
    """Return what stands for all that a record says, of which `text` is the JSON: BLAKE2b, 32 hexadecimal digits."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _span(start, end):
    """Parameters of the statements that bound a span; times of microseconds, as all times of the records."""
    return {"start": TIME.accept("start", start), "stop": TIME.accept("end", end)}


def _join_parameters(start, end, rule):
    """Parameters of the statements that join decisions and rewards."""
    window, skew = timedelta(seconds=rule.window), timedelta(seconds=rule.skew)
    first, last = (edge.replace(tzinfo=UTC) for edge in (datetime.min, datetime.max))
    parameters = {
        "since": start - skew if skew < start - first else first,
        "until": end + window if window < last - end else last,
        "microseconds": window // timedelta(microseconds=1),
        "skew": skew // timedelta(microseconds=1),
        "lowest": float(rule.lowest),
        "highest": float(rule.highest),
    }
    return parameters if rule.default is None else parameters | {"fallback": float(rule.default)}
