"""The canary: `deploy` deploys a version that passed the gate beside the version that serves."""

import uuid
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pandas as pd

from recbandits.loop.gate import Judgement
from recbandits.loop.settings import Guardrail
from recbandits.records import Verdict

_SPACE = uuid.UUID("5b1c2f0e-53a4-5f0e-9d5c-8a5d0c6f1e77")


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
      version: of it.
      judgement: of it; None for the first one.
      expected: version that served when the training began; None where nothing did.
      canary: percentage of the users who get it at first.
      now: aware datetime of the verdict; None for the time of day after the change of the endpoint.
      until: end of the data of the candidate, which distinguishes one decision from the next; None for a single one.

    Returns:
      `Verdict`: "deployed", "held" or "refused", and why; write it to the warehouse, from which `guard` knows what is
      new. The same version, of the same data, against the same serving one gives the same verdict, and is deployed
      once.

    Raises:
      PlatformError: the endpoint refused, as when the guardrail has changed the shares; what it serves then goes on.
    """
    shares = endpoint.traffic_split
    serving = max(shares, key=shares.get, default=None)
    occasion = "" if until is None else until.astimezone(UTC).isoformat()
    against = "" if judgement is None else judgement.serving
    numbers: tuple[float | None, ...] = ()
    if judgement is not None:
        numbers = judgement.difference, judgement.low, judgement.high, judgement.effective_sample_size
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


def experiment(shares: dict[str, int], verdicts: pd.DataFrame) -> Experiment | None:
    """Find the running experiment from the shares, a dict from version to percentage, and a table of the verdicts.

    It is None where not two versions have traffic, or no verdict says which of them is new.
    """
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


def verdict_of(
    kind: str, version: str, against: str, occasion: str, why: str, now: datetime | None, *numbers: float | None
) -> Verdict:
    """Return a `Verdict`, with the same id when the same decision is repeated.

    The text `occasion` distinguishes this decision from others on the same versions: the end of the data, or the start
    of the experiment. The time of day, which is `now` for None, does not: it differs when a pipeline runs again. The
    numbers are difference, low, high and effective sample size, or the first of them.
    """
    name = str(uuid.uuid5(_SPACE, f"{kind} {version} {against} {occasion}"))
    return Verdict(name, now or datetime.now(UTC), kind, version, against, why, *numbers)
