"""The warehouse: what was decided, what came of it, what was refused, and what was decided about policies.

Writing is idempotent: a record that is written again has no effect, so whoever is not sure that it was written writes
it again. Reading is a function of times that are given, never of a clock.
"""

import dataclasses
import hashlib
import math
from abc import ABC, abstractmethod
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pyarrow as pa

from recbandits import checks
from recbandits.platforms import warehouse_sql as sql
from recbandits.records import REPORT_RULES, Interaction, Verdict, arrow_schema
from recbandits.records.fields import TIME

_LONGEST = 10**9  # seconds, 32 years; so that a time plus a window is a time
_DECISIONS = arrow_schema(Interaction).append(pa.field("reward", pa.float64(), nullable=False))
_DECISIONS = _DECISIONS.append(pa.field("reward_time", TIME.arrow))


class Counts(NamedTuple):
    """What became of everything that has to do with a span of time; `total` is the sum of the others.

    Attributes:
      total: rows of interactions, rewards and quarantine, a joined pair taken as one.
      joined: decisions with a reward in the window.
      defaulted: decisions without, which have the default reward or stay out.
      late: first reports of defaulted decisions, after the window or before the decision.
      duplicate: any further row of an event, also where the rule for several reports takes it.
      orphan: rewards without a decision.
      quarantined: messages that make no record.
    """

    total: int
    joined: int
    defaulted: int
    late: int
    duplicate: int
    orphan: int
    quarantined: int


class Warehouse(ABC):
    """Interactions, rewards, quarantined messages and verdicts of one project.

    A decision is the earliest row of an event. Its reward comes from the reports from its time to `window` seconds
    later, both included: by the rule `take` from the first, the last or the largest of several (of equal times the
    smaller value is first), or as their sum. Without a report it is `default`, or the decision stays out where that is
    None. A span of time [start, end) bounds the times of decisions, of rewards without one, and of quarantined
    messages; whatever else an event has belongs to its decision.

    All methods raise ValueError for arguments that are not as described, and `PlatformError` with one sentence where
    the warehouse does not answer; what was to be written may be written then or not.
    """

    @abstractmethod
    def create(self):
        """Make the tables, and a view `decisions` of them for people, unless they are there."""

    @abstractmethod
    def query(self, text, parameters=None):
        """Ask anything.

        Args:
          text: one statement in BigQuery's SQL; tables are `interactions`, `rewards`, `quarantine`, `verdicts`.
          parameters: dict from name to text, number or datetime, for `@name` in the statement.

        Returns:
          pyarrow.Table.
        """

    @abstractmethod
    def _merge(self, groups):
        """Add the records of a dict from `Table` to list, unless they are there; how many were new."""

    @abstractmethod
    def _drop(self, time):
        """Run the statements `DROP`, all or none of them."""

    def write(self, records):
        """Keep records; when this returns, they are kept for good.

        Args:
          records: list of `Interaction`, `Reward`, `Verdict`, `Quarantined`, in any mix.

        Returns:
          How many of them were new.
        """
        groups = defaultdict(list)
        for record in records:
            if type(record) not in sql.TABLES:
                raise ValueError(f"records must be Interaction, Reward, Verdict or Quarantined, got {record!r}")
            groups[sql.TABLES[type(record)]].append(record)
        return self._merge(groups) if groups else 0

    def quarantine(self, entries):
        """Keep a list of `Quarantined`; how many message ids were new."""
        return self.write(entries)

    def decisions(self, start, end, window, default=None, take="first"):
        """The decisions of a span of time with their rewards.

        Args:
          start: aware datetime, included.
          end: aware datetime, not included.
          window: seconds in which a reward counts.
          default: reward of a decision without a report; None leaves such decisions out.
          take: rule for several reports of one decision, one of `records.REPORT_RULES`.

        Returns:
          pyarrow.Table in order of time and event id, with the columns of `Interaction`, `reward` float64, and
          `reward_time` (of the report that was taken, of a sum the last one), null where the reward is the default.
        """
        return self._query_joined(sql.DECISIONS, start, end, window, default, take).cast(_DECISIONS)

    def rewards_of(self, version, start, end, window, default=None, take="first"):
        """Rewards of one version's decisions, float64 [decisions], in order of time; see `decisions`."""
        table = self._query_joined(sql.REWARDS_OF, start, end, window, default, take, version=version)
        return table["reward"].to_numpy()

    def by_version(self, start, end, window, default=None, take="first"):
        """Compare versions by what they got; see `decisions`.

        Returns:
          DataFrame indexed by policy_version, the first to decide first: number of `decisions`, `mean` and sample
          `variance` of the reward (NaN for one decision), times of the `first` and `last` decision.
        """
        table = self._query_joined(sql.BY_VERSION, start, end, window, default, take)
        return table.to_pandas().set_index("policy_version").astype({"mean": float, "variance": float})

    def by_user(self, start, end, window, default=None, take="first"):
        """Add up what each user got from each version; see `decisions`.

        Returns:
          DataFrame in order of policy_version and user_id (text), with these, the number of `decisions`, int64, and
          the `total` of their rewards, float64. Each decision for a user without an id, which is missing, is a row.
        """
        return self._query_joined(sql.BY_USER, start, end, window, default, take).to_pandas()

    def _query_joined(self, statement, start, end, window, default, take, **parameters):
        """Ask about decisions with their rewards; see `decisions`."""
        checks.require(take in REPORT_RULES, "take", f"one of {', '.join(REPORT_RULES)}", take)
        text = statement.format(joined=sql.joined(take, default is not None))
        return self.query(text, _span(start, end, window, default) | parameters)

    def counts(self, start, end, window):
        """`Counts` of a span of time; see `decisions`."""
        found = self.query(sql.COUNTS, _span(start, end, window)).to_pylist()
        fates = dict.fromkeys(Counts._fields[1:], 0) | {row["fate"]: row["number"] for row in found}
        rows = sum(row["number"] for row in found)
        return Counts(rows - fates.pop("reward of joined", 0), **fates)

    def snapshot(self, start, end):
        """Text that stands for all rows on which `decisions` and `counts` of a span of time depend."""
        (row,) = self.query(sql.SNAPSHOT, _span(start, end)).to_pylist()
        return hashlib.blake2b(f"{row['number']} {row['first']} {row['second']}".encode(), digest_size=16).hexdigest()

    def verdicts(self):
        """All verdicts in order of time: DataFrame with the fields of `Verdict`."""
        return self.query(sql.VERDICTS).cast(arrow_schema(Verdict)).to_pandas()

    def state(self):
        """How much there is, and how new: dict of table to {"rows": int, "newest": datetime or None}.

        Beside the four tables there is "joined": the decisions that have a reward.
        """
        newest = dataclasses.replace(TIME, optional=True)
        rows = self.query(sql.STATE).to_pylist()
        return {row["name"]: {"rows": row["number"], "newest": newest.accept("newest", row["newest"])} for row in rows}

    def drop_before(self, time):
        """Forget decisions, rewards and quarantined messages from before a time; with a decision all of its event."""
        self._drop(TIME.accept("time", time))


def digest_of(record):
    """Text that stands for everything a record says: BLAKE2b of its JSON, 32 hexadecimal digits."""
    return hashlib.blake2b(record.to_json().encode(), digest_size=16).hexdigest()


def _span(start, end, window=0.0, default=None):
    """Parameters of the statements; times of microseconds, as all times of the records."""
    start, end = TIME.accept("start", start), TIME.accept("end", end)
    if not 0 <= window <= _LONGEST:
        raise ValueError(f"window must be seconds from 0 to {_LONGEST}, got {window!r}")
    if default is not None and not math.isfinite(default):
        raise ValueError(f"default must be a finite number, got {default!r}")
    length = timedelta(seconds=window)
    last = datetime.max.replace(tzinfo=UTC)
    until = end + length if length < last - end else last
    parameters = {"start": start, "stop": end, "until": until, "microseconds": length // timedelta(microseconds=1)}
    return parameters if default is None else parameters | {"fallback": float(default)}
