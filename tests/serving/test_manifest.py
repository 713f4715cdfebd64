"""A policy at a gs:// URI, read with the real client of Cloud Storage from a rehearsed bucket."""

import pytest

from recbandits.platforms.gcp.rehearsal import Rehearsal
from recbandits.platforms.gcp.rehearsal.storage import put
from recbandits.serving import policy
from recbandits.serving.manifest import local_directory


@pytest.fixture
def cloud(monkeypatch):
    with Rehearsal() as cloud:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.endpoint)
        yield cloud


@pytest.mark.parametrize("place", ["models/7", "7"])
def test_a_policy_in_a_bucket_is_the_one_that_was_sent(cloud, exported, place):
    for path in exported[0].rglob("*"):
        if path.is_file():
            put(cloud.documents, "b", f"{place}/{path.relative_to(exported[0]).as_posix()}", path.read_bytes())
    put(cloud.documents, "b", f"{place}/variables/", b"")
    put(cloud.documents, "b", f"{place}0/policy.json", b"of another policy")
    assert policy.load(f"gs://b/{place}/").version == policy.load(exported[0]).version


def test_no_object_is_written_outside_the_copy(cloud):
    for name in ("p/kept", "p/../left", "p//etc/left", "p/a/../../left"):
        put(cloud.documents, "b", name, b"content")
    with local_directory("gs://b/p") as directory:
        assert [path.name for path in directory.parent.rglob("*") if path.is_file()] == ["kept"]


def test_a_bucket_without_the_policy_is_refused(cloud):
    with pytest.raises(ValueError, match=r"p must be the directory of an exported policy, it has no policy.json"):
        policy.load("gs://b/p")
