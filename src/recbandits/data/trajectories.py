"""Logged decisions as training examples: in memory, or as TF-Agents' per-arm trajectories in sharded TFRecords."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf
from tf_agents.policies.utils import PerArmPolicyInfo
from tf_agents.trajectories import trajectory

from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.data.tfrecords import write_shards

CHOSEN = "chosen_arm_features"
_CHUNK = 8192  # records parsed or written at a time


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
        event=pd.util.hash_array(log.event_id).view(np.int64),
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
      list of `pathlib.Path`, as `write_records` gives them.
    """

    def serialized(rows):
        for start in range(0, len(rows), _CHUNK):
            yield from _serialized(log.take(rows[start : start + _CHUNK]), bundle)

    return write_shards(serialized, np.arange(len(log)), directory, name, shards)


def read_trajectories(files, batch_size=1024, seed=None, candidates=True):
    """Read trajectories back as TF-Agents' per-arm agents train on them.

    Args:
      files: paths, as `write_trajectories` gives them.
      batch_size: decisions a batch; the last batch may be smaller.
      seed: None streams the records in the order written. A number parses them once, keeps them in memory, and brings
        them in a new order, drawn from all of them, in every epoch.
      candidates: False leaves out the features of the candidates that were not chosen, which only acting needs.

    Returns:
      `tf.data.Dataset` of (trajectory, propensity): a `Trajectory` [batch, 1, ...] with observation `global` and
      `per_arm`, policy info `chosen_arm_features`, and the propensities float32 [batch].

    Raises:
      ValueError: there is no record.
    """
    spec = feature_spec(files, candidates)
    spec = {name: field for name, field in spec.items() if name not in ("pass_prob", "event")}
    if seed is None:
        return _parsed(files, spec, batch_size).map(as_trajectory, num_parallel_calls=2).prefetch(2)
    parts = list(_parsed(files, spec, _CHUNK))
    memory = {name: tf.concat([part[name] for part in parts], axis=0) for name in spec}
    rows = tf.data.Dataset.range(len(memory["reward"]))
    rows = rows.shuffle(rows.cardinality(), seed, reshuffle_each_iteration=True).batch(batch_size)
    return rows.map(
        lambda rows: as_trajectory({name: tf.gather(value, rows) for name, value in memory.items()}),
        num_parallel_calls=2,
    ).prefetch(2)


def read_examples(files):
    """Read the examples of trajectories into memory.

    Args:
      files: paths, as `write_trajectories` gives them.

    Returns:
      Examples, in the order written.

    Raises:
      ValueError: there is no record.
    """
    spec = feature_spec(files, candidates=False)
    parts = list(_parsed(files, spec, _CHUNK).as_numpy_iterator())
    keys = {"context": GLOBAL, "arm": CHOSEN}
    return Examples(*(np.concatenate([part[keys.get(field, field)] for part in parts]) for field in Examples._fields))


def feature_spec(files, candidates=True):
    """What `tf.io.parse_example` needs to know of trajectories; the sizes are those of the first record.

    Args:
      files: paths, as `write_trajectories` gives them.
      candidates: False leaves out `per_arm`.

    Returns:
      dict from field name to `tf.io.FixedLenFeature`.

    Raises:
      ValueError: there is no record.
    """
    first = next(iter(tf.data.TFRecordDataset(_names(files))), None)
    if first is None:
        raise ValueError(f"files must hold at least one record, got none in {[Path(file).name for file in files]}")
    features = tf.train.Example.FromString(first.numpy()).features.feature
    context, arm, arms = (len(features[name].float_list.value) for name in (GLOBAL, CHOSEN, PER_ARM))
    shapes = {GLOBAL: [context], CHOSEN: [arm]} | ({PER_ARM: [arms // arm, arm]} if candidates else {})
    shapes |= {name: [] for name in ("reward", "propensity", "pass_prob")}
    spec = {name: tf.io.FixedLenFeature(shape, tf.float32) for name, shape in shapes.items()}
    return spec | dict.fromkeys(("action", "event"), tf.io.FixedLenFeature([], tf.int64))


def as_trajectory(fields):
    """Make a trajectory of TF-Agents of a parsed batch; each decision is an episode of one step.

    Args:
      fields: dict from field name to tensor [batch, ...], as `feature_spec` says.

    Returns:
      (trajectory, propensity), a batch of `read_trajectories`.
    """
    experience = trajectory.single_step(
        observation={name: fields[name] for name in (GLOBAL, PER_ARM) if name in fields},
        action=tf.cast(fields["action"], tf.int32),
        policy_info=PerArmPolicyInfo(chosen_arm_features=fields[CHOSEN]),
        reward=fields["reward"],
        discount=tf.zeros_like(fields["reward"]),
    )
    return tf.nest.map_structure(lambda tensor: tensor[:, None], experience), fields["propensity"]


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
        zeros = tf.train.Feature(float_list=tf.train.FloatList(value=np.zeros(values.shape[1])))
        before = _example({name: zeros})[: -values[0].nbytes]
        parts.append([before + row.tobytes() for row in values])
    events = pd.util.hash_array(log.event_id).view(np.int64)
    parts.append([_example({"action": _int(a), "event": _int(e)}) for a, e in zip(log.action, events, strict=True)])
    return map(b"".join, zip(*parts, strict=True))


def _example(features):
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _int(value):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def _parsed(files, spec, batch_size):
    """Dataset of dicts from field to tensor [batch, ...], a batch parsed at a time."""
    records = tf.data.TFRecordDataset(_names(files)).batch(batch_size)
    return records.map(lambda batch: tf.io.parse_example(batch, spec), num_parallel_calls=2)


def _names(files):
    return [str(file) for file in files]
