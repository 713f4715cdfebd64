"""Vertex AI Experiments through its real SDK, which talks to a rehearsal: what is sent, and what comes back."""

import contextlib
import copy

import numpy as np
import pytest
from google.cloud.aiplatform import initializer

from recbandits.config import Config
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.rehearsal import Rehearsal, error
from recbandits.platforms.protocol import PlatformError

PROJECT = "movie-lab-42"
PLACE = f"/v1/projects/{PROJECT}/locations/us-central1"
STORE = f"{PLACE}/metadataStores/default"
LABELS = {"app": "recbandits", "prefix": "recbandits", "version": "v1"}


@pytest.fixture
def cloud():
    with Rehearsal() as cloud:
        yield cloud


@pytest.fixture
def experiments(cloud, tmp_path):
    config = Config(platform="gcp", project=PROJECT, artifacts=str(tmp_path))
    return GcpPlatform(config, cloud.endpoint).experiments


@pytest.fixture
def logged(experiments):
    """Two agents; the second run fails."""
    with experiments.run("agents", "linucb") as run:
        run.log_parameters({"alpha": 0.1, "factorization": "als"})
        for step in (1, 2, 3):
            run.log_series({"regret": 1 / step, "share": step / 10}, step)
        run.log_metrics({"mean_reward": 4 / 3, "regret": np.float32(0.5)})
        run.log_artefact("policy", "gs://bucket/model")
    with contextlib.suppress(RuntimeError), experiments.run("agents", "network") as run:
        run.log_parameters({"layers": "64,32", "alpha": 9})
        raise RuntimeError
    return experiments


def changes(cloud):
    """Method, path and body of what was changed since the last call, in what is nobody's clock."""
    made = [request for request in cloud.requests if request.method != "GET"]
    cloud.requests.clear()
    for request in made:
        for series in request.body.get("timeSeriesData", []):
            for value in series["values"]:
                assert value.pop("wallTime").endswith("Z")
    return [(request.method, request.path, copy.deepcopy(request.body)) for request in made]


def run_context(state, params, metrics, **fields):
    metadata = {"_state": state, "_params": params, "_metrics": metrics}
    context = {"displayName": "linucb", "schemaTitle": "system.ExperimentRun", "schemaVersion": "0.0.1"}
    return context | {"metadata": metadata} | fields


def test_a_first_run_sends_exactly_these_requests(experiments, cloud):
    with experiments.run("agents", "linucb"):
        pass
    experiment, run = f"{STORE}/contexts/recbandits-v1-agents", f"{STORE}/contexts/recbandits-v1-agents-linucb"
    board = next(path for path in cloud.documents if path.startswith(f"{PLACE}/tensorboards/") and path.count("/") == 7)
    curves = f"{board.removeprefix('/v1/')}/experiments/recbandits-v1-agents/runs/linucb"
    artifact = f"{STORE}/artifacts/recbandits-v1-agents-linucb-tb-run"
    ids = [request.query for request in cloud.requests if request.method == "POST"]
    assert [next((id for key, id in query.items() if key.endswith("Id")), None) for query in ids] == [
        "default",
        "recbandits-v1-agents",
        None,
        "recbandits-v1-agents-linucb",
        "recbandits-v1-agents",
        "linucb",
        "recbandits-v1-agents-linucb-tb-run",
        None,
        None,
    ]
    sent = changes(cloud)
    reference = sent[6][2]
    assert reference.pop("uri").endswith(curves)
    assert sent == [
        ("POST", f"{PLACE}/metadataStores", {}),
        (
            "POST",
            f"{STORE}/contexts",
            {
                "displayName": "recbandits-v1-agents",
                "schemaTitle": "system.Experiment",
                "schemaVersion": "0.0.1",
                "metadata": {"experiment_deleted": False},
            },
        ),
        ("POST", f"{PLACE}/tensorboards", {"displayName": "recbandits-v1", "labels": LABELS}),
        ("POST", f"{STORE}/contexts", run_context("RUNNING", {}, {})),
        (
            "POST",
            f"{board}/experiments",
            {
                "displayName": "recbandits-v1-agents",
                "labels": {"vertex_tensorboard_experiment_source": "vertex_experiment"},
            },
        ),
        ("POST", f"{board}/experiments/recbandits-v1-agents/runs", {"displayName": "linucb"}),
        (
            "POST",
            f"{STORE}/artifacts",
            {
                "state": 2,
                "schemaTitle": "google.VertexTensorboardRun",
                "schemaVersion": "0.0.1",
                "metadata": {"resourceName": curves, "vertex_experiment_tracking": True},
            },
        ),
        ("POST", f"{run}:addContextArtifactsAndExecutions", {"artifacts": [artifact.removeprefix("/v1/")]}),
        ("POST", f"{experiment}:addContextChildren", {"childContexts": [run.removeprefix("/v1/")]}),
        ("PATCH", run, run_context("COMPLETE", {}, {})),
    ]


def test_what_is_logged_is_sent_at_once(experiments, cloud):
    context = f"{STORE}/contexts/recbandits-v1-agents-linucb"
    with experiments.run("agents", "linucb") as run:
        changes(cloud)
        run.log_parameters({"alpha": 0.1, "factorization": "als"})
        ((method, path, body),) = changes(cloud)
        assert (method, path) == ("PATCH", context)
        assert body["metadata"]["_params"] == {"alpha": 0.1, "factorization": "als"}
        run.log_metrics({"mean_reward": 1.5})
        ((method, path, body),) = changes(cloud)
        assert (method, path) == ("PATCH", context)
        assert body["metadata"]["_params"] == {"alpha": 0.1, "factorization": "als"}
        assert body["metadata"]["_metrics"] == {"mean_reward": 1.5}
        run.log_series({"regret": 0.25}, 7)
        series, point = changes(cloud)
        assert series[2] == {"displayName": "regret", "valueType": 1, "pluginName": "scalars"}, "1 is SCALAR"
        (data,) = point[2]["timeSeriesData"]
        assert point[1].endswith("/experiments/recbandits-v1-agents/runs/linucb:write")
        assert (data["valueType"], data["values"]) == (1, [{"step": "7", "scalar": {"value": 0.25}}])
        run.log_artefact("policy", "gs://bucket/model")
        artifact, link = changes(cloud)
        uri = {"displayName": "policy", "uri": "gs://bucket/model"}
        schema = {"state": 2, "schemaTitle": "system.Artifact", "metadata": {}}
        assert artifact == ("POST", f"{STORE}/artifacts", uri | schema), "2 is LIVE"
        assert link[1] == f"{context}:addContextArtifactsAndExecutions"
        assert f"/v1/{link[2]['artifacts'][0]}" in cloud.documents


def test_runs_are_compared_in_a_table(logged):
    table = logged.table("agents")
    columns = ["state", "param.alpha", "param.factorization", "param.layers", "metric.mean_reward", "metric.regret"]
    assert list(table) == columns
    assert table.index.name == "run"
    assert table.loc["linucb"].dropna().tolist() == ["succeeded", 0.1, "als", 4 / 3, 0.5]
    assert table.loc["network"].dropna().tolist() == ["failed", 9.0, "64,32"]


def test_curves_and_artefacts_come_back(logged):
    series = logged.series("agents", "linucb")
    assert series.index.name == "step"
    assert series.to_dict() == {"regret": {1: 1.0, 2: 1 / 2, 3: 1 / 3}, "share": {1: 0.1, 2: 0.2, 3: 0.3}}
    assert logged.artefacts("agents", "linucb") == {"policy": "gs://bucket/model"}
    assert logged.artefacts("agents", "network") == {}
    assert logged.series("agents", "network").empty


def test_a_run_is_gone_on_with_and_the_tensorboard_is_found_again(logged, cloud):
    with logged.run("agents", "network") as run:
        assert logged.table("agents").loc["network", "state"] == "running"
        run.log_parameters({"alpha": 2})
        run.log_metrics({"mean_reward": 2.0})
    row = logged.table("agents").loc["network"].dropna().to_dict()
    expected = {"param.alpha": 2.0, "param.layers": "64,32", "metric.mean_reward": 2.0}
    assert row == {"state": "succeeded", **expected}
    assert sum(request[:2] == ("POST", f"{PLACE}/tensorboards") for request in cloud.requests) == 1


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda it: it.table("none"), PlatformError, "there is no experiment recbandits-v1-none"),
        (lambda it: it.series("agents", "x"), PlatformError, "there is no run x in experiment recbandits-v1-agents"),
        (lambda it: it.run("Agents", "x"), ValueError, "must be lower-case letters, digits and hyphens, .* 'Agents'"),
        (lambda it: it.run("a" * 100, "b" * 20), ValueError, "at most 126 of them"),
    ],
)
def test_what_is_not_there_or_cannot_be_is_refused(logged, call, kind, sentence):
    with pytest.raises(kind, match=sentence):
        call(logged)


def test_values_of_other_kinds_are_refused_by_name(experiments):
    with experiments.run("agents", "linucb") as run:
        with pytest.raises(ValueError, match=r"parameter 'layers' must be a text or a number, got \[64\]"):
            run.log_parameters({"layers": [64]})
        with pytest.raises(ValueError, match="metric 'regret' must be a number, got 'low'"):
            run.log_series({"regret": "low"}, 1)


def test_a_refusal_is_one_sentence(experiments, cloud, monkeypatch):
    refusal = error(403, "Permission 'aiplatform.metadataStores.get'\ndenied")
    monkeypatch.setattr(cloud, "answer", lambda request: refusal)
    with pytest.raises(PlatformError, match=r"run linucb could not be begun: 403 .*metadataStores.get' denied"):
        experiments.run("agents", "linucb").__enter__()


def test_the_settings_of_the_sdk_are_as_they_were(logged):
    before = dict(vars(initializer.global_config))
    logged.table("agents")
    assert vars(initializer.global_config) == before
    assert initializer.global_config.api_endpoint is None
