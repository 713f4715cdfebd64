"""Vertex AI Experiments: what the SDK sends, and what comes back."""

import contextlib

import numpy as np
import pytest
from google.api_core import exceptions

from recbandits.config import Config
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.protocol import PlatformError

CONFIG = Config(platform="gcp", project="movie-lab-42")
PARENT = "projects/movie-lab-42/locations/us-central1"
STORE = f"{PARENT}/metadataStores/default"
RUN = f"{STORE}/contexts/recbandits-v1-agents-linucb"


@pytest.fixture
def experiments(cloud):
    return GcpPlatform(CONFIG).experiments


@pytest.fixture
def logged(experiments):
    """Two agents; the second run fails."""
    with experiments.run("agents", "linucb") as run:
        run.log_parameters({"alpha": 0.1, "factorization": "als"})
        run.log_metrics({"mean_reward": 4 / 3, "regret": np.float32(0.5)})
        run.log_artefact("policy", "gs://bucket/model")
    with contextlib.suppress(KeyError), experiments.run("agents", "network") as run:
        run.log_parameters({"layers": "64,32", "alpha": 9})
        raise KeyError
    return experiments


def test_a_first_run_sends_exactly_these_requests(experiments, cloud):
    with experiments.run("agents", "linucb"):
        pass
    assert cloud.methods("Create", "Add", "Update") == [
        "CreateTensorboard",
        "CreateMetadataStore",
        "CreateContext",  # the experiment
        "UpdateContext",
        "CreateContext",  # the run
        "CreateTensorboardExperiment",
        "CreateTensorboardRun",
        "CreateArtifact",
        "AddContextArtifactsAndExecutions",
        "AddContextChildren",
        "UpdateContext",
    ]
    board = {"displayName": "recbandits-v1", "labels": CONFIG.labels}
    assert cloud.requests("CreateTensorboard") == [{"parent": PARENT, "tensorboard": board}]
    experiment, run = cloud.requests("CreateContext")
    assert (experiment["contextId"], experiment["context"]["schemaTitle"]) == (
        "recbandits-v1-agents",
        "system.Experiment",
    )
    assert (run["contextId"], run["context"]["schemaTitle"]) == ("recbandits-v1-agents-linucb", "system.ExperimentRun")
    assert run["context"]["displayName"] == "linucb"
    assert cloud.requests("UpdateContext")[-1]["context"]["metadata"]["_state"] == "COMPLETE"


def test_what_is_logged_is_sent_at_once(experiments, cloud):
    with experiments.run("agents", "linucb") as run:
        run.log_parameters({"alpha": 0.1, "factorization": "als"})
        context = cloud.requests("UpdateContext")[-1]["context"]
        assert context["metadata"]["_params"] == {"alpha": 0.1, "factorization": "als"}
        run.log_metrics({"mean_reward": 1.5})
        context = cloud.requests("UpdateContext")[-1]["context"]
        assert context["name"] == RUN
        assert context["metadata"]["_params"] == {"alpha": 0.1, "factorization": "als"}
        assert context["metadata"]["_metrics"] == {"mean_reward": 1.5}


def test_an_artefact_is_the_output_of_an_execution_of_the_run(experiments, cloud):
    with experiments.run("agents", "linucb") as run:
        run.log_artefact("policy", "gs://bucket/model")
    artefact = cloud.requests("CreateArtifact")[-1]["artifact"]
    assert (artefact["displayName"], artefact["uri"], artefact["schemaTitle"]) == (
        "policy",
        "gs://bucket/model",
        "system.Artifact",
    )
    (event,) = cloud.requests("AddExecutionEvents")[0]["events"]
    assert event["type"] == "OUTPUT"
    contexts = cloud.requests("AddContextArtifactsAndExecutions")
    assert [request["artifacts"] for request in contexts if event["artifact"] in request.get("artifacts", ())] == [
        [event["artifact"]]
    ]
    assert {request["context"] for request in contexts} == {RUN}


def test_runs_are_compared_in_a_table(logged):
    table = logged.table("agents")
    columns = ["state", "param.alpha", "param.factorization", "param.layers", "metric.mean_reward", "metric.regret"]
    assert list(table) == columns
    assert table.index.name == "run"
    assert table.loc["linucb"].dropna().tolist() == ["succeeded", 0.1, "als", 4 / 3, 0.5]
    assert table.loc["network"].dropna().tolist() == ["failed", 9.0, "64,32"]


def test_a_run_is_continued_and_the_tensorboard_is_found_again(logged, cloud):
    with logged.run("agents", "network") as run:
        assert logged.table("agents").loc["network", "state"] == "running"
        run.log_parameters({"alpha": 2})
        run.log_metrics({"mean_reward": 2.0})
    row = logged.table("agents").loc["network"].dropna().to_dict()
    expected = {"param.alpha": 2.0, "param.layers": "64,32", "metric.mean_reward": 2.0}
    assert row == {"state": "succeeded", **expected}
    assert len(cloud.requests("CreateTensorboard")) == 1


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda experiments: experiments.table("none"), PlatformError, "there is no experiment recbandits-v1-none"),
        (
            lambda experiments: experiments.run("Agents", "x"),
            ValueError,
            "must be lower-case letters, digits and hyphens, .* 'Agents'",
        ),
        (lambda experiments: experiments.run("a" * 100, "b" * 20), ValueError, "at most 126 of them"),
    ],
)
def test_what_is_not_there_or_cannot_be_is_refused(experiments, call, kind, sentence):
    with pytest.raises(kind, match=sentence):
        call(experiments)


def test_values_of_other_kinds_are_refused_by_name(experiments):
    with experiments.run("agents", "linucb") as run:
        with pytest.raises(ValueError, match=r"parameter 'layers' must be a text or a number, got \[64\]"):
            run.log_parameters({"layers": [64]})
        with pytest.raises(ValueError, match="metric 'regret' must be a number, got 'low'"):
            run.log_metrics({"regret": "low"})


def test_a_refusal_is_one_sentence(experiments, cloud):
    cloud.answers["ListTensorboards"] = exceptions.PermissionDenied("aiplatform.tensorboards.list\ndenied")
    with pytest.raises(PlatformError, match=r"^run linucb: 403 aiplatform.tensorboards.list denied$"):
        experiments.run("agents", "linucb").__enter__()
