"""The loop on a virtual clock, in one process: the same core, warehouse, gate and guardrail, no servers, no waiting.

A round is one re-training. Between two, users visit, are served by what has traffic, and report later. So a run of n
rounds has n + 1 spans of traffic, and row r of what `run_rounds` returns is of the span that follows re-training r.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from recbandits.evaluation.intervals import Interval, group_intervals, mean_interval
from recbandits.exploration import invert_cdf
from recbandits.loop.gate import Judgement
from recbandits.loop.memory import MemoryCore, MemoryModel
from recbandits.loop.settings import Settings
from recbandits.loop.simulate import UNIFORM
from recbandits.loop.simulated_users import STARS, SimulatedUsers
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.pipelines import Run
from recbandits.records import Log, Verdict

_START = datetime(2026, 1, 1, tzinfo=UTC)
_LOOKS, _VISITS = (4, 4000)  # of the guardrail in a span of traffic; visits on which all policies are valued
_VISITORS, _ARMS, _RATINGS = range(3)  # streams of random numbers, so that all learners meet the same
LEARNERS = ("learning", "forgetting", "frozen")


class Loop(MemoryCore):
    """One learner's loop, by default with the default settings, on a virtual clock, `now`.

    The seed is of everything random; learners with one seed meet the same visits and uniform draws.
    """

    def __init__(self, users: SimulatedUsers, settings: Settings | None = None, seed: int = 0):
        # Nothing is delivered late here, so that no decision has to be read again.
        super().__init__(LocalWarehouse(), users.features, settings or Settings(STARS), overlap=0.0)
        self.users, self._seed, self.now, self._span = users, seed, _START, 0

    def begin(self) -> Verdict:
        """Log decisions of a uniform random policy, and serve all users by the policy that learnt from them."""
        users, items, draws = self._visits(self.settings.first)
        uniform = np.full(items.shape, 1 / items.shape[1])
        decisions = (np.full(len(users), UNIFORM, dtype=object), uniform, invert_cdf(uniform, draws))
        self._log(users, items, decisions, 0.0, self._rng(_RATINGS))
        self.now += timedelta(seconds=self.settings.join.window)
        return self.release(self.learn()[0], None)

    def serve(self, drift: float = 0.0, logged: bool = True) -> tuple[float, list[Verdict]]:
        """Serve a span of traffic with a preference drift in [0, 1]; the guardrail looks during and after it.

        The span may stay out of the log. It returns (mean expected reward of the decisions, list of the guardrail's
        `Verdict`s).
        """
        visits, rng = self._visits(self.settings.decisions), self._rng(_RATINGS)
        rewards, verdicts = [], []
        for rows in np.array_split(np.arange(self.settings.decisions), _LOOKS):
            users, items, draws = (part[rows] for part in visits)
            requests = (self.users.user_ids[users], self.users.contexts(users), self.users.candidate_ids(items))
            decisions = self.endpoint.decide(*requests, draws)
            rewards.append((decisions[1] * self.users.expected(users, items, drift)).sum(axis=1))
            if logged:
                self._log(users, items, decisions, drift, rng)
                verdicts.append(self.guard(self.now))
        self.now += timedelta(seconds=self.settings.join.window)  # the window of the last decision closes
        verdicts.append(self.guard(self.now))
        return float(np.concatenate(rewards).mean()), [verdict for verdict in verdicts if verdict]

    def retrain_now(self) -> Verdict | Run | None:
        """Re-train on what is new, as the core does; return the `Verdict`, or None while a canary waits for its own."""
        self.now += timedelta(seconds=1)  # after the verdicts of the guardrail
        return self.retrain(self.now, least_new=1)

    def learn(self, change: Callable[[Log], Log] | None = None) -> tuple[MemoryModel, Log]:
        """Train on all that was logged since the serving model's data ended; see `MemoryCore.train`."""
        serving = self.serving()
        return self.train(_START if serving is None else serving.until, self.now, change)

    def release(self, candidate: MemoryModel, judgement: Judgement | None) -> Verdict:
        """See `MemoryCore.deploy`."""
        self.now += timedelta(seconds=1)  # after the verdicts of the guardrail
        return self.deploy(candidate, judgement, self.now)

    def _visits(self, n):
        """Draw the visits of the next span: users [n], items [n, k], uniform draws of the actions [n]."""
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


def poisoned(log: Log) -> Log:
    """Return the log with reversed rewards, 6 - reward: 5 stars are 1."""
    return replace(log, reward=6.0 - log.reward)


def run_rounds(
    users: SimulatedUsers,
    rounds: int = 5,
    settings: Settings | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    learners: Sequence[str] = LEARNERS,
    drift: Sequence[float] | np.ndarray | None = None,
) -> pd.DataFrame:
    """Run the loop with several learners, who meet the same visits and uniform draws.

    Args:
      users: who visit.
      rounds: number of re-trainings.
      settings: None for the defaults.
      seeds: of the runs.
      learners: some of `LEARNERS`: "learning" remembers everything, "forgetting" gives the past less and less weight,
        "frozen" keeps the first policy.
      drift: preference drift in each span of traffic, [rounds + 1] of [0, 1]; None for none.

    Returns:
      DataFrame, one row for each seed, learner and round (0 for the traffic before the first re-training): drift; value
      (expected reward of the policy that serves at the end of the span, on `_VISITS` visits that are the same for all);
      earned (mean expected reward of the decisions of the span); oracle and uniform (on those visits); version that
      serves; gate (kind of the verdict on the re-training before, None where a canary was waiting); guard (kind of the
      guardrail's last verdict in the span, or None).
    """
    settings = Settings(STARS) if settings is None else settings
    drift = np.zeros(rounds + 1) if drift is None else np.asarray(drift, float)
    if len(drift) != rounds + 1:
        raise ValueError(f"drift must be of {rounds + 1} spans of traffic, one more than rounds, got {len(drift)}")
    visits = users.visits(_VISITS, np.random.default_rng(settings.seed), settings.candidates)
    return pd.DataFrame(
        {"seed": seed, "learner": learner, **row}
        for seed in seeds
        for learner in learners
        for row in _run(users, settings, seed, learner, drift, visits)
    )


def _run(users, settings, seed, learner, drift, visits):
    """Yield the rows of one run."""
    gamma = settings.forgetting if learner == "forgetting" else settings.agent.gamma
    loop = Loop(users, replace(settings, agent=replace(settings.agent, gamma=gamma)), seed)
    verdict = loop.begin()
    for number, degree in enumerate(drift):
        if number and learner != "frozen":
            verdict = loop.retrain_now()
        reward, verdicts = loop.serve(degree, logged=learner != "frozen")
        serving = loop.serving()
        yield {
            "round": number,
            "drift": degree,
            "value": users.value(serving.policy, visits, degree).mean(),
            "earned": reward,
            "oracle": users.oracle_value(visits, degree).mean(),
            "uniform": users.uniform_value(visits, degree).mean(),
            "version": serving.version,
            "gate": getattr(verdict, "kind", None),
            "guard": verdicts[-1].kind if verdicts else None,
        }


def by_learner(runs: pd.DataFrame) -> pd.DataFrame:
    """Average expected rewards of `run_rounds` over seeds, with 95 % intervals (Student's t), for `plots.loop.rewards`.

    Returns:
      DataFrame, one row for each round and learner, oracle and uniform among them: round, drift, learner, value, low
      and high, which are NaN with one seed.
    """
    first = runs[runs["learner"] == runs["learner"].iloc[0]]
    columns = ["learner", "round", "drift", "value"]
    references = [first.assign(value=first[name], learner=name)[columns] for name in ("oracle", "uniform")]
    table = pd.concat([runs[columns], *references])
    return group_intervals(table.groupby(columns[:3], sort=False)["value"]).reset_index()


def gain(runs: pd.DataFrame, learner: str = "learning", against: str | None = None) -> Interval:
    """Estimate how much better the last served policy of a learner of `run_rounds` is than its first.

    With `against` it is compared with the last one of that learner. The `Interval` is that of the mean difference over
    seeds, in units of the reward: 95 %, Student's t.
    """
    values = runs.pivot(index="seed", columns=["learner", "round"], values="value")
    last = runs["round"].max()
    return mean_interval(values[learner, last] - (values[learner, 0] if against is None else values[against, last]))
