"""What a study found reaches the job that follows, to the last digit; processes are real, their work is a formula."""

import pytest
from src.training.hand_over import best_job, received

from recbandits.config import Config
from recbandits.platforms import PlatformError
from recbandits.platforms.jobs import Float, Job, Study
from recbandits.platforms.local.jobs import LocalJobs

# The task's own command line and record; the reward is best at alpha = 0.1, and a job may be told to forget a value.
TASK = """
import json, math, os, sys
from dataclasses import asdict
from pathlib import Path
from hypertune import HyperTune
from recbandits.training import task

request = task.parse(sys.argv[1:])
HyperTune().report_hyperparameter_tuning_metric("mean_reward", -(math.log10(request.agent.alpha) + 1) ** 2, 1)
own = asdict(request.agent) | ({"alpha": 1.0} if 666 in request.problem.seeds else {})
Path(os.environ["AIP_MODEL_DIR"]).parent.joinpath("record.json").write_text(
    json.dumps({"arguments": sys.argv[1:], "parameters": own, "metrics": {}})
)
"""
SEARCH = Job("search", ("simulate", "--agent=linucb", "--alpha=5", "--seeds=0,1"))
STUDY = Study(SEARCH, {"alpha": Float(0.001, 5)}, trials=3, parallel=3)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """A study of 3 trials that has ended."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "quick_task.py").write_text(TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        jobs = LocalJobs(Config(artifacts=str(folder)), module="quick_task")
        jobs.tune(STUDY)
        yield jobs


def test_the_job_has_the_best_parameters_other_seeds_and_nothing_else_new(jobs):
    job = best_job(jobs, STUDY, "tuned", seeds=(100, 101))
    best = max(jobs.trials("search"), key=lambda trial: trial.value)
    assert job == Job("tuned", ("simulate", "--agent=linucb", "--seeds=100,101", f"--alpha={best.parameters['alpha']}"))


def test_what_was_sent_has_arrived(jobs):
    record = jobs.run(best_job(jobs, STUDY, "tuned", seeds=(100, 101)))
    table = received(record, jobs.best("search").parameters)
    assert table["arrived"].tolist() == [True]
    assert float(table.loc["alpha", "received"]) == jobs.best("search").parameters["alpha"]


def test_a_value_that_did_not_arrive_is_seen(jobs):
    record = jobs.run(best_job(jobs, STUDY, "forgetful", seeds=(666,)))
    table = received(record, jobs.best("search").parameters | {"nobody_reads_this": 3})
    assert table["arrived"].tolist() == [False, False]
    assert table["received"].tolist() == ["1.0", ""]


def test_a_study_that_has_not_ended_hands_nothing_over(jobs):
    with pytest.raises(PlatformError, match="there is no study elsewhere"):
        best_job(jobs, Study(Job("elsewhere"), {"alpha": Float(0.1, 1)}), "tuned")
