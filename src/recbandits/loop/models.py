"""A model of the loop as a directory, and all of them by version."""

import json
import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from recbandits.agents.parameters import LinUCB
from recbandits.exploration import Exploration

AGENT, FILE, POLICY = "agent", "model.json", "policy"
_KIND = "recbandits model"


class Model(NamedTuple):
    """A model.

    Attributes:
      directory: `pathlib.Path` with `policy/` (as `serving.policy.export` writes one), `agent/` (the agent that learns
        on, with the events that it has learnt) and `model.json`.
      version: of its policy.
      parent: version of the model that it went on from; None for none.
      learnt: number of events that it has learnt, its parent's among them.
      until: datetime in UTC, end of its newest data.
      parameters: `LinUCB` of its agent.
      exploration: `Exploration` with which it serves.
    """

    directory: Path
    version: str
    parent: str | None
    learnt: int
    until: datetime
    parameters: LinUCB
    exploration: Exploration

    @property
    def policy(self) -> Path:
        """Directory of the policy."""
        return self.directory / POLICY

    @property
    def agent(self) -> Path:
        """Path of the agent's checkpoint, as `tf.train.Checkpoint.read` takes it."""
        return self.directory / AGENT / "checkpoint"


def read_model(directory: str | Path) -> Model:
    """Read the `Model` in a directory; ValueError where there is no complete one."""
    directory = Path(directory)
    file = directory / FILE
    if not file.is_file():
        raise ValueError(f"{directory.name} must be the directory of a complete model, it has no {FILE}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("what") != _KIND:
            raise ValueError(f"it is not of a {_KIND}")
        content |= {
            "until": datetime.fromisoformat(content["until"]),
            "parameters": LinUCB(**content["parameters"]),
            "exploration": Exploration(**content["exploration"]),
        }
        return Model(directory, **content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{FILE} of {directory.name} cannot be read: {error}") from error


def write_model(draft: str | Path, directory: str | Path, facts: dict) -> Model:
    """Write a model; a process that is killed meanwhile leaves none rather than a part of one.

    `model.json`, which makes a directory a model, is removed first and written last. Files are copied one by one: a
    bucket that is mounted as a directory cannot rename a folder.

    Args:
      draft: directory with `policy/` and `agent/`.
      directory: of the model, made if missing; a model that is there is replaced.
      facts: dict of the fields of `Model` but for the directory, as JSON takes them.

    Raises:
      ValueError: the directory holds something that is no part of a model.
    """
    draft, directory = Path(draft), Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if others := sorted({path.name for path in directory.iterdir()} - {POLICY, AGENT, FILE, _draft(directory).name}):
        raise ValueError(f"the directory of a model must hold nothing else, {directory.name} has {others[0]}")
    (directory / FILE).unlink(missing_ok=True)
    for part in (POLICY, AGENT):
        shutil.rmtree(directory / part, ignore_errors=True)
        _copy(draft / part, directory / part)
    _draft(directory).write_text(json.dumps({"what": _KIND, **facts}, indent=1) + "\n", encoding="utf-8")
    _draft(directory).replace(directory / FILE)
    return read_model(directory)


class Models:
    """Models by the version of their policies.

    Args:
      root: directory with one directory for each model, created with the first.
    """

    def __init__(self, root: str | Path):
        self._root = Path(root)

    def path(self, version: str) -> Path:
        """Return the directory of the model of a version, which may not be there."""
        return self._root / version

    def policies(self, versions: Iterable[str]) -> dict:
        """Return a dict from version to `ServedPolicy`, of those versions that are stored."""
        from recbandits.serving.policy import load

        return {version: load(self.path(version) / POLICY) for version in versions if self.path(version).is_dir()}

    def keep(self, directory: str | Path) -> str:
        """Copy the model of a directory, unless it is there already; return its version. See `read_model`."""
        model = read_model(directory)
        target = self.path(model.version)
        if not (target / FILE).is_file():
            facts = json.loads((model.directory / FILE).read_text(encoding="utf-8"))
            write_model(model.directory, target, {name: value for name, value in facts.items() if name != "what"})
        return model.version


def _copy(source, target):
    """Copy the files of a directory, their contents alone: a bucket that is mounted refuses permissions and times."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def _draft(directory):
    return directory / f"{FILE}.draft"
