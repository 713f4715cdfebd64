"""A loop in the memory of one process: its endpoint, its policies, and its learning."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbandits.data.features import Features
from recbandits.exploration import Exploration, invert_cdf
from recbandits.loop.canary import deploy, serving_version
from recbandits.loop.core import OVERLAP, Core
from recbandits.loop.gate import Judgement, judge_log
from recbandits.loop.ingest import are_held_out, log_of
from recbandits.loop.settings import Settings
from recbandits.platforms.endpoints import Endpoint, with_version
from recbandits.platforms.warehouse import Warehouse
from recbandits.records import Log, Verdict
from recbandits.serving.scorer import Scorer
from recbandits.serving.served import ServedPolicy


class MemoryEndpoint(Endpoint):
    """An endpoint of `ServedPolicy`s in this process, with the methods that the loop calls."""

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

        There are n user ids, None for a visitor without one, who gets any version, by the shares; raw columns of n
        requests; ids of candidates [n, k]; and uniform draws, float [n] in [0, 1).

        Returns:
          (versions object [n], probabilities float [n, k], actions int [n]).
        """
        keys = [draw if user is None else user for user, draw in zip(user_ids, draws, strict=True)]
        version_of = {key: self._release.version(key) for key in set(keys)}
        versions = np.array([version_of[key] for key in keys], dtype=object)
        probabilities = np.empty(candidates.shape)
        for version in set(version_of.values()):
            rows, policy = versions == version, self.policies[version]
            scores = policy.scores(context[rows], candidates[rows])
            probabilities[rows] = policy.exploration.probabilities(scores)
        return versions, probabilities, invert_cdf(probabilities, draws)


class MemoryModel(NamedTuple):
    """The version of a policy, the policy, the agent that learns on, and the end of its data, aware datetime."""

    version: str
    policy: ServedPolicy
    agent: Any
    until: datetime


class MemoryCore(Core):
    """A loop that learns, judges and deploys in this process, at once.

    Its policies read the `Features`; `models` is a dict from version to `MemoryModel`.
    """

    def __init__(self, warehouse: Warehouse, features: Features, settings: Settings, overlap: float = OVERLAP):
        super().__init__(MemoryEndpoint(), warehouse, settings, overlap)
        self._features = features
        self.models: dict[str, MemoryModel] = {}

    def serving(self) -> MemoryModel | None:
        """See `Core.serving`."""
        return self.models.get(serving_version(self.endpoint) or "")

    def policy(self, version: str) -> ServedPolicy | None:
        """See `Core.policy`."""
        return self.models[version].policy if version in self.models else None

    def train(
        self, start: datetime, end: datetime, change: Callable[[Log], Log] | None = None
    ) -> tuple[MemoryModel, Log]:
        """Train on decisions of a window of time, between aware datetimes, going on from what serves.

        The learner gets the `Log` that the function `change` makes of its own. Returns the candidate, a `MemoryModel`,
        and the `Log` of the held-out decisions.
        """
        import tensorflow as tf

        from recbandits.data.examples import make_examples
        from recbandits.loop.train import learn, learner

        log = log_of(self.warehouse.decisions(start, end, self.settings.join))
        held_out = are_held_out(log.event_id, self.settings.holdout)
        agent = learner(self._features, log.mask.shape[1], self.settings.agent)
        if (parent := self.serving()) is not None:
            for variable, value in zip(agent.model.variables, parent.agent.model.variables, strict=True):
                variable.assign(value)
            agent.learned_events.assign(parent.agent.learned_events)
        training, eager = log.take(np.flatnonzero(~held_out)), tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)  # tracing a graph for a single batch takes longer, for the same bits
        try:
            learn(agent, make_examples(training if change is None else change(training), self._features))
        finally:
            tf.config.run_functions_eagerly(eager)
        policy = serve_in_memory(agent.model.scorer(), self._features, self.settings.exploration)
        return MemoryModel(policy.version, policy, agent, end), log.take(np.flatnonzero(held_out))

    def judge(self, candidate: MemoryModel, held_out: Log) -> Judgement:
        """Return the `Judgement` of a `MemoryModel` against what serves."""
        if (serving := self.serving()) is None:
            raise ValueError("a candidate is judged against what serves, and nothing serves yet")
        return judge_log(held_out, candidate.policy, serving.policy, self.settings.gate)

    def deploy(self, candidate: MemoryModel, judgement: Judgement | None, now: datetime) -> Verdict:
        """Deploy a `MemoryModel` if it passed the gate; write the `Verdict` to the warehouse and return it."""
        expected, share = serving_version(self.endpoint), self.settings.guardrail.canary
        version, policy, _, until = candidate
        verdict = deploy(self.endpoint, policy, version, judgement, expected, share, now, until)
        self.models.setdefault(version, candidate)
        self.warehouse.write([verdict])
        return verdict

    def _execute(self, plan, now):
        end = now - timedelta(seconds=self.settings.join.window)  # a plan waits for late events, there are none here
        candidate, held_out = self.train(plan.start, end)
        return self.deploy(candidate, self.judge(candidate, held_out), now)


def serve_in_memory(scorer: Scorer, features: Features, exploration: Exploration) -> ServedPolicy:
    """Make a `ServedPolicy` of a linear `Scorer`, features and exploration; its version is a digest of the scorer."""
    content = b"".join(np.ascontiguousarray(part).tobytes() for part in scorer.head[0])
    version = blake2b(content + repr(exploration).encode(), digest_size=8).hexdigest()
    settings = {"version": version, "digest": version, "exploration": asdict(exploration), "summary": None}
    return ServedPolicy(None, settings | {"titles": {}, "arms": None}, scorer, features)
