"""A model of the loop as a directory, all of them by version, and the configuration by which a step finds them.

A step gets the configuration as a parameter: a container of Vertex AI has neither the file nor the environment of the
process that started the pipeline, but it has every bucket as a directory below /gcs.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from recbandits.agents.parameters import LinUCB
from recbandits.checks import copy_files, require, write_text
from recbandits.config import SETTINGS, Config
from recbandits.exploration import Exploration
from recbandits.platforms.protocol import Platform
from recbandits.serving.manifest import local_directory
from recbandits.training.job_paths import mounted

AGENT, FILE, POLICY = "agent", "model.json", "policy"
_KIND = "recbandits model"


class Model(NamedTuple):
    """A model in a directory: `policy/`, as `serving.policy.export` writes one, `agent/`, and `model.json`."""

    directory: Path
    version: str  # of its policy
    parent: str | None  # version of the model that it went on from; None for none
    learnt: int  # number of events that it has learnt, its parent's among them
    until: datetime  # in UTC, end of its newest data
    parameters: LinUCB  # of its agent, which learns on and knows the events that it has learnt
    exploration: Exploration  # with which it serves

    @property
    def policy(self) -> Path:
        """Directory of the policy."""
        return self.directory / POLICY


def read_model(directory: str | Path) -> Model:
    """Read the `Model` in a directory; ValueError where there is no complete one."""
    file = Path(directory) / FILE
    if not file.is_file():
        raise ValueError(f"{file.parent.name} must be the directory of a complete model, it has no {FILE}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("what") != _KIND:
            raise ValueError(f"it is not of a {_KIND}")
        content["until"] = datetime.fromisoformat(content["until"])
        content["parameters"] = LinUCB(**content["parameters"])
        content["exploration"] = Exploration(**content["exploration"])
        return Model(file.parent, **content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{FILE} of {file.parent.name} cannot be read: {error}") from error


def write_model(draft: str | Path, model: Model) -> Model:
    """Write a `Model` to its directory, with the `policy/` and `agent/` of the directory `draft`; return it.

    A model that is there is replaced. A process that is killed meanwhile leaves none rather than a part of one:
    `model.json`, which makes a directory a model, is removed first and written last. ValueError for a directory with
    other visible files.
    """
    directory = model.directory
    directory.mkdir(parents=True, exist_ok=True)
    others = sorted({path.name for path in directory.glob("[!.]*")} - {POLICY, AGENT, FILE})
    require(not others, f"the directory {directory.name} of a model", "without other files", others)
    (directory / FILE).unlink(missing_ok=True)
    for part in (POLICY, AGENT):
        shutil.rmtree(directory / part, ignore_errors=True)
        copy_files(Path(draft, part), directory / part)
    facts = model._asdict() | {"until": model.until.isoformat()}
    facts |= {"parameters": asdict(model.parameters), "exploration": asdict(model.exploration)}
    del facts["directory"]
    write_text(directory / FILE, json.dumps({"what": _KIND, **facts}, indent=1) + "\n")
    return model


def keep_model(model: Model, models: Path) -> Model:
    """Copy a `Model` to the directory of its version in `models`, unless one is there already; return the copy."""
    kept = model._replace(directory=models / model.version)
    return kept if (kept.directory / FILE).is_file() else write_model(model.directory, kept)


def load_policies(models: Path, versions: Iterable[str]) -> dict:
    """Return a dict from version to `ServedPolicy`, of those versions that `keep_model` has stored in `models`."""
    from recbandits.serving.policy import load

    return {version: load(models / version / POLICY) for version in versions if (models / version).is_dir()}


def platform_of(config: dict) -> Platform:
    """Return the platform of a configuration that `config_parameter` has made."""
    from recbandits.platforms import choose

    return choose(Config(**config))


def config_parameter(config: Config) -> dict[str, str]:
    """Return a `Config` as a dict of texts, without the artifacts directory where a step has not got it."""
    settings = {name: getattr(config, name) for name in SETTINGS if name != "artifacts"}
    return settings | ({} if config.platform == "gcp" else {"artifacts": str(config.artifacts_dir)})


def models_uri(config: Config) -> str:
    """Return where the models of a configuration are, by version: a directory, or a gs:// URI."""
    return f"gs://{config.bucket}/models" if config.platform == "gcp" else str(config.artifacts_dir / "policies")


def models_of(config: Config) -> Path:
    """Return the directory of the models of a configuration, by version, as a step sees it."""
    return mounted(models_uri(config))


def serving_model(platform: Platform) -> Model | None:
    """Return the `Model` that serves; None where none does."""
    from recbandits.loop.canary import serving_version  # with SciPy, which most steps do not need

    version = serving_version(platform.endpoints.create())
    if version is None:
        return None
    with local_directory(f"{models_uri(platform.config)}/{version}") as directory:
        return read_model(directory)
