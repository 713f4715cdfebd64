"""What must be written down of a decision, of what came of it, and of what was decided about policies then.

Every schema derives from these records.
"""

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, get_type_hints

import pyarrow as pa

from recbandits.records import kinds


class _Record:
    """Validation, and the way to JSON and back."""

    def __post_init__(self):
        given = vars(self).copy()
        for name, kind in FIELDS[type(self)].items():
            if kind.optional and given[name] is None:
                continue
            value = kind.read(given[name])
            if value is None or not (kind.single is None or kind.single(value, vars(self))):
                raise ValueError(f"{name} must be {kind.expected}, got {given[name]!r}")
            object.__setattr__(self, name, value)

    def to_json(self):
        """The record as one line of JSON, the time in ISO 8601."""
        return json.dumps(vars(self) | {"time": self.time.isoformat()})

    @classmethod
    def from_json(cls, text):
        """Read what `to_json` wrote.

        Raises:
          ValueError: text that is not JSON, a missing or an unknown field, or a value that the record refuses.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"the JSON of {cls.__name__} must be an object, got {text}")
        for name in sorted(values.keys() - FIELDS[cls].keys()):
            raise ValueError(f"{cls.__name__} has no {name!r}, it has {', '.join(FIELDS[cls])}")
        for name in sorted(FIELDS[cls].keys() - values.keys() - vars(cls).keys()):
            raise ValueError(f"{name} of {cls.__name__} is missing, there is {', '.join(values) or 'nothing'}")
        with contextlib.suppress(TypeError, ValueError):  # the record refuses it with its own sentence
            values["time"] = datetime.fromisoformat(values["time"])
        return cls(**values)


@dataclass(frozen=True)
class Interaction(_Record):
    """One decision: who came, what could be shown, what was shown, and with which probability.

    Attributes:
      event_id: names the decision for good; its reward carries the same.
      time: of the decision, with its zone; kept in UTC, to the microsecond.
      policy_version: which policy decided; may be empty.
      user_id: 64-bit.
      context: what the policy saw of the user, finite.
      candidates: ids of the arms that could be shown, distinct, 64-bit.
      action: id of the arm that was shown.
      propensity: P(action | context, candidates) under the policy that decided, in (0, 1].
      pass_prob: probability in (0, 1] with which a decision like this one is kept in the log.

    Raises:
      ValueError: a value that is not as above.
    """

    event_id: Annotated[str, kinds.NAME]
    time: Annotated[datetime, kinds.TIME]
    policy_version: Annotated[str, kinds.TEXT]
    user_id: Annotated[int, kinds.ID]
    context: Annotated[tuple[float, ...], kinds.VECTOR]
    candidates: Annotated[tuple[int, ...], kinds.IDS]
    action: Annotated[int, kinds.ONE_OF_THEM]
    propensity: Annotated[float, kinds.SHARE]
    pass_prob: Annotated[float, kinds.SHARE] = 1.0


@dataclass(frozen=True)
class Reward(_Record):
    """What came of a decision.

    Attributes:
      event_id: of the interaction.
      time: when the reward was known, with its zone; kept in UTC, to the microsecond.
      value: finite.

    Raises:
      ValueError: a value that is not as above.
    """

    event_id: Annotated[str, kinds.NAME]
    time: Annotated[datetime, kinds.TIME]
    value: Annotated[float, kinds.FINITE]


@dataclass(frozen=True)
class Verdict(_Record):
    """What was decided about a version of the policy, by a gate or by a guardrail, and why.

    Attributes:
      verdict_id: names the verdict for good.
      time: of the verdict, with its zone; kept in UTC, to the microsecond.
      kind: "deployed", "refused", "promoted" or "rolled back".
      version: of the policy that it is about.
      against: version that it was compared with; empty for the first one.
      why: one sentence.
      difference: estimated reward of `version` less that of `against`; None where nothing was compared, as the next
        two, which are its interval, at the confidence of the gate or the guardrail.
      low: lower end.
      high: upper end.
      effective_sample_size: of the estimate, in decisions; None where it has none.

    Raises:
      ValueError: a value that is not as above.
    """

    verdict_id: Annotated[str, kinds.NAME]
    time: Annotated[datetime, kinds.TIME]
    kind: Annotated[str, kinds.VERDICT]
    version: Annotated[str, kinds.NAME]
    against: Annotated[str, kinds.TEXT]
    why: Annotated[str, kinds.NAME]
    difference: Annotated[float | None, kinds.FINITE_OR_NONE] = None
    low: Annotated[float | None, kinds.FINITE_OR_NONE] = None
    high: Annotated[float | None, kinds.FINITE_OR_NONE] = None
    effective_sample_size: Annotated[float | None, kinds.FINITE_OR_NONE] = None


@dataclass(frozen=True)
class Quarantined(_Record):
    """A message that makes no record, kept aside with the reason.

    Attributes:
      message_id: names the message for good.
      time: when it was sent, with its zone; kept in UTC, to the microsecond.
      topic: where it came from.
      reason: one sentence.
      data: what it said; of bytes that are no UTF-8 the numbers remain.

    Raises:
      ValueError: a value that is not as above.
    """

    message_id: Annotated[str, kinds.NAME]
    time: Annotated[datetime, kinds.TIME]
    topic: Annotated[str, kinds.TEXT]
    reason: Annotated[str, kinds.NAME]
    data: Annotated[str, kinds.RECEIVED]


# The kind of each field by name, for each record.
FIELDS = {
    record: {name: hint.__metadata__[0] for name, hint in get_type_hints(record, include_extras=True).items()}
    for record in (Interaction, Reward, Verdict, Quarantined)
}


def arrow_schema(kind):
    """Schema of a table of one kind of records in Arrow and Parquet."""
    return pa.schema([pa.field(name, field.arrow, nullable=field.optional) for name, field in FIELDS[kind].items()])


def bigquery_schema(kind):
    """Columns of such a table in BigQuery: dicts as `SchemaField.from_api_repr` takes them."""
    return [
        {
            "name": name,
            "type": field.bigquery,
            "mode": "REPEATED" if field.many else "NULLABLE" if field.optional else "REQUIRED",
            "description": field.expected,
        }
        for name, field in FIELDS[kind].items()
    ]


def duckdb_schema(kind):
    """Columns of such a table in DuckDB, as they stand between the brackets of CREATE TABLE."""
    return ", ".join(
        f'"{name}" {field.duckdb}{"" if field.optional else " NOT NULL"}' for name, field in FIELDS[kind].items()
    )
