"""The core of the loop: guard the serving policy, count new decisions, learn, judge and deploy.

It knows no clock and starts no process: `rounds` drives it by a virtual clock with a learner in memory, `live` and a
Cloud Function by the time of day with a pipeline.
"""

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


class Core:
    """One loop, on any endpoint and any warehouse.

    Args:
      endpoint: `platforms.endpoints.Endpoint`
      warehouse: `Warehouse`
      settings: `Settings`
      learner: `memory.MemoryLearner` or `PipelineLearner`.
      overlap: seconds, as for `trigger.span`.
    """

    def __init__(self, endpoint: Any, warehouse: Warehouse, settings: Settings, learner: Any, overlap: float = OVERLAP):
        self._endpoint, self._warehouse, self._settings = endpoint, warehouse, settings
        self._learner, self._overlap = learner, overlap

    def tick(self, now: datetime, least_new: int | None = None) -> list[Verdict | Run]:
        """Do what is due at a time: guard, then re-train.

        Args:
          now: aware datetime.
          least_new: new decisions that are enough to re-train; None for those of the settings.

        Returns:
          List of the guardrail's `Verdict`, and of what the learner returned: a `Verdict`, or the `Run` that will give
          one. Empty where nothing was due.

        Raises:
          PlatformError: the warehouse or the endpoint does not answer; the next tick decides.
        """
        results = [self.guard(now), self.retrain(now, least_new)]
        return [result for result in results if result is not None]

    def guard(self, now: datetime) -> Verdict | None:
        """Apply the guardrail; see `guardrail.guard`."""
        join, guardrail = self._settings.join, self._settings.guardrail
        return guard(self._endpoint, self._warehouse, now, join, guardrail, self._learner.policy)

    def retrain(self, now: datetime, least_new: int | None = None) -> Verdict | Run | None:
        """Re-train if enough is new, no canary waits for a verdict and no training runs; see `tick`."""
        learner, settings = self._learner, self._settings
        if learner.busy:
            return None
        if (run := learner.retry()) is not None:
            return run
        if (serving := learner.serving()) is None:
            return None
        least_new = settings.decisions if least_new is None else least_new
        options = {"overlap": self._overlap, "since": learner.abandoned, "shares": self._endpoint.traffic_split}
        plan = due(self._warehouse, serving, settings.join, now, least_new, **options)
        return None if plan is None else learner.retrain(plan, now)


class PipelineLearner:
    """Learns, judges and deploys by the re-training pipeline of a platform, one run at a time.

    A run that failed three times is abandoned until as much again is new.

    Args:
      platform: `Platform`
      settings: `Settings`
      features: directory or gs:// URI with the `Features` of the policies.
      topic: full name of the topic where the endpoint logs; empty for where it does.
      template: the compiled pipeline.
    """

    def __init__(
        self,
        platform: Platform,
        settings: Settings,
        features: str | Path,
        topic: str = "",
        template: Path = TEMPLATES / "re_training.yaml",
    ):
        self._platform, self._settings, self._template = platform, settings, template
        self._features, self._topic = features, topic
        self._plan: Plan | None = None
        self._parameters: dict | None = None
        self._policies: dict[str, ServedPolicy] = {}
        self._tries = 0

    @property
    def busy(self) -> bool:
        """True while a run goes on."""
        return self._platform.pipelines.running(PIPELINE) is not None

    @property
    def abandoned(self) -> datetime | None:
        """End of the data of the last run if that failed, aware datetime; None if it did not."""
        return self._plan.end if self._plan and self._has_failed() else None

    def serving(self) -> Model | None:
        """Return the `Model` that serves; None where none does."""
        return serving_model(self._platform)

    def policy(self, version: str) -> ServedPolicy | None:
        """Return the `ServedPolicy` of a version; None where it cannot be loaded."""
        if version not in self._policies:
            with suppress(ValueError):
                self._policies[version] = load(f"{models_uri(self._platform.config)}/{version}/{POLICY}")
        return self._policies.get(version)

    def retry(self) -> Run | None:
        """Start the last run again if it failed and has tries left; return the `Run`, or None."""
        if self._plan is None or not self._has_failed() or self._tries == _TRIES:
            return None
        self._tries += 1
        return self._platform.pipelines.run(self._template, self._plan.name, self._parameters)

    def retrain(self, plan: Plan, now: datetime) -> Run:
        """Start the run of a `Plan`; return the `Run`."""
        parameters = re_training_parameters(self._platform.config, self._settings, self._features, plan, self._topic)
        run = self._platform.pipelines.run(self._template, plan.name, parameters)
        self._plan, self._parameters, self._tries = (plan, parameters, 1)  # not before it runs: else it has no status
        return run

    def _has_failed(self):
        return self._plan is not None and self._platform.pipelines.status(self._plan.name).state == "failed"
