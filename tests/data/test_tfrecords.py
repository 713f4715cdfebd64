"""Records: written in seconds, read back in batches, equal to the tables value by value."""

import time

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from recbandits.data.splits import draw_lists
from recbandits.data.tables import GENRES, MovieLens
from recbandits.data.tfrecords import (
    encode_examples,
    find_records,
    read_records,
    validate_records,
    write_records,
    write_shards,
)


@pytest.fixture(scope="module")
def small():
    """Two users, three movies, four ratings; nothing is in the order of the ids."""
    flags = pd.DataFrame(False, index=pd.Index([5, 7, 9], name="movie_id"), columns=list(GENRES))
    flags.loc[7, ["Drama", "War"]] = True
    movies = pd.DataFrame({"title": ["A", "B", "C"], "year": pd.array([1990, pd.NA, 1994], dtype="Int64")}, flags.index)
    users = pd.DataFrame(
        {"age": [17, 80], "gender": ["F", "M"], "occupation": ["artist", "writer"], "zip": ["1", "2"]},
        index=pd.Index([10, 30], name="user_id"),
    )
    ratings = pd.DataFrame({"user_id": [30, 10, 30, 30], "movie_id": [7, 7, 5, 9], "rating": [4.0, 1.0, 5.0, 2.0]})
    ratings["time"] = pd.to_datetime([100, 200.5, 300, 400], unit="s", utc=True)
    return MovieLens(ratings, users, movies.join(flags), source="test")


def test_a_record_holds_the_user_the_movie_and_the_rating_of_its_row(small, tmp_path):
    files = write_records(small, [1, 3], tmp_path, "train", shards=1)
    (batch,) = read_records(files).as_numpy_iterator()
    assert batch["user_id"].tolist() == [10, 30]
    assert batch["age"].tolist() == [17, 80]
    assert batch["gender"].tolist() == [b"F", b"M"]
    assert batch["occupation"].tolist() == [b"artist", b"writer"]
    assert batch["movie_id"].tolist() == [7, 9]
    assert batch["year"].tolist() == [0, 1994]
    assert [GENRES[genre] for genre in np.flatnonzero(batch["genres"][0])] == ["Drama", "War"]
    assert batch["rating"].tolist() == [1.0, 2.0]
    assert batch["time"].tolist() == [200_500_000, 400_000_000]


def test_a_list_holds_its_user_once_and_each_movie_in_its_order(small, tmp_path):
    files = write_records(small, [[3, 0, 2], [0, 2, 3]], tmp_path, "train", shards=1)
    (batch,) = read_records(files, size=3).as_numpy_iterator()
    assert batch["user_id"].tolist() == [30, 30]
    assert batch["movie_id"].tolist() == [[9, 7, 5], [7, 5, 9]]
    assert batch["rating"].tolist() == [[2.0, 4.0, 5.0], [4.0, 5.0, 2.0]]
    assert batch["genres"].shape == (2, 3, 19)
    assert batch["genres"].sum(axis=2).tolist() == [[0, 2, 0], [2, 0, 0]]


def test_equal_rows_are_equal_bytes_for_any_order_of_the_columns():
    """Features stand in the order of their names, so that digests of files are those of their content."""
    columns = {
        "vector": np.array([[0.5, -1.0], [2.0, 3.0]], np.float32),
        "count": np.array([7, -7]),
        "text": np.array(["a", "\u00e9"], object),
    }
    first, second = encode_examples(columns)
    assert list(encode_examples(dict(reversed(columns.items())))) == [first, second]
    assert first == (
        b"\n7"
        b"\n\x0e\n\x05count\x12\x05\x1a\x03\n\x01\x07"
        b"\n\r\n\x04text\x12\x05\n\x03\n\x01a"
        b"\n\x16\n\x06vector\x12\x0c\x12\n\n\x08\x00\x00\x00?\x00\x00\x80\xbf"
    )
    feature = tf.train.Example.FromString(second).features.feature
    assert list(feature["vector"].float_list.value) == [2.0, 3.0]
    assert list(feature["count"].int64_list.value) == [-7]
    assert list(feature["text"].bytes_list.value) == ["\u00e9".encode()]


def test_a_file_is_complete_or_absent(small, tmp_path):
    """The second shard fails: its file is absent, and no file of the older set is left beside the first one."""
    write_records(small, [0, 1, 2, 3], tmp_path, "train", shards=4)

    def serialize(rows):
        yield from (b"record",)
        if rows[0] > 0:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_shards(serialize, np.arange(2), tmp_path, "train", shards=2)
    assert [file.name for file in tmp_path.iterdir()] == ["train-00000-of-00002.tfrecord"]


@pytest.mark.parametrize("size", [None, 3])
def test_all_of_movielens_is_written_in_seconds_and_read_back_equal(movielens, tmp_path, size):
    rows = np.arange(100_000) if size is None else draw_lists(movielens.ratings, size).train[:5_000]
    start = time.process_time()
    files = write_records(movielens, rows, tmp_path, "full", shards=4)
    assert time.process_time() - start < 20, "100,000 records must take seconds of the processor, not minutes"
    assert files == find_records(tmp_path, "full")
    assert validate_records(files, movielens, rows) == len(rows)


def test_batches_are_parsed_as_a_whole(small, tmp_path):
    files = write_records(small, [0, 1, 2, 3], tmp_path, "train", shards=3)
    shapes = [batch["genres"].shape for batch in read_records(files, batch_size=3)]
    assert shapes == [(3, 19), (1, 19)]


def test_writing_again_with_fewer_shards_leaves_no_old_ones(small, tmp_path):
    write_records(small, [0, 1, 2, 3], tmp_path, "train", shards=4)
    files = write_records(small, [0, 1], tmp_path, "train", shards=2)
    assert sorted(tmp_path.iterdir()) == files == find_records(tmp_path, "train")


def test_a_missing_shard_is_reported(small, tmp_path):
    files = write_records(small, [0, 1, 2, 3], tmp_path, "train", shards=4)
    files[2].unlink()
    with pytest.raises(FileNotFoundError, match=r"train must have 4 shards in .*, got 3"):
        find_records(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"full must have 1 shards in .*, got 0"):
        find_records(tmp_path, "full")


def test_validation_finds_what_is_wrong(small, tmp_path):
    files = write_records(small, [0, 1, 2, 3], tmp_path, "train", shards=1)
    with pytest.raises(ValueError, match=r"number of records in train.* must be 3, got 4"):
        validate_records(files, small, [0, 1, 2])
    with pytest.raises(ValueError, match="record 2: movie_id must be 9, got 5"):
        validate_records(files, small, [0, 1, 3, 2])
    with pytest.raises(ValueError, match="must hold such records, got: "):
        validate_records(files, small, [[0, 2], [2, 3], [3, 2], [0, 3]])
    files[0].write_bytes(files[0].read_bytes()[:-5])
    with pytest.raises(ValueError, match="must hold such records, got: "):
        validate_records(files, small, [0, 1, 2, 3])


def test_text_survives(small, tmp_path):
    renamed = MovieLens(small.ratings, small.users.assign(occupation=["poète", "écrivain"]), small.movies, "test")
    files = write_records(renamed, [0, 1], tmp_path, "train", shards=1)
    assert validate_records(files, renamed, [0, 1]) == 2
    (batch,) = read_records(files)
    assert tf.strings.length(batch["occupation"], unit="UTF8_CHAR").numpy().tolist() == [8, 5]


def test_users_of_whom_nothing_is_known_have_zero_and_no_text(small, tmp_path):
    unknown = MovieLens(small.ratings, small.users[[]], small.movies, "test")
    files = write_records(unknown, [0, 1, 2], tmp_path, "train", shards=1)
    assert validate_records(files, unknown, [0, 1, 2]) == 3
    (batch,) = read_records(files).as_numpy_iterator()
    assert batch["user_id"].tolist() == [30, 10, 30]
    assert (batch["age"].tolist(), batch["gender"].tolist(), batch["occupation"].tolist()) == (
        [0] * 3,
        [b""] * 3,
        [b""] * 3,
    )
