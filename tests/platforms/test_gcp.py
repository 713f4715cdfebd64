"""A project of Google Cloud is set up and cleaned up; requests are recorded."""

import json

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform_v1, functions_v2, scheduler_v1
from google.cloud.artifactregistry_v1 import Repository
from google.pubsub_v1 import Subscription, Topic
from platform_contract import PlatformContract

from recbandits.config import ROLES, Config
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.project import AGENTS, SERVICES
from recbandits.platforms.protocol import PlatformError
from tests.commands import run_python

CONFIG = Config(platform="gcp", project="movie-lab-42")
BUCKET, PARENT = CONFIG.bucket, "projects/movie-lab-42/locations/us-central1"
REPOSITORY = f"{PARENT}/repositories/recbandits-v1"
DOCUMENTS = {
    f"/storage/v1/b/{BUCKET}": ("bucket", BUCKET),
    "/bigquery/v2/projects/movie-lab-42/datasets/recbandits_v1": ("dataset", "movie-lab-42.recbandits_v1"),
    **{
        f"/v1/projects/movie-lab-42/serviceAccounts/{CONFIG.account(role)}": ("service account", CONFIG.account(role))
        for role in ROLES
    },
}
AGENT = "serviceAccount:service-123456789@gcp-sa-eventarc.iam.gserviceaccount.com"


pytestmark = pytest.mark.usefixtures("no_pauses")


@pytest.fixture
def platform(cloud):
    platform = GcpPlatform(CONFIG)
    platform.cloud = cloud
    return platform


def member(role):
    return f"serviceAccount:{CONFIG.account(role)}"


def bindings(policy):
    """Return the (role, member)s of a policy, a message or a dict."""
    items = policy["bindings"] if isinstance(policy, dict) else policy.bindings
    pairs = [(each["role"], each["members"]) if isinstance(each, dict) else (each.role, each.members) for each in items]
    return {(role, member) for role, members in pairs for member in members}


class TestGcp(PlatformContract):
    def present(self, platform):
        names = [name for path, name in DOCUMENTS.items() if path in platform.cloud.documents]
        return names + [("repository", REPOSITORY)] * (REPOSITORY in platform.cloud.resources)

    def occupy(self, platform):
        """A bucket of this project with other labels."""
        path = f"/storage/v1/b/{BUCKET}"
        platform.cloud.documents[path] = {"name": BUCKET, "projectNumber": "123456789", "labels": {"app": "other"}}
        return DOCUMENTS[path]

    def block_making(self, platform):
        return self.refuse(platform, "CreateRepository")

    def block_removal(self, platform):
        return self.refuse(platform, "DeleteRepository")

    def refuse(self, platform, method):
        platform.cloud.answers[method] = exceptions.PermissionDenied("The caller does not\nhave permission")
        return lambda: platform.cloud.answers.pop(method)


def test_creation_begins_with_services_and_makes_regional_closed_and_labelled_places(platform, cloud):
    """No account is given a role before all of them exist."""
    platform.create()
    names = [f"{name}.googleapis.com" for name in SERVICES]
    assert cloud.methods()[0] == "BatchEnableServices"
    assert cloud.requests("BatchEnableServices") == [{"parent": "projects/movie-lab-42", "serviceIds": names}]
    identities = [name for name in cloud.methods() if name.endswith(":generateServiceIdentity")]
    address = "POST https://serviceusage.googleapis.com/v1beta1/projects/movie-lab-42/services"
    assert identities == [f"{address}/{name}.googleapis.com:generateServiceIdentity" for name in AGENTS]
    (request,) = cloud.requests("POST https://storage.googleapis.com/storage/v1/b")
    assert request["body"] == {
        "name": BUCKET,
        "location": "us-central1",
        "labels": CONFIG.labels,
        "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "enforced"},
        "softDeletePolicy": {"retentionDurationSeconds": 0, "effectiveTime": None},
    }
    (repository,) = cloud.requests("CreateRepository")
    assert repository["repositoryId"] == "recbandits-v1"
    assert repository["repository"] == {"format": "DOCKER", "labels": CONFIG.labels}
    (dataset,) = cloud.requests("POST https://bigquery.*/datasets")
    assert (dataset["body"]["location"], dataset["body"]["labels"]) == ("us-central1", CONFIG.labels)
    names = cloud.methods()
    last = max(number for number, name in enumerate(names) if name.endswith("/serviceAccounts"))
    first = min(number for number, name in enumerate(names) if "setIamPolicy" in name or name == "SetIamPolicy")
    assert last < first


def test_each_account_gets_what_it_needs_where_it_needs_it(platform, cloud):
    platform.create()
    account = "/v1/projects/movie-lab-42/serviceAccounts/"
    act = "roles/iam.serviceAccountUser"
    assert bindings(cloud.resources["projects/movie-lab-42:policy"]) == {
        ("roles/aiplatform.user", member("train")),
        ("roles/bigquery.jobUser", member("train")),
        ("roles/logging.logWriter", member("train")),
        ("roles/logging.logWriter", member("serve")),
        ("roles/aiplatform.user", member("function")),
        ("roles/bigquery.jobUser", member("function")),
        ("roles/logging.logWriter", member("function")),
        ("roles/eventarc.eventReceiver", member("function")),
        ("roles/logging.logWriter", member("build")),
        ("roles/storage.objectViewer", member("build")),  # see the next test
        ("roles/eventarc.serviceAgent", AGENT),
    }
    assert bindings(cloud.documents[f"/storage/v1/b/{BUCKET}/iam"]) == {
        ("roles/storage.admin", member("train")),  # TensorBoard of a job needs it
        ("roles/storage.objectViewer", member("serve")),
        ("roles/storage.objectUser", member("function")),
        ("roles/storage.legacyBucketReader", member("function")),  # `PipelineJob` looks whether there is a bucket
        ("roles/storage.objectViewer", member("build")),
    }
    assert bindings(cloud.resources[f"{REPOSITORY}:policy"]) == {
        ("roles/artifactregistry.reader", member("train")),
        ("roles/artifactregistry.reader", member("function")),
        ("roles/artifactregistry.writer", member("build")),
    }
    entries = cloud.documents["/bigquery/v2/projects/movie-lab-42/datasets/recbandits_v1"]["access"]
    assert [(entry["role"], entry["userByEmail"]) for entry in entries] == [
        ("WRITER", CONFIG.account("train")),
        ("WRITER", CONFIG.account("function")),
    ]
    assert bindings(cloud.documents[f"{account}{CONFIG.account('train')}:getIamPolicy"]) == {
        (act, member("train")),
        (act, member("function")),
    }
    vertex_ai = "serviceAccount:service-123456789@gcp-sa-aiplatform.iam.gserviceaccount.com"
    assert bindings(cloud.documents[f"{account}{CONFIG.account('serve')}:getIamPolicy"]) == {
        (act, member("train")),
        ("roles/iam.serviceAccountAdmin", vertex_ai),  # it must have it to start servers as an account of the project
    }


def test_of_buckets_that_are_not_ours_a_build_reads_that_of_function_sources_alone(platform, cloud):
    """Without it a build ends with "Access to bucket gcf-v2-sources-... denied"; a second creation adds nothing."""
    for _ in range(2):
        platform.create()
    policy = cloud.resources["projects/movie-lab-42:policy"]
    (binding,) = [each for each in policy.bindings if each.role == "roles/storage.objectViewer"]
    assert binding.condition.expression == (
        'resource.name.startsWith("projects/_/buckets/gcf-v2-sources-123456789-us-central1")'
    )
    assert (policy.version, list(binding.members)) == (3, [member("build")])


def test_other_members_and_conditions_of_the_policy_are_kept(platform, cloud):
    from google.iam.v1.policy_pb2 import Policy

    role, policy = "roles/aiplatform.user", Policy(version=3)
    policy.bindings.add(role=role, members=[member("train")], condition={"expression": "true", "title": "office hours"})
    policy.bindings.add(role=role, members=["user:reader@example.com"])
    cloud.resources["projects/movie-lab-42:policy"] = policy
    platform.create()
    assert cloud.requests("GetIamPolicy")[0]["options"] == {"requestedPolicyVersion": 3}
    stored_policy = cloud.resources["projects/movie-lab-42:policy"]
    assert stored_policy.version == 3
    members = [list(each.members) for each in stored_policy.bindings if each.condition.title == "office hours"]
    assert members == [[member("train")]]
    plain = {(each.role, name) for each in stored_policy.bindings if not each.condition.title for name in each.members}
    assert {(role, member("train")), (role, "user:reader@example.com")} <= plain
    platform.clean_up(dry_run=False)
    assert bindings(cloud.resources["projects/movie-lab-42:policy"]) == {
        (role, "user:reader@example.com"),
        ("roles/eventarc.serviceAgent", AGENT),
    }


def test_a_role_under_a_condition_is_kept_beside_the_role_itself(platform, cloud):
    address, role = f"/storage/v1/b/{BUCKET}/iam", "roles/storage.admin"
    binding = {"role": role, "members": [member("train")], "condition": {"expression": "true"}}
    cloud.documents[address] = {"version": 3, "etag": "BwX", "bindings": [binding]}
    platform.create()
    policy = cloud.documents[address]
    assert (policy["version"], policy["etag"], policy["bindings"][0]) == (3, "BwX", binding)
    assert {"role": role, "members": [member("train")]} in policy["bindings"][1:]
    (query,) = {tuple(each["query"].items()) for each in cloud.requests(f"(GET|POST) .*{address}")}
    assert query[0][1] == "3"


def test_a_second_creation_changes_nothing(platform, cloud):
    platform.create()
    cloud.calls.clear()
    platform.create()
    read_methods = ("Get", "GET", "BatchEnableServices")
    changes = [name for name in cloud.methods() if not name.startswith(read_methods)]
    assert {name.rpartition(":")[2] for name in changes} == {"generateServiceIdentity", "getIamPolicy"}


def test_a_bucket_of_another_project_is_refused(platform, cloud):
    cloud.documents[f"/storage/v1/b/{BUCKET}"] = {"name": BUCKET, "projectNumber": "666"}
    with pytest.raises(PlatformError, match=f"^bucket {BUCKET} belongs to another project: choose another prefix"):
        platform.create()
    assert not cloud.requests(f"PUT .*/b/{BUCKET}/iam"), "no account gets a role on it"


def test_a_project_that_settles_is_asked_again(platform, cloud):
    """A policy was edited meanwhile, an account or a service is too new, over gRPC and HTTP, and the region is busy."""
    account = f"Service account {CONFIG.account('build')} does not exist."
    service = "BigQuery API has not been used before or it is disabled."
    errors = {
        "SetIamPolicy": [exceptions.Aborted("concurrent policy changes"), exceptions.InvalidArgument(account)],
        "POST .*/datasets": [exceptions.Forbidden(service)],
        "GET .*/datasets/recbandits_v1": [exceptions.Forbidden(service)],
        "GetRepository": [exceptions.PermissionDenied(service)],
        "CreateRepository": [exceptions.Aborted("unable to queue the operation")],
    }
    for method, answers in errors.items():
        cloud.answers[method] = lambda _, answers=answers: answers.pop() if answers else None
    platform.create()
    assert list(errors.values()) == [[]] * 5
    assert set(TestGcp().present(platform)) == {*DOCUMENTS.values(), ("repository", REPOSITORY)}


def test_a_refusal_names_the_resource_and_the_reason(platform, cloud):
    cloud.answers["CreateRepository"] = exceptions.PermissionDenied("artifactregistry.repositories.create\ndenied")
    with pytest.raises(
        PlatformError, match=f"^repository {REPOSITORY}: 403 artifactregistry.repositories.create denied$"
    ):
        platform.create()


def loop(cloud, labels, base="recbandits-v1"):
    """Create the resources of a running loop, in the order in which clean-up removes them."""
    document = {"create_pipeline_job_request": {"pipeline_job": {"labels": labels}}, "create_time": {"seconds": 1}}
    metadata = {"labels": labels, "create_time": {"seconds": 1}}
    resources = [
        scheduler_v1.Job(name=f"{PARENT}/jobs/{base}-train", description=f"RecBandits {base}"),
        aiplatform_v1.Schedule(name=f"{PARENT}/schedules/{base}7", display_name="recbandits-v1-nightly", **document),
        functions_v2.Function(name=f"{PARENT}/functions/{base}-trigger", labels=labels),
        aiplatform_v1.PipelineJob(name=f"{PARENT}/pipelineJobs/{base}-1", state="PIPELINE_STATE_RUNNING", **metadata),
        aiplatform_v1.CustomJob(name=f"{PARENT}/customJobs/{base}1", state="JOB_STATE_SUCCEEDED", **metadata),
        aiplatform_v1.Endpoint(name=f"{PARENT}/endpoints/{base}", **metadata),
        aiplatform_v1.Model(name=f"{PARENT}/models/{base}", **metadata),
        aiplatform_v1.Tensorboard(name=f"{PARENT}/tensorboards/{base}", display_name="recbandits-v1", **metadata),
        Subscription(name=f"projects/movie-lab-42/subscriptions/{base}-rewards", labels=labels),
        Topic(name=f"projects/movie-lab-42/topics/{base}-rewards", labels=labels),
        Repository(name=f"{PARENT}/repositories/{base}", labels=labels),
    ]
    cloud.resources |= {resource.name: resource for resource in resources}
    return [resource.name for resource in resources]


def test_clean_up_finds_what_bears_our_labels_on_any_machine_and_nothing_else(platform, cloud):
    foreign_names = loop(cloud, {"app": "recbandits", "prefix": "team-b", "version": "v1"}, "team-b-v1")
    labelled_names = loop(cloud, CONFIG.labels)
    dry_run_names = [outcome.name for outcome in platform.clean_up()]
    assert dry_run_names == labelled_names
    assert set(foreign_names + labelled_names) <= cloud.resources.keys(), "a dry run removes nothing"
    platform.clean_up(dry_run=False)
    assert cloud.resources.keys() & {*foreign_names, *labelled_names} == set(foreign_names)
    assert cloud.requests("CancelPipelineJob") == [{"name": f"{PARENT}/pipelineJobs/recbandits-v1-1"}]


def test_runs_are_found_by_the_filter_of_the_labels(platform, cloud):
    platform.clean_up()
    condition = 'labels.app="recbandits" AND labels.prefix="recbandits" AND labels.version="v1"'
    jobs = ("PipelineJobs", "CustomJobs", "HyperparameterTuningJobs", "BatchPredictionJobs")
    for kind in (*jobs, "Endpoints", "Models"):
        assert [request["filter"] for request in cloud.requests(f"List{kind}")] == [condition], kind


def test_a_project_without_a_metadata_store_has_no_experiments_and_is_cleaned_up(platform, cloud):
    """Vertex AI makes the store with the first experiment or pipeline run."""
    cloud.answers["ListContexts"] = exceptions.NotFound("Requested Metadata Store default not found")
    labelled_names = loop(cloud, CONFIG.labels)
    assert [outcome.name for outcome in platform.clean_up()] == labelled_names


def test_clean_up_empties_the_bucket_and_the_dataset(platform, cloud):
    platform.create()
    cloud.objects |= {f"gs://{BUCKET}/{number}": b"" for number in range(300)}
    platform.clean_up(dry_run=False)
    assert cloud.objects == {}
    (request,) = cloud.requests("DELETE https://bigquery.*/datasets/recbandits_v1")
    assert request["query"]["deleteContents"] == "true"


def test_an_account_of_that_name_without_our_mark_stays(platform, cloud):
    path = f"/v1/projects/movie-lab-42/serviceAccounts/{CONFIG.account('train')}"
    cloud.documents[path] = {"email": CONFIG.account("train"), "description": "of another project"}
    platform.create()
    platform.clean_up(dry_run=False)
    assert path in cloud.documents


def test_what_cannot_be_removed_keeps_nothing_else_and_is_said_at_the_end(platform, cloud):
    labelled_names = loop(cloud, CONFIG.labels)
    cloud.answers["DeleteFunction"] = exceptions.PermissionDenied("you may not")
    with pytest.raises(PlatformError, match=r"function .*: 403 you may not"):
        platform.clean_up(dry_run=False)
    left = cloud.resources.keys() & {*labelled_names}
    assert left == {name for name in labelled_names if "/functions/" in name} != set()


@pytest.mark.parametrize("state", ["JOB_STATE_EXPIRED", "JOB_STATE_PARTIALLY_SUCCEEDED"])
def test_a_job_that_ended_in_a_state_that_the_sdk_does_not_know_is_not_waited_for(platform, cloud, state):
    loop(cloud, CONFIG.labels)
    (job,) = (each for name, each in cloud.resources.items() if "/customJobs/" in name)
    job.state = state
    platform.clean_up(dry_run=False)
    assert cloud.requests("CancelCustomJob") == []
    assert len(cloud.requests("DeleteCustomJob")) == 1


def test_what_another_process_removed_meanwhile_is_no_error(platform, cloud):
    loop(cloud, CONFIG.labels)
    cloud.answers["DeleteTopic"] = exceptions.NotFound("it is gone")
    assert "topic" in {outcome.kind for outcome in platform.clean_up(dry_run=False)}


def test_files_for_the_steps_of_a_pipeline_are_shared_through_the_bucket(platform, cloud, tmp_path):
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "users.npz").write_bytes(b"1234")
    assert platform.share(tmp_path / "world") == f"gs://{BUCKET}/world"
    assert cloud.objects == {f"gs://{BUCKET}/world/users.npz": b"1234"}


def test_choosing_the_platform_imports_no_client():
    code = (
        "import sys; from recbandits.config import Config; from recbandits.platforms import choose\n"
        "choose(Config(platform='gcp', project='movie-lab-42'))\n"
        "clients = ('google.api_core', 'google.auth', 'google.cloud.', 'requests', 'tensorflow')\n"
        "print([name for name in sys.modules if name.startswith(clients)])"
    )
    assert json.loads(run_python(code)) == []


def test_experiments_are_found_by_their_name_and_removed_with_runs_and_curves(platform, cloud):
    with platform.experiments.run("agents", "linucb") as run:
        run.log_metrics({"regret": 1.0})
    with GcpPlatform(Config(platform="gcp", project="movie-lab-42", version="v2")).experiments.run("agents", "x"):
        pass
    platform.clean_up(dry_run=False)
    contexts = {request["name"].rpartition("/")[2] for request in cloud.requests("DeleteContext")}
    assert contexts == {"recbandits-v1-agents", "recbandits-v1-agents-linucb"}
    assert [request["name"].rpartition("/")[2] for request in cloud.requests("DeleteTensorboardRun")] == ["linucb"]
    names = [each.display_name for each in cloud.resources.values() if isinstance(each, aiplatform_v1.Tensorboard)]
    assert names == ["recbandits-v2"]


@pytest.mark.parametrize(
    "call",
    [
        lambda platform: platform.create(),
        lambda platform: platform.clean_up(),
        lambda platform: platform.jobs.record("fit"),
        lambda platform: platform.pipelines.running("tiny"),
        lambda platform: platform.experiments.table("agents"),
        lambda platform: platform.images.pinned("train"),
    ],
    ids=["create", "clean up", "jobs", "pipelines", "experiments", "images"],
)
def test_missing_credentials_are_reported(call, monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(PlatformError, match=r"no credentials were found; run `gcloud auth application-default login`$"):
        call(GcpPlatform(CONFIG))
