"""The SQL of the warehouse, in BigQuery's dialect, which `platforms.local.warehouse` runs as it is on DuckDB.

A table has one row for each distinct report of an event: the same delivered twice is one row, two different ones are
two. Of decisions the earliest counts, ties broken by digest; of rewards those that the rule of `joined` takes. So
nothing depends on the order of delivery. A decision whose reward is outside the declared range is in `outside` and not
in `joined`, for every reader.

BigQuery checks no key, and two MERGEs that only add rows do not exclude each other: writers that are given one report
at the same moment can both add it. So every statement here takes equal rows for one.

Parameters, none of them a keyword: `@start` and `@stop` bound the time of the decision, `@microseconds` is the window
and `@skew`, in microseconds too, the tolerance for a client whose clock is behind; `@since` is `@start` less `@skew`
and `@until` is `@stop` plus the window (rewards that may be joined are bounded by constants, so that only their
partitions are read; counts and snapshots look for late ones in all of them); `@lowest` and `@highest`
bound the reward, and `@fallback` is the reward of a decision without one.
"""

from typing import NamedTuple

from recbandits.records import Interaction, Quarantined, Reward, Verdict, bigquery_schema
from recbandits.records.records import Record

DIGEST = "digest"


class Table(NamedTuple):
    """One table of the warehouse; its columns are the fields of the record, and the digest of it."""

    name: str
    record: type[Record]  # what its rows are
    key: tuple  # columns that tell rows apart

    @property
    def schema(self) -> list[dict]:
        """Columns as dicts that BigQuery's `SchemaField.from_api_repr` takes."""
        digest = {"name": DIGEST, "type": "STRING", "mode": "REQUIRED", "description": "BLAKE2b of the record's JSON"}
        return [*bigquery_schema(self.record), digest]


BY_NAME = {
    "interactions": Table("interactions", Interaction, ("event_id", DIGEST)),
    "rewards": Table("rewards", Reward, ("event_id", DIGEST)),
    "quarantine": Table("quarantine", Quarantined, ("message_id",)),
    "verdicts": Table("verdicts", Verdict, ("verdict_id",)),
}
TABLES = {table.record: table for table in BY_NAME.values()}


def merge(table: Table, batch: str) -> str:
    """Statement that adds to a `Table` the rows of the table named `batch`, whose times are from `@first` to `@last`.

    No two rows of the batch may have the same key.
    """
    columns = (*table.record.fields, DIGEST)
    return f"""
MERGE INTO {table.name} AS t USING {batch} AS s ON {_same(table)}
WHEN NOT MATCHED THEN INSERT ({", ".join(columns)}) VALUES ({", ".join(f"s.{name}" for name in columns)})
"""


def missing(table: Table, batch: str) -> str:
    """Statement that gives the digests of the rows which `merge` would add."""
    return f"SELECT s.digest FROM {batch} AS s WHERE NOT EXISTS (SELECT 1 FROM {table.name} AS t WHERE {_same(table)})"


def _same(table):
    """Condition that rows `t` and `s` have one key."""
    same = " AND ".join(f"t.{name} = s.{name}" for name in table.key)
    # The digest covers the time: equal rows have equal times, and partitions without such times need no look.
    return same + (" AND t.time BETWEEN @first AND @last" if DIGEST in table.key else "")


_FIELDS = ", ".join(f"d.{name}" for name in Interaction.fields)
# The earliest row of each event, if its time is in the window; an earlier one outside rules the event out.
_DECIDED = """
decided AS (
  SELECT * FROM interactions AS i
  WHERE i.time >= @start AND i.time < @stop
    AND NOT EXISTS (SELECT 1 FROM interactions AS e WHERE e.event_id = i.event_id AND e.time < @start)
  QUALIFY ROW_NUMBER() OVER (PARTITION BY i.event_id ORDER BY i.time, i.digest) = 1
)"""
_BOUNDED = "LEAST(GREATEST(r.value, -1e300), 1e300)"
_EARLIEST, _LATEST = "r.time, r.value, r.digest", "r.time DESC, r.value DESC, r.digest DESC"
# By rule for several reports: order in which the first one gives the time of the reward, and the value. Reports are
# bounded where they are added up: a sum that overflows is an error of the whole query.
_REPORTS = {
    "first": (_EARLIEST, "r.value"),
    "last": (_LATEST, "r.value"),
    "sum": (_LATEST, f"SUM({_BOUNDED}) OVER (PARTITION BY r.event_id ORDER BY {_EARLIEST} ROWS UNBOUNDED PRECEDING)"),
    "max": (f"r.value DESC, {_EARLIEST}", "r.value"),
}
_WITHIN = "a.value BETWEEN @lowest AND @highest"
# Equal rows are one report, which would otherwise be added twice.
_DISTINCT = "(SELECT DISTINCT * FROM rewards WHERE time >= @since AND time <= @until)"


def joined(take: str, keep_silent: bool) -> str:
    """Table expressions `decided`, `answers` (in the window), and `joined` and `outside`: decisions with their rewards.

    The columns of these two are those of `Interaction`, `reward` and `reward_time`; `outside` has the rewards that the
    range excludes.

    Args:
      take: rule for several reports, one of `records.REPORT_RULES`.
      keep_silent: whether a decision without a report is kept, with the reward `@fallback`.
    """
    order, value = _REPORTS[take]
    join, reward = ("LEFT OUTER JOIN", "COALESCE(a.value, @fallback)") if keep_silent else ("INNER JOIN", "a.value")
    return f"""{_DECIDED},
answers AS (
  SELECT r.event_id, r.time, {value} AS value, r.digest
  FROM {_DISTINCT if take == "sum" else "rewards"} AS r
  JOIN decided AS d ON r.event_id = d.event_id
  WHERE r.time >= @since AND r.time <= @until
    AND r.time >= TIMESTAMP_SUB(d.time, INTERVAL @skew MICROSECOND)
    AND r.time <= TIMESTAMP_ADD(d.time, INTERVAL @microseconds MICROSECOND)
  QUALIFY ROW_NUMBER() OVER (PARTITION BY r.event_id ORDER BY {order}) = 1
),
joined AS (
  SELECT {_FIELDS}, {reward} AS reward, a.time AS reward_time
  FROM decided AS d {join} answers AS a ON a.event_id = d.event_id
  WHERE a.event_id IS NULL OR {_WITHIN}
),
outside AS (
  SELECT {_FIELDS}, a.value AS reward, a.time AS reward_time
  FROM decided AS d JOIN answers AS a ON a.event_id = d.event_id
  WHERE NOT ({_WITHIN})
)"""


# Statements that begin with what `joined` gives.
DECISIONS = "WITH {joined} SELECT * FROM joined ORDER BY time, event_id"

OUTSIDE = "WITH {joined} SELECT * FROM outside ORDER BY time, event_id"

BY_USER = """
WITH {joined}
SELECT policy_version, user_id, COUNT(*) AS decisions, SUM(reward) AS total
FROM joined GROUP BY policy_version, user_id, IF(user_id IS NULL, event_id, NULL) ORDER BY policy_version, user_id
"""

SERVED = f"WITH {_DECIDED} SELECT COUNT(*) AS number FROM decided WHERE policy_version = @version"

# What came in the window and belongs to no decision at all.
_REST = """
  SELECT r.digest, 'orphan' AS fate FROM rewards AS r
  WHERE r.time >= @start AND r.time < @stop
    AND NOT EXISTS (SELECT 1 FROM interactions AS i WHERE i.event_id = r.event_id)
  UNION DISTINCT
  SELECT q.digest, 'quarantined' AS fate FROM quarantine AS q WHERE q.time >= @start AND q.time < @stop"""
# Every row that has to do with the window, once, with what became of it: rows of the events that were decided in it,
# whenever they came, and the rest. A pair of decision and reward is two rows.
COUNTS = f"""
WITH {{joined}},
fates AS (
  SELECT i.digest, CASE
    WHEN i.digest <> d.digest THEN 'duplicate' WHEN a.event_id IS NULL THEN 'defaulted'
    WHEN {_WITHIN} THEN 'joined' ELSE 'quarantined' END AS fate
  FROM interactions AS i JOIN decided AS d ON d.event_id = i.event_id
  LEFT OUTER JOIN answers AS a ON a.event_id = i.event_id
  UNION DISTINCT
  SELECT r.digest, CASE
    WHEN r.digest = a.digest THEN 'reward of a decision' WHEN a.digest IS NULL
      AND DENSE_RANK() OVER (PARTITION BY r.event_id ORDER BY {_EARLIEST}) = 1 THEN 'late'
    ELSE 'duplicate' END AS fate
  FROM rewards AS r JOIN decided AS d ON d.event_id = r.event_id
  LEFT OUTER JOIN answers AS a ON a.event_id = r.event_id
  UNION DISTINCT
  SELECT a.digest, 'skewed' AS fate FROM answers AS a JOIN decided AS d ON d.event_id = a.event_id WHERE a.time < d.time
  UNION DISTINCT{_REST}
)
SELECT fate, COUNT(*) AS number FROM fates GROUP BY fate
"""

# Digests are distinct, so that two halves of all of them, each combined by XOR in any order, stand for the set.
SNAPSHOT = f"""
WITH {_DECIDED},
fates AS (
  SELECT i.digest, '' AS fate FROM interactions AS i JOIN decided AS d ON d.event_id = i.event_id
  UNION DISTINCT
  SELECT r.digest, '' AS fate FROM rewards AS r JOIN decided AS d ON d.event_id = r.event_id
  UNION DISTINCT{_REST}
)
SELECT COUNT(*) AS number,
  BIT_XOR(CAST(CONCAT('0x', SUBSTR(digest, 1, 15)) AS INT64)) AS first,
  BIT_XOR(CAST(CONCAT('0x', SUBSTR(digest, 16, 15)) AS INT64)) AS second
FROM fates
"""

STATE = "\nUNION ALL ".join(
    f"SELECT '{name}' AS name, COUNT(DISTINCT digest) AS number, MAX(time) AS newest FROM {name}" for name in BY_NAME
)

VERDICTS = f"SELECT DISTINCT {', '.join(Verdict.fields)} FROM verdicts ORDER BY time, verdict_id"

# What else an event has goes with its decision, whenever it came: a reward must not stay behind as an orphan, nor a
# second report of the decision take its place.
_OLD = "(SELECT event_id FROM interactions WHERE time < @time)"
DROP = (
    f"DELETE FROM rewards WHERE time < @time OR event_id IN {_OLD}",
    f"DELETE FROM interactions WHERE event_id IN {_OLD}",
    "DELETE FROM quarantine WHERE time < @time",
)

FORGET = (
    "DELETE FROM rewards WHERE event_id IN (SELECT event_id FROM interactions WHERE user_id = @user)",
    "DELETE FROM interactions WHERE user_id = @user",
)

# What people look at: every decision once, with its first reward, however late, and the seconds until then.
VIEW = f"""
SELECT {_FIELDS}, r.value AS reward, r.time AS reward_time,
  TIMESTAMP_DIFF(r.time, d.time, MICROSECOND) / 1000000 AS seconds
FROM (
  SELECT * FROM {{dataset}}interactions WHERE TRUE
  QUALIFY ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY time, digest) = 1
) AS d LEFT OUTER JOIN (
  SELECT * FROM {{dataset}}rewards WHERE TRUE
  QUALIFY ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY time, value, digest) = 1
) AS r ON r.event_id = d.event_id
"""
