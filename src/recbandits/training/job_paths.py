"""Paths of a training job, as Vertex AI gives them to its containers and the local platform to its processes."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from recbandits.checks import replacing

if TYPE_CHECKING:
    import pandas as pd

_USERS, _TABLE = "users", "users.parquet"
_VARIABLES = {"model": "AIP_MODEL_DIR", "checkpoints": "AIP_CHECKPOINT_DIR", "tensorboard": "AIP_TENSORBOARD_LOG_DIR"}


class JobPaths(NamedTuple):
    """Directories of a job, None for each that the job does not keep, and its role among its replicas.

    The job's `record.json` goes beside the `model`, the exported policy, as does the table for `read_users`. An
    interrupted job resumes from its `checkpoints`; `tensorboard` is for event files. The `chief`, or the first worker
    where there is none, writes the results. `replicas` counts the processes that train, this one included.
    """

    model: Path | None
    checkpoints: Path | None
    tensorboard: Path | None
    chief: bool = True
    replicas: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "JobPaths":
        """Read AIP_MODEL_DIR, AIP_CHECKPOINT_DIR, AIP_TENSORBOARD_LOG_DIR and TF_CONFIG; ValueError for another one."""
        names = {path: environment.get(variable) for path, variable in _VARIABLES.items()}
        text = environment.get("TF_CONFIG") or "{}"
        try:
            config = json.loads(text)
            cluster, task = config.get("cluster", {}), config.get("task", {"type": "chief"})
            first_worker = task["type"] == "worker" and task["index"] == 0 and "chief" not in cluster
            replicas = max(1, sum(len(cluster.get(kind, [])) for kind in ("chief", "worker")))
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            expected = "JSON with cluster and task (type, index)"
            raise ValueError(f"TF_CONFIG must be {expected}, got {text!r:.300}") from error
        return cls(
            **{path: mounted(name) if name else None for path, name in names.items()},
            chief=task["type"] == "chief" or first_worker,
            replicas=replicas,
        )

    @property
    def record(self) -> Path | None:
        """File beside the model, or None."""
        return None if self.model is None else self.model.parent / "record.json"

    def write_users(self, users: "pd.DataFrame") -> None:
        """Write the raw columns of users beside the model."""
        if self.model is not None:
            with replacing(self.model.parent / _USERS / _TABLE) as draft:
                users.to_parquet(draft)

    def describe(self) -> dict[str, str]:
        """Return for each directory its path, or the variable that would name it."""
        return {
            path: f"not written: {variable} is not set" if getattr(self, path) is None else str(getattr(self, path))
            for path, variable in _VARIABLES.items()
        }


def mounted(name: str) -> Path:
    """Return the path of a directory, or of a gs:// URI where Vertex AI mounts it: gs://bucket/x is /gcs/bucket/x."""
    return Path(f"/gcs/{name[len('gs://') :]}" if name.startswith("gs://") else name)


def read_users(model: str | Path) -> "pd.DataFrame":
    """Read the raw columns of the users of MovieLens, indexed by user_id, that the job of a policy knew.

    `model` is the directory or gs:// URI of the exported policy. A recommender in production has a feature store for
    this. FileNotFoundError if the job wrote none.
    """
    import pandas as pd  # the command line prints its help without it

    from recbandits.serving.manifest import local_directory

    parent, slash, _ = str(model).rstrip("/").rpartition("/")
    with local_directory(f"{parent}/{_USERS}" if slash else _USERS) as directory:
        return pd.read_parquet(directory / _TABLE)
