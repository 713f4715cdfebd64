"""Cloud Build is asked for exactly this, and gets exactly the build context; a refusal is one sentence."""

import hashlib
import io
import tarfile

import pytest
from google.api_core import exceptions
from google.longrunning import operations_pb2
from google.rpc import status_pb2

from recbandits.config import Config
from recbandits.platforms.gcp import GcpPlatform, images
from recbandits.platforms.gcp.images import archive
from recbandits.platforms.images import context
from recbandits.platforms.protocol import PlatformError
from tests.recorder import answer_build
from tools.lock import ROOT

CONFIG = Config(platform="gcp", project="movie-lab-42", region="europe-west4", version="v2")
PARENT = "projects/movie-lab-42/locations/europe-west4"
URI = "europe-west4-docker.pkg.dev/movie-lab-42/recbandits-v2/serve"
UPLOAD = "POST https://storage.googleapis.com/upload/storage/v1/b/movie-lab-42-recbandits-v2/o"
TAG = f"GET https://artifactregistry.googleapis.com/v1/{PARENT}/repositories/recbandits-v2/packages/serve/tags/v2"
DIGEST = f"sha256:{64 * 'a'}"


@pytest.fixture
def cloud(cloud):
    cloud.answers["CreateBuild"] = answer_build
    return cloud


@pytest.fixture
def builder(cloud):
    return GcpPlatform(CONFIG).images


def test_the_whole_request(builder, cloud):
    builder.build("serve")
    ((uri, content),) = cloud.objects.items()
    name = f"source/{hashlib.sha256(content).hexdigest()[:16]}.tgz"
    assert uri == f"gs://movie-lab-42-recbandits-v2/{name}"
    labels = ["--label", "app=recbandits", "--label", "prefix=recbandits", "--label", "version=v2"]
    arguments = ["build", "--file", "docker/Dockerfile", "--target", "serve", "--tag", f"{URI}:v2", *labels, "."]
    account = "recbandits-v2-bu@movie-lab-42.iam.gserviceaccount.com"
    (request,) = cloud.requests("CreateBuild")
    assert (request["parent"], request["projectId"]) == (PARENT, "movie-lab-42")
    assert request["build"] == {
        "source": {"storageSource": {"bucket": "movie-lab-42-recbandits-v2", "object": name}},
        "steps": [{"name": "gcr.io/cloud-builders/docker", "args": arguments, "env": ["DOCKER_BUILDKIT=1"]}],
        "images": [f"{URI}:v2"],
        "serviceAccount": f"projects/movie-lab-42/serviceAccounts/{account}",
        "options": {"logging": "CLOUD_LOGGING_ONLY", "machineType": "E2_HIGHCPU_8"},
        "tags": ["recbandits", "v2", "serve"],
        "timeout": "3600s",
    }


def test_the_archive_is_the_build_context_and_the_same_for_the_same_files(builder, cloud):
    builder.build("train")
    (content,) = cloud.objects.values()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        entries = tar.getmembers()
        contents = {entry.name: tar.extractfile(entry).read() for entry in entries}
    assert contents == {path: (ROOT / path).read_bytes() for path in context(ROOT)}
    assert {(entry.uid, entry.gid, entry.mtime, entry.uname) for entry in entries} == {(0, 0, 0, "")}
    assert {entry.mode for entry in entries} <= {0o644, 0o755}
    assert archive(ROOT) == content


def test_what_was_built_is_named_by_its_digest_and_the_same_source_is_sent_once(builder, cloud):
    assert [builder.build("serve"), builder.build("serve")] == [f"{URI}@{DIGEST}"] * 2
    assert len(cloud.requests(UPLOAD)) == 1
    assert len(cloud.requests("CreateBuild")) == 2


def test_an_image_is_pinned_by_the_digest_that_its_tag_names(builder, cloud):
    cloud.answers[TAG] = {"version": f"{PARENT}/repositories/recbandits-v2/packages/serve/versions/{DIGEST}"}
    assert builder.pinned("serve") == f"{URI}@{DIGEST}"


def test_an_image_that_was_not_built_is_refused(builder):
    with pytest.raises(PlatformError, match=f"^there is no image {URI}:v2: build it first$"):
        builder.pinned("serve")


@pytest.mark.parametrize(
    ("method", "error", "reason"),
    [
        ("CreateBuild", exceptions.PermissionDenied("builds.create was\ndenied"), "403 builds.create was denied"),
        (UPLOAD, exceptions.Forbidden("objects.create was denied"), "403 .*objects.create was denied"),
    ],
    ids=["no permission to build", "no permission to upload"],
)
def test_a_refusal_is_one_sentence_that_names_the_image(builder, cloud, method, error, reason):
    cloud.answers[method] = error
    with pytest.raises(PlatformError, match=f"^image {URI}:v2: {reason}") as refusal:
        builder.build("serve")
    assert "\n" not in str(refusal.value)


def test_a_step_that_failed_is_one_sentence(builder, cloud):
    message = 'build step 0 "gcr.io/cloud-builders/docker" failed:\nstep exited with non-zero status: 1'
    failure = operations_pb2.Operation(name="o", done=True, error=status_pb2.Status(code=13, message=message))
    cloud.answers["CreateBuild"] = failure
    with pytest.raises(PlatformError, match=f"^image {URI}:v2: .*build step 0 .* failed: step exited .* status: 1"):
        builder.build("serve")


def test_a_build_that_takes_too_long_is_one_sentence(builder, cloud, monkeypatch):
    monkeypatch.setattr(images, "TIMEOUT", 1)
    cloud.answers["CreateBuild"] = cloud.answers["GetOperation"] = operations_pb2.Operation(name="o", done=False)
    with pytest.raises(PlatformError, match=f"^image {URI}:v2: .*did not complete within"):
        builder.build("serve")


def test_an_image_that_does_not_exist_is_refused_before_anything_is_sent(builder, cloud):
    with pytest.raises(PlatformError, match="there is no image"):
        builder.build("Serve")
    assert cloud.calls == []
