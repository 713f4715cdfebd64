"""The training task: its command line, what it leaves behind, and that it goes on where it was killed."""

import errno
import json
import os
import signal
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from recbandits.agents.factory import make_agent
from recbandits.config import Config
from recbandits.data import formats
from recbandits.environments.factorization import als
from recbandits.evaluation.regret import totals
from recbandits.platforms.jobs import Job
from recbandits.platforms.local.jobs import LocalJobs
from recbandits.serving.policy import describe, load
from recbandits.training import task
from recbandits.training.experiments import World, make_environment
from recbandits.training.job_paths import Places, is_chief, mounted, replicas
from recbandits.training.online import simulate
from recbandits.training.problems import AGENTS_OF, BANDITS, PROBLEMS, Outcome, Simulation
from recbandits.training.profiling import read_operations

SIMULATE = ("simulate", "--alpha=0.3", "--steps=60", "--num_actions=5", "--rank=4", "--seeds=3,4")
FIT = ("fit", "--agent=epsilon_greedy", "--layers=8", "--decisions=6000", "--judged=800", "--learning_rate=0.02")


@pytest.fixture(scope="module")
def data(movielens, tmp_path_factory):
    """The argument that names the data's directory."""
    directory = tmp_path_factory.mktemp("data")
    formats.write(movielens, directory)
    return f"--data={directory}"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A job's directory, named by Vertex AI's variables."""
    for place in ("model", "checkpoint", "tensorboard_log"):
        monkeypatch.setenv(f"AIP_{place.upper()}_DIR", str(tmp_path / place))
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
    for values in (request.problem, request.agent):
        shown = [(field.name, getattr(values, field.name)) for field in fields(values) if field.name != "agents"]
        arguments += [f"--{field}={task.as_text(value)}" for field, value in shown]
    assert task.parse(arguments) == request
    assert request.agent == AGENTS_OF[command][name]()


def test_tuning_services_write_whole_numbers_with_a_point():
    request = task.parse(["fit", "--agent", "neural_linucb", "--layers=64.0,32", "--encoding", "8.0", "--epochs=3"])
    assert (request.agent.layers, request.agent.encoding, request.problem.epochs) == ((64, 32), 8, 3)
    assert type(request.agent.encoding) is int
    assert task.parse(["simulate", "--per_arm"]).problem.per_arm is True
    assert task.parse(["simulate", "--per_arm=false"]).problem.per_arm is False


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["simulate", "--alfa=1"], "unknown argument '--alfa=1'; did you mean --alpha?"),
        (["simulate", "--alpha=much"], "argument --alpha: must be a number, got 'much'"),
        (["simulate", "--alpha=-1"], "LinUCB: alpha must be 0 or more and finite, got -1.0"),
        (["simulate", "--rank=1.5"], "argument --rank: must be a whole number, got '1.5'"),
        (["simulate", "--rank=nan"], "argument --rank: must be a whole number, got 'nan'"),
        (["simulate", "--per_arm=maybe"], "argument --per_arm: must be true or false, got 'maybe'"),
        (["simulate", "--factorization=nmf"], "Simulation: factorization must be one of als, svd, got 'nmf'"),
        (["simulate", "--num_actions=1"], "Simulation: num_actions must be a whole number of at least 2, got 1"),
        (["fit", "--seeds=1,1"], "Fit: seeds must be different whole numbers of 0 or more, got (1, 1)"),
        (["fit", "--serve_epsilon=2"], "Fit: serve_epsilon must be in [0, 1], got 2.0"),
        (["fit", "--agent=oracle"], "argument --agent: fit takes linucb, lints, "),
        (["fit", "--profile=61"], "argument --profile: must be seconds from 0 to 60, got '61'"),
        (["fit", "--profile=nan"], "argument --profile: must be seconds from 0 to 60, got 'nan'"),
        (["train"], "argument command: invalid choice: 'train'"),
        ([], "the following arguments are required: command"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_sentence(arguments, sentence, capsys):
    assert f"recbandits.training.task: {sentence}" in refused(capsys, *arguments)


def test_help_has_what_the_docstrings_say(capsys):
    with pytest.raises(SystemExit) as end:
        task.main(["fit", "--agent=squarecb", "--help"])
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--gamma VALUE positive, per unit of the reward" in shown
    assert "--layers VALUE units of the hidden layers (default: 64,32)" in shown
    assert '"validation" keeps the test ratings for the last word' in shown


def test_a_dry_run_says_where_things_would_go_and_does_nothing(places, capsys):
    assert task.main([*SIMULATE, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "linucb: alpha=0.3 tikhonov=0.001 gamma=1.0" in shown
    assert f"model       {places / 'model'}" in shown
    assert list(places.iterdir()) == []


def test_a_simulation_leaves_policy_record_metrics_and_curves(places, data, movielens, capsys, monkeypatch):
    """Where a bucket is mounted: there, directories that have files in them cannot be renamed."""
    rename = Path.rename

    def refusing(path, target):
        if places in path.parents and path.is_dir():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    assert task.main([*SIMULATE, data]) == 0
    record = json.loads((places / "record.json").read_text())
    assert record["arguments"] == [*SIMULATE, data]
    assert record["parameters"] == {"alpha": 0.3, "tikhonov": 0.001, "gamma": 1.0}
    problem = Simulation(steps=60, num_actions=5, rank=4, seeds=(3, 4))
    environment = make_environment(problem, movielens)
    agent = BANDITS["linucb"](alpha=0.3)
    expected = totals(simulate(environment, agent, 60, (3, 4)))
    assert record["by_seed"]["mean_reward"] == expected["reward"].tolist()
    assert record["by_seed"]["regret"] == expected["regret"].tolist()
    assert f"regret {expected['regret'].mean():.4f} (" in capsys.readouterr().out
    reports = [json.loads(line) for line in (places / "metrics.jsonl").read_text().splitlines()]
    assert float(reports[0]["mean_reward"]) == record["metrics"]["mean_reward"][0] == expected["reward"].mean()
    assert list((places / "tensorboard_log").rglob("events.out.tfevents.*"))
    policy = load(places / "model")
    assert policy.version == record["policy_version"]
    users = environment.user_ids[:20]
    learnt = make_agent(agent, environment, 3)
    simulate(environment, learnt, 60, seeds=[3])
    shown = environment.movie_ids[learnt.policy.action(_first(environment, users)).action.numpy()]
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
    table = read_operations(Path(watched.model).parent / "tensorboard")
    assert table.loc["MatrixInverse", "count"] == 2 * 60


def test_a_profile_without_a_place_is_refused(data, capsys, monkeypatch):
    monkeypatch.delenv("AIP_TENSORBOARD_LOG_DIR", raising=False)
    assert task.main([*SIMULATE, data, "--profile=1"]) == 1
    assert "--profile needs a place for what it finds" in capsys.readouterr().err


def test_a_killed_job_goes_on_to_the_same_end(jobs, data):
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
    whole = simulate(make_environment(problem, task_data(problem)), BANDITS["linucb"](alpha=0.3), 6000, (3, 4))
    assert json.loads((directory / "record.json").read_text())["by_seed"]["regret"] == totals(whole)["regret"].tolist()
    assert load(record.model).summary.metrics["regret"] == pytest.approx(record.metrics["regret"])


def task_data(problem):
    from recbandits.data import movielens

    return movielens.load(problem.data)


def test_two_replicas_learn_from_a_log_what_one_learns(jobs, places, data):
    alone = task.main([*FIT, data, "--seeds=0"])
    assert alone == 0
    one = json.loads((places / "record.json").read_text())
    record = jobs.run(Job("pair", (*FIT, data, "--seeds=0", "--strategy=multi_worker"), replicas=2))
    assert record.state == "succeeded", record.error
    for name, value in one["metrics"].items():
        assert record.metrics[name] == pytest.approx(value, abs=0.01)
    assert one["metrics"]["mse"] < 1.1
    assert one["metrics"]["mean_reward"] > 3.7
    assert [path.name for path in jobs._directory("pair").glob("*.json")].count("record.json") == 1
    assert len(list(jobs._directory("pair").glob("tensorboard/seed-0/events.*"))) == 1
    assert set(describe(record.model))


@pytest.mark.parametrize(("judge", "known", "held_out"), [("validation", 0.64, 0.16), ("test", 0.8, 0.2)])
def test_what_is_held_out_is_not_learnt_from(judge, known, held_out, movielens):
    """And factors fitted on what is known predict the rest better than a constant, whose error is their variance."""
    world = World(replace(task.parse(["fit"]).problem, judge=judge, judged=2000), movielens, seed=0)
    assert len(world.known) == pytest.approx(known * len(movielens.ratings), rel=0.01)
    assert len(world.held_out) == pytest.approx(held_out * len(movielens.ratings), rel=0.01)
    assert not set(world.known.index) & set(world.held_out.index)
    measures = world.judge(als(world.known), None)
    assert measures["mse"] < 0.8 * world.held_out["rating"].var()
    assert measures["mean_reward"] > world.held_out["rating"].mean() + 0.3
    assert measures["estimated_reward"] == pytest.approx(measures["mean_reward"], abs=0.1)


def test_what_goes_wrong_is_one_sentence_and_exit_code_1(places, data, capsys, monkeypatch):
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
    places = Places.from_environment({"AIP_MODEL_DIR": "gs://bucket/jobs/1/model"})
    assert (str(places.record), places.checkpoints) == ("/gcs/bucket/jobs/1/record.json", None)


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "chief"),
    [
        ({"chief": ["a"], "worker": ["b"]}, "chief", 0, True),
        ({"chief": ["a"], "worker": ["b"]}, "worker", 0, False),
        ({"worker": ["a", "b"]}, "worker", 0, True),
        ({"worker": ["a", "b"]}, "worker", 1, False),
    ],
)
def test_one_replica_writes(cluster, kind, index, chief):
    assert is_chief(json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})) is chief
    assert is_chief(None)


def test_replicas_that_would_all_do_the_same_are_refused(places, capsys, monkeypatch):
    """Vertex AI tells a lone replica of its cluster too, and parameter servers do not train."""
    task_of = {"task": {"type": "chief", "index": 0}}
    assert replicas(json.dumps({"cluster": {"chief": ["a"]}} | task_of)) == replicas(None) == 1
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"chief": ["a"], "worker": ["b"], "ps": ["c"]}} | task_of))
    for command in ("simulate", "fit"):
        assert task.main([command]) == 1
        assert capsys.readouterr().err == (
            f"{task._PROGRAM}: 2 replicas share work in `fit --strategy=multi_worker` alone, use 1 here\n"
        )
    assert list(places.iterdir()) == []
