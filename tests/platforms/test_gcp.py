"""Google Cloud keeps the platform contract; its real clients talk to a rehearsal and whole requests are compared."""

import os
import subprocess
import sys

import pytest
from google.api_core.future.polling import DEFAULT_POLLING
from platform_contract import PlatformContract

from recbandits.config import Config
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.rehearsal import Rehearsal, error
from recbandits.platforms.gcp.resources import ACTS, ROLES, SERVICES
from recbandits.platforms.protocol import FOUND, MADE, PlatformError, Resource
from recbandits.platforms.provisioning import clean_up, create, manifest

PROJECT = "movie-lab-42"
ACCOUNT = f"recbandits-v1-sa@{PROJECT}.iam.gserviceaccount.com"
MEMBER = f"serviceAccount:{ACCOUNT}"
POLICY = f"/v3/projects/{PROJECT}:policy"
VERBS = ["getIamPolicy", "getIamPolicy", "setIamPolicy"]
LABELS = {"app": "recbandits", "prefix": "recbandits", "version": "v1"}
PATHS = {
    "bucket": f"/storage/v1/b/{PROJECT}-recbandits-v1",
    "dataset": f"/bigquery/v2/projects/{PROJECT}/datasets/recbandits_v1",
    "repository": f"/v1/projects/{PROJECT}/locations/us-central1/repositories/recbandits-v1",
    "service account": f"/v1/projects/{PROJECT}/serviceAccounts/{ACCOUNT}",
}


class MoodyCloud(Rehearsal):
    """A rehearsal that can refuse, or do what it is asked and lose the answer.

    `refusals` is a list of [predicate over the request, times, (status, document)], `loses` a predicate.
    """

    def __init__(self):
        super().__init__()
        self.refusals = []
        self.loses = lambda request: False

    def answer(self, request):
        if self.loses(request):
            super().answer(request)
            return error(503, "The service is currently unavailable")
        for refusal in self.refusals:
            applies, times, answer = refusal
            if times and applies(request):
                refusal[1] -= 1
                return answer
        return super().answer(request)


@pytest.fixture
def cloud():
    with MoodyCloud() as cloud:
        yield cloud


@pytest.fixture
def platform(tmp_path, cloud):
    config = Config(platform="gcp", project=PROJECT, artifacts=str(tmp_path / "artifacts"))
    platform = GcpPlatform(config, cloud.endpoint)
    platform.cloud = cloud
    return platform


def members(cloud, place, role):
    version = "v1" if "/serviceAccounts/" in place else "v3"
    bindings = cloud.documents.get(f"/{version}/{place}:policy", {}).get("bindings", [])
    return [member for binding in bindings if binding["role"] == role for member in binding["members"]]


class TestGcp(PlatformContract):
    def present(self, platform):
        cloud = platform.cloud
        return [
            resource
            for resource in platform.plan()
            if PATHS.get(resource.kind) in cloud.documents
            or (resource.kind == "role" and MEMBER in members(cloud, *resource.name.split()[:2]))
        ]

    def occupy(self, platform, resource):
        """The last of the plan: a role that the service account was given by hand."""
        binding = {"role": resource.name.split()[1], "members": [MEMBER]}
        platform.cloud.documents[POLICY] = {"version": 1, "etag": "MA==", "bindings": [binding]}

    def block_making(self, platform, resource):
        role = resource.name.split()[1]
        return self.refuse(platform, lambda request: role in str(request.body))

    def block_removal(self, platform, resource):
        path = PATHS[resource.kind]
        return self.refuse(platform, lambda request: (request.method, request.path) == ("DELETE", path))

    def refuse(self, platform, applies):
        answer = error(403, "The caller does not\nhave permission")
        platform.cloud.refusals.append([applies, 10**6, answer])
        return platform.cloud.refusals.clear


def test_a_first_creation_sends_exactly_these_requests(platform, cloud):
    create(platform)
    services, others = cloud.requests[: 2 * len(SERVICES)], cloud.requests[2 * len(SERVICES) :]
    for service, look, enable in zip(SERVICES, services[::2], services[1::2], strict=True):
        path = f"/v1/projects/{PROJECT}/services/{service}.googleapis.com"
        assert look[:2] == ("GET", path)
        assert enable[:2] == ("POST", f"{path}:enable")
        assert enable.body == {}
    looks, makings = others[0:8:2], others[1:8:2]
    assert [look[:2] for look in looks] == [("GET", path) for path in PATHS.values()]
    bucket, dataset, repository, account = makings
    assert {request.method for request in makings} == {"POST"}
    assert bucket.path == "/storage/v1/b"
    assert bucket.query["project"] == PROJECT
    assert bucket.body == {
        "name": f"{PROJECT}-recbandits-v1",
        "location": "us-central1",
        "labels": LABELS,
        "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "enforced"},
    }
    assert dataset.path == f"/bigquery/v2/projects/{PROJECT}/datasets"
    assert dataset.body == {
        "datasetReference": {"projectId": PROJECT, "datasetId": "recbandits_v1"},
        "location": "us-central1",
        "labels": LABELS,
    }
    assert repository.path == f"/v1/projects/{PROJECT}/locations/us-central1/repositories"
    assert repository.query["repositoryId"] == "recbandits-v1"
    assert repository.body == {"format": 1, "labels": LABELS}, "1 is DOCKER"
    assert account.path == f"/v1/projects/{PROJECT}/serviceAccounts"
    assert account.body == {
        "accountId": "recbandits-v1-sa",
        "serviceAccount": {"displayName": "RecBandits recbandits-v1"},
    }
    acts, edits = others[8:11], others[11:]
    assert [request.path for request in acts] == [f"{PATHS['service account']}:{verb}" for verb in VERBS]
    assert acts[-1].body["policy"]["bindings"] == [{"role": ACTS, "members": [MEMBER]}]
    assert [request.path.rpartition(":")[2] for request in edits] == VERBS * len(ROLES)
    assert edits[0].body == edits[1].body == {"options": {"requestedPolicyVersion": 3}}
    assert edits[-1].body["policy"]["bindings"] == [{"role": role, "members": [MEMBER]} for role in ROLES]


def test_a_second_creation_changes_nothing(platform, cloud):
    create(platform)
    before = dict(cloud.documents)
    cloud.requests.clear()
    create(platform)
    assert cloud.documents == before
    changes = [request.path for request in cloud.requests if request.method != "GET"]
    asked = [PATHS["service account"], *[POLICY.removesuffix(":policy")] * len(ROLES)]
    assert changes == [f"{place}:getIamPolicy" for place in asked]


def test_clean_up_sends_one_removal_for_each_thing_made_and_leaves_services_on(platform, cloud):
    create(platform)
    cloud.requests.clear()
    clean_up(platform, dry_run=False)
    removals = [request.path for request in cloud.requests if request.method == "DELETE"]
    assert removals == [PATHS[kind] for kind in ("service account", "repository", "dataset", "bucket")]
    assert sum(request.path.endswith(":setIamPolicy") for request in cloud.requests) == 1 + len(ROLES)
    assert cloud.documents[POLICY].get("bindings", []) == []
    assert sum(document.get("state") == "ENABLED" for document in cloud.documents.values()) == len(SERVICES)


def test_clean_up_empties_the_bucket_and_the_dataset(platform, cloud):
    create(platform)
    for name in ("a", "b"):
        blob = {"name": name, "bucket": f"{PROJECT}-recbandits-v1"}
        cloud.documents[f"{PATHS['bucket']}/o/{name}"] = blob
    clean_up(platform, dry_run=False)
    assert not [path for path in cloud.documents if path.startswith(PATHS["bucket"])]
    dataset = next(request for request in cloud.requests if request[:2] == ("DELETE", PATHS["dataset"]))
    assert dataset.query["deleteContents"] == "true"


def test_clean_up_follows_the_manifest_and_not_the_configuration_of_the_day(platform, cloud):
    create(platform)
    moved = Config("gcp", "another-lab-7", "europe-west4", version="v9", artifacts=platform.config.artifacts)
    clean_up(GcpPlatform(moved, cloud.endpoint), dry_run=False)
    assert not set(PATHS.values()) & set(cloud.documents)
    assert cloud.documents[POLICY].get("bindings", []) == []


def test_a_service_is_looked_at_before_it_is_switched_on(platform, cloud):
    name = f"projects/{PROJECT}/services/storage.googleapis.com"
    assert platform.make(Resource("service", name)) == "enabled"
    assert platform.make(Resource("service", name)) == FOUND
    assert [request.method for request in cloud.requests] == ["GET", "POST", "GET"]


def test_other_members_and_conditions_of_the_policy_are_kept(platform, cloud):
    role = ROLES[0]
    conditional = {"role": role, "members": [MEMBER], "condition": {"title": "office hours", "expression": "true"}}
    shared = {"role": role, "members": ["user:somebody@example.com"]}
    cloud.documents[POLICY] = {"version": 3, "etag": "MA==", "bindings": [conditional, shared]}
    resource = next(resource for resource in platform.plan() if f" {role} " in resource.name)
    assert platform.make(resource) == MADE
    assert cloud.documents[POLICY]["version"] == 3
    assert cloud.documents[POLICY]["bindings"] == [
        conditional,
        {"role": role, "members": ["user:somebody@example.com", MEMBER]},
    ]
    platform.remove(resource)
    assert cloud.documents[POLICY]["bindings"] == [conditional, shared]


def test_a_bucket_of_somebody_else_is_refused(platform, cloud):
    cloud.documents[PATHS["bucket"]] = {"name": f"{PROJECT}-recbandits-v1", "projectNumber": "666"}
    with pytest.raises(PlatformError, match=f"bucket {PROJECT}-recbandits-v1 belongs to another project"):
        create(platform)
    assert manifest(platform) == []


@pytest.mark.parametrize(
    ("part_of_path", "answer"),
    [
        (":setIamPolicy", error(409, "There were concurrent policy changes.")),
        (":setIamPolicy", error(400, f"Service account {ACCOUNT} does not exist.")),
        ("/datasets", error(403, "BigQuery API has not been used in project 42 before or it is disabled.")),
        ("/repositories", error(409, "unable to queue the operation", "ABORTED")),
    ],
    ids=["the policy was edited meanwhile", "the account is too new", "the service is too new", "it is busy"],
)
def test_a_cloud_that_is_still_settling_is_asked_again(platform, cloud, part_of_path, answer):
    cloud.refusals.append([lambda request: request.path.endswith(part_of_path), 1, answer])
    create(platform)
    assert sum(request.path.endswith(part_of_path) for request in cloud.requests) >= 2
    assert len(manifest(platform)) == len(PATHS) + 1 + len(ROLES)


def test_a_refusal_names_the_resource_and_the_reason(platform, cloud):
    refusal = error(403, "Permission 'artifactregistry.repositories.create'\ndenied")
    cloud.refusals.append([lambda request: request.path.endswith("/repositories"), 1, refusal])
    sentence = "repository projects/movie-lab-42/.* could not be made: 403 .*repositories.create' denied"
    with pytest.raises(PlatformError, match=sentence):
        create(platform)
    assert [resource.kind for resource in manifest(platform)] == ["bucket", "dataset"]


MAKING = {
    "bucket": "/b",
    "dataset": "/datasets",
    "repository": "/repositories",
    "service account": "/serviceAccounts",
    "role": ":setIamPolicy",
}


@pytest.mark.parametrize("kind", MAKING)
def test_what_was_made_although_the_answer_was_lost_is_ours(platform, cloud, kind):
    """The library's own second try would be told "exists already" and take the thing for somebody else's."""
    cloud.loses = lambda request: request.method == "POST" and request.path.endswith(MAKING[kind])
    with pytest.raises(PlatformError, match=f"{kind} .* could not be made: .*unavailable"):
        create(platform)
    assert sum(cloud.loses(request) for request in cloud.requests) == 1
    made = TestGcp().present(platform)
    assert made[-1].kind == kind
    assert made == manifest(platform)
    cloud.loses = lambda request: False
    create(platform)
    assert len(manifest(platform)) == len(PATHS) + 1 + len(ROLES)
    clean_up(platform, dry_run=False)
    assert TestGcp().present(platform) == []


@pytest.mark.parametrize("refused", [True, False], ids=["waiting is refused", "waiting takes too long"])
def test_a_repository_that_was_begun_is_listed_before_it_can_be_seen(platform, cloud, monkeypatch, refused):
    begun = (200, {"name": f"projects/{PROJECT}/locations/us-central1/operations/7"})
    polled = error(403, "operations.get denied") if refused else begun
    cloud.refusals.append([lambda request: request[0] == "POST" and request.path.endswith("/repositories"), 1, begun])
    cloud.refusals.append([lambda request: "/operations/" in request.path, 10**6, polled])
    monkeypatch.setattr(DEFAULT_POLLING, "_timeout", 0.1)
    with pytest.raises(PlatformError, match=r"repository .* could not be made: it was begun, but not seen to end: "):
        create(platform)
    assert any("/operations/" in request.path for request in cloud.requests)
    cloud.documents[PATHS["repository"]] = {"format": 1}
    clean_up(platform, dry_run=False)
    assert TestGcp().present(platform) == []


def test_nobody_signed_in_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    platform = GcpPlatform(Config(platform="gcp", project=PROJECT, artifacts=str(tmp_path)))
    with pytest.raises(PlatformError, match=r"nobody is signed in; run `gcloud auth application-default login`"):
        platform.make(platform.plan()[0])


def test_planning_imports_no_client():
    code = (
        "import sys; from recbandits.config import Config; from recbandits.platforms.gcp import GcpPlatform\n"
        "GcpPlatform(Config(platform='gcp', project='movie-lab-42')).plan()\n"
        "clients = ('google.api_core', 'google.auth', 'google.cloud.', 'requests', 'tensorflow')\n"
        "print([name for name in sys.modules if name.startswith(clients)])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_rehearsal_does_not_go_through_a_proxy_and_leaves_the_setting_as_it_was(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    config = Config(platform="gcp", project=PROJECT, artifacts=str(tmp_path))
    with Rehearsal() as cloud:
        assert FOUND not in {outcome.outcome for outcome in create(GcpPlatform(config, cloud.endpoint))}
        assert cloud.documents
        assert "intranet.example" in os.environ["no_proxy"]
    assert "no_proxy" not in os.environ
