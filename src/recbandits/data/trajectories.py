"""Logged decisions as TF-Agents' per-arm agents train on them, read from the TFRecords that `data.examples` writes."""

from pathlib import Path

from recbandits.tf import tf

import numpy as np
from tf_agents.policies.utils import PerArmPolicyInfo
from tf_agents.trajectories import trajectory

from recbandits.data.examples import CHOSEN, Examples, examples, write_trajectories
from recbandits.data.features import GLOBAL, PER_ARM

__all__ = [
    "Examples",
    "as_trajectory",
    "examples",
    "feature_spec",
    "read_examples",
    "read_trajectories",
    "write_trajectories",
]

_CHUNK = 8192  # records parsed at a time


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


def _parsed(files, spec, batch_size):
    """Dataset of dicts from field to tensor [batch, ...], a batch parsed at a time."""
    records = tf.data.TFRecordDataset(_names(files)).batch(batch_size)
    return records.map(lambda batch: tf.io.parse_example(batch, spec), num_parallel_calls=2)


def _names(files):
    return [str(file) for file in files]
