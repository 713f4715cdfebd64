"""Where a training job keeps things, as Vertex AI tells its containers and the local platform its processes."""

import json
import os
from pathlib import Path
from typing import NamedTuple

_VARIABLES = {"model": "AIP_MODEL_DIR", "checkpoints": "AIP_CHECKPOINT_DIR", "tensorboard": "AIP_TENSORBOARD_LOG_DIR"}


class Places(NamedTuple):
    """Directories of a job; None for what it is not to keep.

    Attributes:
      model: of the exported policy; the job's `record.json` goes beside it.
      checkpoints: of what an interrupted job goes on from.
      tensorboard: of event files.
      chief: whether this process is the one among its replicas that writes.
      replicas: how many processes train, this one included.
    """

    model: Path | None
    checkpoints: Path | None
    tensorboard: Path | None
    chief: bool = True
    replicas: int = 1

    @classmethod
    def from_environment(cls, environment=os.environ):
        """Read AIP_MODEL_DIR, AIP_CHECKPOINT_DIR, AIP_TENSORBOARD_LOG_DIR and TF_CONFIG."""
        named = {place: environment.get(variable) for place, variable in _VARIABLES.items()}
        paths = {place: mounted(name) if name else None for place, name in named.items()}
        cluster = environment.get("TF_CONFIG")
        return cls(**paths, chief=is_chief(cluster), replicas=replicas(cluster))

    @property
    def record(self):
        """File beside the model, or None."""
        return None if self.model is None else self.model.parent / "record.json"

    def describe(self):
        """Text for each place: where it is, or which variable would name it."""
        return {
            place: f"nowhere, {variable} is not set" if getattr(self, place) is None else str(getattr(self, place))
            for place, variable in _VARIABLES.items()
        }


def mounted(name):
    """Path of a directory, or of a gs:// URI where Vertex AI mounts it: gs://bucket/x is /gcs/bucket/x."""
    return Path(f"/gcs/{name[len('gs://') :]}" if name.startswith("gs://") else name)


def is_chief(tf_config):
    """Whether a process is the one that writes: the chief, or the first worker where there is none.

    Args:
      tf_config: text of the variable TF_CONFIG; None or empty for a process without others.
    """
    config = json.loads(tf_config or "{}")
    task = config.get("task", {"type": "chief"})
    first_worker = task["type"] == "worker" and task["index"] == 0 and "chief" not in config["cluster"]
    return task["type"] == "chief" or first_worker


def replicas(tf_config):
    """How many processes train together, by the text of TF_CONFIG; 1 without it."""
    cluster = json.loads(tf_config or "{}").get("cluster", {})
    return max(1, sum(len(cluster.get(kind, [])) for kind in ("chief", "worker")))
