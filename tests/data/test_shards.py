"""Files that TensorFlow reads as its own, though it did not write them."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from recbandits.data.shards import crc32c, write_shards


def test_checksums_are_those_of_the_standard():
    """The examples of RFC 3720, appendix B.4, and the check value of the CRC catalogue, all at once."""
    strings = [bytes(32), b"\xff" * 32, bytes(range(32)), bytes(range(31, -1, -1)), b"123456789", b""]
    expected = [0x8A9136AA, 0x62A8AB43, 0x46DD794E, 0x113FDB5C, 0xE3069283, 0]
    assert crc32c(strings).tolist() == expected
    assert crc32c(strings[::-1]).tolist() == expected[::-1]


@pytest.mark.parametrize("count", [0, 1, 500])
def test_a_file_is_byte_by_byte_what_tensorflow_writes(count, tmp_path):
    """Records of 0 to 299 random bytes."""
    rng = np.random.default_rng(count)
    records = [rng.bytes(int(rng.integers(300))) for _ in range(count)]
    (ours,) = write_shards(lambda rows: (records[row] for row in rows), np.arange(count), tmp_path, "ours", 1)
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    assert ours.read_bytes() == (tmp_path / "theirs").read_bytes()


def test_writing_trajectories_needs_no_tensorflow():
    code = "import sys; from recbandits.data import examples; print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
