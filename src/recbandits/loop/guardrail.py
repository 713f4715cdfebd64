"""The guardrail: from a canary to half of the users, to most of them, or back, by the rewards of both versions.

There is one endpoint, and `guard` is called again and again. Our server splits users between versions by hash, Vertex
AI draws the version of each request: either way the two are a randomised experiment, and intervals count users, not
requests.
"""

import math
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbandits.evaluation import sequential
from recbandits.loop import canary
from recbandits.loop.canary import Experiment
from recbandits.loop.gate import finite_or_none, predicted_values
from recbandits.loop.ingest import log_of
from recbandits.loop.settings import Guardrail
from recbandits.platforms.warehouse import Join, Warehouse
from recbandits.records import Verdict

_MISMATCH = 0.001  # probability with which a right split ever raises the alarm


class Evidence(NamedTuple):
    """The evidence of an experiment, in units of the reward."""

    difference: sequential.Interval  # of the newest's mean reward less the other's; NaN where there is too little
    decisions: tuple  # (of the newest, of the other), with a reward or the default
    margin: float  # loss up to which the newest is non-inferior
    mismatch: bool  # decisions are not split as the shares say: then the versions differ in more than the policy
    served: int  # decisions of the newest, also those without a reward that counts


def guard(
    endpoint: Any,
    warehouse: Warehouse,
    now: datetime,
    rule: Join,
    guardrail: Guardrail,
    policies: Callable | None = None,
) -> Verdict | None:
    """Compare the rewards of both versions, and ramp, promote, roll back or withdraw the newest, or collect more data.

    A canary is promoted when it is non-inferior: the lower bound of the difference is above -margin. It is rolled back
    when it is significantly worse: the upper bound is below -margin. In between it gets a larger share, and is
    withdrawn when it has had its time with it. After the promotion it is compared with the users who kept its
    predecessor, and rolled back when it is significantly worse. Before and after, it is withdrawn when the split is not
    as the shares say. The bounds are those of a confidence sequence, so that one may look at any time; the decisions
    with each share are an experiment of their own.

    Args:
      endpoint: `platforms.endpoints.Endpoint`
      warehouse: of the verdicts, decisions and rewards.
      now: aware datetime; decisions count once their window has closed.
      rule: `platforms.warehouse.Join`
      guardrail: `settings.Guardrail`
      policies: function from version to `ServedPolicy`, or None for one that cannot be loaded, whose predictions reduce
        the variance of a canary. None for no reduction.

    Returns:
      `Verdict`, "ramped", "promoted", "rolled back" or "withdrawn", which is in the warehouse already; or None.

    Raises:
      PlatformError: no answer, or another process changed the shares meanwhile; the next look decides.
    """
    shares = endpoint.traffic_split
    experiment = canary.experiment(shares, warehouse.verdicts()) if sum(map(bool, shares.values())) == 2 else None
    if experiment is None:
        return None
    evidence = collect_evidence(experiment, warehouse, now, rule, guardrail, policies)
    kind, why = decide(experiment, evidence, guardrail)
    if kind is None or endpoint.traffic_split != shares:  # a Deployer changed the shares meanwhile
        return None
    versions, start = (experiment.newest, experiment.other), experiment.start.isoformat()
    verdict = canary.verdict_of(kind, *versions, start, why, now, *map(finite_or_none, evidence.difference))
    warehouse.write([verdict])  # first: a process killed in between decides the same again
    share = {"ramped": guardrail.ramp, "promoted": 100 - guardrail.holdback}.get(kind, 0)
    split = dict(zip(versions, (share, 100 - share), strict=True))
    endpoint.split(dict.fromkeys(shares, 0) | split, expected=shares)
    return verdict


def collect_evidence(
    experiment: Experiment,
    warehouse: Warehouse,
    now: datetime,
    rule: Join,
    guardrail: Guardrail,
    policies: Callable | None = None,
) -> Evidence:
    """Compute the `Evidence` of an experiment by the arguments of `guard`.

    The predictions need each decision. Without them, and after the promotion, which has no deadline, sums by user are
    read, however many decisions there are.
    """
    start = experiment.start + timedelta(seconds=guardrail.settling)
    span = start, max(start, now - timedelta(seconds=rule.window))
    versions = experiment.newest, experiment.other
    loaded = map(policies, versions) if policies and not experiment.promoted else ()
    if predictors := [policy for policy in loaded if policy is not None]:
        rewards, users, covariates = _sides_of_decisions(warehouse.decisions(*span, rule), versions, predictors)
    else:
        rewards, users, covariates = _sides_of_sums(warehouse.by_user(*span, rule), versions)
    served = warehouse.served(*span, experiment.newest)
    return compare(rewards, users, covariates, experiment, guardrail)._replace(served=served)


def compare(
    rewards: tuple[np.ndarray, np.ndarray], users: Any, covariates: Any, experiment: Experiment, guardrail: Guardrail
) -> Evidence:
    """Compute the `Evidence` from the decisions of both sides, the newest first.

    Each side has rewards float [n], the labels of their users, the same on both sides for the same user, and perhaps
    covariates, as `sequential.difference` takes them.
    """
    tightest = 100 * guardrail.most / min(experiment.share, 100 - experiment.share)  # decisions at the deadline
    interval = sequential.difference(*rewards, guardrail.alpha, tightest, users, covariates)
    decisions = len(rewards[0]), len(rewards[1])
    margin = guardrail.margin * abs(float(np.mean(rewards[1]))) if decisions[1] else math.nan
    mismatch = sum(decisions) >= 2 * guardrail.least and _is_mismatch(users, experiment.share)
    return Evidence(interval, decisions, margin, mismatch, decisions[0])


def decide(experiment: Experiment, evidence: Evidence, guardrail: Guardrail) -> tuple[str | None, str]:
    """Return (kind of the `Verdict` or None, why) of an `Experiment` with its `Evidence`, given a `Guardrail`."""
    interval, decisions, margin, mismatch, served = evidence
    sequence = f"{100 * (1 - guardrail.alpha):g} % sequence {interval.low:+.3g} to {interval.high:+.3g}"
    counts = f"after {decisions[0]:,} and {decisions[1]:,} decisions"
    measurement = f"(difference {interval.value:+.3g}, {sequence}, {counts})"
    width = interval.high - interval.low
    enough = min(decisions) >= guardrail.least and math.isfinite(width) and not mismatch
    if enough and interval.high < -margin:
        return "rolled back", f"It is significantly worse, by more than {margin:.3g} {measurement}."
    if experiment.promoted and not mismatch:
        return None, ""
    if enough and interval.low > -margin:
        return "promoted", f"It is non-inferior by a margin of {margin:.3g} {measurement}."
    if mismatch or served >= guardrail.most:
        reason = "the margin is in the interval"
        if mismatch:
            share = f"{decisions[0] / sum(decisions):.1%} of the decisions are of the newest version"
            reason = f"{share}, the shares say {experiment.share} %"
        elif not math.isfinite(width):
            reason = f"{decisions[0]:,} of {served:,} decisions have a reward, the interval is not finite"
        elif not width <= 2 * margin:
            reason = f"the interval of the difference is wider than the margin of {margin:.3g} on both sides"
        return "withdrawn", f"The evidence does not suffice: {reason} {measurement}."
    if enough and experiment.share < guardrail.ramp and interval.value > -margin:
        return "ramped", f"It gets {guardrail.ramp} % of the users for more evidence {measurement}."
    return None, ""


def looks(
    experiment: Experiment,
    warehouse: Warehouse,
    times: Sequence[datetime],
    rule: Join,
    guardrail: Guardrail,
    policies: Callable | None = None,
) -> pd.DataFrame:
    """Tabulate the evidence of an experiment at several times, for `plots.loop.guardrail`; arguments are as of `guard`.

    A row is a time; columns are time, decisions (of both versions), value, low, high, margin.
    """
    evidences = [collect_evidence(experiment, warehouse, time, rule, guardrail, policies) for time in times]
    return pd.DataFrame(
        {"time": time, "decisions": sum(each.decisions), **each.difference._asdict(), "margin": each.margin}
        for time, each in zip(times, evidences, strict=True)
    )


def _sides_of_decisions(table, versions, policies):
    """Return rewards, users and covariates of both sides of a table of `Warehouse.decisions`."""
    table = table.filter(pc.is_in(table["policy_version"], pa.array(versions)))
    log, version = log_of(table), table["policy_version"].to_numpy()
    covariates = [predicted_values(policy, log) for policy in policies]
    columns = np.stack([column for column in covariates if column is not None] or [np.zeros(len(log))], axis=1)
    sides = [version == name for name in versions]
    return tuple([part[side] for side in sides] for part in (log.reward, log.user_id, columns))


def _sides_of_sums(sums, versions):
    """Return rewards and users of both sides of `Warehouse.by_user`, and no covariates."""
    number = np.arange(len(sums))
    user = pd.factorize(sums["user_id"])[0]
    user = np.where(user < 0, len(sums) + number, user)  # without an id each decision is a user
    row = np.repeat(number, sums["decisions"])
    mean, version = (sums["total"] / sums["decisions"]).to_numpy()[row], sums["policy_version"].to_numpy()[row]
    sides = [version == name for name in versions]  # each decision has the mean of its row, for only sums count
    return [mean[side] for side in sides], [user[row][side] for side in sides], None


def _is_mismatch(users, share):
    """Return whether the share of the first side differs from that which it should have, at any time of looking.

    Users are drawn, or their requests: either way the excess of each user has expectation 0, and users are independent.
    """
    weights = [1 - share / 100, -share / 100]
    deviations = np.concatenate([np.full(len(side), weight) for side, weight in zip(users, weights, strict=True)])
    excess = np.bincount(np.unique(np.concatenate(users), return_inverse=True)[1], deviations)
    error = math.sqrt(excess @ excess)
    return bool(abs(excess.sum()) > error * sequential.critical_value(len(excess), _MISMATCH))
