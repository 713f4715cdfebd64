"""Code for Google Cloud that a notebook shows is code that ran: here, cell by cell, against recorded requests."""

import functools
import io
import itertools
import json
import re
import tarfile
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pandas as pd
import pytest
from google.cloud import aiplatform

from recbandits.config import Config
from recbandits.loop import deployment
from recbandits.loop.core import TEMPLATES, re_training_parameters
from recbandits.loop.models import config_parameter
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS
from recbandits.notebook import show
from recbandits.platforms import choose
from recbandits.platforms.gcp import endpoints
from recbandits.platforms.gcp.cloud import vertex
from recbandits.platforms.images import checkout
from recbandits.platforms.jobs import Choice, Float, Job, Study
from recbandits.serving import policy
from tests.recorder import DIGEST, Recorder, answer_build
from tools.notebooks import ROOT, code_cells, find_notebooks, read, tags

CONFIG = Config(platform="gcp", project="movie-lab-42")
PARENT = "projects/movie-lab-42/locations/us-central1"
BUCKET = "gs://movie-lab-42-recbandits-v1"
TOPIC = "projects/movie-lab-42/topics/recbandits-v1-events"
TRAIN, SERVE, BUILD = (CONFIG.account(role) for role in ("train", "serve", "build"))
NOTEBOOKS = {path.stem: path for path in find_notebooks() if any("gcp" in tags(cell) for cell in read(path).cells)}
TUNED = ("simulate", "--agent=linucb", "--alpha=0.1")
CURVE = pd.DataFrame({"agent": ["tuned", "tuned"], "interactions": [40, 80], "reward": [1.0, 2.0]})


def image(name):
    """Return the URI of an image by a digest."""
    return f"us-central1-docker.pkg.dev/movie-lab-42/recbandits-v1/{name}@{DIGEST}"


ANSWERS = {
    f"GET https://artifactregistry.googleapis.com/v1/{PARENT}/.*": {"version": f"versions/{DIGEST}"},
    "GetTag": lambda request: {"version": f"{request.name}/versions/{DIGEST}"},
    "CreateBuild": answer_build,
    "GetBatchPredictionJob": {
        "name": f"{PARENT}/batchPredictionJobs/1",
        "state": "JOB_STATE_SUCCEEDED",
        "output_info": {"gcs_output_directory": f"{BUCKET}/batch/prediction"},
    },
    "GetTrainingPipeline": {
        "name": f"{PARENT}/trainingPipelines/1",
        "state": "PIPELINE_STATE_SUCCEEDED",
        "model_to_upload": {"name": f"{PARENT}/models/7"},
    },
    "POST .*:rawPredict": {"predictions": [{"policy_version": "0123456789abcdef"}]},
    "Pull": {"received_messages": [{"ack_id": "a", "message": {"data": b"decision"}}]},
}


def names(platform, folder):
    """Return what the cells of each notebook take from earlier ones, but for what `executed` gives to all."""
    policies = {version: folder / version for version in ("good", "bad")}
    for version, directory in policies.items():
        directory.mkdir()
        (directory / "policy.json").write_text(version)
    record = SimpleNamespace(model=str(policies["good"]), own={"by_seed": {"mean_reward": [1.0, 2.0]}})
    parameters = {"PROFILE": "quick", "TRIALS": 8, "PARALLEL": 2, "RUN": "a", "SEED": 0, "BUILD": True, "LARGE": True}
    search = parameters | {"problem": TUNED[:2], "full": Job("sim-tuned", TUNED)}
    arguments = re_training_parameters(platform.config, Settings(STARS), f"{BUCKET}/users", topic=TOPIC)
    return {
        "00-env-setup": {"cloud_config": platform.config},
        "01b-build-training-image": parameters | {"IMAGE": "train", "root": checkout(ROOT), "files": ["README.md"]},
        "01c-scale-bandit-simulation-vertex": search | {"tune": TUNED[:2], "names": {"search": "sim-search"}},
        "02d-build-training-image": parameters | {"steps": ["train", "serve"]},
        "02e-scale-bandit-training-vertex": parameters
        | {"prefix": "fit", "network": ("fit",), "jobs": {"network-tuned": Job("fit-tuned", ("fit", "--layers=32"))}},
        "02f-cpr-deploy-bandit-policy": policies
        | {"reader": "projects/movie-lab-42/subscriptions/events", "queries": [{"user_id": "7"}], "policy": policy},
        "03a-ranking-bandit-local-train": parameters | {"lists": 5, "data": SimpleNamespace(is_real=True)},
        "01-train_deploy_mab": search
        | {"tune": TUNED[:2], "local_runs": CURVE}
        | {"data": SimpleNamespace(source="MovieLens"), "record": record}
        | {"best": SimpleNamespace(parameters={"alpha": 0.1})},
        "02-mab_mlops_pipeline": {"templates": {"re_training": TEMPLATES / "re_training.yaml"}, "parameters": arguments}
        | {"config_parameter": config_parameter}
        | {"threading": threading, "LOOP_MINUTES": 0, "settings": Settings(STARS), "data": None},
    }


def join_storage():
    """Wait for the client of Cloud Storage, which looks at a bucket in a thread after it has sent a file there."""
    for thread in threading.enumerate():
        if "_fetch_background" in thread.name:
            thread.join()


@contextmanager
def executed(name, kind="gcp"):
    """Run the cells tagged `gcp` of a notebook in order on a platform, and yield the recorder and their names."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cloud = stack.enter_context(Recorder())
        stack.callback(join_storage)
        for module in (policy, endpoints):
            load = mock.patch.object(module, "load", lambda path: SimpleNamespace(version=Path(path).name))
            stack.enter_context(load)
        for function in ("deploy_loop", "follow_loop"):
            stack.enter_context(mock.patch.object(deployment, function))
        cloud.answers |= ANSWERS
        cloud.resources[f"{PARENT}/models/7"] = aiplatform.gapic.Model(name=f"{PARENT}/models/7")
        cloud.objects[f"{BUCKET}/batch/prediction/prediction.results-00000"] = b'{"prediction": {}}\n'
        platform = choose(replace(CONFIG, platform=kind, artifacts=str(folder)))
        space = {"config": platform.config, "platform": platform, "image": image, "folder": folder}
        space |= {"show": show, "vertex": vertex, "aiplatform": aiplatform, "json": json, "pd": pd, "replace": replace}
        space |= names(platform, folder)[name]
        for cell in code_cells(read(NOTEBOOKS[name])):
            if "gcp" in tags(cell):
                exec(compile(cell.source, f"{name}, cell {cell.id}", "exec"), space)
        yield cloud, space


CALLED_LATER = {  # by cells of their notebooks that are not only for Google Cloud
    "02f-cpr-deploy-bandit-policy": lambda space: space["take_messages"](),
    "01-train_deploy_mab": lambda space: space["batch_on_vertex"](
        space["folder"] / "good" / "policy.json", space["folder"] / "answers"
    ),
}


@functools.cache
def run(name):
    """Return the recorder of a notebook's cells, and of the functions among them that other cells call."""
    with executed(name) as (cloud, space):
        CALLED_LATER.get(name, lambda _: None)(space)
    return cloud


def changes(name):
    """List the methods that a notebook's cells called, without those that only look, each once in a row."""
    methods = [method for method in run(name).methods() if not method.startswith(("Get", "List", "GET"))]
    short = [re.sub(r"https://([\w-]+)\.googleapis\.com/.*/", r"\1 ", method) for method in methods]
    return [method for method, _ in itertools.groupby(short)]


def field(request, path):
    """Return the field of a request at a path such as "job.labels.app" or "pools.0.args"."""
    for part in path.split("."):
        request = request[int(part) if isinstance(request, list) else part]
    return request


SENT = {
    "00-env-setup": ["POST storage b", "POST bigquery datasets"],
    "01b-build-training-image": ["POST storage o", "CreateBuild"],
    "01c-scale-bandit-simulation-vertex": ["CreateHyperparameterTuningJob", "CreateCustomJob"],
    "02d-build-training-image": ["POST storage o", "CreateBuild"],
    "02e-scale-bandit-training-vertex": ["CreateHyperparameterTuningJob", "CreateTrainingPipeline"],
    "02f-cpr-deploy-bandit-policy": [
        *["CreateEndpoint", "CreateTopic"],
        *["POST storage o", "UploadModel", "DeployModel"] * 2,
        "UpdateEndpoint",
        "POST us-central1-aiplatform recbandits-v1-02f:rawPredict",
        "UpdateEndpoint",
        "Pull",
        "Acknowledge",
    ],
    "03a-ranking-bandit-local-train": ["CreateCustomJob"],
    "01-train_deploy_mab": [
        *["CreateHyperparameterTuningJob", "CreateCustomJob"],
        *["CreateTensorboard", "CreateMetadataStore", "CreateContext", "UpdateContext", "CreateContext"],
        *["CreateTensorboardExperiment", "CreateTensorboardRun", "CreateArtifact"],
        *["AddContextArtifactsAndExecutions", "AddContextChildren", "UpdateContext"],
        *["CreateTensorboardTimeSeries", "WriteTensorboardRunData", "UpdateContext"],
        *["POST storage o", "UploadModel", "CreateEndpoint", "DeployModel"],
        *["POST storage o", "CreateBatchPredictionJob"],
    ],
    "02-mab_mlops_pipeline": ["CreateSchedule"],
}


@pytest.mark.parametrize("name", SENT)
def test_the_cells_of_a_notebook_call_these_methods_in_this_order(name):
    assert changes(name) == SENT[name]


@pytest.mark.parametrize("name", SENT)
def test_on_this_machine_the_same_cells_ask_google_for_nothing(name):
    with executed(name, "local") as (cloud, _):
        assert cloud.calls == []


ALPHA, TIKHONOV = Float(0.01, 10.0, log=True), Float(0.0001, 10.0, log=True)
NETWORK = {
    "learning_rate": Float(0.001, 0.03, log=True),
    "weight_decay": Float(0.03, 3.0, log=True),
    "layers": Choice(("16", "32", "64,32")),
}


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("01c-scale-bandit-simulation-vertex", lambda platform, _: platform.jobs.run(Job("sim-tuned", TUNED))),
        (
            "01c-scale-bandit-simulation-vertex",
            lambda platform, _: platform.jobs.tune(
                Study(Job("sim-search", TUNED[:2]), {"alpha": ALPHA, "tikhonov": TIKHONOV})
            ),
        ),
        (
            "02e-scale-bandit-training-vertex",
            lambda platform, _: platform.jobs.tune(
                Study(Job("fit-search", ("fit", "--seeds=0")), NETWORK, metric="mse", maximise=False)
            ),
        ),
        (
            "02f-cpr-deploy-bandit-policy",
            lambda platform, space: platform.endpoints.create("recbandits-v1-02f").deploy(space["good"]),
        ),
        (
            "03a-ranking-bandit-local-train",
            lambda platform, space: platform.jobs.run(Job("rank-real-quick-0", space["arguments"])),
        ),
        ("01-train_deploy_mab", lambda platform, _: platform.jobs.run(Job("sim-tuned", TUNED))),
        (
            "01-train_deploy_mab",
            lambda platform, space: platform.endpoints.create("recbandits-v1-step").deploy(space["record"].model),
        ),
    ],
)
def test_the_package_call_beside_a_cell_finds_what_the_cell_made(name, call):
    with executed(name) as (cloud, space):
        before = cloud.methods("Create", "Upload", "Deploy")
        call(space["platform"], space)
        assert cloud.methods("Create", "Upload", "Deploy") == before


def test_every_notebook_with_such_cells_is_tested():
    assert set(NOTEBOOKS) == set(SENT)


JOB, STUDY, POOL = "customJob.jobSpec", "hyperparameterTuningJob.trialJobSpec", "workerPoolSpecs.0"
SCHEDULED = "schedule.createPipelineJobRequest.pipelineJob"
LABELS = CONFIG.labels


def custom_job(name, arguments):
    """Return the fields of a custom job that our package looks at, and those that cost money."""
    return {
        "customJob.displayName": name,  # by which, with the labels, `platform.jobs` finds it
        "customJob.labels": LABELS,
        f"{JOB}.serviceAccount": TRAIN,
        f"{JOB}.baseOutputDirectory.outputUriPrefix": f"{BUCKET}/jobs/{name}",
        f"{JOB}.{POOL}.machineSpec": {"machineType": "n2-standard-8"},
        f"{JOB}.{POOL}.containerSpec": {"imageUri": image("train"), "args": list(arguments)},
    }


def study(name, arguments, parallel=2):
    """Return the same of a study."""
    return {
        "hyperparameterTuningJob.displayName": name,
        "hyperparameterTuningJob.labels": LABELS,
        "hyperparameterTuningJob.maxTrialCount": 8,
        "hyperparameterTuningJob.parallelTrialCount": parallel,
        f"{STUDY}.serviceAccount": TRAIN,
        f"{STUDY}.{POOL}.machineSpec": {"machineType": "n2-standard-8"},
        f"{STUDY}.{POOL}.containerSpec": {"imageUri": image("train"), "args": list(arguments)},
    }


FIELDS = [
    ("00-env-setup", "POST .*/b", {"body.labels": LABELS, "body.iamConfiguration.publicAccessPrevention": "enforced"}),
    ("00-env-setup", "POST .*/datasets", {"body.labels": LABELS, "body.location": "us-central1"}),
    (
        "01b-build-training-image",
        "CreateBuild",
        {
            "build.serviceAccount": f"projects/movie-lab-42/serviceAccounts/{BUILD}",
            "build.images": [CONFIG.image("train")],
            "build.options.machineType": "E2_HIGHCPU_8",
        },
    ),
    ("01c-scale-bandit-simulation-vertex", "CreateHyperparameterTuningJob", study("sim-search", TUNED[:2])),
    (
        "01c-scale-bandit-simulation-vertex",
        "CreateCustomJob",
        custom_job("sim-tuned", TUNED) | {f"{JOB}.scheduling.strategy": "SPOT"},
    ),
    ("02d-build-training-image", "GetTag", {"name": f"{PARENT}/repositories/recbandits-v1/packages/train/tags/v1"}),
    ("02e-scale-bandit-training-vertex", "CreateHyperparameterTuningJob", study("fit-search", ("fit", "--seeds=0"))),
    (
        "02e-scale-bandit-training-vertex",
        "CreateTrainingPipeline",
        {
            "trainingPipeline.labels": LABELS,
            "trainingPipeline.trainingTaskInputs.service_account": TRAIN,
            "trainingPipeline.trainingTaskInputs.worker_pool_specs.0.machine_spec.accelerator_type": "NVIDIA_L4",
            "trainingPipeline.trainingTaskInputs.worker_pool_specs.1.replica_count": 2,
            "trainingPipeline.modelToUpload.containerSpec.imageUri": image("serve"),
        },
    ),
    (
        "02f-cpr-deploy-bandit-policy",
        "UploadModel",
        {
            "model.labels": LABELS,
            "model.containerSpec.imageUri": image("serve"),
            "model.containerSpec.env.0.value": TOPIC,
        },
    ),
    (
        "02f-cpr-deploy-bandit-policy",
        "DeployModel",
        {
            "deployedModel.displayName": "good",  # the version, by which `endpoint.deploy` finds it
            "deployedModel.serviceAccount": SERVE,
            "deployedModel.dedicatedResources.machineSpec": {"machineType": "n2-standard-2"},
            "trafficSplit": {"0": 100},
        },
    ),
    (
        "03a-ranking-bandit-local-train",
        "CreateCustomJob",
        custom_job(
            "rank-real-quick-0",
            [
                *("rank", "--agent=ranking", "--network=dot_product", "--layers=32", "--weight_decay=3.0"),
                *("--lists=5", "--epochs=20", "--judge=test", "--seeds=0"),
            ],
        ),
    ),
    ("01-train_deploy_mab", "CreateHyperparameterTuningJob", study("step-halves-real-quick-a-search", TUNED[:2])),
    ("01-train_deploy_mab", "CreateCustomJob", custom_job("sim-tuned", TUNED)),
    ("01-train_deploy_mab", "CreateContext", {"contextId": "recbandits-v1-step-halves-real-quick-a"}),
    ("01-train_deploy_mab", "DeployModel", {"deployedModel.serviceAccount": SERVE, "trafficSplit": {"0": 100}}),
    (
        "01-train_deploy_mab",
        "CreateBatchPredictionJob",
        {
            "batchPredictionJob.labels": LABELS,
            "batchPredictionJob.serviceAccount": SERVE,
            "batchPredictionJob.dedicatedResources.machineSpec": {"machineType": "n2-standard-2"},
        },
    ),
    (
        "02-mab_mlops_pipeline",
        "CreateSchedule",
        {
            "schedule.displayName": "recbandits-v1-re-training",  # by which clean-up finds it
            "schedule.cron": "TZ=Etc/UTC 0 4 * * *",
            "schedule.maxConcurrentRunCount": "1",
            f"{SCHEDULED}.labels": LABELS,
            f"{SCHEDULED}.serviceAccount": TRAIN,
            f"{SCHEDULED}.runtimeConfig.parameterValues.features": f"{BUCKET}/users",
            f"{SCHEDULED}.pipelineSpec.deploymentSpec.executors.exec-trainer.container.image": image("train"),
        },
    ),
]


@pytest.mark.parametrize(("name", "method", "expected"), FIELDS)
def test_a_request_has_these_fields(name, method, expected):
    request = run(name).requests(method)[0]
    assert {path: field(request, path) for path in expected} == expected


def test_a_build_is_sent_the_files_of_the_context():
    content = run("01b-build-training-image").objects[f"{BUCKET}/source/train.tgz"]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["README.md"]


def test_the_canary_gets_no_traffic_then_half_and_none_again():
    cloud = run("02f-cpr-deploy-bandit-policy")
    good, bad = (each["deployedModel"]["displayName"] for each in cloud.requests("DeployModel"))
    (endpoint,) = [each for path, each in cloud.resources.items() if "/endpoints/" in path]
    ids = {model.display_name: model.id for model in endpoint.deployed_models}
    assert cloud.requests("DeployModel")[1]["trafficSplit"] == {ids[good]: 100, "0": 0}
    shares = [each["endpoint"]["trafficSplit"] for each in cloud.requests("UpdateEndpoint")]
    assert shares == [{ids[good]: 50, ids[bad]: 50}, {ids[good]: 100, ids[bad]: 0}]


def test_a_run_of_an_experiment_has_its_parameters_and_metrics():
    """Its state is set in the last request."""
    context = run("01-train_deploy_mab").requests("UpdateContext")[-1]["context"]
    assert context["metadata"]["_params"] == {"alpha": 0.1}
    assert context["metadata"]["_metrics"] == {"mean_reward": 1.5}
    assert context["metadata"]["_state"] == "COMPLETE"


def test_a_run_of_an_experiment_has_a_point_for_each_measurement():
    requests = run("01-train_deploy_mab").requests("WriteTensorboardRunData")
    points = [field(request, "timeSeriesData.0.values.0") for request in requests]
    assert [(point["step"], point["scalar"]["value"]) for point in points] == [("40", 1.0), ("80", 2.0)]


def test_the_whole_loop_is_deployed_on_google_cloud_and_nowhere_else():
    for kind, times in (("gcp", 1), ("local", 0)):
        with executed("02-mab_mlops_pipeline", kind) as (_, space):
            assert space["deploy_loop"].call_count == space["follow_loop"].call_count == times


def test_a_scheduled_run_plans_its_own_span_of_time_and_caches_nothing():
    (request,) = run("02-mab_mlops_pipeline").requests("CreateSchedule")
    job = field(request, SCHEDULED)
    assert not {"start", "end", "serving", "snapshot"} & job["runtimeConfig"]["parameterValues"].keys()
    tasks = job["pipelineSpec"]["root"]["dag"]["tasks"].values()
    assert [task["cachingOptions"].get("enableCache", False) for task in tasks] == [False] * 5
