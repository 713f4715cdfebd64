"""A policy leaves its agent as a directory."""

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf
from absl import logging as absl_logging
from tf_agents.policies import policy_saver

from recbandits.data.features import FeatureBundle
from recbandits.training.offline import scores

# What TensorFlow, PolicySaver and FeatureBundle write.
_FILES = {"assets", "features.npz", "fingerprint.pb", "policy_specs.pbtxt", "saved_model.pb", "variables"}


def export(policy, directory, features=None):
    """Write a policy as a SavedModel that needs neither this package nor TF-Agents to run.

    It is written beside its place and moved there when it is complete, so that nobody finds half a policy.

    Args:
      policy: a TF-Agents policy, such as `agent.policy`.
      directory: where to; a policy exported there before is replaced.
      features: the FeatureBundle that it was trained with, to be kept with it; None for none.

    Returns:
      The directory as a `pathlib.Path`.

    Raises:
      ValueError: the directory holds something that is not an exported policy, or the features are not those that the
        policy reads.
    """
    directory = Path(directory)
    if features is not None:
        _check_features(policy, features)
    if directory.exists() and not (directory.is_dir() and {path.name for path in directory.iterdir()} <= _FILES):
        raise ValueError(f"the directory of a policy must hold nothing else, {directory.name} does")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as draft, _without_naming_notes():
        saver = policy_saver.PolicySaver(policy)
        if hasattr(policy, "score_pairs"):
            policy.score_pairs.get_concrete_function()  # traced, which is what makes it part of the file
            saver.register_concrete_function("score_pairs", policy.score_pairs)
        saver.save(f"{draft}/policy")
        if features is not None:
            features.save(f"{draft}/policy")
        if directory.exists():
            directory.rename(f"{draft}/previous")
        Path(draft, "policy").rename(directory)
    return directory


class LoadedPolicy:
    """A policy as it was exported.

    Attributes:
      bundle: the FeatureBundle that it was exported with, or None.
      action: function from a TF-Agents time step to a policy step.
      score_pairs: function from contexts float32 [n, G] and arms float32 [n, D] to scores float32 [n]; only of policies
        for arms with features.
    """

    def __init__(self, model, bundle):
        self._model = model  # its functions do not keep its variables alive
        self.bundle, self.action = bundle, model.action
        if hasattr(model, "score_pairs"):
            self.score_pairs = model.score_pairs

    def scores(self, user_ids, candidates, mask=None):
        """Score candidates by their ids, with the features that the policy was trained on.

        Args:
          user_ids: int array [n].
          candidates: int array [n, k], movie ids.
          mask: bool array [n, k], False in padding; None for all True.

        Returns:
          float array [n, k], minus infinity where the mask is False; bit by bit what the exported
          agent gives for the same arrays.

        Raises:
          ValueError: the policy was exported without features, or shapes do not fit together.
          KeyError: ids that the bundle does not know.
        """
        if self.bundle is None:
            raise ValueError("policy must have been exported with its features to score ids, it has none")
        return scores(self, self.bundle, user_ids, candidates, mask)


def load(directory):
    """Read back an exported policy.

    Returns:
      LoadedPolicy

    Raises:
      ValueError: the directory is not an exported policy.
    """
    directory = Path(directory)
    if not (directory / "saved_model.pb").is_file():
        raise ValueError(f"{directory.name} must be the directory of an exported policy, it has no saved_model.pb")
    bundle = FeatureBundle.load(directory) if (directory / "features.npz").is_file() else None
    return LoadedPolicy(tf.saved_model.load(str(directory)), bundle)


def _check_features(policy, features):
    """Refuse a bundle now that would be found not to fit when the first user is served."""
    observation = policy.time_step_spec.observation
    observation = observation[0] if isinstance(observation, tuple) else observation
    expected = {name: part.shape[-1] for name, part in observation.items()} if isinstance(observation, dict) else "none"
    got = {name: shape[-1] for name, shape in features.spec(1).items()}
    if got != expected:
        raise ValueError(f"features must be as many as the policy reads, {expected}, got {got}")


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
