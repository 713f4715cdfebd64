"""Pictures of a session: columns for each picture, the pictures that draw them, and HTML of texts."""

from html import escape

import numpy as np
import pandas as pd
from bokeh.models import ColumnDataSource, FactorRange, FixedTicker, Range1d
from bokeh.plotting import figure
from bokeh.transform import dodge

from playground.catalogue import CANDIDATES
from playground.session import ESTIMATORS, FEWEST, ORACLE, POLICIES, UNIFORM, Session
from recbandits.evaluation import regret

COLOURS, REFERENCE, OFFSETS = {"A": "#2b6cb0", "B": "#c05621"}, "#718096", {"A": 0.15, "B": -0.15}
_CURVE = ("interactions", "mean", "low", "high")
COLUMNS = {
    "candidates": ("y", "title_y", "title", "predicted", "low", "high", "expected", "propensity", "alpha"),
    "posterior": ("name", "mean", "low", "high"),
    "regret": _CURVE,
    UNIFORM: _CURVE,
    ORACLE: _CURVE,
    "estimates": ("y", "value", "low", "high", "truth"),
}
TEXTS = ("shown", "summary", "log")
POINTS, LOG_ROWS = 60, 6
_HEADERS = [4 * number for number in reversed(range(1, len(POLICIES) + 1))]  # rows of the names of policies
_ESTIMATES = [header - number - 1 for header in _HEADERS for number in range(len(ESTIMATORS))]


def view(session: Session, label: str) -> dict:
    """Return the columns of the pictures of an agent, by `COLUMNS`, and the HTML of its `TEXTS`."""
    candidates, y, texts = session.candidates(label), np.arange(CANDIDATES)[::-1], {"summary": "", "log": ""}
    texts["shown"] = _describe_shown(session, candidates[candidates["is_shown"]])
    alpha = np.where(candidates["is_shown"], 1.0, 0.3)
    candidates = _add_bounds(candidates, "predicted").assign(y=y - 0.2, title_y=y + 0.22, alpha=alpha)
    tables, posterior = {"candidates": candidates}, session.posterior(label)
    if posterior is not None:
        tables["posterior"] = _add_bounds(posterior, "mean").rename_axis("name").reset_index()
    if session.interactions:
        texts["log"] = _make_log_table(session, label)
    if session.interactions >= FEWEST and session.learners[label].settings.exploration_rate > 0:
        tables["estimates"] = session.estimates(label).assign(y=_ESTIMATES)
    empty = {name: pd.DataFrame(columns=columns) for name, columns in COLUMNS.items()}
    columns = {name: (empty | tables)[name][[*columns]].to_dict("list") for name, columns in COLUMNS.items()}
    return texts | columns | (view_runs(session.runs(), label) if session.interactions else {})


def view_runs(runs: pd.DataFrame, label: str) -> dict:
    """Return the curves of an agent's regret and of the references, and its summary; with intervals over seeds."""
    policies = {"regret": label, UNIFORM: UNIFORM, ORACLE: ORACLE}
    ends = np.unique(np.linspace(1, runs["interactions"].max(), POINTS).astype(int))
    shown = runs[runs["interactions"].isin(ends) & runs["agent"].isin(policies.values())]
    curves = regret.curve(shown, "cumulative_regret").groupby("agent")
    result = {name: curves.get_group(policy)[[*_CURVE]].to_dict("list") for name, policy in policies.items()}
    mean, low, high = regret.summary(runs).loc[label, ["regret", "regret_low", "regret_high"]]
    interval = "" if np.isnan(low) else f" ({low:.3f} to {high:.3f})"
    return result | {"summary": f"Expected regret per interaction: <b>{mean:.3f}</b>{interval} rating points."}


def _add_bounds(table, name):
    return table.assign(low=table[name] - table["width"], high=table[name] + table["width"])


def _describe_shown(session, row):
    title, genres = (escape(texts[row.index[0]]) for texts in (session.catalogue.titles, session.catalogue.genres))
    return f"Shows <b>{title}</b> ({genres}) with propensity {row['propensity'].iloc[0]:.3f}."


def _make_log_table(session, label):
    """Make an HTML table of the last decisions, newest first."""
    log, rows = session.log(label).take(slice(-LOG_ROWS, None)), ""
    columns = log.event_id, log.user_id, session.catalogue.titles[log.arm], log.propensity, log.reward
    for event, user, title, propensity, reward in reversed(list(zip(*columns, strict=True))):
        cells = event, user, escape(title), f"{propensity:.3f}", f"{reward:.2f}"
        rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    names = "".join(f"<th>{name}</th>" for name in ("event", "user", "shown movie", "propensity", "reward"))
    return f"<table><tr>{names}</tr>{rows}</table>"


def make_sources() -> dict[str, ColumnDataSource]:
    """Make the source of each picture of an agent, without rows."""
    return {name: ColumnDataSource({column: [] for column in columns}, name=name) for name, columns in COLUMNS.items()}


def draw_candidates(source: ColumnDataSource, label: str) -> list[figure]:
    """Draw predicted rewards with confidence widths, and beside them propensities, a row for each candidate."""
    rows, bar = Range1d(-0.6, CANDIDATES - 0.4), {"height": 0.3, "fill_alpha": "alpha", "line_color": None}
    options = {"x_range": Range1d(-1.6, 5.8), "y_range": rows, "tags": [f"agent {label}: predicted rewards"]}
    left = _figure("predicted reward [rating points]", 400, **options)
    left.text(-1.5, "title_y", "title", source=source, text_font_size="12px", text_baseline="middle")
    left.hbar("y", right="predicted", color=COLOURS[label], source=source, **bar)
    left.segment("low", "y", "high", "y", color="#1f2933", line_width=1.5, source=source)
    left.scatter("expected", "y", marker="diamond", size=10, color="white", line_color="black", source=source)
    options |= {"x_range": Range1d(0, 1), "tags": [f"agent {label}: propensities"]}
    right = _figure("propensity", 400, sizing_mode="fixed", width=105, **options)
    right.hbar("y", right="propensity", color=COLOURS[label], source=source, **bar)
    left.xaxis.ticker, right.xaxis.ticker = FixedTicker(ticks=[*range(6)]), FixedTicker(ticks=[0, 0.5, 1])
    for each in (left, right):
        each.yaxis.visible = each.ygrid.visible = False
    return [left, right]


def draw_regret(sources: dict) -> figure:
    """Draw cumulative regret against interactions, of both agents, the uniform random policy and the oracle."""
    y_label = "cumulative expected regret [rating points]"
    picture = _figure("interactions", 330, name="regret", y_axis_label=y_label, tags=["regret of both agents"])
    lines = {UNIFORM: (sources["A"][UNIFORM], REFERENCE, "dashed"), ORACLE: (sources["A"][ORACLE], "black", "dotted")}
    lines |= {f"agent {label}": (sources[label]["regret"], colour, "solid") for label, colour in COLOURS.items()}
    for label, colour in COLOURS.items():
        band = {"color": colour, "alpha": 0.18, "source": sources[label]["regret"]}
        picture.varea("interactions", "low", "high", **band)
    for text, (source, colour, dash) in lines.items():
        line = {"color": colour, "line_dash": dash, "line_width": 2.5, "legend_label": text}
        picture.line("interactions", "mean", source=source, **line)
    picture.legend.location, picture.legend.background_fill_alpha = "top_left", 0.7
    return picture


def draw_posterior(sources: dict, coefficients: pd.Series) -> figure:
    """Draw mean and confidence width of each coefficient, of both agents, and the true coefficients."""
    names = [*reversed(coefficients.index)]
    options = {"y_range": FactorRange(*names), "x_range": Range1d(-1.6, 4.2), "tags": ["posteriors of both agents"]}
    picture = _figure("coefficient", 330, name="posterior", **options)
    for label, colour in COLOURS.items():
        source, y = sources[label]["posterior"], dodge("name", OFFSETS[label], range=picture.y_range)
        picture.segment("low", y, "high", y, color=colour, line_width=3, alpha=0.5, source=source)
        picture.scatter("mean", y, size=7, color=colour, source=source, legend_label=f"agent {label}")
    picture.scatter(coefficients[names].to_numpy(), names, marker="x", size=9, color="black", line_width=2)
    picture.legend.location, picture.legend.background_fill_alpha = "bottom_right", 0.7
    return picture


def draw_estimates(source: ColumnDataSource, label: str) -> figure:
    """Draw the off-policy estimates of each policy with their intervals, and its true value."""
    options = {"x_range": Range1d(2, 6), "tags": [f"agent {label}: off-policy estimates"]}
    picture = _figure("value of the policy [rating points]", 300, name=f"estimates_{label}", **options)
    picture.y_range = Range1d(0.3, _HEADERS[0] + 0.6)
    picture.text(2.05, _HEADERS, list(POLICIES), text_font_size="12px", text_font_style="bold", text_baseline="middle")
    picture.segment("low", "y", "high", "y", color=COLOURS[label], line_width=5, alpha=0.45, source=source)
    picture.scatter("value", "y", size=8, color=COLOURS[label], source=source)
    picture.scatter("truth", "y", marker="x", size=9, color="black", line_width=2, source=source)
    picture.yaxis.ticker = FixedTicker(ticks=_ESTIMATES)
    picture.yaxis.major_label_overrides = dict(zip(_ESTIMATES, ESTIMATORS * len(POLICIES), strict=True))
    return picture


def _figure(x_label, height, sizing_mode="stretch_width", **options):
    """Make a figure in the style of the page."""
    options = {"toolbar_location": None, "tools": "", "outline_line_color": None} | options
    picture = figure(x_axis_label=x_label, height=height, sizing_mode=sizing_mode, **options)
    picture.grid.grid_line_alpha = 0.5
    for axis in picture.axis:
        axis.axis_label_text_font_style, axis.minor_tick_line_color = "normal", None
    return picture
