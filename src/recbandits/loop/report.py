"""What a loop leaves behind: a page with pictures and the tables that they were drawn from."""

import html
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from recbandits.evaluation.intervals import half_width
from recbandits.loop import history, monitors
from recbandits.loop.generate import UNIFORM
from recbandits.loop.view import difference_text

_VISITS = 4000  # on which policies are compared
_POINTS = 200  # of a curve
_SILENT = 0.1  # share of decisions that may be without a reward beside those that the world never reports
_STYLE = (
    "body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #1a202c }"
    "table { border-collapse: collapse; font-size: 13px } td, th { padding: .2em .7em; text-align: left;"
    "border-bottom: 1px solid #e2e8f0 } img { max-width: 100% }"
)


class Report(NamedTuple):
    """Tables of a loop.

    Attributes:
      rounds: DataFrame of `history.rounds_of`.
      values: DataFrame of `history.true_values`.
      gain: (value, low, high): how much better the last policy that served truly is than the first, in stars, by the
        taste of the end, with a 95 % interval over visits.
      regret: DataFrame with decisions, learner, value, low, high: stars lost so far.
      propensities, drift, joins: DataFrames of the monitors.
      counts: `Counts` of all that was logged.
      verdicts: DataFrame of `Warehouse.verdicts`.
    """

    rounds: pd.DataFrame
    values: pd.DataFrame
    gain: tuple
    regret: pd.DataFrame
    propensities: pd.DataFrame
    drift: pd.DataFrame
    joins: pd.DataFrame
    counts: tuple
    verdicts: pd.DataFrame


def tables(world, warehouse, models, settings, end, drift=lambda _: 0.0):
    """Look back at a loop.

    Args:
      world: `SimulatedUsers`
      warehouse: `Warehouse`
      models: `Models` that were trained.
      settings: `Settings`
      end: aware datetime, of the loop; decisions count whose window has closed by then.
      drift: function from a time to how far taste had turned.

    Returns:
      `Report`

    Raises:
      ValueError: nothing has been served yet.
    """
    from recbandits.serving.policy import load

    verdicts = warehouse.verdicts()
    if verdicts.empty:
        raise ValueError("there must be a policy that has served to report on, there is none")
    rounds = history.rounds_of(verdicts, end)
    rule = settings.join
    begin, closed = rounds["start"].iloc[0].to_pydatetime(), end - timedelta(seconds=rule.window)
    decisions = warehouse.decisions(begin, max(begin, closed), **vars(rule))
    decisions = decisions.filter(pc.not_equal(decisions["policy_version"], UNIFORM))
    known = {*verdicts["version"], *pc.unique(decisions["policy_version"]).to_pylist()}
    policies = {version: load(models.path(version) / "policy") for version in sorted(known)}
    visits = world.visits(_VISITS, np.random.default_rng(settings.seed), settings.candidates)
    edges = [*rounds["start"].dt.to_pydatetime(), end]
    lost = history.regret_of(world, decisions, policies[rounds["version"].iloc[0]], drift) if len(decisions) else None
    return Report(
        rounds=rounds,
        values=history.true_values(world, policies, rounds, visits, drift),
        gain=history.improvement(world, policies, rounds, visits, drift(end)),
        regret=_added_up(lost),
        propensities=monitors.propensities(decisions, policies),
        drift=monitors.drift(decisions, edges, policies),
        joins=monitors.joins(decisions, edges, settings.never + _SILENT),
        counts=warehouse.counts(begin - timedelta(days=1), closed, **vars(rule)),
        verdicts=verdicts,
    )


def write(report, directory, settings, source):
    """Write a report as `report.html` with its pictures beside it.

    Args:
      report: `Report`
      directory: made if missing.
      settings: `Settings`
      source: the data that the world was made of, text.

    Returns:
      `pathlib.Path` of the page.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures(report, settings).items():
        picture.savefig(directory / f"{name}.png", dpi=100)
    page = directory / "report.html"
    page.write_text(_page(report, settings, source), encoding="utf-8")
    return page


def pictures(report, settings):
    """The pictures of a report, dict from name to matplotlib figure."""
    from recbandits.plots import loop as plots

    return {
        "rewards": plots.rewards(report.values, "What served, by the truth"),
        "regret": plots.regret(report.regret, "Lost against the best candidate"),
        "gate": plots.gate(report.rounds, settings.gate.margin, "What the gate saw"),
        "drift": plots.drift(report.drift, "Drift"),
        "propensities": plots.propensities(report.propensities, "Propensities"),
    }


def headline(report):
    """How much better the last policy is than the first, one sentence."""
    versions, (gain, low, high) = report.rounds["version"], report.gain
    surely = "surely better" if low > 0 else "surely worse" if high < 0 else "not surely better or worse"
    return (
        f"After {len(versions) - 1} re-trainings {versions.iloc[-1][:8]} serves, which is {surely} than "
        f"{versions.iloc[0][:8]}, the first policy: by {gain:+.3f} stars of true mean reward, 95 % interval "
        f"{low:+.3f} to {high:+.3f}."
        if len(set(versions)) > 1
        else f"After {len(versions) - 1} re-trainings {versions.iloc[0][:8]}, the first policy, still serves."
    )


def alarms(report):
    """What the monitors have to say, list of sentences."""
    tables = (report.propensities, report.drift, report.joins)
    return [sentence for table in tables if len(table) for sentence in table["alarm"] if sentence]


def _added_up(lost):
    """Stars lost so far at some numbers of decisions; bands take decisions as independent."""
    if lost is None:
        return pd.DataFrame(columns=["decisions", "learner", "value", "low", "high"])
    places = np.unique(np.linspace(1, len(lost), min(_POINTS, len(lost))).astype(int))
    parts = []
    for learner, name in (("learning", "expected"), ("frozen", "frozen"), ("uniform", "uniform")):
        each = (lost["oracle"] - lost[name]).to_numpy()
        total = each.cumsum()[places - 1]
        error = np.sqrt(places * len(each)) * half_width(each.var(ddof=1), len(each)) if len(each) > 1 else np.nan
        columns = {"decisions": places, "learner": learner, "value": total, "low": total - error, "high": total + error}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _page(report, settings, source):
    told = alarms(report) or ["No monitor has an alarm."]
    counts = ", ".join(f"{name} {count:,}" for name, count in report.counts._asdict().items())
    sections = [
        "<h1>RecBandits: a loop that closes</h1>",
        f"<p>{html.escape(headline(report))}</p>",
        f"<p>Data: {html.escape(source)}. Events: {counts} (total = the sum of the others).</p>",
        "<h2>Reward of each round</h2>",
        "<p>True mean reward of the policy that served at the end of each round, on the same visits in every round, "
        "with 95 % intervals over visits; 'frozen' is the first policy, had it served all along.</p>",
        _picture("rewards"),
        _values(report.values),
        "<h2>Regret</h2>",
        "<p>What the decisions of the log lost against the best of their candidates, by the truth, and what the first "
        "policy and a uniform one would have lost with the same users and candidates.</p>",
        _picture("regret"),
        "<h2>What was deployed or refused, and why</h2>",
        f"<p>The gate lets a candidate pass whose difference to what serves is surely not below "
        f"-{settings.gate.margin:g}; the guardrail promotes a canary, or takes it back, by observed rewards.</p>",
        _picture("gate"),
        _verdicts(report.verdicts),
        "<h2>Monitors</h2>",
        "".join(f"<p>{html.escape(sentence)}</p>" for sentence in told),
        _picture("drift"),
        _picture("propensities"),
        _table(report.joins.drop(columns=["start", "end"])) if len(report.joins) else "",
    ]
    head = f"<meta charset=utf-8><title>RecBandits: a loop</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(sections)}</body></html>\n"


def _picture(name):
    return f'<p><img src="{name}.png" alt="{name}"></p>'


def _values(values):
    shown = values.assign(
        text=[f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in values.itertuples()],
    ).pivot(index="round", columns="learner", values="text")
    gains = values[values["learner"] == "learning"].set_index("round")
    shown["learning less frozen"] = [
        f"{row.gain:+.3f} [{row.gain_low:+.3f}, {row.gain_high:+.3f}]" for row in gains.itertuples()
    ]
    return _table(
        shown[["learning", "frozen", "oracle", "uniform", "learning less frozen"]]
        .rename_axis(columns=None)
        .reset_index()
    )


def _verdicts(verdicts):
    rows = {
        "time": [f"{time:%H:%M:%S}" for time in verdicts["time"]],
        "what": verdicts["kind"],
        "version": verdicts["version"].str[:8],
        "against": verdicts["against"].str[:8],
        "difference": [
            difference_text(*row) for row in verdicts[["difference", "low", "high"]].itertuples(index=False)
        ],
        "why": verdicts["why"],
    }
    return _table(pd.DataFrame(rows))


def _table(table):
    return table.to_html(index=False, border=0, float_format=lambda value: f"{value:.3f}")
