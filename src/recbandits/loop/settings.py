"""The numbers of the closed loop, in one module: simulated users, join, learner, gate and guardrail."""

from dataclasses import dataclass, field
from numbers import Integral
from typing import get_type_hints

from recbandits import checks
from recbandits.agents.parameters import LinUCB
from recbandits.exploration import Exploration
from recbandits.platforms.warehouse import Join

_MINORITY = checks.Rule("a whole number from 1 to 49", lambda value: 1 <= value < 50, Integral)  # per cent


@dataclass(frozen=True)
class Gate:
    """The evidence that a candidate needs on held-out logged decisions before it may serve users.

    Attributes:
      margin: share of the value of the serving policy, 0 or more. The candidate passes if the lower bound of its
        difference from the serving policy is above -margin times that value.
      effective_sample_size: decisions of equal weight that each of the two estimates needs, positive.
      rewarded_decisions: decisions with a rare reward, such as a click, of equal weight, that each of them needs,
        positive. Where no reward has the majority, all decisions are rewarded.
      estimator: of `evaluation.off_policy`: "SNDR" or "DR". Estimators that shrink weights have a bias towards the
        reward model, which no interval includes.
      level: coverage of the intervals, in (0, 1).
    """

    margin: float = 0.05
    effective_sample_size: float = 100.0
    rewarded_decisions: float = 50.0
    estimator: str = "SNDR"
    level: float = 0.95

    def __post_init__(self):
        checks.check_fields(self, margin=checks.NON_NEGATIVE, effective_sample_size=checks.POSITIVE)
        checks.check_fields(self, rewarded_decisions=checks.POSITIVE, level=checks.FRACTION)
        checks.check_fields(self, estimator=checks.one_of(("SNDR", "DR")))


@dataclass(frozen=True)
class Guardrail:
    """The conditions to ramp and promote a canary, and to roll back a version, by observed rewards.

    Attributes:
      canary: percentage of the users who get a new version at first, from 1 to 49.
      ramp: percentage that it gets next, unless it seems to be worse by the margin; from `canary` to 49, so that the
        largest share tells which policy serves.
      holdback: percentage of the users who keep its predecessor after the promotion, from 1 to 49: without them a bad
        version could not be distinguished from a bad day.
      least: decisions that either side must have before anything is decided, at least 2.
      most: decisions of the canary, with one of its shares, after which it is withdrawn where the evidence does not
        suffice to promote it or to roll it back; at least `least`. Those without a reward count, too: a canary whose
        rewards do not arrive does not serve permanently.
      margin: share of the mean reward of the other version, 0 or more. A canary that is non-inferior by this margin is
        promoted, one that is significantly worse is rolled back.
      alpha: in (0, 1); the probability with which a version that is not worse by the margin is ever rolled back with
        one of its shares, however often one looks, is at most half of it, and so is that with which one that is worse
        is promoted. A canary has two shares.
      settling: seconds after a change of the shares whose decisions do not count, as servers still use the old ones.
    """

    canary: int = 20
    ramp: int = 49
    holdback: int = 10
    least: int = 100
    most: int = 1000
    margin: float = 0.1
    alpha: float = 0.05
    settling: float = 0.0

    def __post_init__(self):
        checks.check_fields(self, canary=_MINORITY, ramp=_MINORITY, holdback=_MINORITY, least=checks.whole(2))
        checks.check_fields(self, ramp=checks.whole(self.canary), most=checks.whole(self.least))
        checks.check_fields(self, margin=checks.NON_NEGATIVE, alpha=checks.FRACTION, settling=checks.NON_NEGATIVE)


@dataclass(frozen=True)
class Settings:
    """All numbers of a loop.

    Found by simulation: with them the first policy, learnt from `first` interactions, is above chance and below what
    `decisions` more per round make of it, most candidates can be judged by the log of the serving policy, and the
    guardrail promotes an equal canary within a round in more than 80 % of runs. A weaker ridge penalty or a sharper
    exploration raises the value of the policies, and leaves decisions of the next candidate out of the log: the gate
    then holds it.

    Raises:
      ValueError: a field outside its range.
    """

    join: Join  # the rule for rewards
    movies: int = 100  # of the simulated users, those with the most ratings
    rank: int = 8  # factors of the preferences
    candidates: int = 10  # movies to choose from at each visit
    never: float = 0.1  # share of the decisions whose reward is never reported
    twice: float = 0.05  # share that is reported twice
    delay: float = 1.0  # mean seconds until a report
    first: int = 300  # interactions of the uniform policy, from which the first one learns
    decisions: int = 2000  # new decisions after which the loop trains again: one round
    holdout: float = 0.3  # share of the decisions that the learner does not see and the gate judges by
    agent: LinUCB = field(default_factory=lambda: LinUCB(alpha=0.0, tikhonov=50.0))
    forgetting: float = 0.6  # `gamma` of the agent that forgets, under preference drift
    exploration: Exploration = field(default_factory=lambda: Exploration("softmax", 0.2))  # of the served policy
    gate: Gate = Gate()
    guardrail: Guardrail = Guardrail()
    rate: float = 100.0  # visits per second of the simulated users
    seed: int = 0  # of everything random

    def __post_init__(self):
        counts = dict.fromkeys(("movies", "rank", "candidates", "first", "decisions"), checks.whole(1))
        checks.check_fields(self, **counts, never=checks.PROBABILITY, twice=checks.PROBABILITY)
        checks.check_fields(self, delay=checks.POSITIVE, rate=checks.POSITIVE, holdout=checks.FRACTION)
        checks.check_fields(self, forgetting=checks.POSITIVE_PROBABILITY)
        checks.require_field(self, "candidates", 2 <= self.candidates <= self.movies, "from 2 to the number of movies")
        checks.require_field(self, "join", isinstance(self.join, Join), "a Join")


def settings_from(values: dict) -> Settings:
    """Make `Settings` of the dict that `dataclasses.asdict` makes; ValueError without `join`, or for a wrong value."""
    checks.require("join" in values, "settings", "a dict with `join`, the rule for rewards", values)
    kinds = get_type_hints(Settings)
    return Settings(**{name: kinds[name](**each) if isinstance(each, dict) else each for name, each in values.items()})
