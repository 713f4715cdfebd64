"""Jobs on Vertex AI keep the contract; the SDK's requests are recorded and compared whole."""

import json
from dataclasses import replace
from unittest import mock

import pytest
from google.api_core import exceptions
from google.cloud import aiplatform_v1
from google.protobuf.struct_pb2 import Value
from google.rpc import status_pb2
from jobs_contract import PARAMETERS, JobsContract

from recbandits.config import Config
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.jobs import GcpJobs
from recbandits.platforms.jobs import Choice, Float, Integer, Job, Machine, Study
from recbandits.platforms.protocol import PlatformError

PROJECT = "movie-lab-42"
BUCKET = f"{PROJECT}-recbandits-v1"
PARENT = f"projects/{PROJECT}/locations/us-central1"
TAGS = r"GET https://artifactregistry.*/repositories/recbandits-v1/packages/"
DIGEST = f"sha256:{64 * 'a'}"
IMAGE = f"us-central1-docker.pkg.dev/{PROJECT}/recbandits-v1/train@{DIGEST}"
CONFIG = Config(platform="gcp", project=PROJECT)
ACCOUNT, LABELS = CONFIG.account("train"), CONFIG.labels
JOB = Job("scale-up", ("simulate", "--agent=linucb", "--alpha=0.5"))
STUDY = Study(Job("search", ("simulate", "--alpha=1.0")), PARAMETERS, trials=3, parallel=2, metric="reward")
CONTAINER = {"imageUri": IMAGE, "args": ["simulate", "--agent=linucb", "--alpha=0.5"]}
CREATE = ("CreateCustomJob", "CreateHyperparameterTuningJob")
STARTS = pytest.mark.parametrize(
    "start",
    [lambda jobs, job: jobs.run(job), lambda jobs, job: jobs.tune(replace(STUDY, job=job))],
    ids=["job", "study"],
)
QUOTA = (
    "The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_training_nvidia_t4_gpus"
)


@pytest.fixture
def cloud(cloud, no_pauses):
    for name in ("train", "train-gpu"):
        cloud.answers[f"{TAGS}{name}/tags/v1"] = {"version": f"versions/{DIGEST}"}
    return cloud


@pytest.fixture
def jobs(cloud):
    jobs = GcpPlatform(CONFIG).jobs
    jobs.cloud = cloud
    return jobs


def created(cloud):
    """Return the requests that created jobs and studies."""
    return [request for method in CREATE for request in cloud.requests(method)]


def newest(cloud, kind):
    """The newest resource of a class of `aiplatform_v1`, as the service keeps it."""
    return [each for each in cloud.resources.values() if isinstance(each, kind)][-1]


def job_of(cloud):
    return newest(cloud, aiplatform_v1.CustomJob)


def study_of(cloud):
    return newest(cloud, aiplatform_v1.HyperparameterTuningJob)


def end_trials(study, values):
    """Have the trials of a study end with values, None for a failure; a parameter is in the middle of its range."""
    study.trials = [_trial(study, number + 1, value) for number, value in enumerate(values)][::-1]


def _trial(study, number, value):
    parameters = []
    for parameter in study.study_spec.parameters:
        middle = {
            "alpha": Value(number_value=5.005),
            "layers": Value(number_value=2.0),
            "agent": Value(string_value="lints"),
            "width": Value(number_value=32.0),
            "epsilon": Value(number_value=1.0),
            "batch": Value(number_value=3.0),
        }[parameter.parameter_id]
        parameters.append(aiplatform_v1.Trial.Parameter(parameter_id=parameter.parameter_id, value=middle))
    trial = aiplatform_v1.Trial(id=str(number), state="INFEASIBLE" if value is None else "SUCCEEDED")
    trial.parameters = parameters
    if value is not None:
        trial.final_measurement.metrics = [{"metric_id": "reward", "value": value}]
    return trial


class TestGcpJobs(JobsContract):
    def study(self, jobs, values, maximise=True):
        jobs.tune(replace(STUDY, trials=len(values), maximise=maximise))
        end_trials(study_of(jobs.cloud), values)
        return STUDY.job.name


def test_a_job_is_sent_with_image_arguments_and_account(jobs, cloud):
    record = jobs.run(JOB)
    pool = {"machineSpec": {"machineType": "n2-standard-8"}, "replicaCount": "1", "containerSpec": CONTAINER}
    spec = {
        "workerPoolSpecs": [pool],
        "serviceAccount": ACCOUNT,
        "baseOutputDirectory": {"outputUriPrefix": f"gs://{BUCKET}/jobs/scale-up"},
    }
    assert created(cloud) == [
        {"parent": PARENT, "customJob": {"displayName": "scale-up", "jobSpec": spec, "labels": LABELS}}
    ]
    assert record.state == "succeeded"
    assert record.arguments == JOB.arguments
    assert record.model == f"gs://{BUCKET}/jobs/scale-up/model"
    assert record.error == ""


def test_replicas_reduction_servers_and_spot_machines_are_sent(jobs, cloud):
    """The chief alone in pool 0, its three workers in pool 1, the helpers in pool 2."""
    board = aiplatform_v1.Tensorboard(name=f"{PARENT}/tensorboards/7", display_name="recbandits-v1", labels=LABELS)
    cloud.resources[board.name] = board
    image = "us-central1-docker.pkg.dev/movie-lab-42/own/train-nccl:v1"
    jobs.run(replace(JOB, machine="t4", replicas=4, reduction_servers=2, spot=True, image=image))
    machine = {"machineType": "n1-standard-8", "acceleratorType": "NVIDIA_TESLA_T4", "acceleratorCount": 1}
    container = CONTAINER | {"imageUri": image}
    reducer = {"imageUri": "us-docker.pkg.dev/vertex-ai-restricted/training/reductionserver:latest"}
    spec = created(cloud)[0]["customJob"]["jobSpec"]
    assert spec.pop("scheduling") == {"strategy": "SPOT"}
    assert spec == {
        "workerPoolSpecs": [
            {"machineSpec": machine, "replicaCount": "1", "containerSpec": container},
            {"machineSpec": machine, "replicaCount": "3", "containerSpec": container},
            {"machineSpec": {"machineType": "n1-highcpu-16"}, "replicaCount": "2", "containerSpec": reducer},
        ],
        "serviceAccount": ACCOUNT,
        "baseOutputDirectory": {"outputUriPrefix": f"gs://{BUCKET}/jobs/scale-up"},
        "tensorboard": board.name,
    }


@pytest.mark.parametrize(
    ("machine", "spec"),
    [
        ("l4", {"machineType": "g2-standard-8", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}),
        ("tpu", {"machineType": "ct5lp-hightpu-4t", "tpuTopology": "2x2"}),
        (Machine("n1-highmem-4"), {"machineType": "n1-highmem-4"}),
    ],
)
def test_machines_are_sent_as_vertex_ai_names_them(jobs, cloud, machine, spec):
    jobs.run(replace(JOB, machine=machine, image="europe-docker.pkg.dev/other/images/train@sha256:" + 64 * "0"))
    (pool,) = created(cloud)[0]["customJob"]["jobSpec"]["workerPoolSpecs"]
    assert pool["machineSpec"] == spec
    assert pool["containerSpec"]["imageUri"].startswith("europe-docker.pkg.dev/other/images/train@sha256:")


def test_a_study_is_sent_with_goal_parameters_and_trials(jobs, cloud):
    """Vertex AI adds the parameters to the arguments, so alpha is not among these."""
    jobs.tune(STUDY)
    container = {"imageUri": IMAGE, "args": ["simulate"]}
    pool = {"machineSpec": {"machineType": "n2-standard-8"}, "replicaCount": "1", "containerSpec": container}
    (request,) = created(cloud)
    assert request["parent"] == PARENT
    assert request["hyperparameterTuningJob"] == {
        "displayName": "search",
        "studySpec": {
            "metrics": [{"metricId": "reward", "goal": "MAXIMIZE"}],
            "measurementSelectionType": "BEST_MEASUREMENT",
            "parameters": [
                {
                    "parameterId": "alpha",
                    "doubleValueSpec": {"minValue": 0.01, "maxValue": 10.0},
                    "scaleType": "UNIT_LOG_SCALE",
                },
                {
                    "parameterId": "layers",
                    "integerValueSpec": {"minValue": "1", "maxValue": "3"},
                    "scaleType": "UNIT_LINEAR_SCALE",
                },
                {"parameterId": "agent", "categoricalValueSpec": {"values": ["linucb", "lints"]}},
                {
                    "parameterId": "width",
                    "discreteValueSpec": {"values": [16.0, 32.0, 64.0]},
                    "scaleType": "UNIT_LINEAR_SCALE",
                },
            ],
        },
        "maxTrialCount": 3,
        "parallelTrialCount": 2,
        "trialJobSpec": {
            "workerPoolSpecs": [pool],
            "serviceAccount": ACCOUNT,
            "baseOutputDirectory": {"outputUriPrefix": f"gs://{BUCKET}/jobs/search"},
        },
        "labels": LABELS,
    }


def test_metrics_come_from_the_record_in_the_bucket(jobs, cloud):
    record = {"arguments": [], "metrics": {"mean_reward": [3.5, 3.4, 3.6], "regret": 0.1}}
    cloud.objects[f"gs://{BUCKET}/jobs/scale-up/record.json"] = json.dumps(record).encode()
    result = jobs.run(JOB)
    assert result.metrics == {"mean_reward": (3.5, 3.4, 3.6), "regret": 0.1}
    assert result.own == record


def test_a_job_is_run_once_until_it_fails(jobs, cloud):
    jobs.run(JOB)
    jobs.run(JOB)
    assert len(created(cloud)) == 1
    job_of(cloud).state = "JOB_STATE_FAILED"
    assert jobs.run(JOB).state == "succeeded"
    assert len(created(cloud)) == 2
    with pytest.raises(PlatformError, match=r"other arguments or replicas, .* name: simulate --agent=linucb"):
        jobs.run(replace(JOB, arguments=("fit",)))
    with pytest.raises(PlatformError, match="started with other arguments or replicas"):
        jobs.run(replace(JOB, replicas=2))
    job_of(cloud).state = "JOB_STATE_CANCELLING"
    assert jobs.run(JOB, wait=False).state == "running", "it still writes where the new one would"
    assert len(created(cloud)) == 2


def test_the_names_of_jobs_and_studies_do_not_mix(jobs, cloud):
    jobs.run(JOB)
    jobs.tune(STUDY)
    with pytest.raises(PlatformError, match="scale-up is a job: give the study a name of its own"):
        jobs.tune(replace(STUDY, job=JOB))
    with pytest.raises(PlatformError, match="search is a study: give the job a name of its own"):
        jobs.run(STUDY.job)
    assert len(created(cloud)) == 2


def test_jobs_of_another_version_are_not_ours(jobs, cloud):
    jobs.run(JOB)
    with pytest.raises(PlatformError, match="there is no job scale-up"):
        GcpPlatform(replace(CONFIG, version="v2")).jobs.record("scale-up")


def test_a_job_is_waited_for_with_pauses(jobs, cloud):
    states = iter(["JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"])
    jobs.run(JOB, wait=False)
    job_of(cloud).state = "JOB_STATE_PENDING"
    with mock.patch("recbandits.platforms.gcp.cloud.time") as time:  # of that module alone: other threads sleep, too
        time.sleep.side_effect = lambda _: setattr(job_of(cloud), "state", next(states))
        assert GcpJobs(CONFIG).run(JOB).state == "succeeded", "another process waits for it"
    assert time.sleep.call_args_list == [mock.call(30.0)] * 2
    assert len(created(cloud)) == 1


def test_a_job_that_is_not_waited_for_runs(jobs, cloud):
    jobs.run(JOB, wait=False)
    job_of(cloud).state = "JOB_STATE_RUNNING"
    record = jobs.record("scale-up")
    assert (record.state, record.model, record.metrics) == ("running", "", {})
    jobs.stop("scale-up")
    assert cloud.requests("CancelCustomJob") == [{"name": job_of(cloud).name}]
    assert jobs.record("scale-up").state == "stopped"


def test_a_started_study_is_continued(jobs, cloud):
    jobs.tune(STUDY)
    end_trials(study_of(cloud), [1.0, 2.0, 3.0])
    assert [trial.value for trial in jobs.tune(STUDY)] == [1.0, 2.0, 3.0]
    assert len(created(cloud)) == 1
    with pytest.raises(PlatformError, match="study search was started with other arguments, parameters or metric"):
        jobs.tune(replace(STUDY, parameters=PARAMETERS | {"alpha": Float(0.01, 20.0, log=True)}))
    jobs.stop("search")
    assert cloud.requests("CancelHyperparameterTuningJob") == [{"name": study_of(cloud).name}]


def test_no_more_trials_at_a_time_than_there_are_to_be(jobs, cloud):
    jobs.tune(replace(STUDY, trials=1, parallel=5))
    study = created(cloud)[0]["hyperparameterTuningJob"]
    assert (study["maxTrialCount"], study["parallelTrialCount"]) == (1, 1)


def test_a_choice_of_fractions_stays_one(jobs, cloud):
    jobs.tune(replace(STUDY, parameters={"epsilon": Choice((0.1, 1.0, 2.0)), "batch": Integer(2, 4)}))
    end_trials(study_of(cloud), [1.0])
    parameters = jobs.trials("search")[0].parameters
    assert {name: type(value) for name, value in parameters.items()} == {"epsilon": float, "batch": int}


def test_a_trial_that_reported_no_number_has_failed(jobs, cloud):
    jobs.tune(replace(STUDY, trials=4))
    study = study_of(cloud)
    end_trials(study, [9.0, None, float("nan"), 1.0])
    fourth, _, second, first = study.trials
    first.final_measurement.metrics[0].metric_id = "loss"
    second.infeasible_reason = "the disk\nis full"
    fourth.state = "ACTIVE"
    states = [(trial.state, trial.value, trial.error) for trial in jobs.trials("search")]
    assert states == [
        ("failed", None, "trial 1 reported no reward"),
        ("failed", None, "trial 2 the disk is full"),
        ("failed", None, "trial 3 reported reward nan"),
        ("running", None, ""),
    ]


@STARTS
def test_a_refusal_is_one_sentence_and_not_repeated(jobs, cloud, start):
    for method in CREATE:
        cloud.answers[method] = exceptions.ResourceExhausted(QUOTA)
    with pytest.raises(PlatformError, match=r"^(job|study) scale-up: 429 .*custom_model_training_nvidia_t4_gpus$"):
        start(jobs, replace(JOB, machine="t4", replicas=2))
    assert len(created(cloud)) == 1


@STARTS
def test_a_project_that_settles_is_asked_again(jobs, cloud, start):
    """Vertex AI makes its service agent with the first job of a project."""
    error = exceptions.BadRequest("Service agents are being provisioned (...). So please try again in a few minutes.")
    answers = iter([error, error])
    for method in CREATE:
        cloud.answers[method] = lambda request: next(answers, None)
    start(jobs, JOB)
    assert len(created(cloud)) == 3


def test_the_error_of_a_job_is_in_its_record(jobs, cloud):
    jobs.run(JOB)
    job_of(cloud).state = "JOB_STATE_FAILED"
    job_of(cloud).error = status_pb2.Status(code=8, message="The replica\nexited")
    assert jobs.record("scale-up")[1:2] == ("failed",)
    assert jobs.record("scale-up").error == "job scale-up: The replica exited"


def test_a_study_that_fails_keeps_the_trials_that_succeeded(jobs, cloud):
    jobs.tune(STUDY)
    study = study_of(cloud)
    end_trials(study, [1.0, 2.0, None])
    study.state, study.error = "JOB_STATE_FAILED", status_pb2.Status(code=8, message=QUOTA)
    with pytest.raises(PlatformError, match=r"nvidia_t4_gpus \(2 of 3 trials succeeded and are kept\)"):
        jobs.tune(STUDY)
    assert [trial.state for trial in jobs.trials("search")] == ["succeeded", "succeeded", "failed"]
    assert jobs.best("search").number == 2


@STARTS
def test_what_has_no_image_is_refused_before_it_is_sent(jobs, cloud, start):
    cloud.answers[f"{TAGS}train/tags/v1"] = exceptions.NotFound("no")
    with pytest.raises(PlatformError, match=r"^there is no image us-central1-.*/train:v1: build it first$"):
        start(jobs, JOB)
    assert created(cloud) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "Scale"}, "name must be at most 63 lower-case letters, .* got 'Scale'"),
        ({"image": "us-docker.pkg.dev/Lab/Train:v1"}, "image must be a URI in lower case such as .* got 'us-docker"),
        ({"machine": "h100"}, "machine must be a Machine or one of cpu, t4, l4, a100, tpu, got 'h100'"),
        ({"reduction_servers": 2, "machine": "t4"}, "reduction_servers must be 0 unless there are several replicas"),
        ({"reduction_servers": 2, "replicas": 3}, "each with a GPU, got 2"),
        ({"reduction_servers": -1}, "reduction_servers must be a whole number"),
        (
            {"reduction_servers": 1, "replicas": 3, "machine": "l4"},
            "image must be one with Google's plug-in for NCCL where there are reduction servers, got ''",
        ),
        ({"machine": "tpu"}, "image must be one with libtpu on a TPU, where ours has none, got ''"),
        ({"replicas": 0}, "replicas must be a whole number of at least 1"),
    ],
)
def test_what_vertex_ai_would_refuse_is_refused_here(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(JOB, **changes)
