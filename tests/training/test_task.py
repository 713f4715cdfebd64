"""The training job: its command line, the files it writes, and that it resumes after SIGKILL."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from recbandits import training
from recbandits.agents.factory import make_agent
from recbandits.agents.parameters import LinUCB
from recbandits.config import Config
from recbandits.data import formats
from recbandits.environments.factorization import als
from recbandits.evaluation.regret import totals
from recbandits.platforms.jobs import Job
from recbandits.platforms.local.jobs import LocalJobs
from recbandits.serving.policy import describe, load
from recbandits.training import task
from recbandits.training.experiments import OfflineTask, Outcome, make_environment
from recbandits.training.job_paths import JobPaths, mounted
from recbandits.training.online import simulate
from recbandits.training.problems import AGENTS_OF, PROBLEMS, Simulation, as_text
from recbandits.training.profiling import operations

SIMULATE = ("simulate", "--alpha=0.3", "--steps=60", "--num_actions=5", "--rank=4", "--seeds=3,4")
FIT = ("fit", "--agent=epsilon_greedy", "--layers=8", "--decisions=6000", "--judged=800", "--learning_rate=0.02")


@pytest.fixture(scope="module")
def data(movielens, tmp_path_factory):
    """The argument that names the data's directory."""
    directory = tmp_path_factory.mktemp("data")
    formats.write(movielens, directory)
    return f"--data={directory}"


@pytest.fixture
def job_dir(tmp_path, monkeypatch):
    """A job's directory, named by Vertex AI's variables."""
    for name in ("model", "checkpoint", "tensorboard_log"):
        monkeypatch.setenv(f"AIP_{name.upper()}_DIR", str(tmp_path / name))
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(tmp_path / "metrics.jsonl"))
    return tmp_path


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    return LocalJobs(Config(artifacts=str(tmp_path_factory.mktemp("jobs"))))


def refused(capsys, *arguments):
    """The sentence with which a command line is refused."""
    with pytest.raises(SystemExit) as refusal:
        task.main(arguments)
    assert refusal.value.code == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    return sentence


@pytest.mark.parametrize(("command", "name"), [(command, name) for command in PROBLEMS for name in AGENTS_OF[command]])
def test_every_field_is_a_flag_and_none_is_two(command, name):
    """A default, written as it is on the command line, comes back with its type."""
    request = task.parse([command, "--agent", name])
    arguments = [command, f"--agent={name}"]
    for values in (request.options, request.problem, request.agent):
        shown = [(field.name, getattr(values, field.name)) for field in fields(values) if field.name != "agents"]
        arguments += [f"--{field}={as_text(value)}" for field, value in shown]
    assert task.parse(arguments) == request
    assert request.agent == AGENTS_OF[command][name]()


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ("simulate --per_arm", "per_arm", True),
        ("simulate --per_arm=false", "per_arm", False),
        ("simulate --per_arm True --rank 3", "per_arm", True),
        ("simulate --seeds=7", "seeds", (7,)),
        ("fit --seeds 0,1 --epochs=3", "seeds", (0, 1)),
        ("fit --epochs=3.0", "epochs", 3),
        ("fit --decisions=1e3", "decisions", 1000),
        ("fit --serve_epsilon=1", "serve_epsilon", 1.0),
        ("fit --data=gs://bucket/1,2", "data", "gs://bucket/1,2"),
        ("fit --data=1.0", "data", "1.0"),
        ("fit --judge=test --judge=validation", "judge", "validation"),
        ("fit --agent neural_linucb --layers=64.0,32", "layers", (64, 32)),
        ("fit --agent neural_linucb --encoding 8.0", "encoding", 8),
        ("rank --non_click_score -2", "non_click_score", -2.0),
    ],
)
def test_values_have_the_types_of_their_fields(arguments, field, value):
    """Tuning services write whole numbers with a point, and the last of two equal flags counts."""
    request = task.parse(arguments.split())
    (parsed,) = [vars(part)[field] for part in (request.problem, request.agent) if field in vars(part)]
    assert (parsed, type(parsed)) == (value, type(value))
    assert not isinstance(value, tuple) or {type(item) for item in parsed} == {int}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("simulate --alfa=1", "unknown argument '--alfa=1'; did you mean --alpha?"),
        ("simulate --alph=1", "unknown argument '--alph=1'; did you mean --alpha?"),
        ("rank --judged=100", "unknown argument '--judged=100'; did you mean --judge?"),
        ("simulate extra", "unknown argument 'extra'"),
        ("simulate --alpha=much", "LinUCB: alpha must be 0 or more and finite, got 'much'"),
        ("simulate --alpha=-1", "LinUCB: alpha must be 0 or more and finite, got -1.0"),
        ("simulate --alpha", "LinUCB: alpha must be 0 or more and finite, got ''"),
        ("simulate --rank=1.5", "Simulation: rank must be a whole number of at least 1, got '1.5'"),
        ("simulate --rank=nan", "Simulation: rank must be a whole number of at least 1, got 'nan'"),
        ("simulate --per_arm=maybe", "Simulation: per_arm must be one of True, False, got 'maybe'"),
        ("simulate --factorization=nmf", "Simulation: factorization must be one of als, svd, got 'nmf'"),
        ("simulate --num_actions=1", "Simulation: num_actions must be a whole number of at least 2, got 1"),
        ("fit --seeds=1,1", "Fit: seeds must be different whole numbers of 0 or more, got (1, 1)"),
        ("fit --seeds=", "Fit: seeds must be different whole numbers of 0 or more, got ()"),
        ("fit --serve_epsilon=2", "Fit: serve_epsilon must be in [0, 1], got 2.0"),
        ("fit --strategy=tpu", "Fit: strategy must be one of none, mirrored, multi_worker, got 'tpu'"),
        ("fit --profile=61", "Options: profile must be seconds from 0 to 60, got 61.0"),
        ("fit --profile=nan", "Options: profile must be seconds from 0 to 60, got nan"),
        ("fit --agent=oracle", "agent of fit must be one of linucb, lints, epsilon_greedy, "),
        ("fit --agent=ranking", "squarecb, neural_linucb, exp3_mixture, got 'ranking'"),
        ("rank --agent=als_ranking", "one of ranking, cascading_linucb, cascading_lints, got 'als_ranking'"),
        ("rank --temperature=0", "Ranking: temperature must be positive and finite, got 0.0"),
        (
            "rank --policy=cosine_distance",
            "Rank: policy must be no_penalty or descending_scores, got 'cosine_distance'",
        ),
        ("rank --position_bias=base", "Rank: position_bias must be none, as lists are in random order, got 'base'"),
        ("rank --candidates=10", "Rank: candidates must be a whole number of at least 11, got 10"),
        ("rank --split=movie", "Rank: split must be one of user, random, time, got 'movie'"),
        ("train", "command must be one of simulate, fit, rank, got 'train'"),
        ("", "command must be one of simulate, fit, rank, got ''"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_sentence(arguments, sentence, capsys):
    shown = refused(capsys, *arguments.split())
    assert shown.startswith("recbandits.training.task: ")
    assert sentence in shown


def test_without_a_name_the_first_agent_of_the_command_learns():
    names = [task.parse([command]).options.agent for command in ("simulate", "fit", "rank")]
    assert names == ["linucb", "linucb", "ranking"]


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ("--help", ["usage: recbandits.training.task COMMAND", "fit Learn from a log of decisions"]),
        (
            "fit --agent=squarecb --help",
            [
                "usage: recbandits.training.task fit",
                "--gamma FLOAT positive, per unit of the reward",
                "--layers INT,... units of the hidden layers. (default: 64,32)",
                "--judge {validation,test}",
                '"validation" keeps the test split unused',
            ],
        ),
    ],
)
def test_help_has_types_defaults_and_the_texts_of_the_docstrings(arguments, texts, capsys):
    with pytest.raises(SystemExit) as end:
        task.main(arguments.split())
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in texts:
        assert text in shown


def test_help_and_dry_run_do_not_import_tensorflow():
    code = "import sys; from recbandits.training.task import main; main(['fit', '--dry-run']); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "recbandits.training.problems" in modules
    assert not {"tensorflow", "tf_agents", "pandas", "scipy"} & set(modules)


def test_public_names_are_importable():
    assert all(getattr(training, name) for name in training.__all__)


def test_a_dry_run_prints_settings_and_paths_and_does_nothing(job_dir, capsys):
    assert task.main([*SIMULATE, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "linucb: alpha=0.3 tikhonov=0.001 gamma=1.0" in shown
    assert f"model       {job_dir / 'model'}" in shown
    assert list(job_dir.iterdir()) == []


def test_a_simulation_writes_policy_record_metrics_and_curves(job_dir, data, movielens, capsys, monkeypatch):
    """Where a bucket is mounted: there, directories that have files in them cannot be renamed."""
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
    shown = environment.movie_ids[trained.policy.action(_first(environment, users)).action.numpy()]
    scores = policy.scores(users, np.tile(environment.movie_ids, (20, 1)))
    assert environment.movie_ids[scores.argmax(axis=1)].tolist() == shown.tolist()


def _first(environment, users):
    from tf_agents.trajectories import restart

    return restart(environment.describe(users, None), batch_size=len(users))


def test_a_profile_goes_beside_the_curves_and_changes_nothing(jobs, data):
    """Two seeds of 60 steps: each inverts the matrices of the 5 arms once a step."""
    plain = jobs.run(Job("plain", (*SIMULATE, data)))
    watched = jobs.run(Job("watched", (*SIMULATE, data, "--profile=60")))
    assert watched.metrics == plain.metrics
    assert watched.own["policy_version"] == plain.own["policy_version"]
    table = operations(Path(watched.model).parent / "tensorboard")
    assert table.loc["MatrixInverse", "count"] == 2 * 60


def test_a_profile_without_a_directory_is_refused(data, capsys, monkeypatch):
    monkeypatch.delenv("AIP_TENSORBOARD_LOG_DIR", raising=False)
    assert task.main([*SIMULATE, data, "--profile=1"]) == 1
    assert "--profile writes to the TensorBoard directory, set AIP_TENSORBOARD_LOG_DIR" in capsys.readouterr().err


def test_a_killed_job_resumes_and_ends_with_the_same_result(jobs, data):
    """SIGKILL after some of its measurements, then the same job again; the whole one is simulated in this process."""
    job = Job("killed", (*SIMULATE, data, "--steps=6000"))
    jobs.run(job, wait=False)
    directory = jobs._directory("killed")
    deadline = time.monotonic() + 120
    while not list(directory.glob("checkpoints/agent/seed-3/ckpt-*.index")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(int((directory / "group").read_text()), signal.SIGKILL)
    while jobs.record("killed").state == "running":
        time.sleep(0.01)
    assert jobs.record("killed").state == "failed"
    assert not (directory / "record.json").exists()
    record = jobs.run(job)
    assert record.state == "succeeded", record.error
    assert record.arguments == job.arguments
    problem = task.parse(job.arguments).problem
    whole = simulate(make_environment(problem, task_data(problem)), LinUCB(alpha=0.3), 6000, (3, 4))
    assert json.loads((directory / "record.json").read_text())["by_seed"]["regret"] == totals(whole)["regret"].tolist()
    assert load(record.model).summary.metrics["regret"] == pytest.approx(record.metrics["regret"])


def task_data(problem):
    from recbandits.data import movielens

    return movielens.load(problem.data)


def test_two_replicas_learn_from_a_log_as_one_does(jobs, job_dir, data):
    alone = task.main([*FIT, data, "--seeds=0"])
    assert alone == 0
    one = json.loads((job_dir / "record.json").read_text())
    record = jobs.run(Job("pair", (*FIT, data, "--seeds=0", "--strategy=multi_worker"), replicas=2))
    assert record.state == "succeeded", record.error
    for name, value in one["metrics"].items():
        assert record.metrics[name] == pytest.approx(value, abs=0.01)
    assert one["metrics"]["mse"] < 1.1
    assert one["metrics"]["mean_reward"] > 3.7
    assert [path.name for path in jobs._directory("pair").glob("*.json")].count("record.json") == 1
    assert len(list(jobs._directory("pair").glob("tensorboard/seed-0/events.*"))) == 1
    assert set(describe(record.model))


@pytest.mark.parametrize(("judge", "train", "held_out"), [("validation", 0.64, 0.16), ("test", 0.8, 0.2)])
def test_held_out_ratings_are_not_learnt_from(judge, train, held_out, movielens):
    """Factors fitted on the training split predict the others better than a constant, whose error is their variance."""
    offline_task = OfflineTask(replace(task.parse(["fit"]).problem, judge=judge, judged=2000), movielens, seed=0)
    assert len(offline_task.train) == pytest.approx(train * len(movielens.ratings), rel=0.01)
    assert len(offline_task.held_out) == pytest.approx(held_out * len(movielens.ratings), rel=0.01)
    assert not set(offline_task.train.index) & set(offline_task.held_out.index)
    measures = offline_task.evaluate(als(offline_task.train), None)
    assert measures["mse"] < 0.8 * offline_task.held_out["rating"].var()
    assert measures["mean_reward"] > offline_task.held_out["rating"].mean() + 0.3
    assert measures["estimated_reward"] == pytest.approx(measures["mean_reward"], abs=0.1)


def test_an_error_is_one_sentence_and_exit_code_1(job_dir, data, capsys, monkeypatch):
    assert task.main(["simulate", "--data=/nowhere"]) == 1
    assert "recbandits.training.task: MovieLens directory /nowhere: cannot read" in capsys.readouterr().err
    assert task.main([*SIMULATE, data, "--rank=100000"]) == 1
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


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "chief", "replicas"),
    [
        ({"chief": ["a"], "worker": ["b"]}, "chief", 0, True, 2),
        ({"chief": ["a"], "worker": ["b"]}, "worker", 0, False, 2),
        ({"worker": ["a", "b"]}, "worker", 0, True, 2),
        ({"worker": ["a", "b"]}, "worker", 1, False, 2),
        ({"chief": ["a"]}, "chief", 0, True, 1),
        ({"chief": ["a"], "worker": ["b"], "ps": ["c"]}, "chief", 0, True, 2),
    ],
)
def test_one_replica_writes(cluster, kind, index, chief, replicas):
    """Vertex AI sets TF_CONFIG for a single replica too, and parameter servers do not train."""
    config = {"cluster": cluster, "task": {"type": kind, "index": index}}
    paths = JobPaths.from_environment({"TF_CONFIG": json.dumps(config)})
    assert (paths.chief, paths.replicas) == (chief, replicas)
    alone = JobPaths.from_environment({})
    assert (alone.chief, alone.replicas) == (True, 1)


@pytest.mark.parametrize("command", ["simulate", "fit", "rank"])
def test_replicas_that_would_all_do_the_same_are_refused(command, job_dir, capsys, monkeypatch):
    config = {"cluster": {"chief": ["a"], "worker": ["b"]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert task.main([command]) == 1
    sentence = "2 replicas share work in `fit --strategy=multi_worker` alone, use 1 here\n"
    assert capsys.readouterr().err == f"recbandits.training.task: {sentence}"
    assert list(job_dir.iterdir()) == []
