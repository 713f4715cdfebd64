"""Checkpoints of one run in a directory of their own, which remembers what run it is."""

import json
from pathlib import Path

from recbandits.tf import tf


def restored(directory, what, kind, name, writes=True, **state):
    """Open the checkpoints of a run, and bring its state to where the last one left it.

    Args:
      directory: of these checkpoints; made if missing.
      what: what identifies the run, as JSON takes it.
      kind: of run, "simulation" or "training", for the name of the description and for errors.
      name: of the run, for errors.
      writes: False where another process writes.
      **state: what a checkpoint keeps, trackable by `tf.train.Checkpoint`.

    Returns:
      `tf.train.CheckpointManager`

    Raises:
      ValueError: the directory has the checkpoints of another run.
    """
    directory, text = Path(directory), json.dumps(what, indent=2)
    description = directory / f"{kind}.json"
    if description.exists() and description.read_text() != text:
        raise ValueError(f"checkpoints of {name!r} belong to another {kind}; choose another directory")
    if writes:
        directory.mkdir(parents=True, exist_ok=True)
        draft = description.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(description)
    checkpoint = tf.train.Checkpoint(**state)
    manager = tf.train.CheckpointManager(checkpoint, str(directory), max_to_keep=1)
    checkpoint.restore(manager.latest_checkpoint)
    return manager
