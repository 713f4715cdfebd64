"""Ratings as sharded TFRecords, one rating or one list of movies a record; every schema derives from FIELDS."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from recbandits.tf import tf

import numpy as np

from recbandits.data.shards import write_shards
from recbandits.data.tables import GENRES


@dataclass(frozen=True)
class Field:
    """A field of a record.

    Attributes:
      name: its key.
      of: what it describes: "user" (once a record), "movie" or "rating" (once for each movie of a list).
      dtype: numpy scalar type: int64, float32 or object (text).
      shape: of one value.
    """

    name: str
    of: str
    dtype: type
    shape: tuple[int, ...] = ()


FIELDS = (
    Field("user_id", "user", np.int64),
    Field("age", "user", np.int64),
    Field("gender", "user", np.object_),
    Field("occupation", "user", np.object_),
    Field("movie_id", "movie", np.int64),
    Field("year", "movie", np.int64),  # 0 where it is missing
    Field("genres", "movie", np.int64, (len(GENRES),)),
    Field("rating", "rating", np.float32),
    Field("time", "rating", np.int64),  # Unix seconds
)


def columns(data, rows):
    """Values of all fields for some ratings.

    Args:
      data: MovieLens
      rows: row ids into `data.ratings`: int array [n] for single ratings, [n, size] for lists of one user each.

    Returns:
      dict from field name to array: [n, *shape] for fields of the user, [*rows.shape, *shape] for the others.
    """
    rows = np.asarray(rows)
    ratings = data.ratings.iloc[rows.ravel()]
    tables = {
        "user": data.users.reset_index().iloc[data.users.index.get_indexer(ratings["user_id"])],
        "movie": data.movies.reset_index().iloc[data.movies.index.get_indexer(ratings["movie_id"])],
        "rating": ratings.assign(time=ratings["time"].dt.as_unit("s").astype("int64")),
    }
    tables["movie"] = tables["movie"].assign(year=tables["movie"]["year"].fillna(0))
    values = {}
    for field in FIELDS:
        source = list(GENRES) if field.name == "genres" else field.name
        value = tables[field.of][source].to_numpy(field.dtype).reshape(*rows.shape, *field.shape)
        values[field.name] = value[:, 0] if field.of == "user" and rows.ndim == 2 else value
    return values


def feature_spec(size=None):
    """What `tf.io.parse_example` needs to know.

    Args:
      size: movies a list; None for single ratings.

    Returns:
      dict from field name to `tf.io.FixedLenFeature`.
    """
    lists = {field: () if size is None or field.of == "user" else (size,) for field in FIELDS}
    return {
        field.name: tf.io.FixedLenFeature(
            lists[field] + field.shape, tf.string if field.dtype is np.object_ else field.dtype
        )
        for field in FIELDS
    }


def write_records(data, rows, directory, name, shards=4):
    """Write one record for each row id, or list of row ids, in their order.

    Args:
      data: MovieLens
      rows: int array [n] or [n, size], as for `columns`.
      directory: folder, made if missing.
      name: of the set; older shards of that name are removed.
      shards: number of files.

    Returns:
      list of `pathlib.Path`, `<name>-<shard>-of-<shards>.tfrecord`.
    """
    return write_shards(lambda part: _serialized(columns(data, part)), rows, directory, name, shards)


def read_records(files, size=None, batch_size=1024):
    """Read records back, a batch parsed at a time.

    Args:
      files: paths, as `write_records` gives them.
      size: movies a list; None for single ratings.
      batch_size: records a batch; the last batch may be smaller.

    Returns:
      `tf.data.Dataset` of dicts from field name to tensor [batch, ...], in the order written.
    """
    spec = feature_spec(size)
    records = tf.data.TFRecordDataset([str(file) for file in files]).batch(batch_size)
    return records.map(lambda batch: tf.io.parse_example(batch, spec), num_parallel_calls=2).prefetch(2)


def validate_records(files, data, rows):
    """Read all records back and compare every value with the tables.

    Args:
      files: paths, as `write_records` gives them.
      data: MovieLens
      rows: what was written, int array [n] or [n, size].

    Returns:
      Number of records, `len(rows)`.

    Raises:
      ValueError: a file is damaged, records are missing, or a value differs; the sentence names which.
    """
    rows = np.asarray(rows)
    size = rows.shape[1] if rows.ndim == 2 else None
    try:
        batches = list(read_records(files, size, batch_size=8192).as_numpy_iterator())
    except tf.errors.OpError as error:
        raise ValueError(
            f"{Path(files[0]).name} and its shards must hold such records, got: {error.message}"
        ) from error
    found = sum(len(batch["user_id"]) for batch in batches)
    if found != len(rows):
        raise ValueError(f"{Path(files[0]).name} and its shards must hold {len(rows)} records, got {found}")
    for name, expected in columns(data, rows).items():
        value = np.concatenate([batch[name] for batch in batches])
        if value.dtype == np.object_:
            value = np.char.decode(value.astype(bytes))
        wrong = np.flatnonzero((value != expected).reshape(found, -1).any(axis=1))
        if wrong.size:
            raise ValueError(f"record {wrong[0]}: {name} must be {expected[wrong[0]]}, got {value[wrong[0]]}")
    return found


def _serialized(values):
    """Serialised `tf.train.Example` of each record of `columns`.

    Serialised messages may be concatenated, parsers merge them: so a field is serialised once for each of its values.
    """
    fields = [_encoded(field, values[field.name]) for field in FIELDS]
    return map(b"".join, zip(*fields, strict=True))


def _encoded(field, value):
    """For each record the serialised `tf.train.Example` that holds only this field."""

    @cache
    def example(*items):
        features = tf.train.Features(feature={field.name: _feature(field, items)})
        return tf.train.Example(features=features).SerializeToString()

    return [example(*items) for items in value.reshape(len(value), -1).tolist()]


def _feature(field, value):
    if field.dtype is np.int64:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=value))
    if field.dtype is np.float32:
        return tf.train.Feature(float_list=tf.train.FloatList(value=value))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode() for text in value]))
