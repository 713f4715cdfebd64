"""A policy leaves its agent as a directory."""

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf
from absl import logging as absl_logging
from tf_agents.policies import policy_saver

# What TensorFlow and PolicySaver write.
_FILES = {"assets", "fingerprint.pb", "policy_specs.pbtxt", "saved_model.pb", "variables"}


def export(policy, directory):
    """Write a policy as a SavedModel that needs neither this package nor TF-Agents to run.

    It is written beside its place and moved there when it is complete, so that nobody finds half a policy.

    Args:
      policy: a TF-Agents policy, such as `agent.policy`.
      directory: where to; a policy exported there before is replaced.

    Returns:
      The directory as a `pathlib.Path`.

    Raises:
      ValueError: the directory holds something that is not an exported policy.
    """
    directory = Path(directory)
    if directory.exists() and not (directory.is_dir() and {path.name for path in directory.iterdir()} <= _FILES):
        raise ValueError(f"the directory of a policy must hold nothing else, {directory.name} does")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as draft, _without_naming_notes():
        policy_saver.PolicySaver(policy).save(f"{draft}/policy")
        if directory.exists():
            directory.rename(f"{draft}/previous")
        Path(draft, "policy").rename(directory)
    return directory


def load(directory):
    """Read back an exported policy: an object with `action(time_step)`.

    Raises:
      ValueError: the directory is not an exported policy.
    """
    if not (Path(directory) / "saved_model.pb").is_file():
        raise ValueError(
            f"{Path(directory).name} must be the directory of an exported policy, it has no saved_model.pb"
        )
    return tf.saved_model.load(str(directory))


@contextmanager
def _without_naming_notes():
    """TensorFlow reports how it spells every argument of every signature; nobody can act on that."""
    tensorflow_logger = logging.getLogger("tensorflow")
    level, verbosity = tensorflow_logger.level, absl_logging.get_verbosity()
    tensorflow_logger.setLevel(logging.ERROR)
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        yield
    finally:
        tensorflow_logger.setLevel(level)
        absl_logging.set_verbosity(verbosity)
