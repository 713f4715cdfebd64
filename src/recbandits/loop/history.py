"""What a loop did, by the truth: which policy served in each round, and how good it and its alternatives were.

Only a simulated world can tell this; a real recommender has the estimates of the gate and of the guardrail instead.
"""

import numpy as np
import pandas as pd

from recbandits.evaluation.intervals import mean_interval

_STEPS = 50  # of the drift, between which decisions are taken as made at one
_TOLD = ["kind", "why", "difference", "low", "high"]


def rounds_of(verdicts, end):
    """Which policy served in each round.

    A round begins with what the gate decided on a candidate, and ends with the next such decision; round 0 begins with
    the first policy. A candidate that was deployed is a canary until it is promoted, so the policy of a round is the
    one that had most of the traffic at its end.

    Args:
      verdicts: DataFrame of `Warehouse.verdicts`, oldest first.
      end: datetime, of the last round.

    Returns:
      DataFrame, one row a round: round, start, end, version (that served), candidate (that was decided on), kind
      ("deployed" or "refused"), why, difference, low and high of the decision.
    """
    rows, serving = [], None
    for verdict in verdicts.to_dict("records"):
        if verdict["kind"] in ("deployed", "held", "refused"):
            serving = verdict["against"] or serving  # the Deployer looked; a guardrail may not have come to act
            if rows:
                rows[-1] |= {"end": verdict["time"], "version": serving}
            told = {name: verdict[name] for name in _TOLD}
            rows.append({"round": len(rows), "start": verdict["time"], "candidate": verdict["version"]} | told)
            serving = serving or verdict["version"]
        elif verdict["kind"] == "promoted":
            serving = verdict["version"]
        elif verdict["version"] == serving:
            serving = verdict["against"]
    if rows:
        rows[-1] |= {"end": pd.Timestamp(end), "version": serving}
    return pd.DataFrame(rows, columns=["round", "start", "end", "version", "candidate", *_TOLD])


def true_values(world, policies, rounds, visits, drift):
    """What the policies that served are truly worth, on the same visits in every round.

    Args:
      world: `SimulatedUsers`
      policies: dict from version to `ServedPolicy`.
      rounds: DataFrame of `rounds_of`.
      visits: of `SimulatedUsers.visits`.
      drift: function from a time to how far taste has turned, in [0, 1].

    Returns:
      DataFrame, one row a round and learner: round, time (at which taste is taken, the end of the round), drift,
      learner ("learning": what served; "frozen": the first policy, had it served all along; "oracle"; "uniform"),
      value, low, high (its mean over visits and 95 % interval), gain, gain_low, gain_high (mean difference to "frozen",
      visit by visit).
    """
    rows = []
    for row in rounds.itertuples():
        turned = drift(row.end.to_pydatetime())
        first = world.value(policies[rounds["version"].iloc[0]], visits, turned)
        values = {
            "learning": world.value(policies[row.version], visits, turned),
            "frozen": first,
            "oracle": world.oracle_value(visits, turned),
            "uniform": world.uniform_value(visits, turned),
        }
        for learner, value in values.items():
            gain = dict(zip(("gain", "gain_low", "gain_high"), mean_interval(value - first), strict=True))
            columns = {"round": row.round, "time": row.end, "drift": turned, "learner": learner}
            rows.append(columns | mean_interval(value)._asdict() | gain)
    return pd.DataFrame(rows)


def improvement(world, policies, rounds, visits, turned=0.0):
    """How much better the last policy is than the first.

    Args:
      world: `SimulatedUsers`
      policies: dict from version to `ServedPolicy`.
      rounds: DataFrame of `rounds_of`.
      visits: of `SimulatedUsers.visits`.
      turned: how far taste has turned, in [0, 1].

    Returns:
      `Interval` of the difference of the means, 95 % over visits, stars.
    """
    first, last = (world.value(policies[rounds["version"].iloc[place]], visits, turned) for place in (0, -1))
    return mean_interval(last - first)


def regret_of(world, decisions, first, drift):
    """What was lost with each logged decision against the best candidate, by the truth.

    Args:
      world: `SimulatedUsers`
      decisions: pyarrow.Table of `Warehouse.decisions`, by a policy that served, all with as many candidates.
      first: `ServedPolicy` that served first.
      drift: as for `true_values`.

    Returns:
      DataFrame, one row a decision, by time: time, expected (true mean of what was shown), frozen (of what the first
      policy would have shown to the same user out of the same candidates), oracle, uniform.
    """
    shown = decisions.select(["time", "user_id", "candidates", "action"]).to_pandas()
    turned = np.round([_STEPS * drift(time.to_pydatetime()) for time in shown["time"]]) / _STEPS
    parts = []
    for degree, part in shown.groupby(turned, sort=False):
        users, items = world.find_users(part["user_id"]), world.find_items(np.stack(part["candidates"]))
        action = world.find_items(part[["action"]])
        values = {
            "expected": world.expected(users, action, degree)[:, 0],
            "frozen": world.value(first, (users, items), degree),
            "oracle": world.oracle_value((users, items), degree),
            "uniform": world.uniform_value((users, items), degree),
        }
        parts.append(pd.DataFrame(values, index=part.index).assign(time=part["time"]))
    return pd.concat(parts).sort_index()[["time", "expected", "frozen", "oracle", "uniform"]]
