"""Summary of the training of a policy, and its model card."""

import json
from dataclasses import dataclass, field

from recbandits.checks import FINITE, require
from recbandits.records.fields import TEXT

_FIRST = (
    "The first slot {}. Each answer carries the exact probability of the item in that slot; the others follow by score."
)
_EXPLORATION = {  # by the name of the method
    "greedy": "None: the best score comes first, with propensity 1. A log of such decisions says nothing about what "
    "was not shown.",
    "epsilon_greedy": _FIRST.format("has a uniformly random candidate with probability {:g}, otherwise the best one"),
    "softmax": _FIRST.format("is drawn with probability proportional to exp(score / {:g})"),
    "inverse_gap": _FIRST.format("is drawn by inverse-gap weighting with gamma {:g}"),
    "plackett_luce": "Every slot is drawn from the items that are left, with probability proportional to "
    "exp(score / {:g}). Each answer carries the exact probability of each item in its slot, given those above it.",
}


@dataclass(frozen=True)
class TrainingSummary:
    """Data, parameters, metrics and limits of a trained policy, for its users.

    Attributes:
      data: source and number of rows, a sentence.
      agent: its name.
      parameters: dict from parameter to value.
      metrics: dict from the name of a metric to its value, or to (value, low, high) with an interval of 95 %.
      limits: sentences on what the policy must not be used for, or does badly.

    Raises:
      ValueError: a metric that is neither a finite number nor three of them with the value within the interval, a
        name or sentence that is no text, or something that JSON cannot hold.
    """

    data: str
    agent: str
    parameters: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    limits: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("data", "agent"):
            TEXT.accept(name, getattr(self, name))
        for name in (*self.metrics, *self.parameters):
            TEXT.accept("name of a metric or parameter", name)
        require(not isinstance(self.limits, str), "limits", "sentences, not one", self.limits)
        for limit in self.limits:
            TEXT.accept("limit", limit)
        metrics = {name: _metric(name, value) for name, value in self.metrics.items()}
        try:
            parameters = json.loads(json.dumps(self.parameters, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"parameters must be what JSON can hold, got {self.parameters}: {error}") from None
        for name, value in {"metrics": metrics, "parameters": parameters, "limits": tuple(self.limits)}.items():
            object.__setattr__(self, name, value)


def model_card(settings: dict) -> str:
    """Write the model card of a policy, one page of Markdown, from what `policy.export` writes into `policy.json`."""
    summary = TrainingSummary(**settings["summary"]) if settings["summary"] else None
    method, value = settings["exploration"]["name"], settings["exploration"]["value"]
    limits = [
        *(summary.limits if summary else ()),
        "It knows items as they were when its features were computed.",
        *([] if settings["arms"] is None else ["It cannot recommend any other than its fixed items."]),
        "Scores are predicted rewards. They are not calibrated for users whom the training data does not represent.",
    ]
    sections = {
        f"# Model card: {summary.agent if summary else 'a bandit policy'}": _purpose(settings),
        "## Training data and parameters": _training(summary),
        "## Evaluation": _metrics(summary),
        "## Exploration": _EXPLORATION[method].format(value),
        "## Limits": "\n".join(f"- {limit}" for limit in limits),
        "## Use": _use(settings),
    }
    return "\n\n".join(part for section in sections.items() for part in section) + "\n"


def known_items(count: int | None) -> str:
    """Return the number of items that a policy knows by their ids as text, such as "12 items"; None is "no ids"."""
    return "no ids" if count is None else f"{count:,} items"


def _metric(name, value):
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    numeric = all(map(FINITE.accepts, values))
    valid = numeric and (len(values) == 1 or (len(values) == 3 and values[1] <= values[0] <= values[2]))
    require(valid, f"metric {name!r}", "a finite number, or (value, low, high) in order", value)
    values = tuple(map(float, values))
    return values if len(values) == 3 else values[0]


def _purpose(settings):
    if settings["arms"] is None:
        text = "It scores items for a request by the features of both, and recommends the best of the candidates."
    else:
        text = f"It chooses among {len(settings['arms'])} fixed items by the features of the request."
    if settings["items"] is None:
        return f"{text} It reads observations, not ids: it was exported without its features."
    others = "" if settings["arms"] else "; others can be described by their columns"
    return f"{text} It knows {known_items(settings['items'])} by their ids{others}."


def _training(summary):
    if summary is None:
        return "Nothing was recorded when this policy was exported."
    rows = [
        f"| {name} | {', '.join(map(str, value)) if isinstance(value, list) else value} |"
        for name, value in summary.parameters.items()
    ]
    table = ["", "| parameter | value |", "|---|---|", *rows] if rows else []
    return "\n".join([f"Trained on {summary.data.rstrip('.')}.", *table])


def _metrics(summary):
    if summary is None or not summary.metrics:
        return "Not measured. Do not deploy it until it is."
    rows = ["| metric | value | 95 % interval |", "|---|---|---|"]
    for name, value in summary.metrics.items():
        value, *interval = value if isinstance(value, tuple) else (value,)
        rows.append(f"| {name} | {value:.4g} | {' to '.join(f'{end:.4g}' for end in interval) or 'not computed'} |")
    return "\n".join(rows)


def _use(settings):
    code = "from recbandits.serving.policy import load\n\npolicy = load(directory)  # the directory of this file\n"
    code += "policy.recommend({column: value, ...}, k=3)\n" if settings["scorer"] and settings["items"] else ""
    served = "its signature `serving_default` takes observations and gives scores."
    more = f"\n\nAny TensorFlow Serving can run `saved_model.pb`: {served}" if settings["scorer"] else ""
    return f"```python\n{code}```{more}"
