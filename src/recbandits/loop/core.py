"""The core of the loop: guard the serving policy, count new decisions, learn, judge and deploy.

It knows no clock and starts no process: `rounds` drives it by a virtual clock and learns in memory, `live` and a Cloud
Function drive it by the time of day and learn by a pipeline.
"""

from abc import ABC, abstractmethod
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from recbandits.loop.guardrail import guard
from recbandits.loop.models import POLICY, Model
from recbandits.loop.settings import Settings
from recbandits.loop.steps import TEMPLATES, models_uri, re_training_parameters, serving_model
from recbandits.loop.trigger import OVERLAP, PIPELINE, Plan, due
from recbandits.platforms.pipelines import Run
from recbandits.platforms.protocol import Platform
from recbandits.platforms.warehouse import Warehouse
from recbandits.records import Verdict
from recbandits.serving.policy import load
from recbandits.serving.served import ServedPolicy

_TRIES = 3  # of one run that fails


class Core(ABC):
    """One loop, on any endpoint (`platforms.endpoints.Endpoint`) and any warehouse; `trigger.span` has the overlap."""

    _since: datetime | None = None  # decisions before it do not count as new

    def __init__(self, endpoint: Any, warehouse: Warehouse, settings: Settings, overlap: float = OVERLAP):
        self.endpoint, self.warehouse, self.settings, self._overlap = endpoint, warehouse, settings, overlap

    def tick(self, now: datetime, least_new: int | None = None) -> list[Verdict | Run]:
        """Do what is due at a time, an aware datetime: guard, then re-train if `least_new` decisions are new.

        None is the number of the settings. The list has the guardrail's `Verdict`, and that on a candidate or the `Run`
        that will give one. PlatformError says that the warehouse or the endpoint does not answer.
        """
        results = [self.guard(now), self.retrain(now, least_new)]
        return [result for result in results if result is not None]

    def guard(self, now: datetime) -> Verdict | None:
        """Apply the guardrail; see `guardrail.guard`."""
        join, guardrail = self.settings.join, self.settings.guardrail
        return guard(self.endpoint, self.warehouse, now, join, guardrail, self.policy)

    def retrain(self, now: datetime, least_new: int | None = None) -> Verdict | Run | None:
        """Re-train if enough is new, no canary waits for a verdict and no training runs; see `tick`."""
        if (serving := self.serving()) is None:
            return None
        join, least_new = self.settings.join, self.settings.decisions if least_new is None else least_new
        shares = self.endpoint.traffic_split
        plan = due(self.warehouse, serving, join, now, least_new, self._overlap, self._since, shares)
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
    `steps.re_training_parameters`.
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
