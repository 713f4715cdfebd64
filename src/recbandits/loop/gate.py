"""The gate: a candidate is compared with what serves, on logged decisions that it has not learnt from."""

import html
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from recbandits.loop.models import POLICY
from recbandits.loop.settings import Gate

__all__ = ["Gate", "Judgement", "judge", "judge_log", "policy_directory"]

_FOLDS = 5


@dataclass(frozen=True)
class Judgement:
    """What the gate says of a candidate, and why. What cannot be estimated is None, and is no reason to pass.

    Attributes:
      passed: whether the candidate may be deployed.
      why: one sentence.
      candidate: its version.
      serving: version of the policy that it was compared with.
      difference: estimated value of the candidate less that of the other, rating points.
      low: lower end of its interval.
      high: upper end.
      candidate_value: (value, low, high) of the candidate, rating points; three times None without an estimate.
      serving_value: likewise of what serves.
      effective_sample_size: decisions of equal weight that the estimates are worth.
      decisions: held-out ones that it was made of.
      margin: of the gate.
      level: coverage of the intervals, in (0, 1).
    """

    passed: bool
    why: str
    candidate: str
    serving: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    candidate_value: tuple = (None, None, None)
    serving_value: tuple = (None, None, None)
    effective_sample_size: float | None = None
    decisions: int = 0
    margin: float = 0.0
    level: float = 0.95

    def to_json(self):
        """The judgement as one line of JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text):
        """Read what `to_json` wrote."""
        values = json.loads(text)
        pairs = {name: tuple(values[name]) for name in ("candidate_value", "serving_value")}
        return cls(**values | pairs)

    def html(self):
        """The judgement as a small page, for a pipeline's artifact."""
        verdict = "may be deployed" if self.passed else "is refused"
        rows = {
            f"candidate {self.candidate}": self.candidate_value,
            f"serving {self.serving}": self.serving_value,
            "difference": (self.difference, self.low, self.high),
        }
        cells = "".join(
            f"<tr><td>{html.escape(name)}</td>{''.join(f'<td>{_shown(number)}</td>' for number in numbers)}</tr>"
            for name, numbers in rows.items()
        )
        return (
            f"<!doctype html><title>Gate</title><h1>The candidate {verdict}</h1><p>{html.escape(self.why)}</p>"
            f"<table><tr><th>policy</th><th>value</th><th>low</th><th>high</th></tr>{cells}</table>"
            f"<p>{self.decisions:,} held-out decisions, worth {_shown(self.effective_sample_size, 0)} of equal "
            f"weight; margin {self.margin:g} rating points; intervals of {_percent(self.level)}.</p>"
        )


def judge(dataset, candidate, serving, gate=None):
    """Judge a candidate by the held-out decisions of an ingested window.

    Args:
      dataset: directory that `loop.ingest.ingest` wrote.
      candidate: directory of a model (`loop.models`) or of an exported policy, a path or a gs:// URI.
      serving: the same of what serves now.
      gate: `Gate`; None for the defaults.

    Returns:
      Judgement

    Raises:
      ValueError: a directory that is none of these.
    """
    from recbandits.loop.ingest import decisions_of
    from recbandits.serving.policy import load

    candidate, serving = (load(policy_directory(place)) for place in (candidate, serving))
    return judge_log(decisions_of(dataset, held_out=True), candidate, serving, gate)


def judge_log(log, candidate, serving, gate=None):
    """Judge a candidate by a log of decisions that it has not learnt from.

    Both policies are valued on the same records by a doubly robust estimator, whose reward model, a ridge regression,
    predicts nobody's reward from that user's own. The candidate passes if the lower bound of the difference is at least
    minus the margin, and if its weights leave enough decisions. What cannot be computed does not pass.

    Args:
      log: `Log` of held-out decisions; several policies may have decided, each with its own propensities.
      candidate: `ServedPolicy`
      serving: `ServedPolicy`
      gate: `Gate`; None for the defaults.

    Returns:
      Judgement
    """
    from recbandits.evaluation import cross_fit, difference

    gate = Gate() if gate is None else gate
    of = {"candidate": candidate.version, "serving": serving.version}
    of |= {"decisions": len(log), "margin": gate.margin, "level": gate.level}
    users = len(np.unique(log.user_id))
    if users < _FOLDS:
        return Judgement(False, f"Refused: the held-out decisions must be of {_FOLDS} users, got {users}.", **of)
    try:
        q = cross_fit(log, candidate.features, folds=_FOLDS)
        of_candidate, of_serving = (_estimate(log, policy, q, gate) for policy in (candidate, serving))
    except (KeyError, ValueError) as error:  # an item, a column or numbers of candidates that a policy cannot read
        return Judgement(False, f"Refused: nothing can be said of it, {error.args[0]}.", **of)
    between = difference(of_candidate, of_serving)
    low, high = between.interval(level=gate.level)
    size = min(between.effective_sample_size, *(weights.sum() for weights in between.weights))
    passed, why = _reason(between.value, low, high, size, gate)
    return Judgement(
        passed,
        why,
        **of,
        difference=_finite(between.value),
        low=_finite(low),
        high=_finite(high),
        candidate_value=_with_interval(of_candidate, gate.level),
        serving_value=_with_interval(of_serving, gate.level),
        effective_sample_size=_finite(size),
    )


def policy_directory(place):
    """Where the policy of a model directory is: its `policy/`, or the place itself if it is an exported policy."""
    inside = Path(place) / POLICY
    return inside if inside.is_dir() else place


def probabilities_of(policy, log):
    """Probabilities float [n, k] with which a `ServedPolicy` shows the candidates of a `Log`."""
    scores = policy.scores(log.context, log.candidate_ids, log.mask, log.candidate_features)
    return policy.exploration.probabilities(scores, log.mask)


def _estimate(log, policy, q, gate):
    from recbandits.evaluation import estimates

    return estimates(log, probabilities_of(policy, log), q, names=[gate.estimator], shrinkage=100.0)[gate.estimator]


def _reason(difference, low, high, size, gate):
    """(passed, why); every comparison is written so that NaN does not pass."""
    measured = f"difference {difference:+.3f}, {_percent(gate.level)} interval {low:+.3f} to {high:+.3f}"
    if not size >= gate.effective_sample_size:
        needed = f"{gate.effective_sample_size:g} decisions of equal weight, got {size:.0f}"
        return False, f"Refused: the estimate needs {needed} ({measured})."
    if not low >= -gate.margin:
        return False, f"Refused: it may be worse than what serves by more than {gate.margin:g} ({measured})."
    if not math.isfinite(difference) or not math.isfinite(high):
        return False, f"Refused: the estimate is not finite ({measured})."
    return True, f"Passed: it is not worse than what serves by more than {gate.margin:g} ({measured})."


def _with_interval(estimate, level):
    return tuple(map(_finite, (estimate.value, *estimate.interval(level=level))))


def _finite(value):
    """The number, or None where it is none that JSON could hold."""
    return float(value) if math.isfinite(value) else None


def _percent(level):
    return f"{100 * level:g} %"


def _shown(value, digits=3):
    return "not known" if value is None else f"{value:,.{digits}f}"
