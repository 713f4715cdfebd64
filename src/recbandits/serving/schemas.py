"""What a prediction server is asked and what it answers, as pydantic models."""

import difflib
import re
import reprlib
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

MOST_INSTANCES = 256  # in one request
_LONGEST_NAME = 60  # letters of a foreign name in a sentence


class RefusalError(ValueError):
    """A request that gets no prediction; the message is one sentence.

    Attributes:
      status: the HTTP status that says so.
    """

    def __init__(self, status, sentence):
        super().__init__(sentence)
        self.status = status


def _whole(value):
    """Read 7.0 as 7, for Vertex AI keeps numbers as doubles; refuse a double that may be another number rounded."""
    if not isinstance(value, float) or not value.is_integer():
        return value
    if abs(value) >= 2**53:
        raise ValueError("must be written in digits alone, as a double it may have been rounded")
    return int(value)


_Id = Annotated[int, BeforeValidator(_whole), Field(ge=-(2**63), lt=2**63)]
_Candidates = Annotated[list[_Id], Field(min_length=1, fail_fast=True, examples=[[50, 181, 258]])]
_Number = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
_Features = dict[str, float]


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
    """Who is asking for a recommendation, and out of what."""

    user_id: _Id | None = Field(
        None, description="known to the policy, or new: then with features, as for a user without an id", examples=[7]
    )
    features: _Features | None = Field(
        None,
        description="of the user, by the names of the policy's features; what is not named is as known, or average",
    )
    candidates: _Candidates | None = Field(None, description="item ids to choose from; all that are known if missing")
    k: _Number | None = Field(
        None, description="how many items; the first is drawn, the others follow by score, or are drawn too"
    )
    seed: Annotated[int, BeforeValidator(_whole), Field(ge=0, lt=2**63)] | None = Field(
        None, description="makes the draw reproducible, hence predictable: it is not logged; for tests, not for users"
    )
    new_items: dict[int, _Features] | None = Field(
        None, description="features of candidates that the policy may not know"
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
    item_ids: list[int]
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
    known = list(model.model_fields)
    near = difflib.get_close_matches(location[-1][:_LONGEST_NAME], known, n=1)
    return f", did you mean {near[0]!r}?" if near else f", there is {', '.join(known)}"
