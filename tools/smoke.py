"""Try the project on Google Cloud: set up, build, train, deploy the loop, predict, log; then remove everything.

It costs about a dollar and takes at most an hour. After a failure, too, it removes all that has its prefix.
"""

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from recbandits.config import Config
from recbandits.data import synthetic
from recbandits.loop.deployment import deploy_loop
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS, SimulatedUsers
from recbandits.platforms import choose
from recbandits.platforms.jobs import Job, Machine
from recbandits.platforms.protocol import PlatformError

PREFIX = "smoke"  # of the names of all that it makes
LIMIT = 3000  # seconds, after which it is ended and cleaned up, so that an hour is enough
SETTINGS = Settings(STARS, movies=30, rank=3, candidates=5, first=300)
MACHINE = Machine("e2-standard-4")
_BUILD, _MACHINE, _ENDPOINT = 60 * 0.016, 0.1541, 0.1117  # US dollars an hour, as in learning/google-cloud-costs.md
_POLL = 10.0  # seconds between two looks at what is awaited
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # the last is of a terminal that is closed
_EVENTS = 600.0  # seconds that a logged decision gets to the warehouse


@dataclass
class Trial:
    """The state that the steps share.

    Attributes:
      config: Config
      folder: `pathlib.Path` for files.
      event_id: of the decision that was asked for.
    """

    config: Config
    folder: Path
    event_id: str = ""

    @cached_property
    def platform(self):
        """`GcpPlatform` of the configuration."""
        return choose(self.config)

    @cached_property
    def requests(self):
        """Instances of three users, as the endpoint takes them."""
        users = SimulatedUsers.of(SETTINGS, synthetic.generate())
        return users.requests(np.arange(3), np.arange(15).reshape(3, 5))


class Step(NamedTuple):
    """One step.

    Attributes:
      name: for the table.
      called: services that it tries.
      dollars: an hour, of the machines that run meanwhile.
      run: function of a `Trial`; raises `PlatformError` if the step does not do what it should.
    """

    name: str
    called: str
    dollars: float
    run: Callable


class Result(NamedTuple):
    """Result of a step: its name, the services, "ok" or a sentence, minutes, US dollars."""

    name: str
    called: str
    outcome: str
    minutes: float
    dollars: float


def train(trial):
    record = trial.platform.jobs.run(Job("smoke", ("simulate", "--agent", "linucb", "--steps", "20"), machine=MACHINE))
    _require(record.state == "succeeded", f"the training job must succeed, it is {record.state}: {record.error}")


def deploy(trial):
    if name := deploy_loop(trial.config, SETTINGS, synthetic.generate()):  # None where an earlier trial left a policy
        run = trial.platform.pipelines.wait(name)
        _require(run.state == "succeeded", f"the start-up pipeline must succeed, it is {run.state}: {run.error}")


def predict(trial):
    predictions = trial.platform.endpoints.create().predict(trial.requests)
    _require(len(predictions) == len(trial.requests), f"3 instances must get 3 predictions, got {len(predictions)}")
    trial.event_id = predictions[0]["event_id"]


def log(trial):
    statement = "SELECT COUNT(*) AS number FROM interactions WHERE event_id = @event_id"
    deadline = time.monotonic() + _EVENTS
    while not trial.platform.warehouse.query(statement, {"event_id": trial.event_id})["number"][0].as_py():
        _require(
            time.monotonic() < deadline, f"decision {trial.event_id} must be in BigQuery after {_EVENTS:g} seconds"
        )
        time.sleep(_POLL)


def predict_batch(trial):
    source, policies = trial.folder / "source.jsonl", f"gs://{trial.config.bucket}/models"
    source.write_text("".join(json.dumps(each) + "\n" for each in [*trial.requests, {"item": "?"}]), encoding="utf-8")
    endpoint = trial.platform.endpoints.create()
    (version,) = endpoint.traffic_split
    endpoint.batch_predict(f"{policies}/{version}/policy", source, trial.folder / "answers.jsonl")
    answers = (trial.folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    _require(len(answers) == 3, f"3 good lines must get 3 answers, got {len(answers)}")


STEPS = (
    Step("project", "services, IAM, Storage, BigQuery, Artifact Registry", 0, lambda trial: trial.platform.create()),
    Step("serving image", "Cloud Build", _BUILD, lambda trial: trial.platform.images.build("serve")),
    Step("training image", "Cloud Build", _BUILD, lambda trial: trial.platform.images.build("train")),
    Step("training job", "Vertex AI CustomJob", _MACHINE, train),
    Step("loop", "Pub/Sub, Cloud Functions, Vertex AI Pipelines, Endpoint, Cloud Scheduler", 2 * _MACHINE, deploy),
    Step("prediction", "Vertex AI Endpoint", _ENDPOINT, predict),
    Step("log", "Pub/Sub, Cloud Functions, BigQuery", _ENDPOINT, log),
    Step("batch prediction", "Vertex AI BatchPredictionJob", 2 * _ENDPOINT, predict_batch),
)


def run(config, steps=STEPS, limit=LIMIT, show=print):
    """Run the steps in order until one fails or the time is over, then clean up.

    Args:
      config: Config with the platform "gcp"; all that bears its prefix and version is removed at the end.
      steps: of `Step`.
      limit: seconds for the steps.
      show: function of a line of text.

    Returns:
      list of `Result`, the last one of the clean-up.
    """
    results = []

    def tell(text):
        with contextlib.suppress(OSError):  # of a terminal that was closed
            show(text)

    def attempt(step, trial):
        tell(f"{step.name} ...")
        start, outcome = time.monotonic(), "ok"
        try:
            step.run(trial)
        except (Exception, KeyboardInterrupt) as error:
            outcome = " ".join(f"{type(error).__name__}: {error}".split())
        minutes = (time.monotonic() - start) / 60
        results.append(Result(step.name, step.called, outcome, minutes, step.dollars * minutes / 60))
        tell(f"{step.name}: {outcome}")
        return outcome == "ok"

    def end(*_):
        raise TimeoutError(f"the steps have taken more than {limit} seconds")

    handler = signal.signal(signal.SIGALRM, end)
    with TemporaryDirectory() as folder:
        trial = Trial(config, Path(folder))
        try:
            signal.alarm(limit)
            all(attempt(step, trial) for step in steps)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, handler)
            attempt(Step("clean-up", "all of them", _ENDPOINT, _clean_up), trial)
    return results


def table(results):
    """Return results as a table in Markdown."""
    rows = ["| step | called | result | minutes | US dollars |", "|---|---|---|---|---|"]
    rows += [
        f"| {each.name} | {each.called} | {each.outcome} | {each.minutes:.1f} | {each.dollars:.2f} |"
        for each in results
    ]
    minutes, dollars = sum(each.minutes for each in results), sum(each.dollars for each in results)
    return "\n".join([*rows, f"| total | | | {minutes:.1f} | {dollars:.2f} |"])


def main():
    parser = argparse.ArgumentParser(prog="python -m tools.smoke", description=__doc__)
    parser.add_argument("project", help="id of a Google Cloud project with billing")
    parser.add_argument("--version", default="v1", help="second part of all names, for two trials at a time")
    arguments = parser.parse_args()
    try:
        loaded = Config.load()
        config = replace(loaded, platform="gcp", project=arguments.project, prefix=PREFIX, version=arguments.version)
    except ValueError as error:
        sys.exit(str(error))
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    results = run(config)
    print(table(results))
    if any(result.outcome != "ok" for result in results):
        sys.exit(1)


def _interrupt(*_):
    """End a step once: a terminal that is closed sends its signal, and its shell the same again, into the clean-up."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _clean_up(trial):
    trial.platform.clean_up(dry_run=False)
    _require(not trial.platform.clean_up(), "the clean-up must leave nothing")


def _require(condition, sentence):
    if not condition:
        raise PlatformError(sentence)


if __name__ == "__main__":
    main()
