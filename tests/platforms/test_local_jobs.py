"""Jobs and studies on this machine: real processes that succeed, fail, are killed and go on."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace

import psutil
import pytest
from jobs_contract import PARAMETERS, JobsContract

from recbandits.config import Config
from recbandits.platforms.jobs import Choice, Float, Integer, Job, Study
from recbandits.platforms.local import forkserver
from recbandits.platforms.local.files import held
from recbandits.platforms.local.jobs import LocalJobs
from recbandits.platforms.local.study import propose
from recbandits.platforms.local.units import Unit, units_below
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.tuning import at_bounds, with_parameters
from tests.waiting import until

# What the training task does, in a tenth of a second: take arguments, report by cloudml-hypertune, leave a record.
TASK = """
import json, math, os, signal, sys, time
from pathlib import Path

flags = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
trial = os.environ.get("CLOUD_ML_TRIAL_ID", "")
model_dir = Path(os.environ["AIP_MODEL_DIR"])
print("started", trial, "as", os.environ["CLOUD_ML_JOB_ID"])
with model_dir.parent.joinpath("starts").open("a") as starts:
    starts.write("x")
model_dir.parent.joinpath("pid").write_text(str(os.getpid()))

gate = flags.get("gate")
while gate and not os.path.exists(gate) and trial in flags.get("gated", trial).split(","):
    time.sleep(0.02)
what = dict(item.split(":") for item in flags.get("mishaps", "").split(",") if item).get(trial or "job")
if what == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "raises":
    raise ValueError("the learning rate exploded")
if what == "full":
    os.symlink("/dev/full", os.environ["CLOUD_ML_HP_METRIC_FILE"])

from hypertune import HyperTune

if "values" in flags:
    values = flags["values"].split(",")
    value = float(values[int(trial) % len(values)])  # "None" is no number
else:
    value = -((math.log10(float(flags["alpha"])) + 1) ** 2) + 0.1 * (flags.get("kind") == "b")
report = HyperTune().report_hyperparameter_tuning_metric
if what == "garbage":
    Path(os.environ["CLOUD_ML_HP_METRIC_FILE"]).write_text("mean_reward: splendid")
elif what == "nan":
    report("mean_reward", math.nan, 1)
elif what != "silent":
    report("regret" if what == "other" else "mean_reward", value, 1)
model_dir.mkdir()
model_dir.parent.joinpath("record.json").write_text(
    json.dumps({"arguments": sys.argv[1:], "metrics": {"mean_reward": [value, value - 1, value + 1]}})
)
"""
SPACE = {"alpha": Float(0.001, 10.0, log=True), "depth": Integer(1, 5), "kind": Choice(("a", "b"))}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A project of its own, and the module `task` that jobs run: forked here, executed where others start it."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "task.py").write_text(TASK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"), prepend=os.pathsep)
    monkeypatch.setattr(forkserver, "FORKED", ("task",))
    monkeypatch.setattr(forkserver, "MODULES", ("hypertune",))
    return Config(artifacts=str(tmp_path / "artifacts"))


@pytest.fixture
def jobs(config):
    """Jobs that are stopped after the test, also if it fails."""
    yield LocalJobs(config, module="task")
    for unit in units_below(config.artifacts_dir):
        unit.stop()


class TestLocalJobs(JobsContract):
    def study(self, jobs, values, maximise=True):
        job = Job("search", (f"--values={','.join(map(str, values))}",))
        wanted = sum(value is not None for value in values)
        with suppress(PlatformError):  # three in a row failed
            jobs.tune(Study(job, PARAMETERS, trials=max(1, wanted), parallel=len(values), maximise=maximise))
        return "search"


def make_study(*arguments, trials=4, name="search", **options):
    return Study(Job(name, arguments), SPACE, trials=trials, **options)


def test_a_job_leaves_its_record_under_its_name_and_is_run_once(jobs, tmp_path):
    record = jobs.run(Job("first", ("--alpha=0.1",)))
    assert (record.name, record.state, record.error) == ("first", "succeeded", "")
    assert record.arguments == ("--alpha=0.1",)
    assert record.metrics == {"mean_reward": (0.0, -1.0, 1.0)}
    assert record.own == {"arguments": ["--alpha=0.1"], "metrics": {"mean_reward": [0.0, -1.0, 1.0]}}
    assert record.model == str(tmp_path / "artifacts" / "runs" / "jobs" / "first" / "model")
    assert record.started < record.ended
    assert jobs.logs("first") == "started  as first\n"
    with pytest.raises(PlatformError, match=r"^first is a job, a study is expected$"):
        jobs.trials("first")
    assert jobs.run(Job("first", ("--alpha=0.1",))) == record
    assert (tmp_path / "artifacts/runs/jobs/first/starts").read_text() == "x"
    with pytest.raises(PlatformError, match="started with other arguments, give the new one another name"):
        jobs.run(Job("first", ("--alpha=0.2",)))
    with pytest.raises(PlatformError, match="there is no job frist; what there is: first"):
        jobs.record("frist")
    with pytest.raises(PlatformError, match="first is a job: give the study a name of its own"):
        jobs.tune(make_study(name="first"))


def test_a_failed_job_says_why_and_goes_on_when_it_is_run_again(jobs, tmp_path):
    """The directory, with the checkpoints in it, is the same; the second attempt finds what was in the way gone."""
    record = jobs.run(Job("first", ("--alpha=zero",)))
    assert record.state == "failed"
    assert record.error == "job first failed with exit code 1: ValueError: could not convert string to float: 'zero'"
    job = Job("second", ("--alpha=0.1", "--mishaps=job:full"))
    record = jobs.run(job)
    assert (record.state, record.metrics, record.model) == ("failed", {}, "")
    assert record.error == "job second failed with exit code 1: OSError: [Errno 28] No space left on device"
    (tmp_path / "code" / "task.py").write_text(TASK.replace('what == "full"', "False"))
    assert jobs.run(job).state == "succeeded"
    assert (tmp_path / "artifacts/runs/jobs/second/starts").read_text() == "xx"


def test_a_job_is_known_to_other_processes_and_stopped_with_all_it_started(jobs, config, tmp_path):
    gate = tmp_path / "gate"
    job = Job("waits", ("--alpha=0.1", f"--gate={gate}"))
    assert jobs.run(job, wait=False).state == "running"
    pid = tmp_path / "artifacts/runs/jobs/waits/pid"
    until(pid.exists)
    assert jobs.run(job, wait=False).state == "running"
    assert pid.with_name("starts").read_text() == "x"
    code = f"""
from recbandits.config import Config
from recbandits.platforms.local.jobs import LocalJobs
jobs = LocalJobs(Config(artifacts={config.artifacts!r}), module="task")
print(jobs.record("waits").state)
jobs.stop("waits")
print(jobs.record("waits").state)
"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.split() == ["running", "stopped"]
    assert not psutil.pid_exists(int(pid.read_text()))
    gate.touch()
    assert jobs.run(job).state == "succeeded"


def test_a_job_of_several_replicas_is_refused(jobs):
    with pytest.raises(PlatformError, match="job pair: replicas must be 1 on this machine, got 2"):
        jobs.run(Job("pair", replicas=2))
    assert jobs.list() == []


def runner_of(unit):
    """Return the process above the command of a unit."""
    return next(each for each in unit.members() if os.getsid(each.pid) == each.pid)


def test_tuning_finds_the_better_half_and_hands_it_over(jobs):
    """The value is -(log10(alpha) + 1)^2, plus 0.1 for kind b: best at alpha 0.1."""
    study = make_study("--alpha=7", trials=8)
    trials = jobs.tune(study)
    assert [trial.number for trial in trials] == list(range(8))
    assert {trial.state for trial in trials} == {"succeeded"}
    best = jobs.best("search")
    assert best.value == max(trial.value for trial in trials)
    assert best.value > -0.25
    assert best.interval == (best.value - 1, best.value + 1)
    assert {name: type(value) for name, value in best.parameters.items()} == {"alpha": float, "depth": int, "kind": str}
    full = jobs.run(replace(study.job, name="full", arguments=with_parameters(study.job.arguments, best.parameters)))
    assert full.arguments == tuple(f"--{name}={value}" for name, value in best.parameters.items())
    assert full.metrics["mean_reward"][0] == best.value


def test_trials_that_come_to_grief_say_so_and_the_study_goes_on(jobs):
    mishaps = "0:killed,1:garbage,3:nan,4:full,6:other,7:raises"
    trials = jobs.tune(make_study(f"--mishaps={mishaps}", trials=3, parallel=3))
    assert [trial.number for trial in trials if trial.state == "succeeded"] == [2, 5, 8]
    errors = {trial.number: trial.error for trial in trials if trial.error}
    assert errors == {
        0: "trial 0 of search was killed by SIGKILL",
        1: "trial 1 of search reported metrics that are no JSON objects: 'mean_reward: splendid'",
        3: "trial 3 of search reported mean_reward 'nan', which is no finite number",
        4: "trial 4 of search failed with exit code 1: OSError: [Errno 28] No space left on device",
        6: "trial 6 of search reported no mean_reward, only regret",
        7: "trial 7 of search failed with exit code 1: ValueError: the learning rate exploded",
    }


def test_three_failures_in_a_row_end_the_study_with_the_last_words(jobs):
    with pytest.raises(PlatformError, match=r"study search: 3 trials in a row failed, the last: .*rate exploded"):
        jobs.tune(make_study("--mishaps=0:raises,1:raises,2:raises,3:raises"))


def test_a_study_goes_on_after_its_tuner_was_killed(jobs, config, tmp_path):
    """Killed with trials 2 and 3 running: they end on their own, and the study is that of a tuner that lived."""
    expected = [trial[2:4] for trial in jobs.tune(make_study(f"--gate={config.artifacts_dir}", trials=5, name="whole"))]
    gate, trials_dir = tmp_path / "gate", tmp_path / "artifacts/runs/jobs/search/trials"
    study = make_study(f"--gate={gate}", "--gated=2,3", trials=5)
    code = f"""
from recbandits.config import Config
from recbandits.platforms.jobs import *
from recbandits.platforms.local.jobs import LocalJobs
LocalJobs(Config(artifacts={config.artifacts!r}), module="task").tune({study!r})
"""
    tuner = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: all((trials_dir / number / "pid").exists() for number in "23"))
    tuner.kill()
    tuner.wait()
    initial_trials = jobs.trials("search")
    assert [trial.state for trial in initial_trials] == ["succeeded", "succeeded", "running", "running"]
    runner_of(Unit(trials_dir / "2", "trial 2")).kill()
    os.kill(int((trials_dir / "2/pid").read_text()), signal.SIGKILL)
    gate.touch()
    trials = jobs.tune(study)
    assert [trial[2:4] for trial in trials] == expected
    assert trials[:2] == initial_trials[:2]
    assert [(trials_dir / str(number) / "starts").read_text() for number in range(5)] == ["x", "x", "xx", "x", "x"]
    assert jobs.tune(study) == trials
    assert len(jobs.tune(replace(study, trials=6))) == 6


def test_a_study_is_stopped_by_another_process_and_tuned_on(jobs, tmp_path):
    gate = tmp_path / "gate"
    study = make_study(f"--gate={gate}", trials=2)
    code = f"""
import time
from pathlib import Path
from recbandits.config import Config
from recbandits.platforms.local.jobs import LocalJobs
jobs = LocalJobs(Config(artifacts={str(tmp_path / "artifacts")!r}), module="task")
trials_dir = Path({str(tmp_path / "artifacts/runs/jobs/search/trials")!r})
while not all((trials_dir / number / "pid").exists() for number in "01"):
    time.sleep(0.02)
jobs.stop("search")
"""
    other = subprocess.Popen([sys.executable, "-c", code])
    assert [trial.state for trial in jobs.tune(study)] == ["stopped", "stopped"]
    assert other.wait() == 0
    gate.touch()
    assert [trial.state for trial in jobs.tune(study)] == ["succeeded", "succeeded"]


def test_a_trial_that_is_about_to_start_is_stopped_with_its_study(jobs, tmp_path, monkeypatch):
    """Its tuner looked for the last time before the study was stopped."""
    starting, states, start = threading.Event(), [], Unit.start

    def slow(*arguments, **options):
        starting.set()
        until((tmp_path / "artifacts/runs/jobs/search/stop").exists)
        time.sleep(0.3)
        return start(*arguments, **options)

    monkeypatch.setattr(Unit, "start", slow)
    study = make_study(f"--gate={tmp_path / 'gate'}", trials=2)
    tuner = threading.Thread(target=lambda: states.extend(trial.state for trial in jobs.tune(study)))
    tuner.start()
    starting.wait()
    jobs.stop("search")
    assert {trial.state for trial in jobs.trials("search")} == {"stopped"}
    tuner.join()
    assert states == ["stopped", "stopped"]


def test_another_study_of_the_same_name_is_refused(jobs, tmp_path):
    jobs.tune(make_study(trials=1))
    with pytest.raises(PlatformError, match=r"^search is a study, a job is expected$"):
        jobs.record("search")
    with pytest.raises(PlatformError, match="study search was started with seed 0, give one with 1 another name"):
        jobs.tune(make_study(trials=1, seed=1))
    study_dir, sentence = tmp_path / "artifacts/runs/jobs/search", "study search is being tuned by another process"
    with held(study_dir), pytest.raises(PlatformError, match=sentence):
        jobs.tune(make_study(trials=2))


def test_proposals_depend_on_the_seed_and_on_what_came_before_alone():
    study = make_study(trials=4)

    def parameters(study):
        return [trial.params for trial in propose(study, [], 2)]

    assert parameters(study) == parameters(study) != parameters(replace(study, seed=1))
    assert parameters(study)[0] != parameters(study)[1]


@pytest.mark.parametrize("moment", ["proposals", "value"])
def test_a_tuner_that_is_killed_while_it_writes_leaves_a_study_that_resumes_to_the_same_end(
    jobs, config, tmp_path, moment
):
    """SIGKILL in the middle of a line: every trial has all its parameters, and none is run twice."""
    expected = [trial[2:4] for trial in jobs.tune(make_study(trials=4, name="whole"))]
    study, study_dir = make_study(trials=4), tmp_path / "artifacts/runs/jobs/search"
    sign = {"proposals": '"op_code":4', "value": '"op_code":6'}[moment]
    code = f"""
import io, json, os, signal
from optuna.storages.journal import JournalFileBackend
from recbandits.config import Config
from recbandits.platforms.jobs import *
from recbandits.platforms.local.jobs import LocalJobs

def append_logs(self, logs):
    for log in logs:
        line = json.dumps(log, separators=(",", ":")) + "\\n"
        with open(self._file_path, "a") as journal:
            if {sign!r} in line:
                journal.write(line[: len(line) // 2])
                journal.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            journal.write(line)

JournalFileBackend.append_logs = append_logs
LocalJobs(Config(artifacts={config.artifacts!r}), module="task").tune({study!r})
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert not (study_dir / "journal.log").read_bytes().endswith(b"\n")
    assert all(trial.parameters.keys() == SPACE.keys() for trial in jobs.trials("search"))
    trials = jobs.tune(study)
    assert [trial[2:4] for trial in trials] == expected
    assert [(study_dir / "trials" / str(number) / "starts").read_text() for number in range(4)] == ["x"] * 4


def test_the_report_of_a_trial_is_not_removed_while_it_runs_or_after_its_end(jobs, tmp_path):
    """Its start is asked for again at both moments, as a second tuner does."""
    gate, metrics = tmp_path / "gate", tmp_path / "artifacts/runs/jobs/first/metrics.jsonl"
    job = Job("first", ("--alpha=0.1", f"--gate={gate}"))
    jobs.run(job, wait=False)
    metrics.write_text("reported\n")
    jobs.run(job, wait=False)
    assert metrics.read_text() == "reported\n"
    gate.touch()
    assert jobs.run(job).state == "succeeded"
    report = metrics.read_text()
    assert jobs.run(job).state == "succeeded"
    assert metrics.read_text() == report


def test_parameters_replace_arguments_of_the_same_name():
    arguments = ("fit", "--layers", "64,32", "--seeds=0,1", "--alpha=1", "--dry-run")
    new_arguments = with_parameters(arguments, {"alpha": 0.5, "layers": (8, 4), "epochs": 3})
    assert new_arguments == ("fit", "--seeds=0,1", "--dry-run", "--alpha=0.5", "--layers=8,4", "--epochs=3")


@pytest.mark.parametrize(
    ("parameter", "value", "bounds"),
    [
        (Float(0.01, 1.0, log=True), 0.012, {"x": 0.01}),  # log10(1.2) = 0.08 of 2 decades are 4 %
        (Float(0.01, 1.0, log=True), 0.013, {}),  # log10(1.3) = 0.11 are 6 %
        (Float(0.01, 1.0, log=True), 0.9, {"x": 1.0}),
        (Float(-1.0, 1.0), -0.9, {"x": -1.0}),  # 0.1 of 2
        (Float(-1.0, 1.0), -0.89, {}),
        (Integer(1, 3), 3, {"x": 3}),
        (Choice(("a", "b")), "b", {}),
    ],
)
def test_a_value_in_the_outer_twentieth_of_its_range_is_at_a_bound(parameter, value, bounds):
    assert at_bounds({"x": parameter}, {"x": value}) == bounds


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Job("Big"), "Job: name must be at most 63 lower-case letters.*'Big'"),
        (lambda: Job("x", ["--a"]), "Job: arguments must be a tuple of texts"),
        (lambda: Float(0, 1, log=True), "Float: low must be finite, and positive with log, got 0"),
        (lambda: Float(2, 1), "Float: high must be finite and above low, 2, got 1"),
        (lambda: Float(0, math.inf), "Float: high must be finite and above low, 0, got inf"),
        (lambda: Integer(1.0, 2), "Integer: low must be a whole number, got 1.0"),
        (lambda: Choice((1, "a")), "Choice: values must be a tuple of different texts"),
        (lambda: Choice(([1], [2])), "Choice: values must be a tuple of different texts"),
        (lambda: make_study(seed=-1), "Study: seed must be a whole number of at least 0, got -1"),
        (lambda: Study(Job("x")), "Study: parameters must be a dict to Float, Integer or Choice, at least one, got {}"),
        (lambda: make_study(trials=0), "Study: trials must be a whole number of at least 1, got 0"),
    ],
)
def test_what_cannot_be_run_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
