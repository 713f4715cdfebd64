"""Files of TFRecords, several for one set, written without TensorFlow: who only writes should not wait for it."""

import struct
from itertools import islice
from pathlib import Path

import numpy as np

_CHUNK = 8192  # records framed at a time
_CASTAGNOLI = 0x82F63B78  # the polynomial, its bits reversed
_MASK = 0xA282EAD8


def write_shards(serialized, rows, directory, name, shards):
    """Write one record for each row, in their order.

    A record is its length (uint64), the masked checksum of that, its bytes, and the masked checksum of these (uint32):
    https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details

    Args:
      serialized: function from some of the rows to their serialised records.
      rows: array [n, ...].
      directory: folder, made if missing.
      name: of the set; older shards of that name are removed.
      shards: number of files.

    Returns:
      list of `pathlib.Path`, `<name>-<shard>-of-<shards>.tfrecord`.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob(f"{name}-?????-of-?????.tfrecord"):
        old.unlink()
    files = [directory / f"{name}-{shard:05d}-of-{shards:05d}.tfrecord" for shard in range(shards)]
    for file, part in zip(files, np.array_split(np.asarray(rows), shards), strict=True):
        with file.open("wb") as target:
            records = iter(serialized(part))
            while chunk := list(islice(records, _CHUNK)):
                target.writelines(_framed(chunk))
    return files


def find_records(directory, name):
    """Files of a set that `write_shards` wrote, in order.

    Raises:
      FileNotFoundError: there is none, or a shard is missing.
    """
    files = sorted(Path(directory).glob(f"{name}-?????-of-?????.tfrecord"))
    expected = int(files[0].stem[-5:]) if files else 1
    if len(files) != expected:
        raise FileNotFoundError(f"{name} must have {expected} shards in {directory}, got {len(files)}")
    return files


def crc32c(records):
    """CRC-32C (Castagnoli) of each of many byte strings, uint32 [n]; RFC 3720, appendix B.4.

    Byte after byte for all strings at once: sorted by length, those that still have a byte are the first ones.
    """
    length = np.array([len(record) for record in records])
    order = np.argsort(-length, kind="stable")
    longest = length.max(initial=0)
    padded = b"".join(records[row].ljust(longest) for row in order)
    columns = np.ascontiguousarray(np.frombuffer(padded, np.uint8).reshape(len(records), longest).T)
    present = np.searchsorted(
        -length[order], -np.arange(longest), side="left"
    )  # strings longer than the column's number
    crc = np.full(len(records), 0xFFFFFFFF, np.uint32)
    for column, count in zip(columns, present, strict=True):
        crc[:count] = _TABLE[(crc[:count] ^ column[:count]) & 0xFF] ^ (crc[:count] >> 8)
    found = np.empty_like(crc)
    found[order] = ~crc
    return found


def _framed(records):
    """The bytes of each record in a file."""
    lengths = [struct.pack("<Q", len(record)) for record in records]
    checks = (_masked(crc32c(part)) for part in (lengths, records))
    for length, of_length, record, of_record in zip(lengths, next(checks), records, next(checks), strict=True):
        yield length + of_length + record + of_record


def _masked(crc):
    """Checksums as TensorFlow stores them, rotated and shifted: bytes of each."""
    return [value.tobytes() for value in ((crc >> 15 | crc << 17) + np.uint32(_MASK)).astype("<u4")]


def _table():
    """Checksum of every single byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_CASTAGNOLI), table >> 1)
    return table


_TABLE = _table()
