"""The best parameters of a study reach the next job to the last digit; processes are real, their work is a formula."""

import os

import pytest
from src.training.hand_over import best_job, received

from recbandits.config import Config
from recbandits.platforms.jobs import Float, Job, Study
from recbandits.platforms.local.jobs import LocalJobs
from recbandits.platforms.protocol import PlatformError

# The task's own command line and record; the reward is best at alpha = 0.1.
TASK = """
import json, math, os, sys
from dataclasses import asdict
from pathlib import Path
from hypertune import HyperTune
from recbandits.training import task

request = task.parse(sys.argv[1:])
HyperTune().report_hyperparameter_tuning_metric("mean_reward", -(math.log10(request.agent.alpha) + 1) ** 2, 1)
Path(os.environ["AIP_MODEL_DIR"]).parent.joinpath("record.json").write_text(
    json.dumps({"arguments": sys.argv[1:], "parameters": asdict(request.agent), "metrics": {}})
)
"""
SEARCH = Job("search", ("simulate", "--agent=linucb", "--alpha=5", "--seeds=0,1"))
STUDY = Study(SEARCH, {"alpha": Float(0.001, 5)}, trials=2)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """A study of 2 trials that has ended."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "quick_task.py").write_text(TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        jobs = LocalJobs(Config(artifacts=str(folder)), module="quick_task")
        jobs.tune(STUDY)
        yield jobs


def test_the_job_has_the_best_parameters_other_seeds_and_nothing_else_new(jobs):
    job = best_job(jobs, STUDY, "tuned", seeds=(100, 101))
    best = max(jobs.trials("search"), key=lambda trial: trial.value)
    assert job == Job("tuned", ("simulate", "--agent=linucb", "--seeds=100,101", f"--alpha={best.parameters['alpha']}"))


def test_what_was_sent_has_arrived_and_what_did_not_is_seen(jobs):
    """The record is the job's own; beside it one of a job that took the default, and a parameter that is not read."""
    sent = jobs.best("search").parameters
    record = jobs.run(best_job(jobs, STUDY, "tuned", seeds=(100, 101)))
    table = received(record, sent)
    assert table["arrived"].tolist() == [True]
    assert float(table.loc["alpha", "received"]) == sent["alpha"]
    deaf = received(record._replace(own={"parameters": {"alpha": 1.0}}), sent | {"unread": 3})
    assert deaf["arrived"].tolist() == [False, False]
    assert deaf["received"].tolist() == ["1.0", ""]


def test_a_study_that_has_not_ended_hands_nothing_over(jobs):
    with pytest.raises(PlatformError, match="there is no study elsewhere"):
        best_job(jobs, Study(Job("elsewhere"), {"alpha": Float(0.1, 1)}), "tuned")
