"""Records of decisions, rewards and verdicts as dataclasses."""

import contextlib
import inspect
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar, Self

from recbandits.checks import require
from recbandits.records import fields
from recbandits.records.fields import Field


class Record:
    """Base of the records: frozen dataclasses whose fields are annotated with their `Field`.

    Attributes:
      fields: `Field` of each field by name.

    Raises:
      ValueError: a value is refused; the sentence names the field.
    """

    fields: ClassVar[dict[str, Field]]
    time: datetime

    def __init_subclass__(cls) -> None:
        cls.fields = {name: hint.__metadata__[0] for name, hint in inspect.get_annotations(cls).items()}

    def __post_init__(self) -> None:
        values = vars(self)
        for name, field in self.fields.items():
            values[name] = field.accept(name, values[name])

    def to_json(self) -> str:
        """Return the record as one line of JSON, with the time in ISO 8601."""
        return json.dumps(vars(self) | {"time": self.time.isoformat()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the record that `to_json` wrote.

        ValueError if the text is not JSON, a field is missing or unknown, or a value is refused.
        """
        try:
            values, known = json.loads(text), cls.fields
        except RecursionError as error:
            raise ValueError(f"the JSON of {cls.__name__} cannot be read: {error}") from None
        require(isinstance(values, dict), f"the JSON of {cls.__name__}", "an object", text)
        for name in sorted(values):
            require(name in known, f"field of {cls.__name__}", f"one of {', '.join(known)}", name)
        for name in sorted(known.keys() - values.keys() - vars(cls).keys()):
            raise ValueError(f"{name} of {cls.__name__} is missing, there is {', '.join(values) or 'nothing'}")
        with contextlib.suppress(TypeError, ValueError):  # the record refuses the value with its own sentence
            values["time"] = datetime.fromisoformat(values["time"])
        return cls(**values)


@dataclass(frozen=True)
class Interaction(Record):
    """A decision with its propensity.

    Attributes:
      event_id: unique name of the decision, which its reward has as well.
      time: of the decision, with its zone; stored in UTC, to the microsecond.
      policy_version: version of the logging policy; may be empty.
      user_id: text; None for a user without an id.
      context: JSON object of the raw columns that were known of the request: texts, finite numbers, true, false, null.
      candidates: text ids of the items that could be shown, distinct.
      action: id of the item that was shown.
      propensity: P(action | context, candidates) under the logging policy, in (0, 1].
      pass_prob: probability in (0, 1] with which a decision like this one is kept in the log.
      candidate_features: JSON object from a name to a list of finite numbers, one for each candidate in their order,
        such as prices at that moment.
    """

    event_id: Annotated[str, fields.NAME]
    time: Annotated[datetime, fields.TIME]
    policy_version: Annotated[str, fields.TEXT]
    user_id: Annotated[str | None, fields.NAME_OR_NONE]
    context: Annotated[str, fields.CONTEXT]
    candidates: Annotated[tuple[str, ...], fields.NAMES]
    action: Annotated[str, fields.CANDIDATE]
    propensity: Annotated[float, fields.PROBABILITY]
    pass_prob: Annotated[float, fields.PROBABILITY] = 1.0
    candidate_features: Annotated[str, fields.CANDIDATE_FEATURES] = "{}"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.action in self.candidates, "action", fields.CANDIDATE.expected, self.action)
        if self.candidate_features != "{}":
            lists = fields.parse_candidate_features(self.candidate_features).values()
            fits = all(len(numbers) == len(self.candidates) for numbers in lists)
            require(fits, "candidate_features", fields.CANDIDATE_FEATURES.expected, self.candidate_features)


@dataclass(frozen=True)
class Reward(Record):
    """The reward of a decision.

    Attributes:
      event_id: of the interaction.
      time: at which the reward was known, with its zone; stored in UTC, to the microsecond.
      value: finite.
    """

    event_id: Annotated[str, fields.NAME]
    time: Annotated[datetime, fields.TIME]
    value: Annotated[float, fields.FINITE]


@dataclass(frozen=True)
class Verdict(Record):
    """The outcome of a gate or guardrail for a version of the policy.

    Attributes:
      verdict_id: unique name of the verdict.
      time: of the verdict, with its zone; stored in UTC, to the microsecond.
      kind: of the gate, "deployed", "held" for missing evidence or "refused"; of the guardrail, "ramped" for a larger
        share, "promoted", "rolled back" or "withdrawn" for missing evidence.
      version: of the policy.
      against: version with which it was compared; empty for the first one.
      why: reason, one sentence.
      difference: estimated reward of `version` less that of `against`; None without a comparison.
      low: lower bound of its interval, at the confidence of the gate or guardrail; None without a comparison.
      high: upper bound.
      effective_sample_size: of the estimate, in decisions; None where it has none.
    """

    verdict_id: Annotated[str, fields.NAME]
    time: Annotated[datetime, fields.TIME]
    kind: Annotated[str, fields.VERDICT]
    version: Annotated[str, fields.NAME]
    against: Annotated[str, fields.TEXT]
    why: Annotated[str, fields.NAME]
    difference: Annotated[float | None, fields.FINITE_OR_NONE] = None
    low: Annotated[float | None, fields.FINITE_OR_NONE] = None
    high: Annotated[float | None, fields.FINITE_OR_NONE] = None
    effective_sample_size: Annotated[float | None, fields.FINITE_OR_NONE] = None


@dataclass(frozen=True)
class Quarantined(Record):
    """A message that makes no record.

    Attributes:
      message_id: unique name of the message.
      time: at which it was sent, with its zone; stored in UTC, to the microsecond.
      topic: source of the message.
      reason: one sentence.
      data: content; bytes that are not UTF-8 are stored as hexadecimal escapes.
    """

    message_id: Annotated[str, fields.NAME]
    time: Annotated[datetime, fields.TIME]
    topic: Annotated[str, fields.TEXT]
    reason: Annotated[str, fields.NAME]
    data: Annotated[str, fields.RECEIVED]
