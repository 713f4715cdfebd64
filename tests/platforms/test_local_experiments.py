"""Experiments on this machine: what is logged is read back by every process, and a killed writer loses nothing."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from recbandits.config import Config
from recbandits.platforms.local.experiments import LocalExperiments
from recbandits.platforms.protocol import PlatformError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return Config(artifacts=str(tmp_path_factory.mktemp("experiments") / "with spaces, ä"))


@pytest.fixture(scope="module")
def experiments(config):
    """Two agents; the second run fails."""
    experiments = LocalExperiments(config)
    with experiments.run("agents", "linucb") as run:
        run.log_parameters({"alpha": 0.1, "factorization": "als"})
        run.log_metrics({"mean_reward": 4 / 3, "regret": 0.1})
        run.log_artefact("policy", "gs://bucket/model")
    with contextlib.suppress(RuntimeError), experiments.run("agents", "network") as run:
        run.log_parameters({"layers": "64,32", "alpha": 9})
        run.log_metrics({"mean_reward": 1.0})
        raise RuntimeError
    return experiments


def test_runs_are_compared_in_a_table(experiments):
    """Numbers come back as they were, in full precision."""
    table = experiments.table("agents")
    assert table.index.name == "run"
    assert list(table) == [
        "state",
        "param.alpha",
        "param.factorization",
        "param.layers",
        "metric.mean_reward",
        "metric.regret",
        "artefact.policy",
    ]
    linucb, network = table.loc["linucb"], table.loc["network"]
    assert linucb.drop("param.layers").tolist() == ["succeeded", 0.1, "als", 4 / 3, 0.1, "gs://bucket/model"]
    assert network[["state", "param.layers", "param.alpha"]].tolist() == ["failed", "64,32", 9]
    assert network.isna().sum() == 3


def test_a_restarted_run_keeps_values_that_are_not_replaced(config):
    experiments = LocalExperiments(config)
    with experiments.run("twice", "a") as run:
        run.log_parameters({"alpha": 1, "layers": "8"})
        run.log_metrics({"reward": 1.0})
    with experiments.run("twice", "a") as run:
        assert experiments.table("twice").loc["a", "state"] == "running"
        run.log_parameters({"alpha": 2})
        run.log_metrics({"reward": 2.0})
    row = experiments.table("twice").loc["a"]
    assert row.to_dict() == {"state": "succeeded", "param.alpha": 2, "param.layers": "8", "metric.reward": 2.0}


def test_processes_that_write_at_once_lose_nothing_and_a_killed_one_loses_at_most_its_last(config):
    """Three processes log 40 runs each; one of them is killed in the middle."""
    code = f"""
import sys
from recbandits.config import Config
from recbandits.platforms.local.experiments import LocalExperiments
experiments = LocalExperiments(Config(artifacts={config.artifacts!r}))
for number in range(40):
    with experiments.run("many", f"{{sys.argv[1]}}-{{number}}") as run:
        run.log_metrics({{"reward": number, "regret": -number}})
    print(number, flush=True)
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True) for name in "abc"
    ]
    logged = [writers[0].stdout.readline() for _ in range(15)]
    os.kill(writers[0].pid, signal.SIGKILL)
    logged += writers[0].stdout.readlines()
    for writer in writers:
        writer.communicate()
    table = LocalExperiments(config).table("many")
    finished = table[table["state"] == "succeeded"]
    assert {f"a-{number}" for number in map(int, logged)} <= set(finished.index)
    assert {f"{name}-{number}" for name in "bc" for number in range(40)} <= set(finished.index)
    assert len(table) - len(finished) <= 1
    assert (finished["metric.reward"] == -finished["metric.regret"]).all()


def test_what_cannot_be_logged_is_refused_by_name(experiments):
    with experiments.run("other", "a") as run:
        with pytest.raises(ValueError, match=r"parameter 'layers' must be a text or a number, got \(64, 32\)"):
            run.log_parameters({"layers": (64, 32)})
        with pytest.raises(ValueError, match="metric 'reward' must be a number, got '4'"):
            run.log_metrics({"reward": "4"})
    with pytest.raises(ValueError, match="name must be 1 to 128 lower-case letters, digits and hyphens"):
        experiments.run("Big", "a")
    with pytest.raises(PlatformError, match="there is no experiment agnets; what there is: agents"):
        experiments.table("agnets")


def test_a_file_that_is_no_database_is_refused_with_a_message(tmp_path):
    file = tmp_path / "runs" / "experiments" / "experiments.sqlite"
    file.parent.mkdir(parents=True)
    file.write_text("no database" * 100)
    with pytest.raises(PlatformError, match=r"experiments\.sqlite could not be read: file is not a database"):
        LocalExperiments(Config(artifacts=str(tmp_path))).table("agents")
