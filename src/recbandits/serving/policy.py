"""Policies as sealed directories, which can be served without the agent that they come from.

Loading and recommending need no TensorFlow, so that servers start fast and stay small.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbandits import checks
from recbandits.data.features import FILE, GLOBAL, PER_ARM, Features
from recbandits.data.rating_features import RatingFeatures
from recbandits.exploration import Exploration
from recbandits.records.fields import NAMES, TEXT, read_id
from recbandits.serving import manifest
from recbandits.serving.manifest import local_directory
from recbandits.serving.scorer import Scorer
from recbandits.serving.served import ServedPolicy
from recbandits.serving.summary import TrainingSummary, known_items, model_card

_CARD, _SCORER = "MODEL_CARD.md", "scorer.npz"
_SAVED_MODEL = {"assets", "fingerprint.pb", "policy_specs.pbtxt", "saved_model.pb", "variables"}
_ENTRIES = _SAVED_MODEL | {_CARD, _SCORER, FILE, manifest.FILE}


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
      ValueError: the directory holds something that is not an exported policy, features or arms are not those that the
        policy reads, an id or title is none that can be read again, or a policy that keeps its `action` alone comes
        with `Features`. (The environments of MovieLens pass `RatingFeatures` for every agent.)
    """
    from recbandits.serving import saved_model

    directory, scorer = Path(directory), policy.scorer() if hasattr(policy, "scorer") else None
    arms = None if arms is None else [read_id("arm", arm) for arm in arms]
    if isinstance(features, RatingFeatures):
        features = features.features
    elif features is not None and scorer is None:
        raise ValueError("policy must score by what it has learnt to be exported with Features, it has `action` only")
    _check(saved_model.observation_spec(policy), int(policy.action_spec.maximum) + 1, features, arms)
    free = not directory.exists() or (directory.is_dir() and {path.name for path in directory.iterdir()} <= _ENTRIES)
    checks.require(free, "directory", "new, or that of an exported policy and nothing else", str(directory))
    settings = {
        "scorer": scorer is not None,
        "exploration": asdict(exploration or Exploration()),
        "arms": arms,
        "items": None if features is None else len(arms or features.item_ids),
        "titles": read_titles(titles),
        "summary": None if summary is None else asdict(summary),
    }
    with checks.replacing(directory) as draft:
        saved_model.write(policy, scorer, str(draft))
        if scorer is not None:
            scorer.save(draft / _SCORER)
        if features is not None:
            features.save(draft)
        (draft / _CARD).write_text(model_card(settings), encoding="utf-8")
        manifest.seal(draft, settings)
    return directory


def read_titles(titles: pd.Series | Mapping[Any, str] | None) -> dict[str, str]:
    """Return titles by item id as JSON can hold them; ValueError for other ids and titles, and for two of one item."""
    read = {}
    for item, title in ({} if titles is None else titles).items():
        name = read_id("id of a title", item)
        checks.require(name not in read, "titles", "one for each item", name)
        read[name] = TEXT.accept(f"title of item {name}", title)
    return read


def load(directory: str | Path) -> ServedPolicy:
    """Read an exported policy at a path or a gs:// URI, after its seal was verified; one in a bucket has no `action`.

    ValueError if the directory is not an exported policy, or a damaged, incomplete, older or newer one.
    """
    with local_directory(directory) as local:
        settings, contents = _read(local)
    try:
        scorer = Scorer.load(io.BytesIO(contents[_SCORER])) if settings["scorer"] else None
        features = Features.load(io.BytesIO(contents[FILE])) if FILE in contents else None
        policy = ServedPolicy(local, settings, scorer, features)
        policy.check()
    except Exception as error:  # sealed, but no policy: NumPy and others say why, each in its way
        reason = " ".join(f"{type(error).__name__}, {error}".split())
        raise ValueError(f"policy {local.name} cannot be served: {reason:.300}") from error
    return policy


def describe(directory: str | Path) -> pd.Series:
    """Describe a policy by its seal: texts by name, and each metric with its interval. Errors are those of `load`."""
    with local_directory(directory) as local:
        settings, _ = _read(local)
    summary = settings["summary"] or {}
    method, value = settings["exploration"]["name"], settings["exploration"]["value"]
    rows = {
        "version": settings["version"],
        "agent": summary.get("agent", "not recorded"),
        "data": summary.get("data", "not recorded"),
        "exploration": method if method == "greedy" else f"{method}, {value:g}",
        "arms": "any item with features" if settings["arms"] is None else f"{len(settings['arms'])} fixed items",
        "knows": known_items(settings["items"]),
    }
    for name, value in summary.get("metrics", {}).items():
        value, *interval = value if isinstance(value, list) else [value]
        rows[name] = f"{value:.4g}" + (f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else "")
    return pd.Series(rows, name=local.name)


def _read(directory):
    """Read a policy directory as `manifest.read` does, and check what its seal says."""
    settings, contents = manifest.read(directory)
    for name, (expected, accepts) in _SETTINGS.items():
        try:
            accepted = accepts(settings[name])
        except Exception:  # of a constructor, each in its way, or for a setting that is missing
            accepted = False
        checks.require(accepted, f"policy {directory.name}: {name}", expected, settings.get(name, "none"))
    return settings, contents


_SETTINGS: dict[str, tuple[str, Callable]] = {  # of a policy's seal, by what each must be
    "scorer": ("true or false", lambda value: isinstance(value, bool)),
    "exploration": ("the name and the value of a method", lambda value: len(value) == 2 and Exploration(**value)),
    "arms": ("ids that are all different, or null", lambda value: value is None or NAMES.accept("arms", value)),
    "items": ("a whole number, or null", lambda value: value is None or checks.whole(0).accepts(value)),
    "titles": ("texts by id", lambda value: all(isinstance(title, str) for title in value.values())),
    "summary": ("what was recorded, or null", lambda value: value is None or TrainingSummary(**value)),
}


def _check(observation, actions, features, arms):
    """Refuse features and arms that would not fit when the first request is answered."""
    per_arm = isinstance(observation, dict)
    checks.require(not per_arm or arms is None, "arms", "None for a policy whose arms have features", arms)
    fits = arms is None or actions == len(arms) == len(set(arms))
    checks.require(fits, "arms", f"one item for each of the {actions} actions, all different", arms)
    if features is None:
        return
    checks.require(per_arm or arms is not None, "arms", f"the items of the {actions} actions, to serve ids", arms)
    read = {name: part.shape[-1] for name, part in observation.items()} if per_arm else {GLOBAL: observation.shape[-1]}
    got = {name: shape[-1] for name, shape in features.spec(1).items() if per_arm or name != PER_ARM}
    checks.require(got == read, "features", f"as many as the policy reads, {read}", got)
