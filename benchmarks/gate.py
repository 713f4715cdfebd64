"""The gate on simulated loops of known truth: the coverage of its interval, and the candidates that pass.

In each loop a policy serves simulated users by softmax exploration, a candidate differs from it by a known change of
its coefficients, and `judge_log` sees the held-out part of the traffic. Half of the candidates are worse by exactly the
margin, the hardest that must not pass; the others are changed at random.
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from benchmarks.profiles import choose
from recbandits.exploration import Exploration
from recbandits.loop.gate import judge_log
from recbandits.loop.rounds import serve_in_memory
from recbandits.loop.settings import Gate, Settings
from recbandits.loop.simulated_users import STARS as RULE
from recbandits.loop.simulated_users import SimulatedUsers
from recbandits.records import Log
from recbandits.serving.scorer import Scorer, linear_head

LOOPS, CANDIDATES, VISITS = choose(200, 20), 10, 100_000  # visits on which true values are computed
FIRST_SEED = 10_000  # the gate's reward model and degrees of freedom were chosen on other seeds, 0 to 199
GATE = Gate()
EXPLORATION = Exploration("softmax", 0.2)  # as that of `loop.settings.Settings`
_SILENT, _CLICKS = 0.1, 0.04  # share of ratings that are never reported; click rate at an expected rating of 5 stars


@dataclass(frozen=True)
class Traffic:
    """A kind of reward, and the traffic on which candidates are evaluated.

    Attributes:
      name: of the reward.
      held_out_decisions: number of decisions that the gate sees.
    """

    name: str
    held_out_decisions: int

    def expected_reward(self, ratings):
        """Return the mean reward for expected ratings of 1 to 5 stars; a missing rating counts as 1 star."""
        if self.name == "stars":
            return (1 - _SILENT) * ratings + _SILENT
        return _CLICKS * ((ratings - 1) / 4) ** 2

    def draw(self, ratings, rng):
        """Draw rewards of that mean."""
        if self.name == "stars":
            stars = 1.0 + rng.binomial(4, (ratings - 1) / 4)
            return np.where(rng.random(ratings.shape) < _SILENT, 1.0, stars)
        return (rng.random(ratings.shape) < self.expected_reward(ratings)).astype(float)


STARS, CLICKS = Traffic("stars", 600), Traffic("rare clicks", 20_000)


def measure(data):
    """Measure coverage and wrong passes on both kinds of reward."""
    users, seeds = SimulatedUsers.of(Settings(RULE), data), range(FIRST_SEED, FIRST_SEED + LOOPS)
    rows = [summary(simulate(users, traffic, seeds), traffic) for traffic in (STARS, CLICKS)]
    title = f"The gate over {LOOPS} simulated loops each, margin {GATE.margin:.0%} of the serving value"
    return {title: pd.DataFrame(rows)}


def simulate(users, traffic, seeds, gate=GATE):
    """Evaluate one candidate in each of some loops, given by seeds; every other candidate is worse by the margin.

    Returns:
      DataFrame, a row a loop: outcome, evidence (whether there was enough to decide), truth (the true difference),
      margin (the true one), low and high.
    """
    visits = users.visits(VISITS, np.random.default_rng(0), CANDIDATES)
    expected_reward = traffic.expected_reward(users.expected(*visits))
    return pd.DataFrame([_loop(users, traffic, seed, gate, visits, expected_reward) for seed in seeds])


def summary(loops, traffic):
    """Return a row of the table: shares among the judgements that had enough evidence."""
    judgements = loops[loops["evidence"]]
    coverage = (judgements["low"] <= judgements["truth"]) & (judgements["truth"] <= judgements["high"])
    worse_candidates = judgements[judgements["truth"] <= -0.99 * judgements["margin"]]
    other_candidates = judgements[judgements["truth"] >= 0]
    return {
        "reward": traffic.name,
        "held-out decisions": f"{traffic.held_out_decisions:,}",
        "enough evidence": f"{loops['evidence'].mean():.1%}",
        "interval covers the truth": f"{coverage.mean():.1%}",
        "worse by the margin": len(worse_candidates),
        "pass rate, worse": f"{(worse_candidates['outcome'] == 'passed').mean():.1%}",
        "not worse": len(other_candidates),
        "pass rate, not worse": f"{(other_candidates['outcome'] == 'passed').mean():.1%}",
    }


def _loop(users, traffic, seed, gate, visits, expected_reward):
    rng = np.random.default_rng(seed)
    serving, candidate = (draw_coefficients(users, quality, rng) for quality in rng.uniform((0.3, -1.0), (0.7, 1.0)))
    step, worse_candidate = rng.uniform(-0.2, 0.7), draw_coefficients(users, -1.0, rng)
    value = _values(users, visits, expected_reward, serving, worse_candidate if seed % 2 else candidate)
    serving_value = value(0.0)
    margin = gate.margin * serving_value
    if seed % 2:
        candidate, step = worse_candidate, brentq(lambda step: value(step) - serving_value + margin, 0, 1, xtol=1e-4)
    policies = [make_policy(users, serving + share * (candidate - serving)) for share in (step, 0)]
    log = draw_log(users, policies[1], traffic.held_out_decisions, rng, traffic.draw)
    judgement = judge_log(log, *policies, gate)
    truth = {"truth": value(step) - serving_value, "margin": margin, "evidence": not judgement.missing}
    return {"outcome": judgement.outcome, **truth, "low": judgement.low, "high": judgement.high}


def draw_coefficients(users, quality, rng):
    """Draw coefficients of context and item: `quality` times the true weights of the factors, with a little noise."""
    rank = users.model.rank
    weights = quality + rng.normal(0, 0.1, rank)
    return np.concatenate([[users.model.mean, 1], np.zeros(rank), [quality], np.zeros(rank), weights])


def make_policy(users, coefficients):
    scorer = Scorer("concat", "relu", (), (), (linear_head(np.array([coefficients], np.float32)),))
    return serve_in_memory(scorer, users.features, EXPLORATION)


def _values(users, visits, expected_reward, serving, candidate):
    """Return the function from a step between coefficients, 0 to 1, to the true value; scores are linear in it."""
    all_users = np.arange(len(users.user_ids))
    items = np.tile(np.arange(len(users.item_ids)), (len(all_users), 1))
    requests, cells = (users.contexts(all_users), users.candidate_ids(items)), (visits[0][:, None], visits[1])
    serving_scores, candidate_scores = (
        make_policy(users, coefficients).scores(*requests)[cells] for coefficients in (serving, candidate)
    )

    def value(step):
        probabilities = EXPLORATION.probabilities(serving_scores + step * (candidate_scores - serving_scores))
        return float(np.einsum("nk,nk->", probabilities, expected_reward)) / len(expected_reward)

    return value


def draw_log(users, policy, n, rng, draw_rewards, candidates=CANDIDATES):
    """Draw the log of a policy that serves simulated users.

    Args:
      users: `SimulatedUsers`; users and items are numbered by its rows.
      policy: `ServedPolicy`
      n: number of decisions.
      rng: `numpy.random.Generator`.
      draw_rewards: function of the expected ratings of the actions, float [n], and `rng` that returns rewards [n].
      candidates: items of each decision.

    Returns:
      `Log`
    """
    rows, items = users.visits(n, rng, candidates)
    context = users.contexts(rows)
    decisions = policy.decide(context, users.candidate_ids(items), rng=rng)
    ratings = users.expected(rows, items)[np.arange(n), decisions.action]
    return Log(
        event_id=np.array([f"event {number}" for number in range(n)], object),
        time=np.full(n, datetime(2026, 1, 1), "datetime64[us]"),
        user_id=rows,
        candidates=items,
        mask=np.ones(items.shape, bool),
        action=decisions.action,
        propensity=decisions.propensity,
        reward=draw_rewards(ratings, rng),
        pass_prob=np.ones(n),
        item_ids=users.item_ids,
        user_ids=users.user_ids,
        context=context,
    )
