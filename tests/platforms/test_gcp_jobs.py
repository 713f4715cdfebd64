"""Jobs on Vertex AI keep the contract; its real client talks to a rehearsal and whole requests are compared."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from jobs_contract import PARAMETERS, JobsContract

from recbandits.config import Config
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.rehearsal import Rehearsal, error, rehearse
from recbandits.platforms.gcp.rehearsal.storage import put
from recbandits.platforms.jobs import MACHINES, Choice, Float, Integer, Job, Machine, Study
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.tuning import with_parameters

PROJECT = "movie-lab-42"
BUCKET = f"{PROJECT}-recbandits-v1"
PLACE = f"/v1/projects/{PROJECT}/locations/us-central1"
IMAGE = f"us-central1-docker.pkg.dev/{PROJECT}/recbandits-v1/train:v1"
ACCOUNT = f"recbandits-v1-sa@{PROJECT}.iam.gserviceaccount.com"
LABELS = {"app": "recbandits", "prefix": "recbandits", "version": "v1"}
CONFIG = Config(platform="gcp", project=PROJECT)
JOB = Job("scale-up", ("simulate", "--agent=linucb", "--alpha=0.5"))
T4 = replace(JOB, machine="t4", replicas=2)
STUDY = Study(Job("search", ("simulate", "--alpha=1.0")), PARAMETERS, trials=3, parallel=2, metric="reward")
CONTAINER = {"imageUri": IMAGE, "args": ["simulate", "--agent=linucb", "--alpha=0.5"]}
QUOTA = error(
    429,
    "The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_training_nvidia_t4_gpus",
    "RESOURCE_EXHAUSTED",
)
LATER = {"code": 8, "message": QUOTA[1]["error"]["message"]}


class BusyCloud(Rehearsal):
    """A rehearsal that answers what it is told to: `answers` is a list of [predicate over the request, answer]."""

    def __init__(self):
        super().__init__()
        self.answers = []

    def answer(self, request):
        fitting = (answer for applies, answer in self.answers if applies(request))
        return next(fitting, None) or super().answer(request)


@pytest.fixture
def cloud():
    with BusyCloud() as cloud:
        yield cloud


@pytest.fixture
def jobs(cloud):
    jobs = GcpPlatform(CONFIG, cloud.endpoint).jobs
    jobs.cloud = cloud
    return jobs


def created(cloud):
    """Path and body of what was created."""
    return [(request.path, request.body) for request in cloud.requests if request.method == "POST"]


def kept(cloud, kind):
    """The newest document of a kind."""
    return [document for path, document in cloud.documents.items() if path.startswith(f"{PLACE}/{kind}/")][-1]


class TestGcpJobs(JobsContract):
    def study(self, jobs, values, maximise=True):
        jobs.tune(replace(STUDY, trials=len(values), maximise=maximise))
        study = kept(jobs.cloud, "hyperparameterTuningJobs")
        for trial, value in zip(study["trials"], values, strict=True):
            trial["finalMeasurement"] = {"metrics": [{"metricId": "reward", "value": value}]} if value else {}
            trial["state"] = "INFEASIBLE" if value is None else "SUCCEEDED"
        study["trials"].reverse()
        return STUDY.job.name


def test_a_job_is_sent_with_image_arguments_and_account(jobs, cloud):
    record = jobs.run(JOB)
    assert created(cloud) == [
        (
            f"{PLACE}/customJobs",
            {
                "displayName": "scale-up",
                "jobSpec": {
                    "workerPoolSpecs": [
                        {
                            "machineSpec": {"machineType": "n2-standard-8"},
                            "replicaCount": "1",
                            "containerSpec": CONTAINER,
                        }
                    ],
                    "serviceAccount": ACCOUNT,
                    "baseOutputDirectory": {"outputUriPrefix": f"gs://{BUCKET}/jobs/scale-up"},
                },
                "labels": LABELS,
            },
        )
    ]
    assert record.state == "succeeded"
    assert record.arguments == JOB.arguments
    assert record.model == f"gs://{BUCKET}/jobs/scale-up/model"
    assert (record.started, record.error) == (datetime(2026, 1, 1, tzinfo=UTC), "")


def test_replicas_reduction_servers_and_spot_machines_are_sent(jobs, cloud):
    """The chief alone in pool 0, its three workers in pool 1, the helpers in pool 2."""
    cloud.documents[f"{PLACE}/tensorboards/7"] = {
        "name": f"{PLACE[4:]}/tensorboards/7",
        "displayName": "recbandits-v1",
    }
    image = "us-central1-docker.pkg.dev/movie-lab-42/own/train-nccl:v1"
    jobs.run(replace(JOB, machine="t4", replicas=4, reduction_servers=2, spot=True, image=image))
    machine = {"machineType": "n1-standard-8", "acceleratorType": 5, "acceleratorCount": 1}  # 5 is NVIDIA_TESLA_T4
    container = CONTAINER | {"imageUri": image}
    reducer = {"imageUri": "us-docker.pkg.dev/vertex-ai-restricted/training/reductionserver:latest"}
    spec = created(cloud)[0][1]["jobSpec"]
    assert spec.pop("scheduling") == {"strategy": 4}, "4 is SPOT"
    assert spec == {
        "workerPoolSpecs": [
            {"machineSpec": machine, "replicaCount": "1", "containerSpec": container},
            {"machineSpec": machine, "replicaCount": "3", "containerSpec": container},
            {"machineSpec": {"machineType": "n1-highcpu-16"}, "replicaCount": "2", "containerSpec": reducer},
        ],
        "serviceAccount": ACCOUNT,
        "baseOutputDirectory": {"outputUriPrefix": f"gs://{BUCKET}/jobs/scale-up"},
        "tensorboard": f"{PLACE[4:]}/tensorboards/7",
    }


@pytest.mark.parametrize(
    ("machine", "spec"),
    [
        ("l4", {"machineType": "g2-standard-8", "acceleratorType": 11, "acceleratorCount": 1}),
        ("a100", {"machineType": "a2-highgpu-1g", "acceleratorType": 8, "acceleratorCount": 1}),
        ("tpu", {"machineType": "ct5lp-hightpu-4t", "tpuTopology": "2x2"}),
        (Machine("n1-highmem-4"), {"machineType": "n1-highmem-4"}),
    ],
)
def test_machines_are_sent_as_vertex_ai_names_them(jobs, cloud, machine, spec):
    jobs.run(replace(JOB, machine=machine, image="europe-docker.pkg.dev/other/images/train@sha256:" + 64 * "0"))
    (pool,) = created(cloud)[0][1]["jobSpec"]["workerPoolSpecs"]
    assert pool["machineSpec"] == spec
    assert pool["containerSpec"]["imageUri"].startswith("europe-docker.pkg.dev/other/images/train@sha256:")


def test_a_study_is_sent_with_goal_parameters_and_trials(jobs, cloud):
    """Vertex AI adds the parameters to the arguments, so alpha is not among these."""
    jobs.tune(STUDY)
    assert created(cloud) == [
        (
            f"{PLACE}/hyperparameterTuningJobs",
            {
                "displayName": "search",
                "studySpec": {
                    "metrics": [{"metricId": "reward", "goal": 1}],  # MAXIMIZE
                    "parameters": [
                        {
                            "parameterId": "alpha",
                            "doubleValueSpec": {"minValue": 0.01, "maxValue": 10.0},
                            "scaleType": 2,  # UNIT_LOG_SCALE
                        },
                        {"parameterId": "layers", "integerValueSpec": {"minValue": "1", "maxValue": "3"}},
                        {"parameterId": "agent", "categoricalValueSpec": {"values": ["linucb", "lints"]}},
                        {"parameterId": "width", "discreteValueSpec": {"values": [16, 32, 64]}},
                    ],
                },
                "maxTrialCount": 3,
                "parallelTrialCount": 2,
                "trialJobSpec": {
                    "workerPoolSpecs": [
                        {
                            "machineSpec": {"machineType": "n2-standard-8"},
                            "replicaCount": "1",
                            "containerSpec": {"imageUri": IMAGE, "args": ["simulate"]},
                        }
                    ],
                    "serviceAccount": ACCOUNT,
                    "baseOutputDirectory": {"outputUriPrefix": f"gs://{BUCKET}/jobs/search"},
                },
                "labels": LABELS,
            },
        )
    ]


def test_the_job_that_follows_has_received_the_best_parameters(jobs, cloud):
    """Read back from the job's own container, not from what was sent."""
    jobs.tune(STUDY)
    best = jobs.best("search")
    jobs.run(replace(JOB, arguments=with_parameters(JOB.arguments, best.parameters)))
    args = kept(cloud, "customJobs")["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["args"]
    assert list(jobs.record("scale-up").arguments) == args
    assert args == ["simulate", "--alpha=5.005", "--layers=2", "--agent=lints", "--width=32"]


def test_metrics_come_from_the_record_in_the_bucket(jobs, cloud):
    record = {"arguments": [], "metrics": {"mean_reward": [3.5, 3.4, 3.6], "regret": 0.1}}
    put(cloud.documents, BUCKET, "jobs/scale-up/record.json", json.dumps(record).encode())
    done = jobs.run(JOB)
    assert done.metrics == {"mean_reward": (3.5, 3.4, 3.6), "regret": 0.1}
    assert done.own == record


def test_a_job_is_run_once_until_it_fails(jobs, cloud):
    jobs.run(JOB)
    jobs.run(JOB)
    assert len(created(cloud)) == 1
    kept(cloud, "customJobs")["state"] = "JOB_STATE_FAILED"
    assert jobs.run(JOB).state == "succeeded"
    assert len(created(cloud)) == 2
    with pytest.raises(PlatformError, match=r"other arguments or replicas, .* name: simulate --agent=linucb"):
        jobs.run(replace(JOB, arguments=("fit",)))
    with pytest.raises(PlatformError, match="begun with other arguments or replicas"):
        jobs.run(replace(JOB, replicas=2))
    kept(cloud, "customJobs")["state"] = "JOB_STATE_CANCELLING"
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
        GcpPlatform(replace(CONFIG, version="v2"), cloud.endpoint).jobs.record("scale-up")


def test_a_job_is_waited_for_with_pauses(jobs, cloud, monkeypatch):
    states, pauses = ["JOB_STATE_PENDING", "JOB_STATE_RUNNING"], []

    def look(request):
        if request.method == "GET" and "/customJobs/" in request.path and states:
            cloud.documents[request.path]["state"] = states.pop(0)
        elif "/customJobs/" in request.path:
            cloud.documents[request.path]["state"] = "JOB_STATE_SUCCEEDED"

    cloud.answers.append([look, None])
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert jobs.run(JOB).state == "succeeded"
    assert pauses == [30.0, 30.0]


def test_a_job_that_is_not_waited_for_runs(jobs, cloud):
    jobs.run(JOB, wait=False)
    kept(cloud, "customJobs")["state"] = "JOB_STATE_RUNNING"
    record = jobs.record("scale-up")
    assert (record.state, record.model, record.metrics) == ("running", "", {})
    jobs.stop("scale-up")
    assert cloud.requests[-1][:2] == ("POST", f"/v1/{kept(cloud, 'customJobs')['name']}:cancel")
    assert jobs.record("scale-up").state == "stopped"


def test_a_study_that_was_begun_is_gone_on_with(jobs, cloud):
    first = jobs.tune(STUDY)
    assert jobs.tune(STUDY) == first
    assert len(created(cloud)) == 1
    with pytest.raises(PlatformError, match="study search was begun with other arguments, parameters or metric"):
        jobs.tune(replace(STUDY, parameters=PARAMETERS | {"alpha": Float(0.01, 20.0, log=True)}))
    jobs.stop("search")
    assert cloud.requests[-1].path == f"/v1/{kept(cloud, 'hyperparameterTuningJobs')['name']}:cancel"


def test_no_more_trials_at_a_time_than_there_are_to_be(jobs, cloud):
    jobs.tune(replace(STUDY, trials=1, parallel=5))
    assert (created(cloud)[0][1]["maxTrialCount"], created(cloud)[0][1]["parallelTrialCount"]) == (1, 1)


def test_a_choice_of_fractions_stays_one(jobs):
    jobs.tune(replace(STUDY, parameters={"epsilon": Choice((0.1, 1.0, 2.0)), "batch": Integer(2, 4)}))
    parameters = jobs.trials("search")[0].parameters
    assert {name: type(value) for name, value in parameters.items()} == {"epsilon": float, "batch": int}


def test_a_trial_that_reported_no_number_has_failed(jobs, cloud):
    jobs.tune(replace(STUDY, trials=4))
    first, second, third, fourth = kept(cloud, "hyperparameterTuningJobs")["trials"]
    first["finalMeasurement"] = {"metrics": [{"metricId": "loss", "value": 9.0}]}
    second |= {"state": "INFEASIBLE", "infeasibleReason": "the disk\nis full"}
    third["finalMeasurement"] = {"metrics": [{"metricId": "reward", "value": "NaN"}]}
    fourth["state"] = "ACTIVE"
    states = [(trial.state, trial.value, trial.error) for trial in jobs.trials("search")]
    assert states == [
        ("failed", None, "trial 1 reported no reward"),
        ("failed", None, "trial 2 the disk is full"),
        ("failed", None, "trial 3 reported reward nan"),
        ("running", None, ""),
    ]


@pytest.mark.parametrize("begin", [lambda jobs: jobs.run(T4), lambda jobs: jobs.tune(replace(STUDY, job=T4))])
def test_a_missing_quota_is_named_with_what_to_do(jobs, cloud, begin):
    cloud.answers.append([lambda request: request.method == "POST", QUOTA])
    with pytest.raises(PlatformError) as refusal:
        begin(jobs)
    assert str(refusal.value).partition(" ")[2] == (
        "scale-up could not be started: the quota custom_model_training_nvidia_t4_gpus is too small for 2 x t4; "
        "ask for more at https://console.cloud.google.com/iam-admin/quotas, "
        "or take another machine, fewer replicas or another region"
    )
    assert len(created(cloud)) == 1, "a refusal is not repeated"


def test_a_quota_that_a_job_misses_later_is_in_its_record(jobs, cloud):
    jobs.run(JOB)
    kept(cloud, "customJobs").update(
        state="JOB_STATE_FAILED", error={"code": 8, "message": QUOTA[1]["error"]["message"]}
    )
    record = jobs.record("scale-up")
    assert record.state == "failed"
    assert "the quota custom_model_training_nvidia_t4_gpus is too small; ask for more" in record.error


def test_a_study_that_fails_keeps_the_trials_that_succeeded(jobs, cloud):
    jobs.tune(STUDY)
    study = kept(cloud, "hyperparameterTuningJobs")
    study |= {"state": "JOB_STATE_FAILED", "error": LATER}
    study["trials"][2]["state"] = "INFEASIBLE"
    with pytest.raises(PlatformError, match=r"nvidia_t4_gpus is too small.* \(2 of 3 trials succeeded and are kept\)"):
        jobs.tune(STUDY)
    assert [trial.state for trial in jobs.trials("search")] == ["succeeded", "succeeded", "failed"]
    assert jobs.best("search").number == 2


def test_another_refusal_is_one_sentence(jobs, cloud):
    refusal = error(403, "Permission 'aiplatform.customJobs.create'\ndenied")
    cloud.answers.append([lambda request: request.method == "POST", refusal])
    with pytest.raises(PlatformError, match=r"job scale-up could not be started: 403 .*customJobs.create' denied"):
        jobs.run(JOB)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"name": "Scale"}, "name must be at most 63 lower-case letters, .* got 'Scale'"),
        (
            {"image": "us-docker.pkg.dev/Lab/Train:v1"},
            "image must be a URI in lower case such as .* got 'us-docker",
        ),
        ({"image": "train"}, "image must be a URI"),
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
def test_what_vertex_ai_would_refuse_is_refused_here(changed, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(JOB, **changed)


def test_machines_that_have_gpus_say_how_many():
    assert all(bool(machine.accelerator) == (machine.accelerators > 0) for machine in MACHINES.values())


def test_a_notebook_can_show_what_would_be_sent():
    (request,) = rehearse(Config(), lambda platform: platform.jobs.run(JOB))
    assert request.body["displayName"] == "scale-up"
    requests = rehearse(Config(), lambda platform: platform.jobs.run(JOB), everything=True)
    assert {request.method for request in requests} == {"GET", "POST"}
