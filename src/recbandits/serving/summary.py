"""Summary of the training of a policy, and its model card."""

import json
import math
import numbers
from dataclasses import dataclass, field

from recbandits.checks import require
from recbandits.records.fields import TEXT


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
    """Write the model card of a policy, one page of Markdown.

    Args:
      settings: what `serving.policy.export` writes into `policy.json`.

    Returns:
      str
    """
    summary = TrainingSummary(**settings["summary"]) if settings["summary"] else None
    sections = [
        f"# Model card: {summary.agent if summary else 'a bandit policy'}",
        _purpose(settings),
        "## Training data and parameters",
        _training(summary),
        "## Evaluation",
        _metrics(summary),
        "## Exploration",
        _exploration(settings["exploration"]),
        "## Limits",
        "\n".join(f"- {limit}" for limit in [*(summary.limits if summary else ()), *_limits(settings)]),
        "## Use",
        _use(settings),
    ]
    return "\n\n".join(sections) + "\n"


def known_items(count: int | None) -> str:
    """Return the number of items that a policy knows by their ids as text, such as "12 items"; None is "no ids"."""
    return "no ids" if count is None else f"{count:,} items"


def _metric(name, value):
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    numeric = all(isinstance(part, numbers.Real) and math.isfinite(part) for part in values)
    if not numeric or len(values) not in (1, 3) or not (len(values) == 1 or values[1] <= values[0] <= values[2]):
        raise ValueError(f"metric {name!r} must be a finite number, or (value, low, high) in order, got {value!r}")
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
    shown = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in summary.parameters.items()
    }
    rows = [f"| {name} | {value} |" for name, value in shown.items()]
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


def _exploration(exploration):
    if exploration["name"] == "greedy":
        return (
            "None: the best score comes first, with propensity 1. A log of such decisions says nothing about what was "
            "not shown."
        )
    if exploration["name"] == "plackett_luce":
        return (
            "Every slot is drawn from the items that are left, with probability proportional to "
            f"exp(score / {exploration['value']:g}). Each answer carries the exact probability of each item in its "
            "slot, given those above it."
        )
    rule = {
        "epsilon_greedy": "has a uniformly random candidate with probability {value:g}, otherwise the best one",
        "softmax": "is drawn with probability proportional to exp(score / {value:g})",
        "inverse_gap": "is drawn by inverse-gap weighting with gamma {value:g}",
    }[exploration["name"]].format(value=exploration["value"])
    return (
        f"The first slot {rule}. Each answer carries the exact probability of the item in that slot; the others "
        "follow by score."
    )


def _limits(settings):
    yield "It knows items as they were when its features were computed."
    if settings["arms"] is not None:
        yield "It cannot recommend any other than its fixed items."
    yield "Scores are predicted rewards. They are not calibrated for anybody whom the training data does not represent."


def _use(settings):
    lines = ["from recbandits.serving.policy import load", "", "policy = load(directory)  # the directory of this file"]
    if settings["scorer"] and settings["items"]:
        lines.append("policy.recommend({column: value, ...}, k=3)")
    served = (
        "Any TensorFlow Serving can run `saved_model.pb`: its signature `serving_default` takes observations and gives "
        "scores."
    )
    code = "\n".join(lines)
    return f"```python\n{code}\n```" + (f"\n\n{served}" if settings["scorer"] else "")
