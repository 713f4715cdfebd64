"""Logged decisions in TFRecord files, read back as trajectories of TF-Agents' per-arm agents or as `Examples`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbandits.tf import tf

import numpy as np
from tf_agents.policies.utils import PerArmPolicyInfo
from tf_agents.trajectories import trajectory

from recbandits.data.examples import Examples, make_examples
from recbandits.data.features import GLOBAL, PER_ARM, Features
from recbandits.data.tfrecords import encode_examples, parse_records, write_shards
from recbandits.records.log import Log

CHOSEN = "chosen_arm_features"
_FIELDS = {"context": GLOBAL, "arm": CHOSEN}  # fields of records that are named otherwise in `Examples`
_CHUNK = 8192  # records made or parsed at a time


def write_trajectories(log: Log, features: Features, directory: str | Path, name: str, shards: int = 4) -> list[Path]:
    """Write each decision of a log as one record, a `tf.train.Example`, in their order.

    The same log gives the same bytes. A record holds what a trajectory of TF-Agents holds: `global` [G], `per_arm`
    [k, D] (0 in padding), `chosen_arm_features` [D], `action` and `reward`; and, for which TF-Agents has no place,
    `propensity`, `pass_prob` and `event` (the hash of `Examples`). Files are those of `write_shards`.
    """

    def serialize(rows):
        return encode_examples(_collect_fields(log.take(rows), features))

    return write_shards(serialize, np.arange(len(log)), directory, name, shards)


def read_trajectories(
    files: Sequence[str | Path], batch_size: int = 1024, seed: int | None = None, candidates: bool = True
) -> tf.data.Dataset:
    """Read files of `write_trajectories` as TF-Agents' per-arm agents train on them.

    The dataset has pairs (trajectory, propensity): a `Trajectory` [batch, 1, ...] with observation `global` and
    `per_arm`, policy info `chosen_arm_features`, and the propensities float32 [batch]. The last batch may be smaller.
    ValueError if there is no record.

    Without a seed, records are streamed in the order written. With one, they are parsed once, kept in memory, and have
    a new permutation in every epoch. Without candidates, the features of those that were not chosen, which only acting
    needs, are left out.
    """
    spec = feature_spec(files, candidates)
    spec = {name: field for name, field in spec.items() if name not in ("pass_prob", "event")}
    if seed is None:
        return parse_records(files, spec, batch_size).map(as_trajectory, num_parallel_calls=2).prefetch(2)
    parts = list(parse_records(files, spec, _CHUNK))
    memory = as_trajectory({name: tf.concat([part[name] for part in parts], axis=0) for name in spec})
    rows = tf.data.Dataset.range(len(memory[1]))
    rows = rows.shuffle(rows.cardinality(), seed, reshuffle_each_iteration=True).batch(batch_size)
    return rows.map(lambda rows: gather_rows(memory, rows), num_parallel_calls=2).prefetch(2)


def read_examples(files: Sequence[str | Path]) -> Examples:
    """Read the examples of trajectories into memory, in the order written; ValueError if there is no record."""
    parts = list(parse_records(files, feature_spec(files, candidates=False), _CHUNK).as_numpy_iterator())
    return Examples(*(np.concatenate([part[_FIELDS.get(name, name)] for part in parts]) for name in Examples._fields))


def feature_spec(files: Sequence[str | Path], candidates: bool = True) -> dict[str, tf.io.FixedLenFeature]:
    """Return the fields of trajectories as `tf.io.parse_example` takes them, in the sizes of the first record.

    Without candidates `per_arm` is left out. ValueError if there is no record.
    """
    first = next(iter(tf.data.TFRecordDataset([str(file) for file in files])), None)
    if first is None:
        raise ValueError(f"files must hold at least one record, got none in {[Path(file).name for file in files]}")
    features = tf.train.Example.FromString(first.numpy()).features.feature
    context, arm, arms = (len(features[name].float_list.value) for name in (GLOBAL, CHOSEN, PER_ARM))
    shapes = {GLOBAL: [context], CHOSEN: [arm]} | ({PER_ARM: [arms // arm, arm]} if candidates else {})
    shapes |= {name: [] for name in ("reward", "propensity", "pass_prob")}
    spec = {name: tf.io.FixedLenFeature(shape, tf.float32) for name, shape in shapes.items()}
    return spec | dict.fromkeys(("action", "event"), tf.io.FixedLenFeature([], tf.int64))


def as_trajectory(fields: dict[str, tf.Tensor]) -> tuple[trajectory.Trajectory, tf.Tensor]:
    """Make (trajectory, propensity), a batch of `read_trajectories`, of fields [batch, ...] as `feature_spec` says."""
    observation = {name: fields[name] for name in (GLOBAL, PER_ARM) if name in fields}
    info = PerArmPolicyInfo(chosen_arm_features=fields[CHOSEN])
    action = tf.cast(fields["action"], tf.int32)
    return make_trajectory(observation, action, info, fields["reward"]), fields["propensity"]


def make_trajectory(observation: Any, action: Any, policy_info: Any, reward: Any) -> trajectory.Trajectory:
    """Make a trajectory [batch, 1, ...] of decisions, episodes of one step each, from nests of tensors [batch, ...]."""
    discount = tf.zeros(tf.shape(tf.nest.flatten(reward)[0])[:1])
    return tf.nest.map_structure(_add_time, trajectory.single_step(observation, action, policy_info, reward, discount))


def gather_rows(nest: Any, rows: Any) -> Any:
    """Gather rows int [batch] of all tensors [n, ...] of a nest."""
    return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), nest)


def _add_time(tensor):
    """Reshape [batch, ...] to [batch, 1, ...]; a graph cancels the inverse reshape, but not an expanded dimension."""
    shape = [-1 if size is None else size for size in tensor.shape]
    return tf.reshape(tensor, [shape[0], 1, *shape[1:]])


def _collect_fields(log, features):
    """Collect the fields of the records as arrays, one row a decision."""
    fields = {_FIELDS.get(name, name): values for name, values in make_examples(log, features)._asdict().items()}
    per_arm = np.zeros(log.mask.shape + fields[CHOSEN].shape[1:], np.float32)
    per_arm[log.mask] = np.concatenate([arm for _, arm in features.observe(log, log.mask)])
    return fields | {PER_ARM: per_arm, "action": log.action}
