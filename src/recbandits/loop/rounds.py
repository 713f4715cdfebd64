"""The loop in one process on a virtual clock: the same warehouse, learner, gate and guardrail, no servers, no waiting.

A round is one re-training. Between two, visitors come, are served by whatever has traffic, and report later; so a run
of n rounds has n + 1 spans of traffic, and row r of what `run_rounds` gives is of the span that follows re-training r.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbandits.evaluation.intervals import group_intervals, mean_interval
from recbandits.exploration import invert_cdf
from recbandits.loop.canary import guard, place, serving_version
from recbandits.loop.gate import judge_log
from recbandits.loop.generate import UNIFORM
from recbandits.loop.ingest import are_held_out, log_of
from recbandits.loop.memory import MemoryEndpoint, eagerly, give, in_memory
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS
from recbandits.serving.served import ServedPolicy

_START = datetime(2026, 1, 1, tzinfo=UTC)
_LOOKS, _VISITS = 4, 4000  # of the guardrail in a span of traffic; visits on which all policies are valued
_VISITORS, _ARMS, _RATINGS = range(3)  # streams of random numbers, so that all learners meet the same
LEARNERS = ("learning", "forgetting", "frozen")


class Served(NamedTuple):
    """A model in memory.

    Attributes:
      policy: `ServedPolicy`
      agent: that goes on learning.
      until: datetime, end of what it was given.
    """

    policy: ServedPolicy
    agent: object
    until: datetime


class Loop:
    """One learner's life.

    Args:
      world: `SimulatedUsers`
      settings: `Settings`; None for the defaults.
      seed: of everything random; learners with one seed meet the same visitors and luck.

    Attributes:
      endpoint: `MemoryEndpoint`
      warehouse: `LocalWarehouse`
      now: datetime of the virtual clock.
      models: dict from version to `Served`.
    """

    def __init__(self, world, settings=None, seed=0):
        from recbandits.platforms.local.warehouse import LocalWarehouse

        self.world, self.settings, self._seed = world, settings or Settings(STARS), seed
        self.endpoint, self.warehouse, self.models = MemoryEndpoint(), LocalWarehouse(), {}
        self.now, self._features, self._span = _START, world.features, 0

    @property
    def serving(self):
        """`Served` with the largest share of the traffic."""
        return self.models[serving_version(self.endpoint)]

    def begin(self):
        """Collect the first interactions by a uniform policy, learn from them, and serve everybody; the `Verdict`."""
        users, items, luck = self._visits(self.settings.first)
        even = np.full(items.shape, 1 / items.shape[1])
        decided = np.full(len(users), UNIFORM, dtype=object), even, invert_cdf(even, luck)
        self._log(users, items, decided, 0.0, self._rng(_RATINGS))
        self.now += timedelta(seconds=self.settings.join.window)
        return self.release(self.learn()[0], None)

    def serve(self, drift=0.0, decider=None, logged=True):
        """A span of traffic, during which and at the end of which the guardrail looks.

        Args:
          drift: how far taste has turned, in [0, 1].
          decider: whose `decide` is asked in place of the endpoint's: one in which something broke. None for none.
          logged: False where nobody will read the log.

        Returns:
          (mean true reward of the decisions, list of the guardrail's `Verdict`s).
        """
        visits, rng = self._visits(self.settings.decisions), self._rng(_RATINGS)
        earned, verdicts = [], []
        for rows in np.array_split(np.arange(self.settings.decisions), _LOOKS):
            users, items, luck = (part[rows] for part in visits)
            asked = self.world.user_ids[users], self.world.contexts(users), self.world.candidate_ids(items)
            decided = (decider or self.endpoint).decide(*asked, luck)
            earned.append((decided[1] * self.world.expected(users, items, drift)).sum(axis=1))
            if logged:
                self._log(users, items, decided, drift, rng)
                verdicts.append(self._guard())
        self.now += timedelta(seconds=self.settings.join.window)  # the last decision's closes
        verdicts.append(self._guard())
        return float(np.concatenate(earned).mean()), [verdict for verdict in verdicts if verdict]

    def learn(self, change=None):
        """Train on what was logged since the serving model's data ended.

        Args:
          change: function from the `Log` that the learner should get to the one that it gets; None for none.

        Returns:
          (`Served`, the candidate; `Log` of the held-out decisions).
        """
        from recbandits.data.examples import make_examples
        from recbandits.loop.train import learn, learner

        parent = self.models.get(serving_version(self.endpoint))
        start = _START if parent is None else parent.until
        rule = self.settings.join
        log = log_of(self.warehouse.decisions(start, self.now, **vars(rule)))
        held_out = are_held_out(log.event_id, self.settings.holdout)
        agent = learner(self._features, self.settings.candidates, self.settings.agent)
        if parent is not None:
            give(parent.agent, agent)
        seen = log.take(np.flatnonzero(~held_out))
        with eagerly():
            learn(agent, make_examples(seen if change is None else change(seen), self._features))
        policy = in_memory(agent.model.scorer(), self._features, self.settings.exploration)
        return Served(policy, agent, self.now), log.take(np.flatnonzero(held_out))

    def judge(self, candidate, held_out):
        """`Judgement` of a `Served` against what serves."""
        return judge_log(held_out, candidate.policy, self.serving.policy, self.settings.gate)

    def release(self, candidate, judgement):
        """Deploy a `Served` if the gate lets it pass; the `Verdict`, which is written down."""
        self.now += timedelta(seconds=1)  # after whatever the guardrail has said
        version, expected = candidate.policy.version, serving_version(self.endpoint)
        canary, until = self.settings.guardrail.canary, candidate.until
        verdict = place(self.endpoint, candidate.policy, version, judgement, expected, canary, self.now, until)
        self.models.setdefault(version, candidate)
        self.warehouse.write([verdict])
        return verdict

    def _visits(self, n):
        """The next span's visitors: users [n], items [n, k], luck [n] of what they are shown."""
        self._span += 1
        return *self.world.visits(n, self._rng(_VISITORS), self.settings.candidates), self._rng(_ARMS).random(n)

    def _rng(self, stream):
        return np.random.default_rng([self._seed, self._span, stream])

    def _log(self, users, items, decided, drift, rng):
        """Write decisions and reports, and let their time pass."""
        versions, probabilities, action = decided
        row = np.arange(len(users))
        times = [self.now + timedelta(seconds=number / self.settings.rate) for number in row.tolist()]
        names = [f"{self._seed}/{time:%d %H:%M:%S.%f}" for time in times]
        propensity = probabilities[row, action]
        records = self.world.interactions((users, items), names, times, versions, action, propensity)
        ratings = self.world.rate(self.world.expected(users, items, drift)[row, action], rng)
        self.warehouse.write(records + self.world.reports(names, times, ratings, rng))
        self.now += timedelta(seconds=len(users) / self.settings.rate)

    def _guard(self):
        policies = {version: model.policy for version, model in self.models.items()}.get
        return guard(self.endpoint, self.warehouse, self.now, self.settings.join, self.settings.guardrail, policies)


def poisoned(log):
    """The log with rewards turned round: 6 - reward, so that 5 stars are 1."""
    return replace(log, reward=6.0 - log.reward)


def run_rounds(world, rounds=5, settings=None, seeds=(0, 1, 2), learners=LEARNERS, drift=None, poison=()):
    """Run the loop with several learners, who meet the same visitors and the same luck.

    Args:
      world: `SimulatedUsers`
      rounds: number of re-trainings.
      settings: `Settings`; None for the defaults.
      seeds: of the runs.
      learners: some of `LEARNERS`: "learning" remembers everything, "forgetting" gives the past less and less weight,
        "frozen" goes on with the first policy.
      drift: how far taste has turned in each span of traffic, [rounds + 1] of [0, 1]; None for never.
      poison: rounds in which the learner is given `poisoned` rewards.

    Returns:
      DataFrame, one row a seed, learner and round (0 for the traffic before the first re-training): drift; value (true
      mean reward of the policy that serves at the end of the span, on `_VISITS` visits that are the same for all);
      earned (true mean reward of the decisions of the span); oracle and uniform (on those visits); decisions; version
      that serves; gate ("deployed" or "refused") with why, difference, low, high and effective_sample_size of the
      re-training before; guard (the guardrail's verdict in the span, or None).
    """
    settings = Settings(STARS) if settings is None else settings
    drift = np.zeros(rounds + 1) if drift is None else np.asarray(drift, float)
    if len(drift) != rounds + 1:
        raise ValueError(f"drift must be of {rounds + 1} spans of traffic, one more than rounds, got {len(drift)}")
    visits = world.visits(_VISITS, np.random.default_rng(settings.seed), settings.candidates)
    rows = []
    for seed in seeds:
        for learner in learners:
            rows += [
                {"seed": seed, "learner": learner, **row}
                for row in _life(world, settings, seed, learner, drift, poison, visits)
            ]
    return pd.DataFrame(rows)


def _life(world, settings, seed, learner, drift, poison, visits):
    """Rows of one run."""
    gamma = settings.forgetting if learner == "forgetting" else settings.agent.gamma
    loop = Loop(world, replace(settings, agent=replace(settings.agent, gamma=gamma)), seed)
    verdict = loop.begin()
    for number, turned in enumerate(drift):
        if number and learner != "frozen":
            candidate, held_out = loop.learn(poisoned if number in poison else None)
            verdict = loop.release(candidate, loop.judge(candidate, held_out))
        earned, watched = loop.serve(turned, logged=learner != "frozen")
        yield {
            "round": number,
            "drift": turned,
            "value": world.value(loop.serving.policy, visits, turned).mean(),
            "earned": earned,
            "oracle": world.oracle_value(visits, turned).mean(),
            "uniform": world.uniform_value(visits, turned).mean(),
            "decisions": settings.decisions,
            "version": loop.serving.policy.version,
            "gate": verdict.kind,
            **{name: getattr(verdict, name) for name in ("why", "difference", "low", "high", "effective_sample_size")},
            "guard": watched[-1].kind if watched else None,
        }


def by_learner(runs):
    """True values, means over seeds with 95 % intervals (Student's t), for `plots.loop.rewards`.

    Args:
      runs: DataFrame of `run_rounds`.

    Returns:
      DataFrame, one row a round and learner, oracle and uniform among them: round, drift, learner, value, low and high,
      which are NaN with one seed.
    """
    alone = runs[runs["learner"] == runs["learner"].iloc[0]]
    columns = ["learner", "round", "drift", "value"]
    references = [alone.assign(value=alone[name], learner=name)[columns] for name in ("oracle", "uniform")]
    return _over_seeds(pd.concat([runs[columns], *references]), columns[:3])


def regret_by_learner(runs):
    """Stars lost so far against the best candidate of every visitor, for `plots.loop.regret`.

    Args:
      runs: DataFrame of `run_rounds`.

    Returns:
      DataFrame, one row a learner and span, "uniform" among the learners: learner, decisions (so far), value, low and
      high, means over seeds with 95 % intervals (Student's t).
    """
    alone = runs[runs["learner"] == runs["learner"].iloc[0]]
    runs = pd.concat([runs, alone.assign(learner="uniform", earned=alone["uniform"])])
    lost = ((runs["oracle"] - runs["earned"]) * runs["decisions"]).groupby([runs["seed"], runs["learner"]]).cumsum()
    made = (runs["round"] + 1) * runs["decisions"]
    return _over_seeds(runs[["learner"]].assign(decisions=made, value=lost), ["learner", "decisions"])


def _over_seeds(table, keys):
    return group_intervals(table.groupby(keys, sort=False)["value"]).reset_index()


def gain(runs, learner="learning", against=None):
    """How much better the last served policy of a learner is than its first, or than another learner's last.

    Args:
      runs: DataFrame of `run_rounds`.
      learner: whose.
      against: learner to compare with; None for its own first policy.

    Returns:
      `Interval` of the mean difference over seeds, rating points: 95 %, Student's t.
    """
    values = runs.pivot(index="seed", columns=["learner", "round"], values="value")
    last = runs["round"].max()
    return mean_interval(values[learner, last] - (values[learner, 0] if against is None else values[against, last]))
