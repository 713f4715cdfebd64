"""Policies as sealed directories, which can be served without the agent that they come from.

Loading and recommending need no TensorFlow, so that servers start fast and stay small.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbandits.checks import FINITE, replacing, require, whole
from recbandits.data.features import FILE, GLOBAL, PER_ARM, Features
from recbandits.data.rating_features import RatingFeatures
from recbandits.exploration import Exploration
from recbandits.records.fields import NAMES, TEXT, read_id
from recbandits.serving import manifest
from recbandits.serving.manifest import local_directory
from recbandits.serving.scorer import Scorer
from recbandits.serving.served import ServedPolicy

_CARD, _SCORER = "MODEL_CARD.md", "scorer.npz"
_SAVED_MODEL = {"assets", "fingerprint.pb", "policy_specs.pbtxt", "saved_model.pb", "variables"}
_ENTRIES = _SAVED_MODEL | {_CARD, _SCORER, FILE, manifest.FILE}

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
        name or sentence that is no text, or parameters that JSON cannot hold.
    """

    data: str
    agent: str
    parameters: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    limits: tuple[str, ...] = ()

    def __post_init__(self):
        require(not isinstance(self.limits, str), "limits", "sentences, not one", self.limits)
        for text in (self.data, self.agent, *self.limits, *self.metrics, *self.parameters):
            TEXT.accept("each name and sentence of a summary", text)
        metrics = {name: _metric(name, value) for name, value in self.metrics.items()}
        try:
            parameters = json.loads(json.dumps(self.parameters, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"parameters must be what JSON can hold, got {self.parameters}: {error}") from None
        for name, value in {"metrics": metrics, "parameters": parameters, "limits": tuple(self.limits)}.items():
            object.__setattr__(self, name, value)


def _metric(name, value):
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    numeric = all(map(FINITE.accepts, values))
    valid = numeric and (len(values) == 1 or (len(values) == 3 and values[1] <= values[0] <= values[2]))
    require(valid, f"metric {name!r}", "a finite number, or (value, low, high) in order", value)
    values = tuple(map(float, values))
    return values if len(values) == 3 else values[0]


def export(
    policy: Any,
    directory: str | Path,
    features: Features | RatingFeatures | None = None,
    *,
    exploration: Exploration | None = None,
    arms: Sequence | np.ndarray | None = None,
    titles: pd.Series | Mapping[Any, str] | None = None,
    summary: TrainingSummary | None = None,
) -> Path:
    """Write a policy with all that is needed to serve it, and return its directory.

    The directory holds a SavedModel, which needs neither this package nor TF-Agents to run; `scorer.npz`, the constants
    by which `load` scores without TensorFlow; the features; a model card; and `policy.json`, which seals all files by
    their SHA-256. It is complete or absent, as `checks.replacing` says.

    Args:
      policy: a TF-Agents policy, such as `agent.policy`. One that draws its scores at random or asks other policies (a
        baseline, a `collect_policy`, the EXP3 mixture) can be exported, but keeps its `action` alone. Of one that fills
        slates `action` is a slate; by ids it is asked for k items, of any number of candidates, and what fills the
        places is the exploration: what such a policy takes off for resemblance is part of its `action` alone.
      directory: where to; a policy exported there before is replaced.
      features: the `Features` or `RatingFeatures` that it was trained with; None for a policy that is not asked by ids.
      exploration: `Exploration` by which decisions are drawn; None takes the best score, with propensity 1.
      arms: where arms have no features, the item ids that they stand for, in order. Ids are text, or whole numbers that
        become their text.
      titles: Series or dict from item id to title, text; None for none.
      summary: `TrainingSummary`, for the model card.

    Raises:
      ValueError: the policy is an agent, the exploration is of another kind, the directory holds something that is not
        an exported policy, features or arms are not those that the policy reads, an id or title is none that can be
        read again, or a policy that keeps its `action` alone comes with `Features`. (The environments of MovieLens
        pass `RatingFeatures` for every agent.)
    """
    from recbandits.serving import saved_model

    require(not hasattr(policy, "collect_policy"), "policy", "that of an agent, such as `agent.policy`", policy)
    known = exploration is None or isinstance(exploration, Exploration)
    require(known, "exploration", "None or an Exploration, such as Exploration('epsilon_greedy', 0.1)", exploration)
    directory, scorer = Path(directory), policy.scorer() if hasattr(policy, "scorer") else None
    arms = None if arms is None else [read_id("arm", arm) for arm in arms]
    if isinstance(features, RatingFeatures):
        features = features.features
    elif features is not None and scorer is None:
        raise ValueError("policy must score by what it has learnt to be exported with Features, it has `action` only")
    _check(saved_model.observation_spec(policy), int(policy.action_spec.maximum) + 1, features, arms)
    free = not directory.exists() or (directory.is_dir() and {path.name for path in directory.iterdir()} <= _ENTRIES)
    require(free, "directory", "new, or that of an exported policy and nothing else", str(directory))
    settings = {
        "scorer": scorer is not None,
        "exploration": asdict(exploration or Exploration()),
        "arms": arms,
        "items": None if features is None else len(arms or features.item_ids),
        "titles": read_titles(titles),
        "summary": None if summary is None else asdict(summary),
    }
    with replacing(directory) as draft:
        saved_model.write(policy, scorer, str(draft))
        if scorer is not None:
            scorer.save(draft / _SCORER)
        if features is not None:
            features.save(draft)
        (draft / _CARD).write_text(_model_card(settings, summary), encoding="utf-8")
        manifest.seal(draft, settings)
    return directory


def read_titles(titles: pd.Series | Mapping[Any, str] | None) -> dict[str, str]:
    """Return titles by item id as JSON can hold them; ValueError for other ids and titles, and for two of one item."""
    read = {}
    for item, title in ({} if titles is None else titles).items():
        name = read_id("id of a title", item)
        require(name not in read, "titles", "one for each item", name)
        read[name] = TEXT.accept(f"title of item {name}", title)
    return read


def load(directory: str | Path) -> ServedPolicy:
    """Read an exported policy at a path or a gs:// URI, after its seal was verified; one in a bucket has no `action`.

    ValueError if the directory is not an exported policy, or a damaged, incomplete, older or newer one.
    """
    with local_directory(directory) as local:
        settings, contents = manifest.read(local)
    for name, (expected, accepts) in _SETTINGS.items():
        try:
            accepted = accepts(settings[name])
        except Exception:  # of a constructor, each in its way, or for a setting that is missing
            accepted = False
        require(accepted, f"policy {local.name}: {name}", expected, settings.get(name, "none"))
    try:
        scorer = Scorer.load(io.BytesIO(contents[_SCORER])) if settings["scorer"] else None
        features = Features.load(io.BytesIO(contents[FILE])) if FILE in contents else None
        summary = TrainingSummary(**settings["summary"]) if settings["summary"] else None
        policy = ServedPolicy(local, settings | {"summary": summary}, scorer, features)
        policy.check()
    except Exception as error:  # sealed, but no policy: NumPy and others say why, each in its way
        reason = " ".join(f"{type(error).__name__}, {error}".split())
        raise ValueError(f"policy {local.name} cannot be served: {reason:.300}") from error
    return policy


_SETTINGS: dict[str, tuple[str, Callable]] = {  # of a policy's seal, by what each must be
    "scorer": ("true or false", lambda value: isinstance(value, bool)),
    "exploration": ("the name and the value of a method", lambda value: len(value) == 2 and Exploration(**value)),
    "arms": ("ids that are all different, or null", lambda value: value is None or NAMES.accept("arms", value)),
    "items": ("a whole number, or null", lambda value: value is None or whole(0).accepts(value)),
    "titles": ("texts by id", lambda value: all(isinstance(title, str) for title in value.values())),
    "summary": ("what was recorded, or null", lambda value: value is None or TrainingSummary(**value)),
}


def describe(directory: str | Path) -> pd.Series:
    """Describe a policy: texts by name, and each metric with its interval. Errors are those of `load`."""
    policy = load(directory)
    summary, method = policy.summary or TrainingSummary("not recorded", "not recorded"), policy.exploration.name
    items = 0 if policy.candidates is None else len(policy.candidates)
    rows = {
        "version": policy.version,
        "agent": summary.agent,
        "data": summary.data,
        "exploration": method if method == "greedy" else f"{method}, {policy.exploration.value:g}",
        "arms": f"{items} fixed items" if policy.has_arms else "any item with features",
        "knows": "no ids" if policy.features is None else f"{items:,} items",
    }
    for name, value in summary.metrics.items():
        value, *interval = value if isinstance(value, tuple) else (value,)
        rows[name] = f"{value:.4g}" + (f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else "")
    return pd.Series(rows, name=Path(directory).name)


def _check(observation, actions, features, arms):
    """Refuse features and arms that would not fit when the first request is answered."""
    per_arm = isinstance(observation, dict)
    require(not per_arm or arms is None, "arms", "None for a policy whose arms have features", arms)
    fits = arms is None or actions == len(arms) == len(set(arms))
    require(fits, "arms", f"one item for each of the {actions} actions, all different", arms)
    if features is None:
        return
    require(per_arm or arms is not None, "arms", f"the items of the {actions} actions, to serve ids", arms)
    read = {name: part.shape[-1] for name, part in observation.items()} if per_arm else {GLOBAL: observation.shape[-1]}
    got = {name: shape[-1] for name, shape in features.spec(1).items() if per_arm or name != PER_ARM}
    require(got == read, "features", f"as many as the policy reads, {read}", got)


def _model_card(settings: dict, summary: TrainingSummary | None) -> str:
    """Write the model card of a policy, one page of Markdown, from what `policy.export` writes into `policy.json`."""
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


def _purpose(settings):
    if settings["arms"] is None:
        text = "It scores items for a request by the features of both, and recommends the best of the candidates."
    else:
        text = f"It chooses among {len(settings['arms'])} fixed items by the features of the request."
    if settings["items"] is None:
        return f"{text} It reads observations, not ids: it was exported without its features."
    others = "" if settings["arms"] else "; others can be described by their columns"
    return f"{text} It knows {settings['items']:,} items by their ids{others}."


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
