"""From a judgement to traffic: a canary first, then half of the users, then most of them, or back.

There is one endpoint. `deploy` puts a version that passed the gate beside what serves; `guard`, called again and again,
compares the rewards of both. Our server splits users between versions by hash, Vertex AI draws the version of each
request: either way the two are a randomised experiment, and intervals count users, not requests.
"""

import math
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbandits.evaluation import sequential
from recbandits.loop.gate import policy_directory, predicted_values
from recbandits.loop.ingest import log_of
from recbandits.loop.models import FILE, read_model
from recbandits.loop.settings import Guardrail
from recbandits.records import Verdict

__all__ = [
    "Evidence",
    "Experiment",
    "Guardrail",
    "deploy",
    "experiment",
    "guard",
    "looks",
    "observed",
    "place",
    "serving_version",
]

_MISMATCH = 0.001  # probability with which a right split ever raises the alarm
_SPACE = uuid.UUID("5b1c2f0e-53a4-5f0e-9d5c-8a5d0c6f1e77")


class Experiment(NamedTuple):
    """Two versions that share the traffic.

    Attributes:
      newest: the version that was deployed last.
      other: the one that it is to replace, or has replaced.
      share: percentage of the newest.
      start: datetime in UTC since when they have had these shares.
    """

    newest: str
    other: str
    share: int
    start: datetime

    @property
    def promoted(self):
        """Whether the newest has the larger share already."""
        return self.share > 50


class Evidence(NamedTuple):
    """What the rewards say of an experiment.

    Attributes:
      difference: `Interval` of the newest's mean reward less the other's, in units of the reward; NaN where there is
        too little to say.
      decisions: (of the newest, of the other).
      margin: loss up to which the newest is non-inferior, in units of the reward.
      mismatch: whether the decisions are not split as the shares say: then the versions differ in more than the policy.
      alarm: sentence; empty for none.
    """

    difference: sequential.Interval
    decisions: tuple
    margin: float
    mismatch: bool
    alarm: str


def serving_version(endpoint):
    """Version with the largest share of the traffic; None where nothing is deployed."""
    return _largest(endpoint.traffic_split)


def deploy(endpoint, model_dir, judgement, serving_version, canary=Guardrail.canary, now=None):
    """Deploy a model as a canary if it passed the gate; the first one serves everybody.

    Args:
      endpoint: `platforms.endpoints.Endpoint`
      model_dir: directory of a model or of an exported policy.
      judgement: `Judgement` of its policy; None for the first one.
      serving_version: version that served when the training began; None where nothing did.
      canary: percentage of the users who get it at first.
      now: aware datetime of the verdict; None for the time of day when the endpoint has done what was decided.

    Returns:
      `Verdict`: "deployed", "held" or "refused", and why; write it to the warehouse, from which `guard` knows what is
      new. The same version, of the same data, against the same serving one gives the same verdict, and is deployed
      once.

    Raises:
      ValueError: the directory holds no policy.
      PlatformError: the endpoint refused, as when the guardrail has changed the shares meanwhile; what it serves then
        goes on.
    """
    from recbandits.serving.policy import load

    policy = policy_directory(model_dir)
    until = read_model(model_dir).until if Path(model_dir, FILE).is_file() else None
    return place(endpoint, policy, load(policy).version, judgement, serving_version, canary, now, until)


def place(endpoint, policy, version, judgement, expected, canary=Guardrail.canary, now=None, until=None):
    """As `deploy`, for a policy whose version is known.

    Args:
      endpoint: as for `deploy`.
      policy: what the endpoint takes as a policy.
      version: of it.
      judgement: as for `deploy`.
      expected: version that should serve now, or None.
      canary: as for `deploy`.
      now: as for `deploy`.
      until: datetime, end of the data that the candidate was given, which distinguishes one decision from the next;
        None where there is but one.

    Returns:
      `Verdict`
    """
    shares = endpoint.traffic_split
    serving, of = _largest(shares), "" if until is None else until.astimezone(UTC).isoformat()
    against = "" if judgement is None else judgement.serving
    if version in shares and version != against:
        why = f"It is deployed already and has {shares[version]} % of the traffic: nothing to do."
        return _verdict("deployed", version, against, of, why, now, judgement)
    if refusal := _refusal(version, judgement, expected, serving):
        kind = "held" if judgement is not None and judgement.outcome == "held" else "refused"
        return _verdict(kind, version, serving or "", of, refusal, now, judgement)
    if serving is None:
        endpoint.deploy(policy, 100)
        return _verdict("deployed", version, "", of, "It is the first: it serves everybody.", now)
    _only(endpoint, serving, shares)
    endpoint.deploy(policy, canary)
    why = f"Canary for {canary} % of the users. {judgement.why}"
    return _verdict("deployed", version, against, of, why, now, judgement)


def guard(endpoint, warehouse, now, rule, guardrail=None, policies=None):
    """Compare the rewards of both versions, and ramp, promote, roll back or withdraw the newest, or collect more data.

    A canary is promoted when it is non-inferior: the lower bound of the difference is above -margin. It is rolled back
    when it is significantly worse: the upper bound is below -margin. In between it gets a larger share, and is
    withdrawn when it has had its time with it, or when the split is not as the shares say. After the promotion it is
    compared with the users who kept its predecessor, and rolled back when it is significantly worse. The bounds are
    those of a confidence sequence, so that one may look at any time; the decisions with each share are an experiment of
    their own.

    Args:
      endpoint: `platforms.endpoints.Endpoint`
      warehouse: with `by_user`, `decisions`, `verdicts` and `write`.
      now: aware datetime; decisions count once their window has closed.
      rule: `settings.Join`
      guardrail: `Guardrail`; None for the defaults.
      policies: function from version to `ServedPolicy`, or None for one that cannot be loaded, whose predictions reduce
        the variance; each decision is then read, where otherwise sums by user are. None for no reduction.

    Returns:
      `Verdict`, "ramped", "promoted", "rolled back" or "withdrawn", which is in the warehouse already; None where there
      is nothing to decide.

    Raises:
      PlatformError: the warehouse or the endpoint does not answer, or another process changed the shares at the very
        last moment; the next look decides.
    """
    guardrail = Guardrail() if guardrail is None else guardrail
    shares = endpoint.traffic_split
    under = experiment(shares, warehouse.verdicts()) if sum(map(bool, shares.values())) == 2 else None
    if under is None:
        return None
    evidence = observed(under, warehouse, now, rule, guardrail, policies)
    kind, why = decide(under, evidence, guardrail)
    if kind is None or endpoint.traffic_split != shares:  # a Deployer was faster than the warehouse
        return None
    verdict = _verdict(kind, under.newest, under.other, under.start.isoformat(), why, now, evidence.difference)
    warehouse.write([verdict])  # first: who is killed in between decides the same once more
    share = {"ramped": guardrail.ramp, "promoted": 100 - guardrail.holdback}.get(kind, 0)
    split = {under.newest: share, under.other: 100 - share}
    endpoint.split(dict.fromkeys(shares, 0) | split, expected=shares)
    return verdict


def experiment(shares, verdicts):
    """The experiment that runs, as the shares and the verdicts so far tell.

    Args:
      shares: dict from version to percentage.
      verdicts: DataFrame of `Verdict`s.

    Returns:
      `Experiment`; None where not two versions have traffic, or no verdict says which of them is new.
    """
    versions = [version for version, share in shares.items() if share]
    deployed = verdicts[(verdicts["kind"] == "deployed") & verdicts["version"].isin(versions)]
    if len(versions) != 2 or deployed.empty:
        return None
    last = deployed.sort_values("time", kind="stable").iloc[-1]
    newest, other = last["version"], next(version for version in versions if version != last["version"])
    if last["against"] != other:  # a Deployer was killed before it said what it had deployed
        return None
    kinds = ["deployed", "ramped", *(["promoted"] if shares[newest] > shares[other] else [])]
    starts = verdicts[(verdicts["version"] == newest) & verdicts["kind"].isin(kinds)]["time"]
    return Experiment(newest, other, shares[newest], starts.max().to_pydatetime())


def observed(under, warehouse, now, rule, guardrail, policies=None):
    """Compute the `Evidence` of an experiment; without policies a sum of each user is read, however many decisions.

    Args:
      under: `Experiment`
      warehouse: as for `guard`.
      now: as for `guard`.
      rule: as for `guard`.
      guardrail: `Guardrail`
      policies: as for `guard`.
    """
    start = under.start + timedelta(seconds=guardrail.settling)
    span = start, max(start, now - timedelta(seconds=rule.window))
    versions = under.newest, under.other
    known = [policy for policy in map(policies, versions) if policy is not None] if policies else []
    if known:
        sides = _sides_of_decisions(warehouse.decisions(*span, **vars(rule)), versions, known)
    else:
        sides = _sides_of_sums(warehouse.by_user(*span, **vars(rule)), versions)
    return compare(*sides, under, guardrail)


def compare(rewards, users, covariates, under, guardrail):
    """Compute the `Evidence` from the decisions of both sides.

    Args:
      rewards: (float [n] of the newest, float [m] of the other).
      users: (labels [n], labels [m]), the same on both sides for the same user.
      covariates: as for `sequential.difference`.
      under: `Experiment`
      guardrail: `Guardrail`
    """
    tightest = 100 * guardrail.most / min(under.share, 100 - under.share)  # decisions at the deadline
    found = sequential.difference(*rewards, guardrail.alpha, tightest, users, covariates)
    decisions = tuple(map(len, rewards))
    margin = guardrail.margin * abs(float(np.mean(rewards[1]))) if decisions[1] else math.nan
    mismatch = sum(decisions) >= 2 * guardrail.least and _is_mismatch(users, under.share)
    alarm = ""
    if mismatch:
        share = decisions[0] / sum(decisions)
        alarm = f"{share:.1%} of the decisions are of the newest version, the shares say {under.share} %"
    elif decisions[0] >= guardrail.most and not math.isfinite(found.high - found.low):
        alarm = "the interval of the difference is not finite"
    elif decisions[0] >= guardrail.most and not found.high - found.low <= 2 * margin:
        alarm = f"the interval of the difference is wider than the margin of {margin:.3g} on both sides"
    return Evidence(found, decisions, margin, mismatch, alarm)


def decide(under, evidence, guardrail):
    """Return (kind of the `Verdict` or None, why) of an `Experiment` with its `Evidence`, given a `Guardrail`."""
    found, decisions, margin, mismatch, alarm = evidence
    sequence = f"{100 * (1 - guardrail.alpha):g} % sequence {found.low:+.3g} to {found.high:+.3g}"
    after = f"after {decisions[0]:,} and {decisions[1]:,} decisions"
    measured = f"(difference {found.value:+.3g}, {sequence}, {after})"
    enough = min(decisions) >= guardrail.least and math.isfinite(found.high - found.low) and not mismatch
    if enough and found.high < -margin:
        return "rolled back", f"It is significantly worse by more than {margin:.3g} {measured}."
    if under.promoted:
        return None, ""
    if enough and found.low > -margin:
        return "promoted", f"It is not worse by {margin:.3g} or more {measured}."
    if mismatch or decisions[0] >= guardrail.most:
        return "withdrawn", f"The evidence does not suffice: {alarm or 'the margin is in the interval'} {measured}."
    if enough and under.share < guardrail.ramp and found.value > -margin:
        return "ramped", f"It gets {guardrail.ramp} % of the users for more evidence {measured}."
    return None, ""


def looks(under, warehouse, times, rule, guardrail, policies=None):
    """Tabulate the evidence of an experiment at several times, for `plots.loop.guardrail`.

    Args:
      under: `Experiment`
      warehouse: as for `guard`.
      times: list of aware datetimes.
      rule: as for `guard`.
      guardrail: `Guardrail`
      policies: as for `guard`.

    Returns:
      DataFrame, one row a time: time, decisions (of both versions), value, low, high, margin, alarm.
    """
    rows = []
    for time in times:
        evidence = observed(under, warehouse, time, rule, guardrail, policies)
        row = {"time": time, "decisions": sum(evidence.decisions), **evidence.difference._asdict()}
        rows.append(row | {"margin": evidence.margin, "alarm": evidence.alarm})
    return pd.DataFrame(rows)


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
    counts = [1 - share / 100, -share / 100]
    each = np.concatenate([np.full(len(side), count) for side, count in zip(users, counts, strict=True)])
    excess = np.bincount(np.unique(np.concatenate(users), return_inverse=True)[1], each)
    error = math.sqrt(excess @ excess)
    return bool(abs(excess.sum()) > error * sequential.critical_value(len(excess), _MISMATCH))


def _refusal(version, judgement, expected, serving):
    """Why a candidate is not deployed; None if it may be."""
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


def _largest(shares):
    """Version with the largest share; None where there is none."""
    return max(shares, key=shares.get) if shares else None


def _only(endpoint, version, shares):
    """Leave one version alone on the endpoint: the control of an old experiment and unproven canaries go.

    No change since the endpoint had these `shares` is undone: a guardrail may have rolled back what is to be left.
    """
    others = [other for other in shares if other != version]
    if shares[version] < 100:
        endpoint.split(dict.fromkeys(others, 0) | {version: 100}, expected=shares)
    for other in others:
        endpoint.undeploy(other)


def _verdict(kind, version, against, of, why, now, found=None):
    """A `Verdict`, which is the same when the same is decided again.

    Args:
      kind: as for `Verdict`.
      version: likewise.
      against: likewise.
      of: text that tells this decision from others on the same versions: the end of the data, or when the experiment
        began. The time of day does not: it is another one when a pipeline runs again.
      why: as for `Verdict`.
      now: aware datetime; None for the time of day.
      found: has the difference with its bounds: a Judgement or an Interval.
    """
    return Verdict(
        verdict_id=str(uuid.uuid5(_SPACE, f"{kind} {version} {against} {of}")),
        time=datetime.now(UTC) if now is None else now,
        kind=kind,
        version=version,
        against=against,
        why=why,
        difference=getattr(found, "difference", getattr(found, "value", None)),
        low=_finite(getattr(found, "low", None)),
        high=_finite(getattr(found, "high", None)),
        effective_sample_size=getattr(found, "effective_sample_size", None),
    )


def _finite(bound):
    return bound if bound is not None and math.isfinite(bound) else None
