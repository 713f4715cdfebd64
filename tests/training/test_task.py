"""The training job: the files it writes, its replicas, and that it resumes after SIGKILL."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

from recbandits.tf import tf

import numpy as np
import pandas as pd
import pytest
from tf_agents.trajectories import restart

from recbandits.agents.factory import make_agent
from recbandits.agents.parameters import LinUCB
from recbandits.config import Config
from recbandits.data import splits
from recbandits.data.movielens import load as load_movielens
from recbandits.environments.factorization import als
from recbandits.evaluation.regret import totals
from recbandits.platforms.jobs import Job
from recbandits.platforms.local import forkserver
from recbandits.platforms.local.jobs import LocalJobs
from recbandits.serving.policy import describe, load
from recbandits.training import experiments, task
from recbandits.training.experiments import OfflineTask, Outcome, make_environment
from recbandits.training.job_paths import JobPaths, mounted, read_users
from recbandits.training.online import simulate
from recbandits.training.problems import Simulation
from recbandits.training.profiling import read_operations
from tests.forks import ForkedPython
from tests.sockets import free_ports
from tests.waiting import until

SIMULATE = ("simulate", "--alpha=0.3", "--steps=60", "--num_actions=5", "--rank=4", "--seeds=3,4")
FIT = ("fit", "--agent=epsilon_greedy", "--layers=8", "--decisions=6000", "--judged=800", "--learning_rate=0.02")


@pytest.fixture
def job_dir(tmp_path, monkeypatch):
    """A job's directory, named by Vertex AI's variables."""
    name_directory(tmp_path, monkeypatch)
    return tmp_path


def name_directory(directory, monkeypatch):
    for name in ("model", "checkpoint", "tensorboard_log"):
        monkeypatch.setenv(f"AIP_{name.upper()}_DIR", str(directory / name))
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(directory / "metrics.jsonl"))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return LocalJobs(Config(artifacts=str(tmp_path_factory.mktemp("jobs"))))


def test_a_dry_run_prints_settings_and_paths_and_does_nothing(job_dir, capsys):
    assert task.main([*SIMULATE, "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "linucb: alpha=0.3 tikhonov=0.001 gamma=1.0" in output
    assert f"model       {job_dir / 'model'}" in output
    assert list(job_dir.iterdir()) == []


def test_a_simulation_writes_policy_record_metrics_and_curves(job_dir, data, movielens, capsys, monkeypatch):
    """Where a bucket is mounted: there, directories that have files in them cannot be renamed.

    A profile of it changes nothing; each of two seeds factorises the matrices of the 5 arms once in 60 steps.
    """
    rename = Path.rename

    def refusing(path, target):
        if job_dir in path.parents and path.is_dir():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    assert task.main([*SIMULATE, data]) == 0
    record = json.loads((job_dir / "record.json").read_text())
    assert record["arguments"] == [*SIMULATE, data]
    assert record["parameters"] == {"alpha": 0.3, "tikhonov": 0.001, "gamma": 1.0}
    problem = Simulation(steps=60, num_actions=5, rank=4, seeds=(3, 4))
    environment = make_environment(problem, movielens)
    agent = LinUCB(alpha=0.3)
    expected = totals(simulate(environment, agent, 60, (3, 4)))
    assert record["by_seed"]["mean_reward"] == expected["reward"].tolist()
    assert record["by_seed"]["regret"] == expected["regret"].tolist()
    assert f"regret {expected['regret'].mean():.4f} (" in capsys.readouterr().out
    reports = [json.loads(line) for line in (job_dir / "metrics.jsonl").read_text().splitlines()]
    assert float(reports[0]["mean_reward"]) == record["metrics"]["mean_reward"][0] == expected["reward"].mean()
    assert list((job_dir / "tensorboard_log").rglob("events.out.tfevents.*"))
    policy = load(job_dir / "model")
    assert policy.version == record["policy_version"]
    users = environment.user_ids[:20]
    trained = make_agent(agent, environment, 3)
    simulate(environment, trained, 60, seeds=[3])
    features = environment.features
    time_step = restart(tf.constant(features.features.context(features.encode_users(users))), batch_size=len(users))
    movie_ids = environment.movie_ids[trained.policy.action(time_step).action.numpy()]
    contexts = read_users(job_dir / "model").loc[users]
    pd.testing.assert_frame_equal(contexts.reset_index(drop=True), features.contexts(users))
    assert policy.candidates[policy.scores(contexts).argmax(axis=1)].tolist() == [str(movie) for movie in movie_ids]
    name_directory(job_dir / "profiled", monkeypatch)
    assert task.main([*SIMULATE, data, "--profile=60"]) == 0
    profiled = json.loads((job_dir / "profiled" / "record.json").read_text())
    assert (profiled["by_seed"], profiled["policy_version"]) == (record["by_seed"], record["policy_version"])
    assert read_operations(job_dir / "profiled" / "tensorboard_log").loc["Cholesky", "count"] == 2 * 60


def test_users_of_one_half_are_simulated_and_all_can_be_served(movielens):
    """Halves and all users have the same expected rewards: the factorization is of all ratings."""
    environments = {
        users: make_environment(Simulation(users=users, rank=4, factorization="svd"), movielens)
        for users in ("all", "tune", "report")
    }
    user_ids = environments["all"].user_ids
    for half in ("tune", "report"):
        np.testing.assert_array_equal(environments[half].user_ids, splits.half_of_users(user_ids, half))
        reward_rows = {row.tobytes() for row in environments["all"]._rewards.numpy()}
        assert {row.tobytes() for row in environments[half]._rewards.numpy()} <= reward_rows
        assert environments[half].features.users.index.tolist() == user_ids.tolist()


def test_a_forked_job_gives_what_an_executed_one_gives(jobs, data, monkeypatch):
    """A process that has imported TensorFlow already draws, trains and exports the same to the last digit.

    Both have all threads of OpenBLAS, of which the tests have one.
    """
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    records, commands = [], []
    for prefix in (*forkserver.FORKED[:1], "another_package."):
        monkeypatch.setattr(forkserver, "FORKED", (prefix,))
        job = Job(f"start-{len(records)}", (*FIT, data, "--seeds=0", "--decisions=1000", "--judged=100"))
        jobs.run(job, wait=False)
        commands.append({forkserver.__name__ in process.cmdline() for process in jobs.unit(job.name).members()})
        records.append(jobs.run(job))
    assert commands == [{True}, {False}]
    forked, executed = records
    assert (forked.state, forked.own) == ("succeeded", executed.own)
    assert jobs.logs(forked.name) == jobs.logs(executed.name)


def test_a_profile_without_a_directory_is_refused(data, capsys, monkeypatch):
    monkeypatch.delenv("AIP_TENSORBOARD_LOG_DIR", raising=False)
    assert task.main([*SIMULATE, data, "--profile=1"]) == 1
    assert "--profile writes to the TensorBoard directory, set AIP_TENSORBOARD_LOG_DIR" in capsys.readouterr().err


def test_a_job_that_asks_for_a_gpu_is_refused_where_there_is_none(job_dir, capsys, monkeypatch):
    """As the image for GPUs asks."""
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow sees a GPU here")
    monkeypatch.setenv("RECBANDITS_ACCELERATOR", "GPU")
    assert task.main([*SIMULATE]) == 1
    assert "RECBANDITS_ACCELERATOR=GPU asks for a GPU, and TensorFlow sees none" in capsys.readouterr().err
    assert not (job_dir / "model").exists()


def test_a_killed_job_resumes_and_ends_with_the_same_result(jobs, data):
    """SIGKILL after some of its measurements, then the same job again; the whole one is simulated in this process."""
    job = Job("killed", (*SIMULATE, data, "--steps=2000"))
    jobs.run(job, wait=False)
    unit = jobs.unit("killed")
    directory = unit.directory
    until(lambda: list(directory.glob("checkpoints/agent/seed-3/ckpt-*.index")), 120)
    for process in unit.members():
        process.kill()
    unit.wait()
    assert jobs.record("killed").state == "failed"
    assert not (directory / "record.json").exists()
    record = jobs.run(job)
    assert record.state == "succeeded", record.error
    assert record.arguments == job.arguments
    problem = task.parse(job.arguments).problem
    expected = simulate(make_environment(problem, load_movielens(problem.data)), LinUCB(alpha=0.3), 2000, (3, 4))
    assert (
        json.loads((directory / "record.json").read_text())["by_seed"]["regret"] == totals(expected)["regret"].tolist()
    )
    assert load(record.model).summary.metrics["regret"] == pytest.approx(record.metrics["regret"])


def test_two_replicas_learn_from_a_log_as_one_does(job_dir, data, tmp_path_factory):
    """The variables are those that Vertex AI sets on each replica."""
    exit_code = task.main([*FIT, data, "--seeds=0"])
    assert exit_code == 0
    one = json.loads((job_dir / "record.json").read_text())
    pair = tmp_path_factory.mktemp("pair")
    variables = {
        "AIP_MODEL_DIR": "model",
        "AIP_CHECKPOINT_DIR": "checkpoints",
        "AIP_TENSORBOARD_LOG_DIR": "tensorboard",
    }
    variables = {name: str(pair / folder) for name, folder in variables.items()}
    arguments = [*FIT, data, "--seeds=0", "--strategy=multi_worker"]
    chief, worker = (f"127.0.0.1:{port}" for port in free_ports(2))
    replicas = []
    for kind in ("chief", "worker"):
        cluster = {"cluster": {"chief": [chief], "worker": [worker]}, "task": {"type": kind, "index": 0}}
        environment = variables | {"TF_CONFIG": json.dumps(cluster)}
        replicas.append(ForkedPython("recbandits.training.task", arguments, pair / f"{kind}.log", environment))
    for replica in replicas:
        replica.communicate()
    logs = [(pair / f"{kind}.log").read_text() for kind in ("chief", "worker")]
    assert [replica.exitcode for replica in replicas] == [0, 0], logs
    metrics = json.loads((pair / "record.json").read_text())["metrics"]
    for name, value in one["metrics"].items():
        assert metrics[name] == pytest.approx(value, abs=0.01)
    assert one["metrics"]["mse"] < 1.1
    assert one["metrics"]["mean_reward"] > 3.7
    assert len(list(pair.glob("tensorboard/seed-0/events.*"))) == 1
    assert set(describe(pair / "model"))


@pytest.fixture(scope="module")
def offline_tasks(movielens):
    """A task of each of two seeds, by split."""
    problem = replace(task.parse(["fit"]).problem, judged=2000)
    return {
        judge: [OfflineTask(replace(problem, judge=judge), movielens, seed) for seed in (0, 1)]
        for judge in ("validation", "test")
    }


@pytest.mark.parametrize(("judge", "train", "held_out"), [("validation", 0.64, 0.16), ("test", 0.8, 0.2)])
def test_held_out_ratings_are_not_learnt_from(judge, train, held_out, movielens, offline_tasks):
    """Factors fitted on the training split predict the others better than a constant, whose error is their variance."""
    offline_task = offline_tasks[judge][0]
    assert len(offline_task.train) == pytest.approx(train * len(movielens.ratings), rel=0.01)
    assert len(offline_task.held_out) == pytest.approx(held_out * len(movielens.ratings), rel=0.01)
    assert not set(offline_task.train.index) & set(offline_task.held_out.index)
    measures = offline_task.evaluate(als(offline_task.train), None)
    assert measures["mse"] < 0.8 * offline_task.held_out["rating"].var()
    assert measures["mean_reward"] > offline_task.held_out["rating"].mean() + 0.3
    assert measures["estimated_reward"] == pytest.approx(measures["mean_reward"], abs=0.1)


def test_all_seeds_share_the_test_split_and_none_of_its_ratings_chooses_a_setting(offline_tasks):
    """Otherwise the test ratings of one seed are among those on which another seed has tuned."""
    validation, test = offline_tasks.values()
    test_index = test[0].held_out.index
    assert test_index.equals(test[1].held_out.index)
    for each in validation:
        assert not test_index.isin(each.train.index.union(each.held_out.index)).any()
    overlap = validation[0].held_out.index.isin(validation[1].held_out.index).mean()
    assert overlap == pytest.approx(0.2, abs=0.02)  # two independent draws of 20 %


def test_the_seeds_of_one_split_fit_its_factors_once(movielens, monkeypatch):
    """The split and each of its five folds; what a seed learns from is as if they were fitted anew."""
    problem = replace(task.parse(["fit"]).problem, judge="test", judged=500, decisions=500)
    fitted = []
    monkeypatch.setattr(experiments, "als", lambda ratings: fitted.append(len(ratings)) or als(ratings))
    monkeypatch.setattr(experiments, "_FACTORS", {})
    first, second = (OfflineTask(problem, movielens, seed).examples() for seed in (0, 1))
    assert len(fitted) == 6
    assert not np.array_equal(first.context, second.context)
    monkeypatch.setattr(experiments, "_FACTORS", {})
    np.testing.assert_array_equal(OfflineTask(problem, movielens, 1).examples().context, second.context)


def test_an_error_is_one_sentence_and_exit_code_1(job_dir, data, capsys, monkeypatch):
    assert task.main(["simulate", "--data=/nowhere"]) == 1
    assert "recbandits.training.task: MovieLens directory /nowhere: cannot read" in capsys.readouterr().err
    assert task.main([*SIMULATE, data, "--rank=1000000000000"]) == 1
    assert "recbandits.training.task: Unable to allocate" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", "/dev/full")
    assert task.main([*SIMULATE, data]) == 1
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]


def test_metrics_have_intervals_when_there_are_several_seeds():
    outcome = Outcome(None, None, None, {"regret": [1.0, 3.0]}, 1)
    mean, low, high = outcome.metrics()["regret"]
    assert (mean, (low + high) / 2) == (2.0, pytest.approx(2.0))
    assert high - mean == pytest.approx(12.7062, rel=1e-4)  # Student's t with one degree of freedom times 1
    assert outcome._replace(by_seed={"regret": [1.0]}).metrics() == {"regret": 1.0}


def test_buckets_are_where_vertex_mounts_them():
    assert str(mounted("gs://bucket/jobs/1/model")) == "/gcs/bucket/jobs/1/model"
    assert str(mounted("relative/model")) == "relative/model"
    paths = JobPaths.from_environment({"AIP_MODEL_DIR": "gs://bucket/jobs/1/model"})
    assert (str(paths.record), paths.checkpoints) == ("/gcs/bucket/jobs/1/record.json", None)


def test_users_are_beside_a_model_in_the_working_directory(tmp_path, monkeypatch):
    """A path of one component has no parent to name, and was looked for in the root directory."""
    monkeypatch.chdir(tmp_path)
    users = pd.DataFrame({"age": [31]}, pd.Index([7], name="user_id"))
    JobPaths(model=Path("model"), checkpoints=None, tensorboard=None).write_users(users)
    for model in ("model", "model/", "./model", tmp_path / "model"):
        pd.testing.assert_frame_equal(read_users(model), users)


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "chief", "replicas"),
    [
        ({"chief": ["a"], "worker": ["b"]}, "chief", 0, True, 2),
        ({"chief": ["a"], "worker": ["b"]}, "worker", 0, False, 2),
        ({"worker": ["a", "b"]}, "worker", 0, True, 2),
        ({"chief": ["a"]}, "chief", 0, True, 1),
        ({"chief": ["a"], "worker": ["b"], "ps": ["c"]}, "chief", 0, True, 2),
    ],
)
def test_one_replica_writes(cluster, kind, index, chief, replicas):
    """Vertex AI sets TF_CONFIG for a single replica too, and parameter servers do not train."""
    config = {"cluster": cluster, "task": {"type": kind, "index": index}}
    paths = JobPaths.from_environment({"TF_CONFIG": json.dumps(config)})
    assert (paths.chief, paths.replicas) == (chief, replicas)
    job_paths = JobPaths.from_environment({})
    assert (job_paths.chief, job_paths.replicas) == (True, 1)


@pytest.mark.parametrize("command", ["simulate", "fit", "rank"])
def test_replicas_that_would_all_do_the_same_are_refused(command, job_dir, capsys, monkeypatch):
    config = {"cluster": {"chief": ["a"], "worker": ["b"]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert task.main([command]) == 1
    sentence = "2 replicas share work in `fit --strategy=multi_worker` alone, use 1 here\n"
    assert capsys.readouterr().err == f"recbandits.training.task: {sentence}"
    assert list(job_dir.iterdir()) == []


@pytest.mark.parametrize("config", ["x", "[]", '{"cluster": {"worker": ["a"]}, "task": {}}', '{"task": {"index": 0}}'])
def test_a_malformed_cluster_is_refused_in_one_sentence(config, capsys, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    assert task.main(["simulate", "--dry_run"]) == 1
    sentence = f"TF_CONFIG must be JSON with cluster and task (type, index), got {config!r}\n"
    assert capsys.readouterr().err == f"recbandits.training.task: {sentence}"
