"""The public names of the layer, and that all but TFRecords and trajectories do without TensorFlow."""

import re

import recbandits.data
from tests.commands import run_python


def test_every_public_name_is_described_and_can_be_imported():
    described = set(re.findall(r"`(\w+)`", recbandits.data.__doc__))
    assert described == set(recbandits.data.__all__)
    for name in recbandits.data.__all__:
        assert getattr(recbandits.data, name) is not None


def test_only_tfrecords_and_trajectories_need_tensorflow():
    code = """if True:
        import sys
        sys.modules["tensorflow"] = None
        from recbandits import data
        from recbandits.data import formats, movielens, synthetic
        missing = []
        for name in data.__all__:
            try:
                getattr(data, name)
            except ImportError:
                missing.append(name)
        print(*missing)
    """
    assert run_python(code).split() == [
        "encode_examples",
        "find_records",
        "read_examples",
        "read_records",
        "read_trajectories",
        "validate_records",
        "write_records",
        "write_shards",
        "write_trajectories",
    ]
