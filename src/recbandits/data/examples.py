"""Logged decisions as training examples, in memory and in files."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from recbandits.data.features import GLOBAL, PER_ARM

CHOSEN = "chosen_arm_features"


class Examples(NamedTuple):
    """What a reward model learns from, one row a decision.

    Attributes:
      context: float32 [n, G], features of the user.
      arm: float32 [n, D], features of the chosen candidate.
      reward: float32 [n].
      propensity: float32 [n], probability with which the candidate was chosen.
      pass_prob: float32 [n], probability with which the record was kept.
      event: int64 [n], hash of the event id, the same in every process.
    """

    context: np.ndarray
    arm: np.ndarray
    reward: np.ndarray
    propensity: np.ndarray
    pass_prob: np.ndarray
    event: np.ndarray


def examples(log, bundle):
    """Training examples of a log.

    Args:
      log: BanditLog
      bundle: FeatureBundle that knows its users and movies.

    Returns:
      Examples in the order of the log.
    """
    observation = bundle.observation(log.user_id, log.arm[:, None])
    return Examples(
        context=observation[GLOBAL],
        arm=observation[PER_ARM][:, 0],
        reward=log.reward.astype(np.float32),
        propensity=log.propensity.astype(np.float32),
        pass_prob=log.pass_prob.astype(np.float32),
        event=_hashes(log),
    )


def write_trajectories(log, bundle, directory, name, shards=4):
    """Write each decision of a log as one record, a `tf.train.Example`, in their order.

    A record holds what a trajectory of TF-Agents holds: `global` [G], `per_arm` [k, D] (0 in padding),
    `chosen_arm_features` [D], `action` and `reward`. Beside it, where TF-Agents has no place for them, stand
    `propensity`, `pass_prob` and `event` (the hash of `Examples`).

    Args:
      log: BanditLog
      bundle: FeatureBundle that knows its users and movies.
      directory: folder, made if missing.
      name: of the set; older shards of that name are removed.
      shards: number of files.

    Returns:
      list of `pathlib.Path`, as `write_shards` gives them.
    """
    from recbandits.data.tfrecords import encode_examples, write_shards

    def serialize(rows):
        return encode_examples(_columns(log.take(rows), bundle))

    return write_shards(serialize, np.arange(len(log)), directory, name, shards)


def _hashes(log):
    return pd.util.hash_array(log.event_id).view(np.int64)


def _columns(log, bundle):
    """Fields of the records as arrays, one row a decision."""
    observation = bundle.observation(log.user_id, log.candidates, log.mask)
    return {
        GLOBAL: observation[GLOBAL],
        PER_ARM: observation[PER_ARM],
        CHOSEN: observation[PER_ARM][np.arange(len(log)), log.action],
        "reward": log.reward,
        "propensity": log.propensity,
        "pass_prob": log.pass_prob,
        "action": log.action,
        "event": _hashes(log),
    }
