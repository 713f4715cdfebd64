"""A policy at a gs:// URI, read with the real client of Cloud Storage from a bucket in memory."""

import pytest

from recbandits.serving import policy
from recbandits.serving.manifest import local_directory
from tests.recorder import Recorder


@pytest.fixture
def objects():
    """Dict from gs:// URI to content, of what the buckets have."""
    with Recorder() as cloud:
        yield cloud.objects


@pytest.mark.parametrize("prefix", ["models/7", "7"])
def test_a_policy_in_a_bucket_is_the_one_that_was_sent(objects, exported, prefix):
    for path in exported[0].rglob("*"):
        if path.is_file():
            objects[f"gs://b/{prefix}/{path.relative_to(exported[0]).as_posix()}"] = path.read_bytes()
    objects |= {f"gs://b/{prefix}/variables/": b"", f"gs://b/{prefix}0/policy.json": b"of another policy"}
    assert policy.load(f"gs://b/{prefix}/").version == policy.load(exported[0]).version


def test_no_object_is_written_outside_the_copy(objects):
    for name in ("p/kept", "p/../left", "p//etc/left", "p/a/../../left"):
        objects[f"gs://b/{name}"] = b"content"
    with local_directory("gs://b/p") as directory:
        assert [path.name for path in directory.parent.rglob("*") if path.is_file()] == ["kept"]


def test_a_bucket_without_the_policy_is_refused(objects):
    with pytest.raises(ValueError, match=r"p must be the directory of an exported policy, it has no policy.json"):
        policy.load("gs://b/p")
