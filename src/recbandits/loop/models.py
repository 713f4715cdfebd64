"""A model of the loop as a directory, and all of them by version: what serves, and what the next one goes on from."""

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from recbandits.agents.parameters import LinUCB
from recbandits.exploration import Exploration

AGENT, FILE, POLICY = "agent", "model.json", "policy"
_KIND = "recbandits model"


class Model(NamedTuple):
    """What is known of a model.

    Attributes:
      directory: `pathlib.Path` of it, with `policy/` (as `serving.policy.export` writes one), `agent/` (the agent that
        learns on, with the events that it has learnt) and `model.json`.
      version: of its policy.
      parent: version that it learnt on from; None for one that began with nothing.
      learnt: number of events that it has learnt, its parent's among them.
      until: datetime in UTC, end of the window of the newest data that it was given.
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
    def policy(self):
        """Directory of the policy."""
        return self.directory / POLICY

    @property
    def agent(self):
        """Where the agent's checkpoint is, as `tf.train.Checkpoint.read` takes it."""
        return self.directory / AGENT / "checkpoint"


def read_model(directory):
    """Read what is known of a model.

    Args:
      directory: of it.

    Returns:
      Model

    Raises:
      ValueError: there is no complete model.
    """
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


def write_model(draft, directory, facts):
    """Put a model in its place, so that whoever is killed while doing so leaves none rather than half a one.

    `model.json`, which makes a directory a model, goes first and comes last. Files are copied one by one: a bucket that
    is mounted as a directory cannot rename a folder.

    Args:
      draft: directory with `policy/` and `agent/`.
      directory: where the model is to be, made if missing; a model that is there is replaced.
      facts: dict of what `Model` knows of it beside the directory, as JSON takes it.

    Returns:
      Model

    Raises:
      ValueError: the directory holds something that is no part of a model.
    """
    draft, directory = Path(draft), Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    if strange := sorted({path.name for path in directory.iterdir()} - {POLICY, AGENT, FILE, _draft(directory).name}):
        raise ValueError(f"the directory of a model must hold nothing else, {directory.name} has {strange[0]}")
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
      root: directory in which each has its own; made when the first is kept.
    """

    def __init__(self, root):
        self._root = Path(root)

    def path(self, version):
        """Directory of the model of a version, whether it is there or not."""
        return self._root / version

    def keep(self, directory):
        """Copy a model to its place; one that is there already stays as it is.

        Args:
          directory: of a model.

        Returns:
          Its version.

        Raises:
          ValueError: there is no complete model.
        """
        model = read_model(directory)
        place = self.path(model.version)
        if not (place / FILE).is_file():
            facts = json.loads((model.directory / FILE).read_text(encoding="utf-8"))
            write_model(model.directory, place, {name: value for name, value in facts.items() if name != "what"})
        return model.version


def _copy(source, target):
    """Copy the files of a directory, their contents alone: a bucket that is mounted refuses permissions and times."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def _draft(directory):
    return directory / f"{FILE}.draft"
