"""Cloud Build is asked for exactly this, and gets exactly the build context; a refusal is one sentence."""

import hashlib
import io
import re
import tarfile
from dataclasses import replace

import pytest
from recbandits.platforms.gcp.clients import Clients
from recbandits.platforms.gcp.models import Models
from recbandits.platforms.gcp.rehearsal import Rehearsal, error, rehearse

from recbandits.config import Config
from recbandits.platforms.gcp import GcpPlatform, images
from recbandits.platforms.gcp.images import archive
from recbandits.platforms.images import context
from recbandits.platforms.protocol import PlatformError
from tools.lock import ROOT

CONFIG = Config(platform="gcp", project="movie-lab-42", region="europe-west4", version="v2")
URI = "europe-west4-docker.pkg.dev/movie-lab-42/recbandits-v2/serve"
UPLOAD = "/upload/storage/v1/b/movie-lab-42-recbandits-v2/o"
BUILDS = "/v1/projects/movie-lab-42/locations/europe-west4/builds"


class MoodyCloud(Rehearsal):
    """A rehearsal that answers the paths of a pattern in a way of its own."""

    def __init__(self, path, answer):
        super().__init__()
        self.exception = path, answer

    def answer(self, request):
        path, answer = self.exception
        return answer if re.fullmatch(path, request.path) else super().answer(request)


def test_the_whole_request():
    """5 is CLOUD_LOGGING_ONLY among logging modes, and E2_HIGHCPU_8 among machine types."""
    upload, build = rehearse(CONFIG, lambda platform: platform.images.build("serve"))
    name = f"source/{hashlib.sha256(upload.content).hexdigest()[:16]}.tgz"
    assert upload[:2] == ("POST", UPLOAD)
    assert upload.body["name"] == name
    assert build[:2] == ("POST", BUILDS)
    labels = ["--label", "app=recbandits", "--label", "prefix=recbandits", "--label", "version=v2"]
    arguments = ["build", "--file", "docker/Dockerfile", "--target", "serve", "--tag", f"{URI}:v2", *labels, "."]
    account = "recbandits-v2-sa@movie-lab-42.iam.gserviceaccount.com"
    assert build.body == {
        "source": {"storageSource": {"bucket": "movie-lab-42-recbandits-v2", "object": name}},
        "steps": [{"name": "gcr.io/cloud-builders/docker", "args": arguments, "env": ["DOCKER_BUILDKIT=1"]}],
        "images": [f"{URI}:v2"],
        "serviceAccount": f"projects/movie-lab-42/serviceAccounts/{account}",
        "options": {"logging": 5, "machineType": 5},
        "tags": ["recbandits", "v2", "serve"],
        "timeout": "3600s",
    }


def test_the_archive_is_the_build_context_and_the_same_for_the_same_files():
    upload, _ = rehearse(CONFIG, lambda platform: platform.images.build("train"))
    with tarfile.open(fileobj=io.BytesIO(upload.content)) as tar:
        entries = tar.getmembers()
        unpacked = {entry.name: tar.extractfile(entry).read() for entry in entries}
    assert unpacked == {path: (ROOT / path).read_bytes() for path in context(ROOT)}
    assert {(entry.uid, entry.gid, entry.mtime, entry.uname) for entry in entries} == {(0, 0, 0, "")}
    assert {entry.mode for entry in entries} <= {0o644, 0o755}
    assert archive(ROOT) == upload.content


def test_what_was_built_is_named_by_its_digest_and_the_same_source_is_sent_once():
    built = []
    requests = rehearse(
        CONFIG, lambda platform: built.extend(platform.images.build(name) for name in ("serve", "serve"))
    )
    assert re.fullmatch(rf"{re.escape(URI)}@sha256:[0-9a-f]{{64}}", built[0])
    assert built[0] == built[1]
    assert [request.path for request in requests] == [UPLOAD, BUILDS, BUILDS]


def test_the_tag_of_what_was_built_is_found_to_name_its_digest():
    """A mended image under the same tag has another one. Google's client asks the same, and is told the same."""
    with Rehearsal() as cloud:
        kept = GcpPlatform(CONFIG, cloud.endpoint).images
        before = kept.pinned("serve")
        assert re.fullmatch(rf"{re.escape(URI)}@sha256:[0-9a-f]{{64}}", before), "somebody has built it before"
        assert kept.build("serve") == kept.pinned("serve") != before
        ours = cloud.requests[-1]
        package = f"projects/{CONFIG.project}/locations/{CONFIG.region}/repositories/{CONFIG.registry}/packages/serve"
        client = Clients(CONFIG.project, cloud.endpoint).artifact_registry
        tag = client.get_tag(name=client.tag_path(CONFIG.project, CONFIG.region, CONFIG.registry, "serve", "v2"))
        assert cloud.requests[-1][:2] == ours[:2]
        assert tag.version == f"{package}/versions/{kept.pinned('serve').partition('@')[2]}"


def test_the_same_policy_in_an_image_that_was_built_anew_is_another_version_of_the_model(exported, tmp_path):
    """Vertex AI takes a copy of the image when a model is uploaded, and does not look at the tag again."""
    with Rehearsal() as cloud:
        platform = GcpPlatform(replace(CONFIG, artifacts=str(tmp_path)), cloud.endpoint)
        models = Models(platform.config, platform._clients)
        first = models.upload(exported[0])
        assert models.upload(exported[0]) == first
        platform.images.build("serve")
        assert models.upload(exported[0]) != first
        uploads = [request for request in cloud.requests if request.path.endswith("models:upload")]
        images = [request.body["model"]["containerSpec"]["imageUri"] for request in uploads]
        assert images[1] == platform.images.pinned("serve") != images[0]


FAILED = {
    "code": 13,
    "message": 'build step 0 "gcr.io/cloud-builders/docker" failed:\nstep exited with non-zero status: 1',
}


@pytest.mark.parametrize(
    ("path", "answer", "reason"),
    [
        (BUILDS, error(403, "cloudbuild.builds.create was\ndenied"), "403 .*cloudbuild.builds.create was denied"),
        (UPLOAD, error(403, "storage.objects.create was denied"), "403 .*storage.objects.create was denied"),
        (BUILDS, error(429, "Quota exceeded for builds"), "429 .*Quota exceeded for builds"),
        (
            BUILDS,
            (200, {"name": "operations/build/1", "done": True, "error": FAILED}),
            "build step 0 .* non-zero status: 1",
        ),
    ],
    ids=["no permission to build", "no permission to upload", "quota", "a step failed"],
)
def test_a_refusal_is_one_sentence_that_names_the_image(path, answer, reason):
    with MoodyCloud(path, answer) as cloud, pytest.raises(PlatformError, match=reason) as refusal:
        GcpPlatform(CONFIG, cloud.endpoint).images.build("serve")
    assert str(refusal.value).startswith(f"image {URI}:v2 could not be built: ")
    assert "\n" not in str(refusal.value)


def test_a_build_that_takes_too_long_is_one_sentence(monkeypatch):
    monkeypatch.setattr(images, "TIMEOUT", 1)
    operation = BUILDS.removeprefix("/v1/").replace("builds", "operations/1")
    building = 200, {"name": operation, "done": False}
    with (
        MoodyCloud(f"{BUILDS}|/v1/{operation}", building) as cloud,
        pytest.raises(PlatformError, match=f"image {URI}:v2 could not be"),
    ):
        GcpPlatform(CONFIG, cloud.endpoint).images.build("serve")


@pytest.mark.parametrize("name", ["Serve", "SERVE", "gpu"])
def test_an_image_that_does_not_exist_is_refused_before_anything_is_sent(name):
    with Rehearsal() as cloud:
        with pytest.raises(PlatformError, match="there is no image"):
            GcpPlatform(CONFIG, cloud.endpoint).images.build(name)
        assert cloud.requests == []
        with pytest.raises(ValueError, match="name must be at most 63 lower-case letters"):
            GcpPlatform(CONFIG, cloud.endpoint).images.uri("Serve")
