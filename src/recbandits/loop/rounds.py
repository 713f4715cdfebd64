"""The loop in the memory of one process, on a virtual clock: no servers, no waiting, and the core of the real one.

A round is one re-training. Between two, users visit, are served by what has traffic, and report later. So a run of n
rounds has n + 1 spans of traffic, and row r of what `run_rounds` returns is of the span that follows re-training r.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbandits.data.features import Features
from recbandits.evaluation.intervals import Interval, group_intervals, mean_interval
from recbandits.exploration import Exploration, invert_cdf
from recbandits.loop.canary import deploy, serving_version
from recbandits.loop.core import OVERLAP, Core
from recbandits.loop.gate import Judgement, judge_log
from recbandits.loop.ingest import are_held_out, log_of
from recbandits.loop.settings import Settings
from recbandits.loop.simulate import UNIFORM
from recbandits.loop.simulated_users import SimulatedUsers
from recbandits.platforms.endpoints import Endpoint, with_version
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.pipelines import Run
from recbandits.platforms.warehouse import Warehouse
from recbandits.records import Log, Verdict
from recbandits.serving.scorer import Scorer
from recbandits.serving.served import ServedPolicy

_START = datetime(2026, 1, 1, tzinfo=UTC)
_LOOKS, _VISITS = (4, 4000)  # of the guardrail in a span of traffic; visits on which all policies are valued
_VISITORS, _ARMS, _RATINGS = range(3)  # streams of random numbers, so that all learners meet the same
LEARNERS = ("learning", "forgetting", "frozen")
_EAGER = threading.Lock()  # loops may run in several threads, and TensorFlow has one setting for all of them


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
        """Decide for n visitors, each by the version that the traffic split gives to their id, or to the draw for None.

        Candidates are ids [n, k], draws float [n] in [0, 1). It returns (versions object [n], probabilities float
        [n, k], actions int [n]).
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
    """A model in memory, with the fields of `models.Model` that the core needs."""

    version: str
    policy: ServedPolicy
    agent: Any  # which learns on
    until: datetime  # end of its data
    held_out: Log  # decisions that it has not learnt from


class MemoryCore(Core):
    """A loop that learns, judges and deploys in this process, at once; `models` is a dict from version to model."""

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

    def train(self, start: datetime, end: datetime, change: Callable | None = None) -> MemoryModel:
        """Train on decisions of a window of time, as `change` makes them of those logged, going on from what serves."""
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
        training = log.take(np.flatnonzero(~held_out))
        with _EAGER:
            eager = tf.config.functions_run_eagerly()
            tf.config.run_functions_eagerly(True)  # tracing a graph for a single batch takes longer, for the same bits
            try:
                learn(agent, make_examples(training if change is None else change(training), self._features))
            finally:
                tf.config.run_functions_eagerly(eager)
        policy = serve_in_memory(agent.model.scorer(), self._features, self.settings.exploration)
        return MemoryModel(policy.version, policy, agent, end, log.take(np.flatnonzero(held_out)))

    def judge(self, candidate: MemoryModel) -> Judgement:
        """Judge a candidate against what serves; ValueError where nothing does."""
        if (serving := self.serving()) is None:
            raise ValueError("a candidate is judged against what serves, and nothing serves yet")
        return judge_log(candidate.held_out, candidate.policy, serving.policy, self.settings.gate)

    def deploy(self, candidate: MemoryModel, judgement: Judgement | None, now: datetime) -> Verdict:
        """Deploy a candidate if it passed the gate; return the `Verdict`, which is in the warehouse."""
        expected, share = serving_version(self.endpoint), self.settings.guardrail.canary
        release = candidate.policy, candidate.version, judgement, expected, share, now, candidate.until
        verdict = deploy(self.endpoint, *release)
        self.models.setdefault(candidate.version, candidate)
        self.warehouse.write([verdict])
        return verdict

    def _execute(self, plan, now):
        end = now - timedelta(seconds=self.settings.join.window)  # a plan waits for late events, there are none here
        candidate = self.train(plan.start, end)
        return self.deploy(candidate, self.judge(candidate), now)


class Loop(MemoryCore):
    """One learner's loop on a virtual clock, `now`.

    The seed is of everything random; learners with one seed meet the same visits and uniform draws.
    """

    def __init__(self, users: SimulatedUsers, settings: Settings, seed: int = 0):
        # Nothing is delivered late here, so that no decision has to be read again.
        super().__init__(LocalWarehouse(), users.features, settings, overlap=0.0)
        self.users, self._seed, self.now, self._span = users, seed, _START, 0

    def begin(self) -> Verdict:
        """Log decisions of a uniform random policy, and serve all users by the policy that learnt from them."""
        users, items, draws = self._visits(self.settings.first)
        uniform = np.full(items.shape, 1 / items.shape[1])
        decisions = (np.full(len(users), UNIFORM, dtype=object), uniform, invert_cdf(uniform, draws))
        self._log(users, items, decisions, 0.0, self._rng(_RATINGS))
        self.now += timedelta(seconds=self.settings.join.window)
        return self.release(self.learn(), None)

    def serve(self, drift: float = 0.0) -> list[Verdict]:
        """Serve and log a span of traffic with a preference drift in [0, 1]; return the verdicts of the guardrail."""
        visits, rng, verdicts = self._visits(self.settings.decisions), self._rng(_RATINGS), []
        for rows in np.array_split(np.arange(self.settings.decisions), _LOOKS):
            users, items, draws = (part[rows] for part in visits)
            requests = (self.users.user_ids[users], self.users.contexts(users), self.users.candidate_ids(items))
            self._log(users, items, self.endpoint.decide(*requests, draws), drift, rng)
            verdicts.append(self.guard(self.now))
        self.now += timedelta(seconds=self.settings.join.window)  # the window of the last decision closes
        verdicts.append(self.guard(self.now))
        return [verdict for verdict in verdicts if verdict]

    def retrain_now(self) -> Verdict | Run | None:
        """Re-train on what is new, as the core does; return the `Verdict`, or None while a canary waits for its own."""
        self.now += timedelta(seconds=1)  # after the verdicts of the guardrail
        return self.retrain(self.now, least_new=1)

    def learn(self, change: Callable | None = None) -> MemoryModel:
        """Train on all that was logged since the data of the serving model ended; see `train`."""
        serving = self.serving()
        return self.train(_START if serving is None else serving.until, self.now, change)

    def release(self, candidate: MemoryModel, judgement: Judgement | None) -> Verdict:
        """See `MemoryCore.deploy`."""
        self.now += timedelta(seconds=1)  # after the verdicts of the guardrail
        return self.deploy(candidate, judgement, self.now)

    def _visits(self, n):
        self._span += 1
        return *self.users.visits(n, self._rng(_VISITORS), self.settings.candidates), self._rng(_ARMS).random(n)

    def _rng(self, stream):
        return np.random.default_rng([self._seed, self._span, stream])

    def _log(self, users, items, decisions, drift, rng):
        """Write decisions and reports, and let their time pass."""
        versions, probabilities, action = decisions
        row = np.arange(len(users))
        times = [self.now + timedelta(seconds=number / self.settings.rate) for number in row.tolist()]
        names = [f"{self._seed}/{time:%d %H:%M:%S.%f}" for time in times]
        propensity = probabilities[row, action]
        records = self.users.interactions((users, items), names, times, versions, action, propensity)
        ratings = self.users.rate(self.users.expected(users, items, drift)[row, action], rng)
        self.warehouse.write(records + self.users.reports(names, times, ratings, rng))
        self.now += timedelta(seconds=len(users) / self.settings.rate)


def serve_in_memory(scorer: Scorer, features: Features, exploration: Exploration) -> ServedPolicy:
    """Make a `ServedPolicy` of a linear `Scorer`, features and exploration; its version is a digest of the scorer."""
    content = b"".join(np.ascontiguousarray(part).tobytes() for part in scorer.head[0])
    version = blake2b(content + repr(exploration).encode(), digest_size=8).hexdigest()
    settings = {"version": version, "digest": version, "exploration": asdict(exploration), "summary": None}
    return ServedPolicy(None, settings | {"titles": {}, "arms": None}, scorer, features)


def run_rounds(
    users: SimulatedUsers,
    drift: Sequence[float] | np.ndarray,
    settings: Settings,
    seeds: Sequence[int] = (0, 1, 2),
    learners: Sequence[str] = LEARNERS,
) -> pd.DataFrame:
    """Run the loop with several learners, which meet the same visits and uniform draws.

    A preference drift in [0, 1] is given for each span of traffic, of which there is one more than re-trainings. The
    learner "learning" remembers everything, "forgetting" gives the past less and less weight, and "frozen" keeps the
    first policy.

    Returns:
      DataFrame, one row for each seed, learner and round (0 for the traffic before the first re-training): drift; value
      (expected reward of the policy that serves at the end of the span, on 4,000 visits that are the same for all);
      oracle and uniform (on those visits); version that serves.
    """
    visits = users.visits(_VISITS, np.random.default_rng(settings.seed), settings.candidates)
    return pd.DataFrame(
        {"seed": seed, "learner": learner, **row}
        for seed in seeds
        for learner in learners
        for row in _run(users, settings, seed, learner, drift, visits)
    )


def _run(users, settings, seed, learner, drift, visits):
    gamma = settings.forgetting if learner == "forgetting" else settings.agent.gamma
    loop = Loop(users, replace(settings, agent=replace(settings.agent, gamma=gamma)), seed)
    loop.begin()
    for number, degree in enumerate(drift):
        if number and learner != "frozen":
            loop.retrain_now()
        if learner != "frozen":  # no traffic changes what that one serves
            loop.serve(degree)
        serving = loop.serving()
        yield {
            "round": number,
            "drift": degree,
            "value": users.value(serving.policy, visits, degree).mean(),
            "oracle": users.oracle_value(visits, degree).mean(),
            "uniform": users.uniform_value(visits, degree).mean(),
            "version": serving.version,
        }


def by_learner(runs: pd.DataFrame) -> pd.DataFrame:
    """Average expected rewards of `run_rounds` over seeds, with 95 % intervals (Student's t), for `plots.loop.rewards`.

    Columns are learner, round, drift, value, low and high, which are NaN with one seed; learners include the oracle and
    the uniform policy.
    """
    first = runs[runs["learner"] == runs["learner"].iloc[0]]
    columns = ["learner", "round", "drift", "value"]
    references = [first.assign(value=first[name], learner=name)[columns] for name in ("oracle", "uniform")]
    table = pd.concat([runs[columns], *references])
    return group_intervals(table.groupby(columns[:3], sort=False)["value"]).reset_index()


def gain(runs: pd.DataFrame, learner: str = "learning", against: str | None = None) -> Interval:
    """Estimate how much better the last served policy of a learner of `run_rounds` is than its first.

    With `against` it is compared with the last one of that learner. The 95 % interval is over seeds (Student's t).
    """
    values = runs.pivot(index="seed", columns=["learner", "round"], values="value")
    last = runs["round"].max()
    return mean_interval(values[learner, last] - (values[learner, 0] if against is None else values[against, last]))
