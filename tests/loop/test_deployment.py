"""The loop on Google Cloud: what one call makes, that a second one makes nothing more, and that another removes it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event

import pytest

from recbandits.config import Config
from recbandits.data import synthetic
from recbandits.loop.deployment import SCHEDULES, deploy_loop, follow_loop, remove_loop
from recbandits.loop.settings import Settings, settings_from
from recbandits.loop.simulated_users import STARS
from recbandits.platforms import choose
from recbandits.platforms.gcp.warehouse import BigQueryWarehouse
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Verdict, to_table
from tests.conftest import recorded_project

CONFIG = Config(platform="gcp", project="movie-lab-42")
PARENT = "projects/movie-lab-42/locations/us-central1"
TOPICS = "projects/movie-lab-42/topics/recbandits-v1-"
SETTINGS = Settings(STARS, movies=30, rank=3, candidates=5)
DIGEST = f"sha256:{64 * 'a'}"  # of every image, see the fixture `project`


@pytest.fixture(scope="module")
def deployed():
    """A recorder after a deployment; for tests that change nothing."""
    with recorded_project() as project:
        deploy_loop(CONFIG, SETTINGS, synthetic.generate())
        yield project


@pytest.fixture
def loop(project):
    """A recorder of its own after a deployment."""
    deploy_loop(CONFIG, SETTINGS, synthetic.generate())
    return project


def test_functions_listen_to_the_topics_as_the_account_of_functions(deployed):
    documents = {each["functionId"]: each["function"] for each in deployed.requests("CreateFunction")}
    topics = {name: each.get("eventTrigger", {}).get("pubsubTopic") for name, each in documents.items()}
    assert topics == {
        "recbandits-v1-log-interaction": f"{TOPICS}interactions",
        "recbandits-v1-log-reward": f"{TOPICS}rewards",
        "recbandits-v1-trigger": f"{TOPICS}ticks",
        "recbandits-v1-simulator": None,
    }
    for document in documents.values():
        assert document["serviceConfig"]["serviceAccountEmail"] == CONFIG.account("function")


def test_the_trigger_knows_settings_features_and_where_the_endpoint_logs(deployed):
    documents = {each["functionId"]: each["function"] for each in deployed.requests("CreateFunction")}
    variables = documents["recbandits-v1-trigger"]["serviceConfig"]["environmentVariables"]
    settings = settings_from(json.loads(variables["RECBANDITS_SETTINGS"]))
    assert settings.guardrail.settling == 30  # servers read a new split every 10 seconds
    assert replace(settings, guardrail=SETTINGS.guardrail) == SETTINGS
    assert variables["RECBANDITS_FEATURES"] == f"gs://{CONFIG.bucket}/users"
    assert variables["RECBANDITS_EVENT_TOPIC"] == f"{TOPICS}interactions"


def test_the_tables_are_there_before_anything_is_logged(deployed):
    tables = [name.rpartition("/")[2] for name in deployed.documents if "/datasets/recbandits_v1/tables/" in name]
    assert {"interactions", "rewards", "quarantine", "verdicts", "decisions"} <= set(tables)


def test_simulated_users_and_the_first_log_are_in_the_bucket(deployed):
    prefix = f"gs://{CONFIG.bucket}/"
    names = {
        uri.removeprefix(prefix) for uri in deployed.objects if uri.startswith((f"{prefix}users/", f"{prefix}log/"))
    }
    assert {"users/features.npz", "users/titles.json", "log/interactions.parquet", "log/rewards.parquet"} <= names


def test_the_first_pipeline_run_reads_that_log_by_an_image_with_its_digest(deployed):
    (request,) = deployed.requests("CreatePipelineJob")
    job = request["pipelineJob"]
    parameters = job["runtimeConfig"]["parameterValues"]
    assert (parameters["log"], parameters["features"]) == (f"gs://{CONFIG.bucket}/log", f"gs://{CONFIG.bucket}/users")
    assert job["serviceAccount"] == CONFIG.account("train")
    images = {each["container"]["image"] for each in job["pipelineSpec"]["deploymentSpec"]["executors"].values()}
    assert images == {f"us-central1-docker.pkg.dev/movie-lab-42/recbandits-v1/train@{DIGEST}"}
    assert job["labels"]["run"].startswith("start-up-")


def test_training_the_guardrail_and_the_simulation_are_scheduled(deployed):
    jobs = {each["job"]["name"].rpartition("recbandits-v1-")[2]: each["job"] for each in deployed.requests("CreateJob")}
    assert {name: job["schedule"] for name, job in jobs.items()} == {
        name: cron for name, (cron, _) in SCHEDULES.items()
    }
    for name in ("train", "guard"):
        assert jobs[name]["pubsubTarget"]["topicName"] == f"{TOPICS}ticks"
    target = jobs["simulate"]["httpTarget"]
    assert target["uri"] == "https://recbandits-v1-simulator.run.app"
    assert target["oidcToken"]["serviceAccountEmail"] == CONFIG.account("function")


def test_the_endpoint_keeps_a_user_at_one_version_and_may_publish(deployed):
    (request,) = deployed.requests("CreateEndpoint")
    assert request["endpoint"]["labels"] == CONFIG.labels | {"split": "users"}
    policies = {request["resource"]: request["policy"]["bindings"] for request in deployed.requests("SetIamPolicy")}
    publisher = {"role": "roles/pubsub.publisher", "members": [f"serviceAccount:{CONFIG.account('serve')}"]}
    assert publisher in policies[f"{TOPICS}interactions"]


def test_the_simulator_may_find_the_topic_of_rewards_and_publish(deployed):
    bindings = deployed.resources[f"{TOPICS}rewards:policy"].bindings
    roles = {each.role for each in bindings if f"serviceAccount:{CONFIG.account('function')}" in each.members}
    assert roles == {"roles/pubsub.viewer", "roles/pubsub.publisher"}


def test_a_second_deployment_makes_nothing_more_and_removal_begins_with_schedules_and_leaves_the_data(loop):
    (job,) = (each for name, each in loop.resources.items() if "/pipelineJobs/" in name)
    job.state = "PIPELINE_STATE_RUNNING"
    loop.calls.clear()
    assert deploy_loop(CONFIG, SETTINGS, synthetic.generate()) == job.labels["run"]
    assert loop.methods("Create") == []
    job.state = "PIPELINE_STATE_SUCCEEDED"
    objects = set(loop.objects)
    remove_loop(CONFIG)
    removals = loop.methods("Delete", "Cancel")
    assert removals[:3] == ["DeleteJob"] * 3
    assert set(removals) == {"DeleteJob", "DeleteFunction", "DeleteTopic", "DeleteSubscription", "DeleteEndpoint"}
    kinds = ("/functions/", "/topics/", "/subscriptions/", "/endpoints/", "/jobs/")
    names = [name for name in loop.resources if "/recbandits-v1" in name and not name.endswith(":policy")]
    assert not [name for name in names if any(kind in name for kind in kinds)]
    assert set(loop.objects) == objects


def test_removal_ends_a_training_before_the_endpoint_that_it_would_make_again(loop, monkeypatch):
    """No function can start another one meanwhile, and a run goes on for a while after it was cancelled."""
    (job,) = (each for name, each in loop.resources.items() if "/pipelineJobs/" in name)
    job.state, loop.answers["CancelPipelineJob"] = "PIPELINE_STATE_RUNNING", {}

    def end(_):
        assert "DeleteEndpoint" not in loop.methods()
        job.state = "PIPELINE_STATE_CANCELLED"

    monkeypatch.setattr("recbandits.platforms.gcp.cloud.time.sleep", end)
    remove_loop(CONFIG)
    removals = loop.methods("Delete", "Cancel")
    assert removals[3:8] == ["DeleteFunction"] * 4 + ["CancelPipelineJob"]
    assert job.state.name == "PIPELINE_STATE_CANCELLED"


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, holdout=0.2)], ids=["the same", "others"])
def test_a_loop_that_was_removed_can_be_deployed_again(loop, settings):
    """Vertex AI keeps the run that ended, and its name."""
    remove_loop(CONFIG)
    run = deploy_loop(CONFIG, settings, synthetic.generate())
    first, second = (each["pipelineJob"] for each in loop.requests("CreatePipelineJob"))
    assert second["labels"]["run"] == run != first["labels"]["run"]
    assert second["runtimeConfig"]["parameterValues"]["holdout"] == settings.holdout


def test_where_a_policy_serves_the_first_pipeline_is_not_run(project, exported):
    choose(CONFIG).endpoints.create(sticky=True).deploy(exported[0])
    assert deploy_loop(CONFIG, SETTINGS, synthetic.generate()) is None
    assert project.requests("CreatePipelineJob") == []
    assert len(project.requests("CreateJob")) == 3


def test_where_no_loop_is_its_removal_makes_nothing(project):
    remove_loop(CONFIG)
    assert project.methods("Create") == []


def test_who_follows_a_loop_sees_its_verdicts_the_traffic_and_a_start_up_that_failed(loop, monkeypatch):
    """One verdict, 300 interactions; the endpoint has no policy yet."""
    verdict = Verdict("v", datetime(2026, 1, 1, tzinfo=UTC), "deployed", "0123456789", "", "It is the first.")
    rows = {name: {"rows": 300, "newest": None} for name in ("interactions", "rewards")}
    monkeypatch.setattr(BigQueryWarehouse, "verdicts", lambda _: to_table([verdict]).to_pandas())
    monkeypatch.setattr(BigQueryWarehouse, "state", lambda _: rows)
    lines, stop = [], Event()
    monkeypatch.setattr(stop, "wait", lambda _: stop.set())
    (job,) = (each for name, each in loop.resources.items() if "/pipelineJobs/" in name)
    run = job.labels["run"]
    follow_loop(CONFIG, stop, run, lines.append)
    assert lines == ["       deployed 01234567: It is the first.", "300 interactions · 300 rewards"]
    job.state, job.error = "PIPELINE_STATE_FAILED", {"message": "no quota"}
    with pytest.raises(PlatformError, match=f"pipeline run {run} failed: no quota"):
        follow_loop(CONFIG, Event(), run)


def test_who_follows_a_loop_that_is_removed_makes_no_endpoint(loop, monkeypatch):
    monkeypatch.setattr(BigQueryWarehouse, "verdicts", lambda _: to_table([], Verdict).to_pandas())
    monkeypatch.setattr(BigQueryWarehouse, "state", lambda _: {"interactions": {"rows": 0}, "rewards": {"rows": 0}})
    lines, stop = [], Event()
    monkeypatch.setattr(stop, "wait", lambda _: stop.set() if lines[1:] else remove_loop(CONFIG))
    follow_loop(CONFIG, stop, show=lines.append)
    assert lines == ["0 interactions · 0 rewards"] * 2
    assert len(loop.requests("CreateEndpoint")) == 1


def test_on_this_machine_the_loop_is_not_deployed():
    with pytest.raises(PlatformError, match="platform must be 'gcp' to deploy the loop; on this machine, `make loop`"):
        deploy_loop(Config(), SETTINGS, synthetic.generate())
