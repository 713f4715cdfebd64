"""Requests and responses of the prediction server as pydantic models, and its OpenAPI document."""

import difflib
import itertools
import math
import re
import reprlib
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.json_schema import models_json_schema
from pydantic_core import PydanticCustomError, from_json

MAX_INSTANCES = 256  # in one request; so are the sums over its instances:
MAX_RECOMMENDED, MAX_CANDIDATES, MAX_NEW_ITEMS = 10_000, 1_000_000, 10_000
_MAX_COLUMNS = 10_000  # of one instance, and new items; more than any policy has
_MAX_CACHED_BODY = 65_536  # bytes of JSON whose texts are looked up in a cache; a larger body has too many
_MAX_NAME_LENGTH = 60  # letters of a foreign name in a sentence
_REFUSALS = {  # by HTTP status
    400: "the body is not JSON",
    403: "the token is missing, or the host is another one",
    413: "the body is too large",
    415: "the content type is another one",
    422: "the body is JSON, but cannot be answered",
    503: "no policy is deployed yet, or too many predictions are in progress",
}


class RefusalError(ValueError):
    """A request that gets no prediction: an HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str):
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


def _read_columns(columns):
    """Check the values of raw columns up to the first error, because a body can hold very many."""
    for name, value in columns.items():
        expected = ""
        if isinstance(value, int) and abs(value) > 2**53:
            expected = "must be text, because a number of more than 2^53 may have been rounded"
        elif not (value is None or isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))):
            expected = "must be text, a finite number, true, false or null"
        if expected:
            raise PydanticCustomError("column", "{expected}", {"expected": expected, "name": name, "value": value})
    return columns


_Text = Annotated[str, Field(min_length=1)]
_Id = Annotated[_Text, BeforeValidator(_read_id, json_schema_input_type=_Text | int)]
_Candidates = Annotated[list[_Id], Field(min_length=1, fail_fast=True, examples=[["50", "181", "258"]])]
_Number = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MAX_RECOMMENDED)]
_Value = Annotated[Any, WithJsonSchema({"anyOf": [{"type": kind} for kind in ("string", "number", "boolean", "null")]})]
_Columns = Annotated[dict[str, _Value], AfterValidator(_read_columns)]


def _bounded(value):
    """Return a message without what would make the check of it long: pydantic collects an error for each wrong part."""
    if isinstance(value, list):
        return [_bounded(each) for each in value[: MAX_INSTANCES + 1]]
    if not isinstance(value, dict):
        return value
    value = dict(itertools.islice(value.items(), 20))  # more fields than a message has: with as many, one is not known
    for name in ("context", "candidate_features", "new_items"):
        if isinstance(value.get(name), dict) and len(value[name]) > _MAX_COLUMNS:
            raise RefusalError(422, f"{name} must have at most {_MAX_COLUMNS:,} names, got {len(value[name]):,}")
    return value | {name: _bounded(value[name]) for name in ("instances", "parameters") if name in value}


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    @classmethod
    def parse(cls, body):
        """Read JSON, bytes or text; raises `RefusalError`: 400 for what is not JSON, 422 for JSON of something else."""
        try:
            value = from_json(body, cache_strings="none" if len(body) > _MAX_CACHED_BODY else "all")
        except ValueError as error:
            raise RefusalError(400, f"the body must be JSON: {error}") from None
        try:
            return cls.model_validate(_bounded(value))
        except ValidationError as error:
            raise RefusalError(422, _sentence(error.errors(include_url=False), cls)) from None


class Instance(_Message):
    """A request for a recommendation: what is known, and out of what to choose."""

    user_id: _Id | None = Field(
        None,
        description="for the log and for the split between versions; an id is text, a whole number becomes its text",
        examples=["7"],
    )
    context: _Columns | None = Field(
        None,
        description="raw columns that the policy was trained on; what is missing is the mean, or no level",
        examples=[{"device": "tv", "hour": 21}],
    )
    candidates: _Candidates | None = Field(None, description="item ids to choose from; all that are known if missing")
    candidate_features: dict[str, Annotated[list[float], Field(fail_fast=True)]] | None = Field(
        None, description="a number for each candidate, by name; needed where the policy was trained on them"
    )
    k: _Number | None = Field(None, description="how many items; the first is drawn, others follow by score or draw")
    seed: Annotated[int, BeforeValidator(_whole), Field(ge=0, lt=2**53)] | None = Field(
        None, description="makes the draw reproducible, hence predictable: it is not logged; for tests, not for users"
    )
    new_items: dict[_Text, _Columns] | None = Field(
        None, description="raw columns of candidates that the policy may not know"
    )


class Parameters(_Message):
    """Defaults of the instances."""

    candidates: _Candidates | None = None
    k: _Number = 1
    answer_refusals: bool = Field(default=False, description="refuse an instance in its place, not the whole request")


class Request(_Message):
    """The body of a prediction request."""

    instances: Annotated[list[Instance], Field(min_length=1, max_length=MAX_INSTANCES, fail_fast=True)]
    parameters: Parameters | None = None

    def count_candidates(self, num_items: int) -> int:
        """Return the number of candidates of all instances, `num_items` if none are named; refuse too many."""
        defaults, instances = self.parameters or Parameters(), self.instances
        new = [len(each.new_items or ()) for each in instances]
        named = [len(each.candidates or defaults.candidates or ()) for each in instances]
        candidates = sum(count or num_items + more for count, more in zip(named, new, strict=True))
        for name, most, count in (
            ("k", MAX_RECOMMENDED, sum(each.k or defaults.k for each in instances)),
            ("candidates", MAX_CANDIDATES, candidates),
            ("new_items", MAX_NEW_ITEMS, sum(new)),
        ):
            if count > most:
                raise RefusalError(422, f"{name} must be at most {most:,} over all instances together, got {count:,}")
        return candidates


class Prediction(BaseModel):
    """The response to one instance."""

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


class Refusal(BaseModel):
    """The response to an instance that is refused, where the parameters ask for it."""

    error: str = Field(description="what was wrong and what is expected, one sentence")


class Response(BaseModel):
    """The body of an answer, predictions in the order of the instances."""

    predictions: list[Prediction | Refusal]


class Problem(BaseModel):
    """The body of a refusal."""

    detail: str = Field(description="what was wrong and what is expected, one sentence")


class ReleaseDocument(_Message):
    """The versions that answer, with percentages that add up to 100."""

    shares: dict[str, int] = Field(examples=[{"0123456789abcdef": 90, "fedcba9876543210": 10}])
    previous: dict[str, int] | None = Field(None, description="to return to; the present shares if missing")


def openapi(health_route: str, predict_route: str) -> dict:
    """Return the OpenAPI document of a server with these routes, a dict that fits into JSON."""
    form = "#/components/schemas/{model}"
    models: dict[type[BaseModel], Any] = dict.fromkeys((Request, ReleaseDocument), "validation")
    models |= dict.fromkeys((Response, Problem), "serialization")
    schemas = models_json_schema([*models.items()], ref_template=form)[1]["$defs"]

    def content(model):
        return {"content": {"application/json": {"schema": {"$ref": form.format(model=model.__name__)}}}}

    def operation(name, description, answer=None, refusals=(), body=None):
        responses = {"200": {"description": "Successful Response"} | (content(answer) if answer else {})}
        for status in refusals:
            responses[str(status)] = {"description": _REFUSALS[status]} | content(Problem)
        request_body = {"requestBody": content(body) | {"required": True}} if body else {}
        return {"description": description, "operationId": name, **request_body, "responses": responses}

    predict = "Recommend actions, one prediction for each instance."
    show, end = "Return the release and the shares before its last change.", "Serve nothing until the next release."
    change = "Serve another release, after its new versions are loaded and verified."
    return {
        "openapi": "3.1.0",
        "info": {"title": "RecBandits", "version": "2"},
        "paths": {
            health_route: {"get": operation("health", "Answer once a policy is loaded.", refusals=[503])},
            "/live": {"get": operation("live", "Answer while the process runs.")},
            "/metrics": {"get": operation("metrics", "Metrics in the text format of Prometheus.")},
            "/release": {
                "get": operation("get_release", show, ReleaseDocument, [403]),
                "put": operation("put_release", change, ReleaseDocument, [400, 403, 413, 422], ReleaseDocument),
                "delete": operation("delete_release", end, ReleaseDocument, [403]),
            },
            predict_route: {"post": operation("predict", predict, Response, [400, 413, 415, 422, 503], Request)},
        },
        "components": {"schemas": schemas},
    }


def _sentence(errors, model):
    """Return the first of pydantic's errors as a sentence; an unknown name first, it may be a missing one misspelt."""
    error = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    names = [f"[{part}]" if isinstance(part, int) else f".{part[:_MAX_NAME_LENGTH]}" for part in error["loc"]]
    where = "".join(names).removeprefix(".") or "the body"
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "extra_forbidden":
        return f"{where} is not known{_hint(error['loc'], model)}"
    if error["type"] == "column":
        where, error = f"{where}.{error['ctx']['name'][:_MAX_NAME_LENGTH]}", error | {"input": error["ctx"]["value"]}
    message = error["msg"].removeprefix("Value error, ").replace(" after validation", "")
    message = re.sub("a valid dictionary( or instance of .*)?", "an object", message)
    expected = re.sub(r"^\w+ should", "must", message.replace("valid list", "valid array"))
    got = "" if error["type"].startswith("too_") else f", got {reprlib.repr(error['input'])}"
    return f"{where} {expected}{got}"


def _hint(location, model):
    """The field that may have been meant, or those that there are."""
    if len(location) > 1:
        model = {"instances": Instance, "parameters": Parameters}[location[0]]
    known, name = list(model.model_fields), location[-1][:_MAX_NAME_LENGTH]
    near = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {near[0]!r}?" if near else f", there is {', '.join(known)}"
