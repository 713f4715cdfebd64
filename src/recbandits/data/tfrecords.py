"""Sets of TFRecords, and ratings of MovieLens as such: one record holds one rating, or a list of movies of one user."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbandits.tf import tf

import numpy as np

from recbandits.checks import replacing, require
from recbandits.data.tables import GENRES, MovieLens

_LISTS = {"i": "int64_list", "f": "float_list", "O": "bytes_list"}  # of `tf.train.Feature`, by kind of array
_CHUNK = 8192  # records serialised at a time


class Field(NamedTuple):
    """A field of a record of ratings.

    Attributes:
      name: its key.
      table: "user" (one value in a record), "movie" or "rating" (one value for each movie of a list).
      dtype: NumPy scalar type: int64, float32 or object (text).
      shape: of one value.
    """

    name: str
    table: str
    dtype: type
    shape: tuple[int, ...] = ()


FIELDS = (
    Field("user_id", "user", np.int64),
    Field("age", "user", np.int64),  # 0 where it is missing
    Field("gender", "user", np.object_),  # empty where it is missing, like the occupation
    Field("occupation", "user", np.object_),
    Field("movie_id", "movie", np.int64),
    Field("year", "movie", np.int64),  # 0 where it is missing
    Field("genres", "movie", np.int64, (len(GENRES),)),  # without the further genres that a set may have
    Field("rating", "rating", np.float32),
    Field("time", "rating", np.int64),  # microseconds since 1970
)


def encode_examples(columns: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    """Serialise each row of some arrays as a `tf.train.Example`; equal rows give equal bytes.

    The arrays [n, ...] have integers, floats or text (dtype object); the values of a row are flattened.
    """
    example = tf.train.Example()  # one for all rows, which takes half of the time of one for each
    features = example.features.feature
    lists = [getattr(features[name], _LISTS[values.dtype.kind]).value for name, values in columns.items()]
    encode = np.frompyfunc(str.encode, 1, 1)
    encoded = (encode(values) if values.dtype.kind == "O" else values for values in columns.values())
    rows = [values.reshape(len(values), -1).tolist() for values in encoded]
    for values in zip(*rows, strict=True):
        for items, value in zip(lists, values, strict=True):
            items[:] = value
        yield example.SerializeToString(deterministic=True)


def write_shards(
    serialize: Callable[[np.ndarray], Iterable[bytes]], rows: np.ndarray, directory: str | Path, name: str, shards: int
) -> list[Path]:
    """Write one record for each row [n, ...], in their order, into files `<name>-<shard>-of-<shards>.tfrecord`.

    A function serialises some of the rows. The directory is created if missing; older shards of that name are removed.
    Each file is complete or absent.
    """
    for file in Path(directory).glob(f"{name}-?????-of-?????.tfrecord"):
        file.unlink()
    files = [Path(directory, f"{name}-{shard:05d}-of-{shards:05d}.tfrecord") for shard in range(shards)]
    for file, part in zip(files, np.array_split(np.asarray(rows), shards), strict=True):
        with replacing(file) as draft, tf.io.TFRecordWriter(str(draft)) as writer:
            for start in range(0, len(part), _CHUNK):
                for record in serialize(part[start : start + _CHUNK]):
                    writer.write(record)
    return files


def find_records(directory: str | Path, name: str) -> list[Path]:
    """Find the files of a set that `write_shards` wrote, in order; raise FileNotFoundError if one is missing."""
    files = sorted(Path(directory).glob(f"{name}-?????-of-?????.tfrecord"))
    expected = int(files[0].stem[-5:]) if files else 1
    if len(files) != expected:
        raise FileNotFoundError(f"{name} must have {expected} shards in {directory}, got {len(files)}")
    return files


def collect_columns(data: MovieLens, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Collect the values of all fields for some ratings.

    Rows are positions in `data.ratings`: int array [n] for single ratings, [n, size] for lists of one user each. Arrays
    are [n, *shape] for fields of the user, [*rows.shape, *shape] for the others.
    """
    rows = np.asarray(rows)
    ratings = data.ratings.iloc[rows.ravel()]
    movies = data.movies.reset_index().iloc[data.movies.index.get_indexer(ratings["movie_id"])]
    users = data.users if "age" in data.users else data.users.assign(age=0, gender="", occupation="")
    tables = {
        "user": users.reset_index().iloc[users.index.get_indexer(ratings["user_id"])],
        "movie": movies.assign(year=movies["year"].fillna(0)),
        "rating": ratings.assign(time=ratings["time"].astype("int64")),
    }
    values = {}
    for field in FIELDS:
        source = list(GENRES) if field.name == "genres" else field.name
        value = tables[field.table][source].to_numpy(field.dtype).reshape(*rows.shape, *field.shape)
        values[field.name] = value[:, 0] if field.table == "user" and rows.ndim == 2 else value
    return values


def feature_spec(size: int | None = None) -> dict[str, tf.io.FixedLenFeature]:
    """Return the specification of ratings for `tf.io.parse_example`; `size` as for `read_records`."""
    spec = {}
    for field in FIELDS:
        leading = () if size is None or field.table == "user" else (size,)
        dtype = tf.string if field.dtype is np.object_ else field.dtype
        spec[field.name] = tf.io.FixedLenFeature(leading + field.shape, dtype)
    return spec


def write_records(data: MovieLens, rows: np.ndarray, directory: str | Path, name: str, shards: int = 4) -> list[Path]:
    """Write a record for each row id, or list of row ids, as `write_shards` does; rows as for `collect_columns`."""
    return write_shards(lambda part: encode_examples(collect_columns(data, part)), rows, directory, name, shards)


def read_records(files: list[Path], size: int | None = None, batch_size: int = 1024) -> tf.data.Dataset:
    """Read ratings back, in the order written, as dicts from field name to tensor [batch, ...].

    The last batch may be smaller; `size` is movies in a list, None for single ratings.
    """
    return parse_records(files, feature_spec(size), batch_size).prefetch(2)


def parse_records(files: Sequence[str | Path], spec: Mapping[str, Any], batch_size: int) -> tf.data.Dataset:
    """Read dicts from field to tensor [batch, ...], a batch parsed at a time by a specification of `tf.io`."""
    records = tf.data.TFRecordDataset([str(file) for file in files]).batch(batch_size)
    return records.map(lambda batch: tf.io.parse_example(batch, spec), num_parallel_calls=2)


def validate_records(files: list[Path], data: MovieLens, rows: np.ndarray) -> int:
    """Read back the ratings that `write_records` wrote, compare every value with the tables, and count the records.

    ValueError says which file is damaged, which records are missing, or which value differs.
    """
    rows = np.asarray(rows)
    size = rows.shape[1] if rows.ndim == 2 else None
    subject = f"{Path(files[0]).name} and its shards"
    try:
        batches = list(read_records(files, size, batch_size=_CHUNK).as_numpy_iterator())
    except tf.errors.OpError as error:
        raise ValueError(f"{subject} must hold such records, got: {error.message}") from error
    count = sum(len(batch["user_id"]) for batch in batches)
    require(count == len(rows), f"number of records in {subject}", str(len(rows)), count)
    for name, expected in collect_columns(data, rows).items():
        value = np.concatenate([batch[name] for batch in batches])
        if value.dtype == np.object_:
            value = np.char.decode(value.astype(bytes))
        wrong = np.flatnonzero((value != expected).reshape(count, -1).any(axis=1))
        if wrong.size:
            raise ValueError(f"record {wrong[0]}: {name} must be {expected[wrong[0]]}, got {value[wrong[0]]}")
    return count
