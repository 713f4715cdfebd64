"""The gate: a candidate is compared with the serving policy, on logged decisions that it has not learnt from."""

import html
import json
import math
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import special

from recbandits.checks import require_rows
from recbandits.evaluation import cross_fit, difference, estimates, sequential
from recbandits.loop.settings import Gate
from recbandits.records import Log
from recbandits.serving.served import ServedPolicy

_FOLDS = 5  # of users, who are at least `sequential.FEWEST_GROUPS`
_ROUNDING = 1e-7  # of probabilities that were computed in float32
_UNLOGGED = 0.05  # share of a policy's decisions that may be missing from the log


@dataclass(frozen=True)
class Judgement:
    """The outcome of the gate for a candidate: values in units of the reward, None where they cannot be estimated."""

    outcome: str  # "passed": it may be deployed; "refused": it is worse; "held": the evidence suffices for neither
    why: str  # one sentence
    candidate: str  # its version
    serving: str  # version of the policy that it was compared with
    difference: float | None = None  # estimated value of the candidate less that of the other
    low: float | None = None  # lower end of its interval
    high: float | None = None  # upper end
    candidate_value: tuple = (None, None, None)  # (value, low, high) of the candidate
    serving_value: tuple = (None, None, None)  # likewise of the serving policy
    effective_sample_size: float | None = None  # decisions of equal weight behind the estimates, the fewer of the two
    rewarded_decisions: float | None = None  # those of them with a rare reward, such as a click; likewise
    decisions: int = 0  # number of held-out decisions behind the estimates
    missing: str = ""  # the evidence that is missing, in words; empty where there is enough
    margin: float | None = None  # loss up to which the candidate is non-inferior
    level: float = 0.95  # coverage of the intervals, in (0, 1)

    @property
    def passed(self) -> bool:
        """True if the candidate may be deployed."""
        return self.outcome == "passed"

    def to_json(self) -> str:
        """Write the judgement as one line of JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Judgement":
        """Read what `to_json` wrote."""
        values = json.loads(text)
        pairs = {name: tuple(values[name]) for name in ("candidate_value", "serving_value")}
        return cls(**values | pairs)

    def html(self) -> str:
        """Render the judgement as a small page, for a pipeline's artifact."""
        rows = {
            f"candidate {self.candidate}": self.candidate_value,
            f"serving {self.serving}": self.serving_value,
            "difference": (self.difference, self.low, self.high),
        }
        table = pd.DataFrame.from_dict(rows, "index", dtype=float, columns=["value", "low", "high"])
        evidence = f"effective sample size {_format(self.effective_sample_size, 0)}, of which rewarded "
        evidence += _format(self.rewarded_decisions, 0)
        return (
            f"<!doctype html><title>Gate</title><h1>Candidate {self.outcome}</h1><p>{html.escape(self.why)}</p>"
            f"{table.to_html(border=0, na_rep='not known', float_format='{:,.3f}'.format)}"
            f"<p>{self.decisions:,} held-out decisions; {evidence}; margin {_format(self.margin)}; "
            f"intervals of {100 * self.level:g} %.</p>"
        )


def judge_log(log: Log, candidate: ServedPolicy, serving: ServedPolicy, gate: Gate | None = None) -> Judgement:
    """Judge a candidate by a log of decisions that it has not learnt from.

    Both policies are valued on the same records by a doubly robust estimator, whose reward model is a regression on the
    scores of both, and predicts no user's reward from that user's own; intervals count users, not decisions. The
    candidate passes if it is non-inferior: the lower bound of the difference is above minus the margin. It is refused
    if it is significantly worse: the upper bound is below minus the margin. It is held in between, and where evidence
    is missing. Several policies may have decided, each with its own propensities.
    """
    from sklearn.linear_model import LinearRegression  # takes a second to import

    gate = gate or Gate()
    facts = {"candidate": candidate.version, "serving": serving.version, "decisions": len(log), "level": gate.level}
    if (users := sequential.effective_groups(log.user_id)) < sequential.FEWEST_GROUPS:
        needed = f"of {sequential.FEWEST_GROUPS} users with equally many each"
        return _held(f"the held-out decisions must be worth as much as those {needed}, got {users:.1f}", **facts)
    try:
        scores = [_scores(policy, log) for policy in (candidate, serving)]
        q = cross_fit(log, np.stack(scores, axis=2), LinearRegression(), folds=_FOLDS)
        values = [
            estimates(log, policy.exploration.probabilities(score, log.mask), q, names=[gate.estimator])[gate.estimator]
            for policy, score in zip((candidate, serving), scores, strict=True)
        ]
    except (KeyError, ValueError) as error:  # an item, a column or numbers of candidates that a policy cannot read
        return _held(f"it cannot be judged by this log, {error.args[0]}", **facts)
    contrast, margin = difference(*values), gate.margin * abs(values[1].value)
    low, high = _interval(contrast, gate.level, log.user_id)
    missing = _missing_evidence(values, gate) or _missing_bounds(contrast.value, low, high, values[1].value)
    outcome, why = ("held", f"Held: {missing}") if missing else _decide(low, high, margin)
    pairs = [(value.value, *_interval(value, gate.level, log.user_id)) for value in values]
    return Judgement(
        outcome,
        f"{why} (difference {contrast.value:+.3g}, {100 * gate.level:g} % interval {low:+.3g} to {high:+.3g}).",
        **facts,
        missing=missing,
        difference=finite_or_none(contrast.value),
        low=finite_or_none(low),
        high=finite_or_none(high),
        candidate_value=tuple(map(finite_or_none, pairs[0])),
        serving_value=tuple(map(finite_or_none, pairs[1])),
        effective_sample_size=finite_or_none(min(value.effective_sample_size for value in values)),
        rewarded_decisions=finite_or_none(min(value.rewarded_decisions for value in values)),
        margin=finite_or_none(margin),
    )


def finite_or_none(value: float) -> float | None:
    """Return the number, or None where it is not finite, which JSON cannot hold."""
    return float(value) if math.isfinite(value) else None


def probabilities_of(policy: ServedPolicy, log: Log) -> np.ndarray:
    """Compute the probabilities, float [n, k], of the candidates of a `Log` under a `ServedPolicy`."""
    return policy.exploration.probabilities(_scores(policy, log), log.mask)


def predicted_values(policy: ServedPolicy, log: Log) -> np.ndarray | None:
    """Predict the reward of each decision of a `Log` before its action is drawn, float [n]; None if that is impossible.

    It is the mean of the scores under the probabilities of the policy, a `ServedPolicy`, and depends on nothing but the
    context and the candidates.
    """
    try:
        scores = _scores(policy, log)
        probabilities = policy.exploration.probabilities(scores, log.mask)
    except (KeyError, ValueError):  # an item or a column that the policy cannot read, or scores that are not finite
        return None
    return np.where(log.mask, probabilities * scores, 0.0).sum(axis=1)


def _scores(policy, log):
    scores = policy.scores(log.context, log.candidate_ids, log.mask, log.candidate_features)
    require_rows(np.isfinite(scores) | ~log.mask, f"scores of {policy.version}", "finite", scores)
    return scores


def _missing_evidence(values, gate):
    """Say which evidence the `Estimate`s of candidate and serving policy lack; comparisons are so that NaN lacks it."""
    for name, value in zip(("the candidate", "the serving policy"), values, strict=True):
        needs = (
            (value.effective_sample_size, gate.effective_sample_size, "decisions of equal weight"),
            (value.rewarded_decisions, gate.rewarded_decisions, "rewarded decisions of equal weight"),
        )
        for number, least, unit in needs:
            if not number >= least:
                return f"the estimate of {name} needs {least:g} {unit}, got {number:.0f}"
        if not value.mean_weight + 2 * _weight_error(value) >= 1 - _UNLOGGED:
            return f"{1 - value.mean_weight:.0%} of the decisions of {name} are not in the log"
    return ""


def _weight_error(value):
    """Return the standard error of `mean_weight`: 1, less the decisions that the log could not contain.

    A record counts 1 / pass_prob, as in the means of the estimate: `weights` contain the factor already.
    """
    (weights,), ((_, count), *_) = value.weights, value.parts
    return ((weights - value.mean_weight * count) / count.mean()).std() / math.sqrt(value.n)


def _missing_bounds(difference, low, high, value):
    """Say what the interval of a difference from a value lacks; empty text for nothing."""
    if not all(map(math.isfinite, (difference, low, high, value))):
        return "the interval of the difference is not finite"
    return "" if high - low > _ROUNDING * abs(value) else "nothing varies, which is no evidence"


def _decide(low, high, margin):
    """Return (outcome, why) of an interval that rests on enough evidence."""
    if low > -margin:
        return "passed", f"Passed: it is non-inferior to the serving policy by a margin of {margin:.3g}"
    if high < -margin:
        return "refused", f"Refused: it is significantly worse than the serving policy, by more than {margin:.3g}"
    why = f"more decisions are needed to know whether it is worse than the serving policy by {margin:.3g} or more"
    return "held", f"Held: {why}"


def _held(missing, **facts):
    return Judgement("held", f"Held: {missing}.", **facts, missing=missing)


def _interval(estimate, level, users):
    """Return the interval of an `Estimate` with the degrees of freedom of the users that its error rests on.

    Where a few users with large weights have most of the variance, the variance itself is uncertain. The effective
    number of n users with errors s is sum(s^2)^2 / sum(s^4) (Satterthwaite 1946); Student's t then has that many
    degrees of freedom instead of n - 1.
    """
    low, high = estimate.interval(level=level, groups=users)
    group = np.unique(users, return_inverse=True)[1]
    squares = np.bincount(group, estimate.influence) ** 2
    if not squares.any():
        return low, high
    freedom = np.array([squares.sum() ** 2 / (squares @ squares), len(squares) - 1])
    effective, nominal = special.stdtrit(freedom, (1 + level) / 2)
    return tuple(estimate.value + (bound - estimate.value) * effective / nominal for bound in (low, high))


def _format(value, digits=3):
    return "not known" if value is None else f"{value:,.{digits}f}"
