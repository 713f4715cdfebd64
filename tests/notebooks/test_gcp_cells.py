"""Code for Google Cloud that a notebook shows is code that ran: here, cell by cell, against recorded requests."""

import functools
import io
import itertools
import json
import re
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pandas as pd
import pytest
from google.cloud import aiplatform
from google.cloud.devtools import cloudbuild_v1
from google.longrunning import operations_pb2

from recbandits.config import Config
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS
from recbandits.loop.steps import re_training_parameters
from recbandits.notebook import show
from recbandits.platforms.gcp.cloud import vertex
from recbandits.platforms.images import checkout
from recbandits.platforms.jobs import Job
from recbandits.serving import policy
from tests.recorder import Recorder, pb
from tools.notebooks import ROOT, code_cells, find_notebooks, read, tags

CONFIG = Config(platform="gcp", project="movie-lab-42")
PARENT = "projects/movie-lab-42/locations/us-central1"
BUCKET = "gs://movie-lab-42-recbandits-v1"
DIGEST = f"sha256:{'ab' * 32}"
TRAIN, SERVE, BUILD = (CONFIG.account(role) for role in ("train", "serve", "build"))
NOTEBOOKS = {path.stem: path for path in find_notebooks() if any("gcp" in tags(cell) for cell in read(path).cells)}
TUNED = ("simulate", "--agent=linucb", "--alpha=0.1")


def image(name):
    """Return the URI of an image by a digest."""
    return f"us-central1-docker.pkg.dev/movie-lab-42/recbandits-v1/{name}@{DIGEST}"


def built(request):
    """Answer that Cloud Build has made the images that it was asked for."""
    results = {"images": [{"name": name, "digest": DIGEST} for name in request.build.images]}
    operation = operations_pb2.Operation(name="operations/build", done=True)
    operation.response.Pack(pb(cloudbuild_v1.Build(results=results)))
    return operation


ANSWERS = {
    "GetTag": lambda request: {"version": f"{request.name}/versions/{DIGEST}"},
    "CreateBuild": built,
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


def re_training(folder, kind):
    """Return what 04-02 has made before its cell: the folder of artifacts, templates, parameters of a run."""
    config = replace(CONFIG, platform=kind, artifacts=str(folder))
    template = NOTEBOOKS["02-mab_mlops_pipeline"].parent / "src" / "re_training.yaml"
    asked = re_training_parameters(config, Settings(STARS), f"{BUCKET}/world", topic="projects/movie-lab-42/topics/i")
    return {"config": config, "templates": {"re_training": template}, "asked": asked}


def names(folder, kind):
    """Return what the cells of each notebook take from earlier ones, but for what `run` gives to all."""
    for version in ("good", "bad"):
        (folder / version).mkdir()
        (folder / version / "policy.json").write_text(version)
    record = SimpleNamespace(model=str(folder / "good"), own={"by_seed": {"mean_reward": [1.0, 2.0]}})
    tuned, limits = Job("sim-tuned", TUNED), {"TRIALS": 8, "PARALLEL": 2, "PROFILE": "quick"}
    root = checkout(ROOT)
    return {
        "00-env-setup": {"cloud_config": CONFIG},
        "01b-build-training-image": {"IMAGE": "train", "BUILD": True, "root": root, "files": ["README.md"]},
        "01c-scale-bandit-simulation-vertex": limits
        | {"names": {"search": "sim-search"}, "problem": TUNED[:2], "full": tuned},
        "02d-build-training-image": {"steps": ["train", "serve"], "BUILD": True},
        "02e-scale-bandit-training-vertex": limits
        | {
            "prefix": "fit",
            "network": ("fit",),
            "jobs": {"network-tuned": Job("fit-tuned", ("fit", "--a=1"))},
            "LARGE": True,
        },
        "02f-cpr-deploy-bandit-policy": {
            "good": folder / "good",
            "bad": folder / "bad",
            "reader": "projects/movie-lab-42/subscriptions/events",
        }
        | {"everybody": [{"user_id": "7"}], "policy": policy, "json": json, "pd": pd},
        "03a-ranking-bandit-local-train": {
            "lists": 5,
            "SEED": 0,
            "PROFILE": "quick",
            "data": SimpleNamespace(is_real=True),
        },
        "01-train_deploy_mab": limits
        | {"RUN": "a", "data": SimpleNamespace(source="MovieLens"), "problem": TUNED[:2], "full": tuned, "pd": pd}
        | {"record": record, "best": SimpleNamespace(parameters={"alpha": 0.1})},
        "02-mab_mlops_pipeline": re_training(folder, kind) | {"replace": replace},
    }


CALLED_LATER = {  # by cells of their notebooks that are not only for Google Cloud
    "02f-cpr-deploy-bandit-policy": lambda space, folder: space["take_messages"](),
    "01-train_deploy_mab": lambda space, folder: space["batch_on_vertex"](
        folder / "good" / "policy.json", folder / "answers"
    ),
}


@functools.cache
def run(name, kind="gcp"):
    """Run the cells tagged `gcp` of a notebook in order on a platform, and return the recorder."""
    images = SimpleNamespace(pinned=image, build=lambda name: cloud.calls.append((f"build {name}", {})))
    messages = SimpleNamespace(topic=lambda topic: f"projects/movie-lab-42/topics/recbandits-v1-{topic}")
    platform = SimpleNamespace(name=kind, images=images, messages=messages)
    space = {"config": replace(CONFIG, platform=kind), "platform": platform, "image": image}
    space |= {"show": show, "vertex": vertex, "aiplatform": aiplatform}
    version = mock.patch.object(policy, "load", lambda path: SimpleNamespace(version=Path(path).name))
    with tempfile.TemporaryDirectory() as folder, Recorder() as cloud, version:
        cloud.answers |= ANSWERS
        cloud.resources[f"{PARENT}/models/7"] = aiplatform.gapic.Model(name=f"{PARENT}/models/7")
        cloud.objects[f"{BUCKET}/batch/prediction/prediction.results-00000"] = b'{"prediction": {}}\n'
        space |= names(Path(folder), kind)[name]
        for cell in code_cells(read(NOTEBOOKS[name])):
            if "gcp" in tags(cell):
                exec(compile(cell.source, f"{name}, cell {cell.id}", "exec"), space)
        if kind == "gcp" and name in CALLED_LATER:
            CALLED_LATER[name](space, Path(folder))
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
    "02d-build-training-image": ["build train", "build serve"],
    "02e-scale-bandit-training-vertex": ["CreateHyperparameterTuningJob", "CreateTrainingPipeline"],
    "02f-cpr-deploy-bandit-policy": [
        "CreateEndpoint",
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
        *["CreateMetadataStore", "CreateContext", "AddContextChildren", "UpdateContext"],
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
    assert run(name, "local").calls == []


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
            "model.containerSpec.env.0.value": "projects/movie-lab-42/topics/recbandits-v1-events",
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
                "rank",
                "--agent=ranking",
                "--network=dot_product",
                "--layers=32",
                "--weight_decay=3.0",
                "--lists=5",
                "--epochs=20",
                "--judge=test",
                "--seeds=0",
            ],
        ),
    ),
    ("01-train_deploy_mab", "CreateHyperparameterTuningJob", study("step-real-quick-a-search", TUNED[:2])),
    ("01-train_deploy_mab", "CreateCustomJob", custom_job("sim-tuned", TUNED)),
    ("01-train_deploy_mab", "CreateContext", {"contextId": "recbandits-v1-step-real-quick-a"}),
    (
        "01-train_deploy_mab",
        "DeployModel",
        {"deployedModel.serviceAccount": SERVE, "trafficSplit": {"0": 100}},
    ),
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
            f"{SCHEDULED}.runtimeConfig.parameterValues.features": f"{BUCKET}/world",
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


def test_a_scheduled_run_plans_its_own_span_of_time_and_caches_nothing():
    (request,) = run("02-mab_mlops_pipeline").requests("CreateSchedule")
    job = field(request, SCHEDULED)
    assert not {"start", "end", "serving", "snapshot"} & job["runtimeConfig"]["parameterValues"].keys()
    tasks = job["pipelineSpec"]["root"]["dag"]["tasks"].values()
    assert [task["cachingOptions"].get("enableCache", False) for task in tasks] == [False] * 4
