"""The core of the loop: guard the serving policy, count new decisions, learn, judge and deploy.

It knows no clock and starts no process: `rounds` drives it by a virtual clock and learns in memory, `live` and a Cloud
Function drive it by the time of day and learn by a pipeline.
"""

import hashlib
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from recbandits.config import Config
from recbandits.loop.canary import JUDGED, find_experiment, guard
from recbandits.loop.models import POLICY, Model, config_parameter, models_uri, serving_model
from recbandits.loop.settings import Settings
from recbandits.platforms.functions import Function
from recbandits.platforms.pipelines import Run
from recbandits.platforms.protocol import Platform, PlatformError
from recbandits.platforms.warehouse import Join, Warehouse
from recbandits.records import Verdict
from recbandits.serving.policy import load
from recbandits.serving.served import ServedPolicy

FUNCTIONS = Path(__file__).parent / "functions"  # a directory for each source
LOGGERS = {"interactions": "log-interaction", "rewards": "log-reward"}  # topic: name of the function that logs it
START_UP = "start-up"  # name of the start-up pipeline
TEMPLATES = Path(__file__).parent / "templates"  # compiled by `loop.pipelines`
PIPELINE = "re-training"
OVERLAP = 60.0  # seconds before the end of the data of the serving model, for decisions that were delivered late
_TRIES = 3  # of one run that fails


class Plan(NamedTuple):
    """A re-training that is due."""

    name: str  # of the run; another one for other data, another window or another model to go on from
    start: datetime  # in UTC, from which on decisions are read
    end: datetime  # in UTC, before which they are read
    snapshot: str  # `Warehouse.snapshot` of that time
    serving: str  # version that serves, to go on from
    new: int  # decisions since the last verdict on a candidate


class Core(ABC):
    """One loop, on any endpoint (`platforms.endpoints.Endpoint`) and any warehouse; `span` has the overlap."""

    _since: datetime | None = None  # decisions before it do not count as new

    def __init__(self, endpoint: Any, warehouse: Warehouse, settings: Settings, overlap: float = OVERLAP):
        self.endpoint, self.warehouse, self.settings, self._overlap = endpoint, warehouse, settings, overlap

    def tick(self, now: datetime, least_new: int | None = None) -> list[Verdict | Run]:
        """Do what is due at a time: guard, then re-train if `least_new` decisions, by default `decisions`, are new.

        The list has the guardrail's `Verdict`, and that on a candidate or the `Run` that will give one. PlatformError
        says that the warehouse or the endpoint does not answer.
        """
        results = [self.guard(now), self.retrain(now, least_new)]
        return [result for result in results if result is not None]

    def guard(self, now: datetime) -> Verdict | None:
        """Apply the guardrail; see `canary.guard`."""
        join, guardrail = self.settings.join, self.settings.guardrail
        return guard(self.endpoint, self.warehouse, now, join, guardrail, self.policy)

    def retrain(self, now: datetime, least_new: int | None = None) -> Verdict | Run | None:
        """Re-train if enough is new, no canary waits for a verdict and no training runs; see `tick`."""
        if (serving := self.serving()) is None:
            return None
        least_new, shares = self.settings.decisions if least_new is None else least_new, self.endpoint.traffic_split
        options = self._overlap, self._since, shares
        plan = due(self.warehouse, serving, self.settings.join, now, least_new, *options)
        return None if plan is None else self._execute(plan, now)

    @abstractmethod
    def serving(self) -> Any:
        """Return the model that serves, with its `version` and `until`; None where none does."""

    @abstractmethod
    def policy(self, version: str) -> ServedPolicy | None:
        """Return the `ServedPolicy` of a version; None where it cannot be loaded."""

    @abstractmethod
    def _execute(self, plan: Plan, now: datetime) -> Verdict | Run:
        """Learn, judge and deploy by a `Plan`."""


class PipelineCore(Core):
    """A loop that learns, judges and deploys by the re-training pipeline of a platform, one run at a time.

    A run that failed three times is abandoned until as much again is new. `features` and `topic` are as of
    `re_training_parameters`.
    """

    template = TEMPLATES / "re_training.yaml"

    def __init__(self, platform: Platform, endpoint: Any, settings: Settings, features: str | Path, topic: str = ""):
        super().__init__(endpoint, platform.warehouse, settings)
        self._platform, self._features, self._topic = platform, features, topic
        self._plan: Plan | None = None
        self._tries = 0
        self._policies: dict[str, ServedPolicy] = {}

    def retrain(self, now: datetime, least_new: int | None = None) -> Verdict | Run | None:
        """See `Core.retrain`; a run that failed is started again while it has tries left."""
        pipelines, self._since = self._platform.pipelines, None
        if pipelines.running(PIPELINE) is not None:
            return None
        if (plan := self._plan) and pipelines.status(plan.name).state == "failed":
            if self._tries < _TRIES:
                self._tries += 1
                return self._start(plan)
            self._since = plan.end
        return super().retrain(now, least_new)

    def serving(self) -> Model | None:
        """See `Core.serving`."""
        return serving_model(self._platform)

    def policy(self, version: str) -> ServedPolicy | None:
        """See `Core.policy`."""
        if version not in self._policies:
            with suppress(ValueError):
                self._policies[version] = load(f"{models_uri(self._platform.config)}/{version}/{POLICY}")
        return self._policies.get(version)

    def _execute(self, plan, now):
        run = self._start(plan)
        self._plan, self._tries = plan, 1  # not before it runs: else it has no status
        return run

    def _start(self, plan):
        parameters = re_training_parameters(self._platform.config, self.settings, self._features, plan, self._topic)
        return self._platform.pipelines.run(self.template, plan.name, parameters)


def due(
    warehouse: Warehouse,
    serving: Model,
    rule: Join,
    now: datetime,
    least_new: int,
    overlap: float = OVERLAP,
    since: datetime | None = None,
    shares: dict[str, int] | None = None,
) -> Plan | None:
    """Plan a re-training if it is due; `span` has its window of time.

    It is due when at least `least_new` decisions are new since the last verdict on a candidate and since `since`, with
    a report or with the default, and no canary waits for a verdict, as the `shares` of the versions tell.
    """
    verdicts = warehouse.verdicts()
    experiment = find_experiment(shares or {}, verdicts)
    if experiment is not None and not experiment.promoted:
        return None
    start, end = span(warehouse, serving, rule, now, overlap)
    starts = [serving.until, *([] if since is None else [since])]
    judgements = verdicts[verdicts["kind"].isin(JUDGED)]
    starts += [] if judgements.empty else [judgements["time"].max().to_pydatetime() - timedelta(seconds=rule.window)]
    counts = warehouse.counts(max(starts), end, rule) if max(starts) < end else None
    new = 0 if counts is None else counts.joined + (0 if rule.default is None else counts.defaulted)
    if new < least_new:
        return None
    snapshot = warehouse.snapshot(start, end)
    digest = hashlib.blake2b(f"{start} {end} {snapshot}".encode(), digest_size=8).hexdigest()
    return Plan(f"{PIPELINE}-{digest}-{serving.version[:8]}", start, end, snapshot, serving.version, new)


def span(
    warehouse: Warehouse, serving: Model, rule: Join, now: datetime, overlap: float = OVERLAP
) -> tuple[datetime, datetime]:
    """Compute the window of time of a re-training: (start, end), datetimes in UTC.

    It ends a window before `now`, an aware datetime, or before the newest reward or decision that has been logged,
    whichever is older: where rewards are delayed, decisions wait for them instead of counting as unanswered; where
    decisions are delayed, the window does not skip them. It starts `overlap` seconds before the end of the data of the
    serving model, to include decisions that were delivered late; no event is learnt twice. Decisions that are delivered
    later than that are never learnt.
    """
    state, start = warehouse.state(), serving.until - timedelta(seconds=overlap)
    newest = [state[name]["newest"] or start for name in ("interactions", "rewards")]
    end = min(now, *newest) - timedelta(seconds=rule.window)
    return start, max(start, end.astimezone(UTC))


def plan_now(platform: Platform, rule: Join) -> tuple[datetime, datetime, str]:
    """Return (start, end, version that serves) of a re-training that a schedule started; PlatformError for none."""
    serving = serving_model(platform)
    if serving is None:
        raise PlatformError("nothing serves yet that a re-training could go on from: run the start-up pipeline first")
    return (*span(platform.warehouse, serving, rule, datetime.now(UTC)), serving.version)


def logger_of(topic: str, full_name: str) -> Function:
    """Return the `Function` that logs a topic, given the full name of the topic."""
    return Function(LOGGERS[topic], FUNCTIONS / "logger", LOGGERS[topic].replace("-", "_"), full_name)


def start_up_parameters(
    config: Config, settings: Settings, log: str | Path, features: str | Path, topic: str = ""
) -> dict:
    """Return the parameters of the start-up pipeline, dict from input to value; see `re_training_parameters`.

    The directory or gs:// URI `log` is as `loop.ingest.write_log` writes it, and some windows old, so that the rewards
    are there.
    """
    return _learning(config, settings, features, topic) | {"log": str(log)}


def re_training_parameters(
    config: Config, settings: Settings, features: str | Path, plan: Plan | None = None, topic: str = ""
) -> dict:
    """Return the parameters of the re-training pipeline, dict from input to value.

    The directory or gs:// URI `features` has the `Features` of the policies, and perhaps `titles.json`. Without a plan
    the run makes one when it begins, as those of a schedule of Vertex AI do. `topic` is the full name of the topic
    where the endpoint is to log; empty for where it does.
    """
    parameters = {"gate": asdict(settings.gate), "canary": settings.guardrail.canary}
    if plan:
        parameters |= {"start": plan.start.isoformat(), "end": plan.end.isoformat()}
        parameters |= {"serving": plan.serving, "snapshot": plan.snapshot}
    return _learning(config, settings, features, topic) | parameters


def _learning(config, settings, features, topic):
    values = asdict(settings)
    values = {name: values[name] for name in ("join", "holdout", "agent", "exploration")}
    return {"config": config_parameter(config), "features": str(features), **values, "topic": topic}
