"""The numbers of the closed loop, in one place: the world, the join, the learner, the gate and the guardrail."""

from dataclasses import dataclass, field

from recbandits import checks
from recbandits.agents.parameters import LinUCB
from recbandits.exploration import Exploration
from recbandits.records import REPORT_RULES


@dataclass(frozen=True)
class Join:
    """The rule by which decisions get their rewards.

    A report counts if it is known at most `window` seconds after the decision. Where silence is an answer, as no click
    is, it has a default reward. Where reports are missing at random, whatever was shown, a default lowers what is
    expected of all candidates, and their differences by one factor, and changes no order.

    Attributes:
      window: seconds, positive.
      lowest: smallest reward that is possible; a decision with a smaller one is quarantined.
      highest: largest reward, above `lowest`; likewise.
      default: reward of a decision without a report, in [lowest, highest]; None leaves such decisions out.
      take: rule for several reports of one decision, one of `records.REPORT_RULES`: "first", "last", "sum", "max".

    Raises:
      ValueError: a field that is not as above.
    """

    window: float
    lowest: float
    highest: float
    default: float | None = None
    take: str = "first"

    def __post_init__(self):
        checks.check_fields(self, window=checks.POSITIVE, lowest=checks.FINITE, highest=checks.FINITE)
        checks.require_field(self, "highest", self.lowest < self.highest, f"above lowest, {self.lowest:g}")
        within = self.default is None or (
            checks.FINITE.accepts(self.default) and self.lowest <= self.default <= self.highest
        )
        expected = f"None or a number from lowest to highest, {self.lowest:g} to {self.highest:g}"
        checks.require_field(self, "default", within, expected)
        checks.check_fields(self, take=checks.one_of(REPORT_RULES))


@dataclass(frozen=True)
class Gate:
    """What a candidate has to show on held-out logged decisions before it may serve anybody.

    Attributes:
      margin: rating points, 0 or more. The candidate passes if the lower bound of its difference to what serves is at
        least -margin: it may be worse by no more than this, at the confidence `level`.
      effective_sample_size: least decisions of equal weight that the estimates rest on, positive; they are not more
        than the sum of the weights, so that decisions that an estimator has shrunk away do not count.
      estimator: of `evaluation.off_policy`: "DR", "SNDR", "Switch-DR" or "DRos", which a reward model makes precise.
        Under "DRos" no decision counts more than 5: one that was hardly ever made, as a softmax makes some, cannot
        block the gate for rounds.
      level: coverage of the intervals, in (0, 1).
    """

    margin: float = 0.1
    effective_sample_size: float = 100.0
    estimator: str = "DRos"
    level: float = 0.95

    def __post_init__(self):
        checks.check_fields(self, margin=checks.NON_NEGATIVE)
        checks.check_fields(self, effective_sample_size=checks.POSITIVE)
        checks.check_fields(self, estimator=checks.one_of(("DR", "SNDR", "Switch-DR", "DRos")))
        checks.check_fields(self, level=checks.FRACTION)


@dataclass(frozen=True)
class Guardrail:
    """When a canary becomes what serves, and when a served version is taken back, by observed rewards.

    Attributes:
      canary: percentage of the users who get a new version at first, from 1 to 49.
      holdback: percentage of the users who keep its predecessor after the promotion, from 1 to 49: without them a bad
        version could not be told from a bad day.
      least: decisions that either side must have before anything is decided.
      most: decisions of the canary after which it is promoted unless it is surely worse.
      margin: rating points; a canary that is surely worse by less than this is promoted before that.
      alpha: probability, in (0, 1), with which a version that is not worse is ever taken back, however often one looks.
    """

    canary: int = 20
    holdback: int = 10
    least: int = 100
    most: int = 300
    margin: float = 0.2
    alpha: float = 0.05

    def __post_init__(self):
        for name in ("canary", "holdback"):
            share = getattr(self, name)
            checks.require_field(
                self, name, checks.whole(1).accepts(share) and share < 50, "a whole number from 1 to 49"
            )
        checks.require_field(
            self, "least", checks.whole(1).accepts(self.least) and self.least > 1, "a whole number above 1"
        )
        checks.require_field(
            self, "most", checks.whole(1).accepts(self.most) and self.most >= self.least, "a count, at least `least`"
        )
        checks.check_fields(self, margin=checks.NON_NEGATIVE)
        checks.check_fields(self, alpha=checks.FRACTION)


@dataclass(frozen=True)
class Settings:
    """All numbers of a loop.

    Found by simulation on MovieLens 100K: with them the first policy, learnt from `first` interactions, is far above
    chance and far below what `decisions` more per round make of it, and nearly every honest candidate passes the
    gate. A stronger ridge penalty or a smoother exploration gives smaller off-policy weights and a lower ceiling.

    Attributes:
      join: `Join`, the rule for rewards.
      movies: of the world, those with the most ratings.
      rank: factors of its taste.
      candidates: movies that each visitor can be shown.
      never: share of the decisions whose reward is never reported.
      twice: share that is reported twice.
      delay: mean seconds until a report.
      first: interactions of the uniform policy, from which the first one learns.
      decisions: new joined decisions after which the loop trains again: one round.
      holdout: share of the decisions that the learner does not see and the gate judges by.
      agent: parameters of the learner; its `gamma` below 1 is the learner that forgets.
      forgetting: `gamma` of that learner, where the taste is known to drift.
      exploration: by which the served policy decides.
      gate: `Gate`
      guardrail: `Guardrail`
      rate: decisions per second of the simulator.
      seed: of everything random.

    Raises:
      ValueError: a field that cannot be.
    """

    join: Join
    movies: int = 100
    rank: int = 8
    candidates: int = 10
    never: float = 0.1
    twice: float = 0.05
    delay: float = 1.0
    first: int = 150
    decisions: int = 2000
    holdout: float = 0.3
    agent: LinUCB = field(default_factory=lambda: LinUCB(alpha=0.0, tikhonov=10.0))
    forgetting: float = 0.6
    exploration: Exploration = field(default_factory=lambda: Exploration("softmax", 0.15))
    gate: Gate = Gate()
    guardrail: Guardrail = Guardrail()
    rate: float = 100.0
    seed: int = 0

    def __post_init__(self):
        for name in ("movies", "rank", "candidates", "first", "decisions"):
            checks.require_field(self, name, checks.whole(1).accepts(getattr(self, name)), "a positive whole number")
        checks.require_field(self, "candidates", 2 <= self.candidates <= self.movies, "from 2 to the number of movies")
        for name in ("never", "twice"):
            checks.check_fields(self, **{name: checks.PROBABILITY})
        checks.require_field(self, "join", isinstance(self.join, Join), "a Join")
        for name in ("delay", "rate"):
            checks.check_fields(self, **{name: checks.POSITIVE})
        checks.check_fields(self, holdout=checks.FRACTION)
        checks.check_fields(self, forgetting=checks.POSITIVE_PROBABILITY)
