"""An endpoint, policies and a learner that never leave the memory of one process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbandits.data.features import Features
from recbandits.exploration import Exploration, invert_cdf
from recbandits.loop.canary import deploy_policy, serving_version
from recbandits.loop.gate import Judgement, judge_log
from recbandits.loop.ingest import are_held_out, log_of
from recbandits.loop.settings import Settings
from recbandits.loop.trigger import Plan
from recbandits.platforms.endpoints import Endpoint, with_version
from recbandits.platforms.warehouse import Warehouse
from recbandits.records import Log, Verdict
from recbandits.serving.scorer import Scorer
from recbandits.serving.served import ServedPolicy


class MemoryEndpoint(Endpoint):
    """An endpoint in this process, with the methods of `platforms.endpoints.Endpoint` that the loop calls.

    Policies are `ServedPolicy`.
    """

    name = "memory"

    def __init__(self):
        self.policies, self._release = {}, None

    def deploy(self, policy: ServedPolicy, traffic_percentage: int = 100) -> str:
        """See `Endpoint.deploy`."""
        self._release = with_version(self._release, policy.version, traffic_percentage)
        self.policies[policy.version] = policy
        return policy.version

    def _read(self):
        return self._release, None

    def _write(self, release, _):
        self._release = release

    def _remove(self, version, release, _):
        self._release = release
        del self.policies[version]

    def decide(
        self, user_ids: np.ndarray, context: pd.DataFrame, candidates: np.ndarray, draws: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """Decide for visitors, each by the version that the traffic split gives them.

        Args:
          user_ids: text [n]; None for a visitor without an id, who gets any version, by the shares.
          context: DataFrame [n] of raw columns.
          candidates: ids [n, k].
          draws: uniform draws, float [n] in [0, 1).

        Returns:
          (versions object [n], probabilities float [n, k], actions int [n]).
        """
        keys = [draw if user is None else user for user, draw in zip(user_ids, draws, strict=True)]
        version_of = {key: self._release.version(key) for key in set(keys)}
        versions = np.array([version_of[key] for key in keys], dtype=object)
        probabilities = np.empty(candidates.shape)
        for version in set(version_of.values()):
            rows = versions == version
            policy = self.policies[version]
            scores = policy.scores(context[rows], candidates[rows])
            probabilities[rows] = policy.exploration.probabilities(scores)
        return versions, probabilities, invert_cdf(probabilities, draws)


class MemoryModel(NamedTuple):
    """A model in memory.

    Attributes:
      policy: `ServedPolicy`
      agent: that learns on.
      until: aware datetime, end of its data.
    """

    policy: ServedPolicy
    agent: object
    until: datetime

    @property
    def version(self) -> str:
        """Of the policy."""
        return self.policy.version


class MemoryLearner:
    """Learns, judges and deploys in this process, at once; see `core.PipelineLearner`.

    Args:
      features: `Features` of the policies.
      settings: `Settings`
      endpoint: `MemoryEndpoint`
      warehouse: `Warehouse`

    Attributes:
      models: dict from version to `MemoryModel`.
    """

    busy, abandoned = False, None

    def __init__(self, features: Features, settings: Settings, endpoint: MemoryEndpoint, warehouse: Warehouse):
        self._features, self._settings, self._endpoint, self._warehouse = (features, settings, endpoint, warehouse)
        self.models: dict[str, MemoryModel] = {}

    def serving(self) -> MemoryModel | None:
        """Return the `MemoryModel` that serves; None where none does."""
        return self.models.get(serving_version(self._endpoint) or "")

    def policy(self, version: str) -> ServedPolicy | None:
        """Return the `ServedPolicy` of a version; None where there is none."""
        return self.models[version].policy if version in self.models else None

    def retry(self) -> None:
        """Return None: a failure has raised its error."""

    def retrain(self, plan: Plan, now: datetime) -> Verdict:
        """Learn, judge and deploy by a `Plan`; return the `Verdict`."""
        end = now - timedelta(seconds=self._settings.join.window)  # a plan waits for late events, there are none here
        candidate, held_out = self.learn(plan.start, end)
        return self.deploy(candidate, self.judge(candidate, held_out), now)

    def learn(
        self, start: datetime, end: datetime, change: Callable[[Log], Log] | None = None
    ) -> tuple[MemoryModel, Log]:
        """Train on decisions of a window of time, going on from what serves.

        Args:
          start: aware datetime.
          end: aware datetime.
          change: function from the `Log` that the learner should get to the one that it gets; None for none.

        Returns:
          (`MemoryModel`, the candidate; `Log` of the held-out decisions).
        """
        from recbandits.data.examples import make_examples
        from recbandits.loop.train import learn, learner

        parent, rule = self.serving(), self._settings.join
        log = log_of(self._warehouse.decisions(start, end, **vars(rule)))
        held_out = are_held_out(log.event_id, self._settings.holdout)
        agent = learner(self._features, log.mask.shape[1], self._settings.agent)
        if parent is not None:
            copy_parameters(parent.agent, agent)
        training = log.take(np.flatnonzero(~held_out))
        with run_eagerly():
            learn(agent, make_examples(training if change is None else change(training), self._features))
        policy = serve_in_memory(agent.model.scorer(), self._features, self._settings.exploration)
        return MemoryModel(policy, agent, end), log.take(np.flatnonzero(held_out))

    def judge(self, candidate: MemoryModel, held_out: Log) -> Judgement:
        """Return the `Judgement` of a `MemoryModel` against what serves."""
        if (serving := self.serving()) is None:
            raise ValueError("a candidate is judged against what serves, and nothing serves yet")
        return judge_log(held_out, candidate.policy, serving.policy, self._settings.gate)

    def deploy(self, candidate: MemoryModel, judgement: Judgement | None, now: datetime) -> Verdict:
        """Deploy a `MemoryModel` if it passed the gate; write the `Verdict` to the warehouse and return it."""
        options: dict = {"canary": self._settings.guardrail.canary, "now": now, "until": candidate.until}
        policy, expected = candidate.policy, serving_version(self._endpoint)
        verdict = deploy_policy(self._endpoint, policy, candidate.version, judgement, expected, **options)
        self.models.setdefault(candidate.version, candidate)
        self._warehouse.write([verdict])
        return verdict


def serve_in_memory(scorer: Scorer, features: Features, exploration: Exploration) -> ServedPolicy:
    """Make a `ServedPolicy` of a linear `Scorer`, features and exploration; its version is a digest of the scorer."""
    content = b"".join(np.ascontiguousarray(part).tobytes() for part in scorer.head[0])
    version = blake2b(content + repr(exploration).encode(), digest_size=8).hexdigest()
    settings = {"version": version, "digest": version, "exploration": asdict(exploration), "summary": None}
    return ServedPolicy(None, settings | {"titles": {}, "arms": None}, scorer, features)


def copy_parameters(source: Any, target: Any) -> None:
    """Give one agent the parameters and the learned events of another."""
    for variable, value in zip(target.model.variables, source.model.variables, strict=True):
        variable.assign(value)
    target.learned_events.assign(source.learned_events)


@contextmanager
def run_eagerly() -> Iterator[None]:
    """Have TensorFlow compute without graphs: tracing one for a single batch takes longer, for the same bits."""
    import tensorflow as tf

    previous = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(previous)
