"""What a prediction server is asked and what it answers, as pydantic models."""

import difflib
import math
import re
import reprlib
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

MOST_INSTANCES = 256  # in one request
_LONGEST_NAME = 60  # letters of a foreign name in a sentence
_RENAMED = {"features": "context"}  # fields of an instance


class RefusalError(ValueError):
    """A request that gets no prediction; the message is one sentence.

    Attributes:
      status: the HTTP status that says so.
    """

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


def _whole(value):
    """Read 7.0 as 7, because Vertex AI keeps numbers as doubles."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _read_id(value):
    """Read an id: text, or a whole number, which becomes its text unless it may be another one, rounded to a double."""
    value = _whole(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise ValueError("must be text or a whole number")
    if isinstance(value, int) and abs(value) >= 2**53:
        raise ValueError("must be text, because a number of 2^53 or more may have been rounded")
    return str(value)


def _read_value(value):
    """Read the value of a raw column."""
    if isinstance(value, int) and abs(value) > 2**53:
        raise ValueError("must be text, because a number of more than 2^53 may have been rounded")
    if not (value is None or isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))):
        raise ValueError("must be text, a finite number, true, false or null")
    return value


_Text = Annotated[str, Field(min_length=1)]
_Id = Annotated[_Text, BeforeValidator(_read_id, json_schema_input_type=_Text | int)]
_Candidates = Annotated[list[_Id], Field(min_length=1, fail_fast=True, examples=[["50", "181", "258"]])]
_Number = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
_Value = Annotated[Any, PlainValidator(_read_value, json_schema_input_type=str | float | bool | None)]
_Columns = dict[str, _Value]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    @classmethod
    def parse(cls, body):
        """Read JSON, bytes or text.

        Raises:
          RefusalError: 400 for what is not JSON, 422 for JSON of something else.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            status = 400 if errors[0]["type"] == "json_invalid" else 422
            raise RefusalError(status, sentence(errors, cls)) from None


class Instance(_Message):
    """A request for a recommendation: what is known, and out of what to choose."""

    user_id: _Id | None = Field(
        None,
        description="for the log and for the split between versions; an id is text, a whole number becomes its text",
        examples=["7"],
    )
    context: _Columns | None = Field(
        None,
        description="what is known of the request, by the raw columns that the policy was trained on; what is missing "
        "is the mean, or no level",
        examples=[{"device": "tv", "hour": 21}],
    )
    candidates: _Candidates | None = Field(None, description="item ids to choose from; all that are known if missing")
    candidate_features: dict[str, list[float]] | None = Field(
        None, description="a number for each candidate, by name; needed where the policy was trained on them"
    )
    k: _Number | None = Field(
        None, description="how many items; the first is drawn, the others follow by score, or are drawn too"
    )
    seed: Annotated[int, BeforeValidator(_whole), Field(ge=0, lt=2**53)] | None = Field(
        None, description="makes the draw reproducible, hence predictable: it is not logged; for tests, not for users"
    )
    new_items: dict[_Text, _Columns] | None = Field(
        None, description="raw columns of candidates that the policy may not know"
    )


class Parameters(_Message):
    """What holds for every instance that does not say otherwise."""

    candidates: _Candidates | None = None
    k: _Number = 1


class Request(_Message):
    """The body of a prediction request."""

    instances: Annotated[list[Instance], Field(min_length=1, max_length=MOST_INSTANCES, fail_fast=True)]
    parameters: Parameters | None = None


class Prediction(BaseModel):
    """What one instance gets."""

    model_config = ConfigDict(from_attributes=True)

    event_id: str = Field(description="to be sent with the reward")
    policy_version: str
    item_ids: list[str]
    titles: list[str]
    scores: list[float] = Field(description="predicted rewards")
    propensity: float = Field(description="probability with which the first item was drawn", gt=0, le=1)
    propensities: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        description="probability of each item in its place, given those above it; 1 where they follow by score"
    )
    logged: bool = Field(description="whether the decision is in the event log; what was drawn by a seed is not")


class Response(BaseModel):
    """The body of an answer, predictions in the order of the instances."""

    predictions: list[Prediction]


class Problem(BaseModel):
    """The body of a refusal."""

    detail: str = Field(description="what was wrong and what is expected, one sentence")


class ReleaseDocument(_Message):
    """Which versions answer, by percentages that add up to 100."""

    shares: dict[str, int] = Field(examples=[{"0123456789abcdef": 90, "fedcba9876543210": 10}])
    previous: dict[str, int] | None = Field(None, description="to return to; the present shares if missing")


def sentence(errors, model):
    """The first of pydantic's errors as a sentence: where, what is expected, what was there.

    A name that is not known comes before one that is missing: it was probably meant to be that.

    Args:
      errors: what pydantic gives for a message, not empty.
      model: class of the message.
    """
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    where = _path(error["loc"]) or "the body"
    if error["type"] == "json_invalid":
        return f"the body must be JSON: {error.get('ctx', {}).get('error', error['msg'])}"
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "extra_forbidden":
        return f"{where} is not known{_hint(error['loc'], model)}"
    message = error["msg"].removeprefix("Value error, ").replace(" after validation", "")
    expected = re.sub(r"^\w+ should", "must", message)
    got = "" if error["type"].startswith("too_") else f", got {reprlib.repr(error['input'])}"
    return f"{where} {expected}{got}"


def _path(parts):
    """("instances", 0, "k") as instances[0].k."""
    names = [f"[{part}]" if isinstance(part, int) else f".{part[:_LONGEST_NAME]}" for part in parts]
    return "".join(names).removeprefix(".")


def _hint(location, model):
    """The field that may have been meant, or those that there are."""
    if len(location) > 1:
        model = {"instances": Instance, "parameters": Parameters}[location[0]]
    known, name = list(model.model_fields), location[-1][:_LONGEST_NAME]
    near = [_RENAMED[name]] if _RENAMED.get(name) in known else difflib.get_close_matches(name, known, n=1)
    return f", did you mean {near[0]!r}?" if near else f", there is {', '.join(known)}"
