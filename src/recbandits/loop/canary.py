"""The canary: a version that passed the gate gets some users, then half and most of them, or none, by its rewards.

`deploy` puts it beside the version that serves, and `guard`, which is called again and again, compares both. Our server
splits users between versions by hash, Vertex AI draws the version of each request: either way the two are a randomised
experiment, and intervals count users, not requests.
"""

import math
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbandits.evaluation import sequential
from recbandits.loop.gate import Judgement, finite_or_none, predicted_values
from recbandits.loop.ingest import log_of
from recbandits.loop.settings import Guardrail
from recbandits.platforms.warehouse import Join, Warehouse
from recbandits.records import Verdict

JUDGED = ("deployed", "held", "refused")  # kinds of `deploy`'s verdicts; all others are of `guard`
_SPACE = uuid.UUID("5b1c2f0e-53a4-5f0e-9d5c-8a5d0c6f1e77")
_MISMATCH = 0.001  # probability with which a right split ever raises the alarm


class Experiment(NamedTuple):
    """Two versions that share the traffic."""

    newest: str  # the version that was deployed last
    other: str  # the one that it is to replace, or has replaced
    share: int  # percentage of the newest
    start: datetime  # in UTC, from which on they have had these shares

    @property
    def promoted(self) -> bool:
        """True if the newest has the larger share."""
        return self.share > 50


class Evidence(NamedTuple):
    """The evidence of an experiment, in units of the reward."""

    difference: sequential.Interval  # of the newest's mean reward less the other's; NaN where there is too little
    decisions: tuple  # (of the newest, of the other), with a reward or the default
    margin: float  # loss up to which the newest is non-inferior
    mismatch: bool  # decisions are not split as the shares say: then the versions differ in more than the policy
    served: int  # decisions of the newest, also those without a reward that counts


def serving_version(endpoint: Any) -> str | None:
    """Return the version with the largest share of the traffic; None where nothing is deployed."""
    shares = endpoint.traffic_split
    return max(shares, key=shares.get, default=None)


def deploy(
    endpoint: Any,
    policy: Any,
    version: str,
    judgement: Judgement | None,
    expected: str | None,
    canary: int = Guardrail.canary,
    now: datetime | None = None,
    until: datetime | None = None,
) -> Verdict:
    """Deploy a policy as a canary if it passed the gate; the first one serves all users.

    Args:
      endpoint: `platforms.endpoints.Endpoint`
      policy: directory of an exported policy, or what else the endpoint takes.
      version: of the policy.
      judgement: of the policy; None for the first one.
      expected: version that served when the training began; None where nothing did.
      canary: percentage of the users who get it at first.
      now: aware datetime of the verdict; None for the time of day after the change of the endpoint.
      until: end of the data of the candidate, which distinguishes one decision from the next; None for a single one.

    Returns:
      `Verdict`: "deployed", "held" or "refused"; write it to the warehouse, from which `guard` knows what is new. The
      same version, of the same data, against the same serving one gives the same verdict, and is deployed once.

    Raises:
      PlatformError: the endpoint refused, as when the guardrail has changed the shares; what it serves then goes on.
    """
    shares = endpoint.traffic_split
    serving = max(shares, key=shares.get, default=None)
    occasion = "" if until is None else until.astimezone(UTC).isoformat()
    against = "" if judgement is None else judgement.serving
    names = ("difference", "low", "high", "effective_sample_size")
    numbers = () if judgement is None else tuple(getattr(judgement, name) for name in names)
    if version in shares and version != against:
        why = f"It is deployed already and has {shares[version]} % of the traffic: nothing to do."
        return verdict_of("deployed", version, against, occasion, why, now, *numbers)
    if refusal := _refusal(version, judgement, expected, serving):
        kind = "held" if judgement is not None and judgement.outcome == "held" else "refused"
        return verdict_of(kind, version, serving or "", occasion, refusal, now, *numbers)
    if serving is None:
        endpoint.deploy(policy, 100)
        return verdict_of("deployed", version, "", occasion, "It is the first policy and serves all users.", now)
    others = [other for other in shares if other != serving]  # the control of an old experiment, undecided canaries
    if shares[serving] < 100:  # where they are still so: a guardrail may have rolled back `serving` meanwhile
        endpoint.split(dict.fromkeys(others, 0) | {serving: 100}, expected=shares)
    for other in others:
        endpoint.undeploy(other)
    endpoint.deploy(policy, canary)
    why = f"Canary for {canary} % of the users. {judgement.why if judgement else ''}"
    return verdict_of("deployed", version, against, occasion, why, now, *numbers)


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

    Decisions count once their window has closed by `now`, an aware datetime. The predictions of `policies`, a function
    from version to `ServedPolicy`, or None for one that cannot be loaded, reduce the variance of a canary.

    Returns:
      `Verdict`, "ramped", "promoted", "rolled back" or "withdrawn", which is in the warehouse already; or None.

    Raises:
      PlatformError: no answer, or another process changed the shares meanwhile; the next look decides.
    """
    shares = endpoint.traffic_split
    experiment = find_experiment(shares, warehouse.verdicts()) if sum(map(bool, shares.values())) == 2 else None
    if experiment is None:
        return None
    evidence = collect_evidence(experiment, warehouse, now, rule, guardrail, policies)
    kind, why = decide(experiment, evidence, guardrail)
    if kind is None or endpoint.traffic_split != shares:  # a Deployer changed the shares meanwhile
        return None
    versions, start = (experiment.newest, experiment.other), experiment.start.isoformat()
    verdict = verdict_of(kind, *versions, start, why, now, *map(finite_or_none, evidence.difference))
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

    Predictions need each decision. Without them, and after the promotion, which has no deadline, sums by user suffice.
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
    """Compute the `Evidence` from rewards, users and covariates, as `sequential.difference` takes them.

    Each is of two sides, the newest first.
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


def find_experiment(shares: dict[str, int], verdicts: pd.DataFrame) -> Experiment | None:
    """Find the running experiment; None where not two versions have traffic, or no verdict says which is new."""
    versions = [version for version, share in shares.items() if share]
    deployed = verdicts[(verdicts["kind"] == "deployed") & verdicts["version"].isin(versions)]
    if len(versions) != 2 or deployed.empty:
        return None
    last = deployed.sort_values("time", kind="stable").iloc[-1]
    newest, other = last["version"], next(version for version in versions if version != last["version"])
    if last["against"] != other:  # a Deployer was killed before it wrote its verdict
        return None
    kinds = ["deployed", "ramped", *(["promoted"] if shares[newest] > shares[other] else [])]
    starts = verdicts[(verdicts["version"] == newest) & verdicts["kind"].isin(kinds)]["time"]
    return Experiment(newest, other, shares[newest], starts.max().to_pydatetime())


def verdict_of(
    kind: str, version: str, against: str, occasion: str, why: str, now: datetime | None, *numbers: float | None
) -> Verdict:
    """Return a `Verdict` at the time of day or at `now`, with the same id when the same decision is repeated.

    The text `occasion` distinguishes this decision from others on the same versions: the end of the data, or the start
    of the experiment. The numbers are difference, low, high and effective sample size, or the first of them.
    """
    name = str(uuid.uuid5(_SPACE, f"{kind} {version} {against} {occasion}"))
    return Verdict(name, now or datetime.now(UTC), kind, version, against, why, *numbers)


def _refusal(version, judgement, expected, serving):
    """Say why a candidate is not deployed; None if it may be."""
    if serving != expected:
        return f"Refused: {expected or 'nothing'} served when it was trained, {serving or 'nothing'} serves now."
    if serving is None:
        return None
    if judgement is None:
        return f"Refused: it was not judged against {serving}, which serves."
    if version == serving:
        return "Refused: it is what serves already, nothing new was learnt."
    if (judgement.candidate, judgement.serving) != (version, serving):
        return f"Refused: the judgement is of {judgement.candidate} against {judgement.serving}, not of these."
    return None if judgement.passed else judgement.why


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
    While the small side has fewer users than expected, the squares of the excess underestimate its variance; so it is
    at least that of drawn users, which is known: share (1 - share) decisions^2 of each.
    """
    user, share = np.unique(np.concatenate(users), return_inverse=True)[1], share / 100
    is_first = np.arange(len(user)) < len(users[0])
    excess, decisions = np.bincount(user, is_first - share), np.bincount(user)
    error = math.sqrt(max(excess @ excess, share * (1 - share) * (decisions @ decisions)))
    return bool(abs(excess.sum()) > error * sequential.critical_value(len(excess), _MISMATCH))
