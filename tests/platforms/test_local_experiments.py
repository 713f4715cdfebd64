"""Experiments on this machine: what is logged is read back, and a real TensorBoard reads it, too."""

import contextlib
import json
import time
import urllib.request

import pytest
from tensorboard import program

from recbandits.config import Config
from recbandits.platforms.local.experiments import LocalExperiments
from recbandits.platforms.protocol import PlatformError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return Config(artifacts=str(tmp_path_factory.mktemp("experiments")))


@pytest.fixture(scope="module")
def experiments(config):
    """Two agents; the second run fails, and is gone on with."""
    experiments = LocalExperiments(config)
    with experiments.run("agents", "linucb") as run:
        run.log_parameters({"alpha": 0.1, "factorization": "als"})
        for step in (1, 2, 3):
            run.log_series({"regret": 1 / step}, step)
        run.log_metrics({"mean_reward": 4 / 3, "regret": 0.1})
        run.log_artefact("policy", "gs://bucket/model")
    with contextlib.suppress(RuntimeError), experiments.run("agents", "network") as run:
        run.log_parameters({"layers": "64,32", "alpha": 9})
        run.log_metrics({"mean_reward": 1.0})
        raise RuntimeError
    return experiments


def test_runs_are_compared_in_a_table(experiments):
    table = experiments.table("agents")
    assert list(table) == [
        "state",
        "param.alpha",
        "param.factorization",
        "param.layers",
        "metric.mean_reward",
        "metric.regret",
    ]
    assert table.loc["linucb", ["state", "param.factorization"]].tolist() == ["succeeded", "als"]
    numbers = table.loc["linucb", ["param.alpha", "metric.mean_reward", "metric.regret"]]
    assert numbers.tolist() == pytest.approx([0.1, 4 / 3, 0.1])
    assert table.loc["network", ["state", "param.layers"]].tolist() == ["failed", "64,32"]
    assert table.loc["network"].isna().sum() == 2


def test_curves_and_artefacts_come_back(experiments):
    series = experiments.series("agents", "linucb")
    assert series["regret"].to_dict() == pytest.approx({1: 1.0, 2: 1 / 2, 3: 1 / 3})
    assert experiments.artefacts("agents", "linucb") == {"policy": "gs://bucket/model"}
    assert experiments.artefacts("agents", "network") == {}


def test_a_run_is_gone_on_with(config):
    experiments = LocalExperiments(config)
    with experiments.run("twice", "a") as run:
        run.log_parameters({"alpha": 1, "layers": "8"})
        run.log_metrics({"reward": 1.0})
        run.log_series({"loss": 5.0}, 1)
    with experiments.run("twice", "a") as run:
        assert experiments.table("twice").loc["a", "state"] == "running"
        run.log_parameters({"alpha": 2})
        run.log_metrics({"reward": 2.0})
        run.log_series({"loss": 4.0}, 2)
    row = experiments.table("twice").loc["a"]
    assert row.to_dict() == {"state": "succeeded", "param.alpha": 2.0, "param.layers": "8", "metric.reward": 2.0}
    assert experiments.series("twice", "a")["loss"].to_dict() == {1: 5.0, 2: 4.0}


def test_tensorboard_compares_the_runs(experiments, config):
    """Its own server is asked over HTTP for what its HParams tab shows."""
    server = program.TensorBoard()
    server.configure(logdir=str(config.artifacts_dir / "runs/experiments/agents"), port=0, host="127.0.0.1")
    url = server.launch() + "data/plugin/hparams/session_groups"
    asked = {
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE"],
        "colParams": [{"metric": {"group": "", "tag": "metric/mean_reward"}}],
        "startIndex": 0,
        "sliceSize": 10,
    }
    request = urllib.request.Request(url, json.dumps(asked).encode(), {"Content-Type": "application/json"})
    opener, deadline, groups = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.monotonic() + 30, []
    while not all(group["metricValues"] for group in groups) or not groups:  # it reads files in the background
        assert time.monotonic() < deadline
        time.sleep(0.1)
        with opener.open(request) as answer:
            groups = json.loads(answer.read())["sessionGroups"]
    linucb, network = sorted(groups, key=lambda group: group["name"])
    assert linucb["hparams"] == {"alpha": 0.1, "factorization": "als"}
    assert linucb["sessions"][0]["status"] == "STATUS_SUCCESS"
    assert network["sessions"][0]["status"] == "STATUS_FAILURE"
    values = {metric["name"]["tag"]: metric["value"] for metric in linucb["metricValues"]}
    assert values["metric/mean_reward"] == pytest.approx(4 / 3)


def test_what_cannot_be_logged_is_refused_by_name(experiments):
    with experiments.run("other", "a") as run:
        with pytest.raises(ValueError, match=r"parameter 'layers' must be a text or a number, got \(64, 32\)"):
            run.log_parameters({"layers": (64, 32)})
        with pytest.raises(ValueError, match="metric 'reward' must be a number, got '4'"):
            run.log_metrics({"reward": "4"})
    with pytest.raises(ValueError, match="name must be 1 to 128 lower-case letters, digits and hyphens"):
        experiments.run("Big", "a")
    with pytest.raises(PlatformError, match="there is no run frist; what there is: linucb, network"):
        experiments.series("agents", "frist")
