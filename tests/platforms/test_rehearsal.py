"""What the rehearsal of Google Cloud does beyond what its services' tests see."""

import pytest

from recbandits.config import Config
from recbandits.platforms.gcp.clients import Clients
from recbandits.platforms.gcp.rehearsal import Rehearsal, rehearse
from recbandits.platforms.jobs import Job
from recbandits.platforms.protocol import PlatformError


@pytest.fixture
def clients():
    with Rehearsal() as cloud:
        yield Clients("movie-lab-42", cloud.endpoint)


@pytest.mark.parametrize(
    "content",
    [b"", b'{"a": 1}', b"\r\n\r\n--==\r\n\x00\xff\r\n", bytes(9_000_000)],
    ids=["nothing", "a document", "what looks like the end of a part", "more than goes in one request"],
)
def test_an_object_comes_back_as_it_was_sent(clients, tmp_path, content):
    """The client itself compares checksums; from 8 MB it asks for a place first and sends then."""
    (tmp_path / "file.json").write_bytes(content)
    blob = clients.storage.bucket("b").blob("folder/a name.json")
    blob.upload_from_filename(tmp_path / "file.json", checksum="md5")
    assert blob.download_as_bytes() == content
    assert [found.name for found in clients.storage.list_blobs("b", prefix="folder/")] == ["folder/a name.json"]
    blob.delete()
    assert not blob.exists()


def test_what_is_not_rehearsed_is_said_so(clients):
    from google.api_core.exceptions import NotFound

    with pytest.raises(NotFound, match="POST /v1/projects/p/serviceAccounts/x:disable is not rehearsed"):
        clients.iam("POST", "projects/p/serviceAccounts/x:disable")


def test_a_failure_of_the_call_is_seen():
    with pytest.raises(PlatformError, match="there is no job nothing"):
        rehearse(Config(), lambda platform: platform.jobs.record("nothing"))


def test_the_project_is_kept_where_there_is_one():
    configs = Config(), Config(project="movie-lab-42", region="europe-west4")
    paths = [rehearse(config, lambda platform: platform.jobs.run(Job("a")))[0].path for config in configs]
    assert paths == [
        "/v1/projects/rehearsal/locations/us-central1/customJobs",
        "/v1/projects/movie-lab-42/locations/europe-west4/customJobs",
    ]
