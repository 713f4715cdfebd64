"""Checkpoints of one run in a directory of their own, with a description of the run that they belong to."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recbandits.tf import tf

import numpy as np
from tf_agents.agents.tf_agent import TFAgent

from recbandits.agents.factory import make_agent
from recbandits.checks import write_text

INTERVAL = 10.0  # seconds between two checkpoints of a run, each of which takes about 30 milliseconds


def open_checkpoints(
    directory: str | Path, settings: dict, kind: str, name: str, writes: bool = True, **state: Any
) -> tf.train.CheckpointManager:
    """Open the checkpoints of a run in a directory of their own, and restore the run's state from the last one.

    The settings, as JSON takes them, identify the run: ValueError if the directory has the checkpoints of another one.
    Its kind, "simulation" or "training", and its name are for errors. Where `writes` is False, another process writes.
    """
    description, text = Path(directory, f"{kind}.json"), json.dumps(settings, indent=2)
    if description.exists() and description.read_text(encoding="utf-8") != text:
        raise ValueError(f"checkpoints of {name!r} belong to another {kind}; choose another directory")
    if writes:
        write_text(description, text)
    checkpoint = tf.train.Checkpoint(**state)
    manager = tf.train.CheckpointManager(checkpoint, str(directory), max_to_keep=1)
    checkpoint.restore(manager.latest_checkpoint)
    return manager


def compute_digest(arrays: Iterable[np.ndarray]) -> str:
    """Compute the SHA-256 of arrays, in hexadecimal."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class Restart:
    """Returns an agent, which is used with several seeds, to the state in which `make_agent` makes it with each."""

    def __init__(self, agent: TFAgent, environment: Any):
        self._agent, self._environment = agent, environment
        self._start: list[np.ndarray] = []
        self.variables = agent.variables  # once, because TensorFlow searches the whole agent for them
        self._is_own = hasattr(getattr(agent, "parameters", None), "make")  # of the user; it may read its seed anywhere
        self._seeded = [] if self._is_own else [module for module in agent.submodules if hasattr(module, "reseed")]

    def __call__(self, seed: int) -> None:
        """Set all variables as `make_agent` with this seed sets them."""
        if self._is_own or not self._start:
            self._start = read_values(make_agent(self._agent.parameters, self._environment, seed).variables)
        assign_values(self.variables, self._start)
        for module in self._seeded:
            module.reseed(seed)


def read_values(variables: Iterable[tf.Variable]) -> list[np.ndarray]:
    """Return the values of variables, such as those of an agent."""
    return [variable.numpy() for variable in variables]


def assign_values(variables: Iterable[tf.Variable], values: Iterable[np.ndarray]) -> None:
    """Assign values, arrays in the order of the variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
