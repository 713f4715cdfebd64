"""The trial on Google Cloud, against recorded requests: what it calls, and that nothing of it is left."""

import json
import signal
import sys
import time

import pytest

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.gcp.cloud import location, upload
from recbandits.platforms.protocol import PlatformError
from recbandits.serving.policy import load
from tools import smoke
from tools.smoke import PREFIX, STEPS, Result, Step, run, table

CONFIG = Config(platform="gcp", project="movie-lab-42", prefix=PREFIX)
BIGQUERY = "https://[^/]+/bigquery/v2/projects/movie-lab-42"


@pytest.fixture
def cloud(project, exported, monkeypatch):
    """The project, in which the pipeline deploys a policy, predictions are answered, and decisions are in BigQuery."""
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    predictions = {"predictions": [{"event_id": f"e{row}"} for row in range(3)]}
    project.answers[f"POST https://.*/{location(CONFIG)}/endpoints/{CONFIG.endpoint}:rawPredict"] = predictions
    count = {"jobComplete": True, "jobReference": {"jobId": "query"}, "totalRows": "1", "rows": [{"f": [{"v": "1"}]}]}
    count["schema"] = {"fields": [{"name": "number", "type": "INTEGER"}]}
    project.answers[f"POST {BIGQUERY}/jobs"] = lambda request: request["body"] | {"status": {"state": "DONE"}}
    project.answers[f"GET {BIGQUERY}/queries/.*"] = count
    project.answers["CreateBatchPredictionJob"] = lambda request: answer_batch(project, request.batch_prediction_job)
    create = project._create

    def deploy(field, request, method):
        if field == "pipeline_job":
            upload(CONFIG, exported[0], f"models/{load(exported[0]).version}/policy")
            choose(CONFIG).endpoints.create(sticky=True).deploy(exported[0])
        return create(field, request, method)

    project._create = deploy
    return project


def answer_batch(project, job):
    """Answer each line of a batch prediction, and return the job."""
    lines = project.objects[job.input_config.gcs_source.uris[0]].splitlines()
    results = [{"instance": json.loads(line), "prediction": {"event_id": "e"}} for line in lines]
    directory = f"{job.output_config.gcs_destination.output_uri_prefix}/out"
    content = "".join(json.dumps(result) + "\n" for result in results).encode()
    project.objects[f"{directory}/prediction.results-00000-of-00001"] = content
    finished = type(job)(job, name=f"{location(CONFIG)}/batchPredictionJobs/1", state="JOB_STATE_SUCCEEDED")
    finished.output_info.gcs_output_directory = directory
    project.resources[finished.name] = finished
    return finished


def labelled(project):
    """List the names of the resources with the labels of the trial, in all services."""
    messages = [name for name, each in project.resources.items() if dict(getattr(each, "labels", {})) == CONFIG.labels]
    return messages + [name for name, each in project.documents.items() if each.get("labels") == CONFIG.labels]


def test_every_step_succeeds_and_nothing_is_left(cloud):
    results = run(CONFIG, show=lambda _: None)
    assert {result.name: result.outcome for result in results} == dict.fromkeys(
        [*(step.name for step in STEPS), "clean-up"], "ok"
    )
    created = set(cloud.methods("Create"))
    assert {"CreateCustomJob", "CreatePipelineJob", "CreateEndpoint", "CreateFunction", "CreateJob"} <= created
    assert labelled(cloud) == []
    assert not [uri for uri in cloud.objects if uri.startswith(f"gs://{CONFIG.bucket}/")]


@pytest.mark.parametrize("error", [PlatformError("quota"), KeyboardInterrupt("Ctrl-C")])
def test_a_step_that_fails_is_the_last_one_and_all_is_removed(cloud, error):
    def fail(trial):
        trial.platform.messages.topic("interactions")
        raise error

    results = run(CONFIG, [STEPS[0], Step("failing", "Pub/Sub", 0, fail), *STEPS[1:]], show=lambda _: None)
    assert [result.name for result in results] == ["project", "failing", "clean-up"]
    assert results[1].outcome == f"{type(error).__name__}: {error}"
    assert results[2].outcome == "ok"
    assert labelled(cloud) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_as_ctrl_c_and_a_second_one_does_not_end_the_clean_up(monkeypatch, number):
    """A terminal that is closed sends SIGHUP, and its shell once more."""

    def run_until_signal(_):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(number)
        return []

    monkeypatch.setattr(smoke, "run", run_until_signal)
    monkeypatch.setattr(sys, "argv", ["smoke", "movie-lab-42"])
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        smoke.main()
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def test_all_is_removed_though_the_terminal_is_gone(cloud):
    def show(_):
        raise OSError("Input/output error")

    results = run(CONFIG, STEPS[:1], show=show)
    assert [(result.name, result.outcome) for result in results] == [("project", "ok"), ("clean-up", "ok")]
    assert labelled(cloud) == []


def test_a_trial_that_takes_too_long_is_ended_and_all_is_removed(cloud):
    results = run(CONFIG, [STEPS[0], Step("hanging", "all", 0, lambda _: time.sleep(60))], 1, show=lambda _: None)
    assert "the steps have taken more than 1 seconds" in " ".join(result.outcome for result in results)
    assert results[-1] == Result("clean-up", "all of them", "ok", *results[-1][3:])
    assert labelled(cloud) == []


def test_the_table_adds_minutes_and_dollars_up():
    text = table([Result("train", "CustomJob", "ok", 6.0, 0.02), Result("predict", "Endpoint", "Error: no", 3.0, 0.01)])
    assert text.splitlines()[2:] == [
        "| train | CustomJob | ok | 6.0 | 0.02 |",
        "| predict | Endpoint | Error: no | 3.0 | 0.01 |",
        "| total | | | 9.0 | 0.03 |",
    ]
