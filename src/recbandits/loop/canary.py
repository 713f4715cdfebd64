"""From a judgement to traffic: a canary first, then most of the users, and back at once when users say so.

There is one endpoint. `deploy` puts a version that passed the gate beside what serves; `guard`, called again and again,
looks at the rewards of both. Our server splits users between versions by hash, Vertex AI draws the version of each
request: either way the two are a randomised experiment, and intervals count users, not requests.
"""

import math
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbandits.evaluation import sequential
from recbandits.loop.gate import policy_directory
from recbandits.loop.models import FILE, read_model
from recbandits.loop.settings import Guardrail
from recbandits.records import Verdict

__all__ = ["Experiment", "Guardrail", "deploy", "experiment", "guard", "looks", "observed", "place", "serving_version"]

_SPACE = uuid.UUID("5b1c2f0e-53a4-5f0e-9d5c-8a5d0c6f1e77")


class Experiment(NamedTuple):
    """Two versions that share the traffic.

    Attributes:
      newest: the version that was deployed last.
      other: the one that it is to replace, or has replaced.
      promoted: whether the newest has the larger share already.
      start: datetime in UTC since when they have had these shares.
    """

    newest: str
    other: str
    promoted: bool
    start: datetime


def serving_version(endpoint):
    """Version with the largest share of the traffic; None where nothing is deployed."""
    return _largest(endpoint.traffic_split)


def deploy(endpoint, model_dir, judgement, serving_version, canary=Guardrail.canary, now=None):
    """Deploy a model as a canary if the gate lets it pass; the first one serves everybody.

    Args:
      endpoint: `platforms.endpoints.Endpoint`
      model_dir: directory of a model or of an exported policy.
      judgement: `Judgement` of its policy; None for the first one.
      serving_version: version that served when the training began; None where nothing did.
      canary: percentage of the users who get it at first.
      now: aware datetime of the verdict; None for the time of day when the endpoint has done what was decided.

    Returns:
      `Verdict`: "deployed" or "refused", and why; write it to the warehouse, from which `guard` knows what is new. The
      same version, of the same data, against the same serving one gives the same verdict, and is deployed once.

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
      until: datetime, end of the data that the candidate was given, by which one decision is told from the next; None
        where there is but one.

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
        return _verdict("refused", version, serving or "", of, refusal, now, judgement)
    if serving is None:
        endpoint.deploy(policy, 100)
        return _verdict("deployed", version, "", of, "It is the first: it serves everybody.", now)
    _only(endpoint, serving, shares)
    endpoint.deploy(policy, canary)
    why = f"Canary for {canary} % of the users. {judgement.why}"
    return _verdict("deployed", version, against, of, why, now, judgement)


def guard(endpoint, warehouse, now, rule, guardrail=None):
    """Look at the rewards of both versions, and promote the newest, take it back, or wait.

    A canary is taken back when it is surely worse than the other; it is promoted when it is surely not worse by the
    margin, or when it has had its time without being surely worse. After the promotion it is watched on, against the
    users who kept its predecessor, and taken back when it turns worse. Sure is what a confidence sequence says, so that
    one may look as often as one likes; each stage is an experiment of its own, with the users that its shares give.

    Args:
      endpoint: `platforms.endpoints.Endpoint`
      warehouse: with `by_user`, `verdicts` and `write`.
      now: aware datetime; decisions count once their window has closed.
      rule: `settings.Join`
      guardrail: `Guardrail`; None for the defaults.

    Returns:
      `Verdict`, "promoted" or "rolled back", which is in the warehouse already; None where there is nothing to decide.

    Raises:
      PlatformError: the warehouse or the endpoint does not answer, or somebody has changed the shares at the very last
        moment; the next look decides.
    """
    guardrail = Guardrail() if guardrail is None else guardrail
    shares = endpoint.traffic_split
    under = experiment(shares, warehouse.verdicts()) if sum(map(bool, shares.values())) == 2 else None
    if under is None:
        return None
    found, counts = observed(under, warehouse, now, rule, guardrail)
    kind, why = _decision(under, found, counts, guardrail)
    if kind is None:
        return None
    if endpoint.traffic_split != shares:  # a Deployer was faster than the warehouse
        return None
    verdict = _verdict(kind, under.newest, under.other, under.start.isoformat(), why, now, found)
    warehouse.write([verdict])  # first: who is killed in between decides the same once more
    winner, loser = (under.newest, under.other) if kind == "promoted" else (under.other, under.newest)
    kept = guardrail.holdback if kind == "promoted" else 0
    endpoint.split(dict.fromkeys(shares, 0) | {winner: 100 - kept, loser: kept}, expected=shares)
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
    promoted = shares[newest] > shares[other]
    begun = verdicts[(verdicts["version"] == newest) & verdicts["kind"].isin(["deployed", "promoted"])]
    if not promoted:
        begun = begun[begun["kind"] == "deployed"]
    return Experiment(newest, other, promoted, begun["time"].max().to_pydatetime())


def observed(under, warehouse, now, rule, guardrail):
    """What users got from both versions of an experiment; of each user a sum is fetched, however many the decisions.

    Args:
      under: `Experiment`
      warehouse: as for `guard`.
      now: as for `guard`.
      rule: as for `guard`.
      guardrail: `Guardrail`

    Returns:
      (`sequential.Interval` of the newest's mean reward less the other's, rating points; (decisions of the newest,
      decisions of the other)).
    """
    end = now - timedelta(seconds=rule.window)
    seen = warehouse.by_user(under.start, max(under.start, end), rule.window, rule.default, rule.take)
    seen["reward"] = seen["total"] / seen["decisions"]
    sides = [seen[seen["policy_version"] == version] for version in (under.newest, under.other)]
    # A row is a user, or a decision without a user id; each decision gets the mean of its row, for only sums count.
    rewards = [np.repeat(side["reward"], side["decisions"]) for side in sides]
    users = [np.repeat(side.index, side["decisions"]) for side in sides]
    tightest = 100 * guardrail.most / guardrail.canary  # decisions of both when the canary has had its time
    return sequential.difference(*rewards, guardrail.alpha, tightest, users), tuple(map(len, rewards))


def looks(under, warehouse, times, rule, guardrail):
    """What the guardrail sees of an experiment at several times, for `plots.loop.guardrail`.

    Args:
      under: `Experiment`
      warehouse: as for `guard`.
      times: list of aware datetimes.
      rule: as for `guard`.
      guardrail: `Guardrail`

    Returns:
      DataFrame, one row a time: time, decisions (of both versions), value, low, high.
    """
    rows = []
    for time in times:
        found, counts = observed(under, warehouse, time, rule, guardrail)
        rows.append({"time": time, "decisions": sum(counts), **found._asdict()})
    return pd.DataFrame(rows)


def _decision(under, found, counts, guardrail):
    """(kind of the verdict or None, why)."""
    sequence = f"{100 * (1 - guardrail.alpha):g} % sequence {found.low:+.3f} to {found.high:+.3f}"
    measured = f"difference {found.value:+.3f}, {sequence}"
    after = f"after {counts[0]:,} and {counts[1]:,} decisions"
    if min(counts) < guardrail.least:
        return None, ""
    if found.high < 0:
        return "rolled back", f"Users get surely less from it ({measured}, {after})."
    if under.promoted:
        return None, ""
    if found.low >= -guardrail.margin:
        return "promoted", f"It is surely not worse by more than {guardrail.margin:g} ({measured}, {after})."
    if counts[0] >= guardrail.most:
        return "promoted", f"It has had its time and is not surely worse ({measured}, {after})."
    return None, ""


def _refusal(version, judgement, expected, serving):
    """Why a candidate is not deployed; None if it may be."""
    if serving != expected:
        return f"Refused: {expected or 'nothing'} served when it was trained, {serving or 'nothing'} serves now."
    if serving is None:
        return None
    if judgement is None:
        return f"Refused: nobody has judged it against {serving}, which serves."
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

    Nobody's change since the endpoint was found with these `shares` is undone: a guardrail may have taken back what is
    to be left.
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
