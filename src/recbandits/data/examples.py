"""Logged decisions as training examples, in memory and in files, made without TensorFlow."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.data.shards import write_shards

CHOSEN = "chosen_arm_features"
_CHUNK = 8192  # decisions serialised at a time
_FLOATS, _INTEGERS = 2, 3  # numbers of the kinds in the protocol buffer `tf.train.Feature`


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


def make_examples(log, bundle):
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

    def serialized(rows):
        for start in range(0, len(rows), _CHUNK):
            yield from _serialized(log.take(rows[start : start + _CHUNK]), bundle)

    return write_shards(serialized, np.arange(len(log)), directory, name, shards)


def _hashes(log):
    return pd.util.hash_array(log.event_id).view(np.int64)


def _serialized(log, bundle):
    """Serialised `tf.train.Example` of each decision.

    The parts of a record are serialised apart and joined: parsers merge them. Floats of one length differ in their last
    bytes alone, which are those of the array.
    """
    observation = bundle.observation(log.user_id, log.candidates, log.mask)
    floats = {
        GLOBAL: observation[GLOBAL],
        PER_ARM: observation[PER_ARM].reshape(len(log), -1),
        CHOSEN: observation[PER_ARM][np.arange(len(log)), log.action],
        "reward": log.reward[:, None],
        "propensity": log.propensity[:, None],
        "pass_prob": log.pass_prob[:, None],
    }
    parts = []
    for name, values in floats.items():
        values = np.ascontiguousarray(values, "<f4")
        size = values[0].nbytes
        before = _field(1, _feature(name, _FLOATS, bytes(size)))
        before = before[: len(before) - size]
        parts.append([before + row.tobytes() for row in values])
    rows = zip(log.action.tolist(), _hashes(log).tolist(), strict=True)
    parts.append([_field(1, _integer("action", a) + _integer("event", e)) for a, e in rows])
    return map(b"".join, zip(*parts, strict=True))


def _feature(name, kind, values):
    """An entry of the map in `tf.train.Features`: a name, and packed values of a kind."""
    value = _field(kind, _field(1, values))
    return _field(1, _field(1, name.encode()) + _field(2, value))


def _integer(name, value):
    """An entry of the map with one whole number; protocol buffers write negative ones modulo 2^64."""
    return _feature(name, _INTEGERS, _varint(value % 2**64))


def _field(number, content):
    """A field of a protocol buffer that holds bytes: its number and wire type 2, the length, the content."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value):
    """A whole number, seven bits a byte, the lowest first; all bytes but the last have the highest bit set."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
