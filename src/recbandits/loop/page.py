"""The picture page of a loop with simulated users: what served in each round, its expected reward, and the monitors."""

import html
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from recbandits.checks import write_text
from recbandits.evaluation.intervals import mean_interval
from recbandits.loop import monitors
from recbandits.loop.canary import JUDGED
from recbandits.loop.live import Loop
from recbandits.loop.models import load_policies
from recbandits.loop.simulate import UNIFORM
from recbandits.loop.simulated_users import SimulatedUsers

_VISITS = 4000  # on which policies are compared
_NAMES = {"uniform": "uniform random policy", "frozen": "first policy", "learning": "last served policy"}
_PICTURES = {  # texts for people who do not see them
    "rewards": "Expected reward of the served policy in each round, beside the uniform random policy and the oracle.",
    "gate": "Estimated difference of each candidate to the served policy, with its interval and the gate's margin.",
    "drift": "Mean reward, squared error of the served scores and stability indices, period by period.",
    "propensities": "Mean of 1 / (candidates x propensity) and smallest propensity of each policy version.",
}
_COLUMNS = ["kind", "why", "difference", "low", "high"]


def write_page(loop: Loop, end: datetime) -> tuple[Path, pd.DataFrame, list[str]]:
    """Write `page/index.html` with its pictures into the directory of a `live.Loop` in which a policy has served.

    It returns the path of the page, a table of expected rewards at the end, with 95 % intervals, and sentences: the
    gain of the last policy, and the alarms.
    """
    from recbandits.plots import loop as plots

    verdicts, rule, settings = (loop.platform.warehouse.verdicts(), loop.settings.join, loop.settings)
    rounds = rounds_of(verdicts, end)
    start = rounds["start"].iloc[0].to_pydatetime()
    closed = max(start, end - timedelta(seconds=rule.window))
    decisions = loop.platform.warehouse.decisions(start, closed, rule)
    decisions = decisions.filter(pc.not_equal(decisions["policy_version"], UNIFORM))
    versions = {*rounds["version"], *pc.unique(decisions["policy_version"]).to_pylist()}
    policies = load_policies(loop.models, sorted(versions))
    visits = loop.users.visits(_VISITS, np.random.default_rng(settings.seed), settings.candidates)
    values = true_values(loop.users, policies, rounds, visits, loop.simulator.drift)
    drift = monitors.drift(decisions, [*rounds["start"].dt.to_pydatetime(), end], policies)
    propensities = monitors.propensities(decisions, policies)
    served = values[values["learner"] == "learning"]["value"].iloc[-1]
    pictures = {
        "rewards": plots.rewards(values, "Expected reward of what served"),
        "gate": plots.gate(rounds, settings.gate.margin * served, "Estimates of the gate", settings.gate.level),
        "drift": plots.drift(drift, "Drift monitor"),
        "propensities": plots.propensities(propensities, "Propensity monitor"),
    }
    directory = loop.directory / "page"
    directory.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        picture.savefig(directory / f"{name}.png", dpi=100)
    alarms = [alarm for table in (drift, propensities) for alarm in table.get("alarm", []) if alarm]
    sentences = [gain_sentence(values, rounds), *alarms]
    paragraphs = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    images = "".join(f'<p><img src="{name}.png" alt="{html.escape(_PICTURES[name])}"></p>' for name in pictures)
    table = verdicts[["time", "kind", "version", "against", *_COLUMNS[1:]]].to_html(index=False, border=0)
    last = values[values["round"] == values["round"].max()].set_index("learner").loc[[*_NAMES, "oracle"]]
    rewards = last.rename(_NAMES).rename_axis("expected reward")[["value", "low", "high"]].round(3)
    head = "<!doctype html><html lang=en><meta charset=utf-8><title>RecBandits: the loop</title>"
    body = f"<h1>The loop</h1>{paragraphs}{rewards.to_html(border=0)}{images}{table}"
    return write_text(directory / "index.html", f"{head}{body}</html>\n"), rewards, sentences


def rounds_of(verdicts: pd.DataFrame, end: datetime) -> pd.DataFrame:
    """Find which policy served in each round, by the verdicts, oldest first; the last round ends at `end`.

    A round starts with a verdict of the gate and ends with the next one. Its policy had most of the traffic at the end.

    Returns:
      DataFrame, one row for each round: round, start, end, version (that served), candidate, and kind, why, difference,
      low and high of the gate's verdict.
    """
    rows: list[dict] = []
    serving = None
    for verdict in verdicts.to_dict("records"):
        if verdict["kind"] in JUDGED:
            serving = verdict["against"] or serving  # as the Deployer saw it; a guardrail may not have come to act
            if rows:
                rows[-1] |= {"end": verdict["time"], "version": serving}
            columns = {name: verdict[name] for name in _COLUMNS}
            rows.append({"round": len(rows), "start": verdict["time"], "candidate": verdict["version"]} | columns)
            serving = serving or verdict["version"]
        elif verdict["kind"] == "promoted":
            serving = verdict["version"]
        elif verdict["version"] == serving:
            serving = verdict["against"]
    if rows:
        rows[-1] |= {"end": pd.Timestamp(end), "version": serving}
    return pd.DataFrame(rows, columns=["round", "start", "end", "version", "candidate", *_COLUMNS])


def true_values(
    users: SimulatedUsers, policies: dict, rounds: pd.DataFrame, visits: tuple, drift: Callable
) -> pd.DataFrame:
    """Compute the expected rewards of the policies that served, on the same visits in every round.

    Returns:
      DataFrame, one row for each round and learner: round, drift (at the end of the round), learner ("learning": what
      served; "frozen": the first policy; "oracle"; "uniform"), value, low, high (mean over visits and 95 % interval),
      gain, gain_low, gain_high (mean difference to "frozen", visit by visit).
    """
    rows = []
    for row in rounds.itertuples():
        degree = drift(row.end.to_pydatetime())
        frozen = users.value(policies[rounds["version"].iloc[0]], visits, degree)
        values = {"learning": users.value(policies[row.version], visits, degree), "frozen": frozen}
        values |= {"oracle": users.oracle_value(visits, degree), "uniform": users.uniform_value(visits, degree)}
        for learner, value in values.items():
            gain = dict(zip(("gain", "gain_low", "gain_high"), mean_interval(value - frozen), strict=True))
            labels = {"round": row.round, "drift": degree, "learner": learner}
            rows.append(labels | mean_interval(value)._asdict() | gain)
    return pd.DataFrame(rows)


def gain_sentence(values: pd.DataFrame, rounds: pd.DataFrame) -> str:
    """Say how much better the last policy is than the first, from `true_values`."""
    row = values[values["learner"] == "learning"].iloc[-1]
    first, last = (rounds["version"].iloc[number][:8] for number in (0, -1))
    interval = f"95 % interval {row.gain_low:+.3f} to {row.gain_high:+.3f}"
    difference = f"Its expected reward less that of the first policy, {first}: {row.gain:+.3f}, {interval}."
    return f"After {len(rounds) - 1} re-trainings {last} serves. {difference}"
