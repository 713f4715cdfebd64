"""What the page shows of a session: columns for each picture, the pictures that draw them, and HTML of texts."""

from html import escape

import numpy as np
import pandas as pd
from bokeh.models import ColumnDataSource, FactorRange, FixedTicker, Range1d
from bokeh.plotting import figure

from playground.session import CANDIDATES, ESTIMATORS, ORACLE, POLICIES, UNIFORM, Session
from recbandits.evaluation import regret

COLOURS, REFERENCE, OFFSETS = {"A": "#2b6cb0", "B": "#c05621"}, "#718096", {"A": -0.15, "B": 0.15}
COLUMNS = {
    "candidates": ("y", "title_y", "title", "predicted", "low", "high", "expected", "propensity", "alpha"),
    "posterior": ("name", "mean", "low", "high", "truth"),
    "regret": ("interactions", "mean", "low", "high"),
    "uniform": ("interactions", "mean"),
    "estimates": ("y", "value", "low", "high", "truth"),
}
POINTS, LOG_ROWS = 100, 6
_HEADERS = [4 * number for number in reversed(range(1, len(POLICIES) + 1))]  # rows of the names of policies
_ESTIMATES = [header - number - 1 for header in _HEADERS for number in range(len(ESTIMATORS))]


def view(session: Session, label: str) -> dict:
    """Return the columns of the pictures of an agent, by `COLUMNS`, and the HTML of its texts `shown` and `log`."""
    pictures = {"candidates": _view_candidates(session, label), "posterior": _view_posterior(session, label)}
    if session.interactions:
        runs = session.runs()
        pictures |= {"regret": curve(runs, label), "uniform": curve(runs, UNIFORM)}
    if session.interactions >= 5:
        pictures["estimates"] = session.estimates(label).reset_index().assign(y=_ESTIMATES)
    empty = {name: pd.DataFrame(columns=columns) for name, columns in COLUMNS.items()}
    tables = {name: pictures.get(name, empty[name]) for name in COLUMNS}
    columns = {name: table[list(COLUMNS[name])].to_dict("list") for name, table in tables.items()}
    return {**columns, "shown": _describe_shown(session, label), "log": _make_log_table(session, label)}


def curve(runs: pd.DataFrame, agent: str) -> pd.DataFrame:
    """Tabulate the mean cumulative regret of an agent over seeds, with its interval where there are several."""
    ends = np.unique(np.linspace(1, runs["interactions"].max(), POINTS).astype(int))
    runs = runs[(runs["agent"] == agent) & runs["interactions"].isin(ends)]
    return regret.curve(runs, "cumulative_regret").assign(interactions=ends)


def summarise(session: Session) -> str:
    """Return HTML with the number of interactions and the regret of each policy."""
    if not session.interactions:
        return "No interaction yet."
    means = regret.totals(session.runs())["regret"].droplevel("seed")
    names = means.index.map(lambda name: f"agent {name}" if name in COLOURS else name)
    values = ", ".join(f"{name} <b>{value:.3f}</b>" for name, value in zip(names, means, strict=True))
    return f"<b>{session.interactions:,}</b> interactions. Expected regret per interaction [rating points]: {values}."


def _view_candidates(session, label):
    table = session.candidates(label)
    y = np.arange(CANDIDATES)[::-1]
    table = table.assign(low=table["predicted"] - table["width"], high=table["predicted"] + table["width"])
    return table.assign(y=y - 0.2, title_y=y + 0.22, alpha=np.where(table["is_shown"], 1.0, 0.3))


def _view_posterior(session, label):
    table = session.posterior(label)
    if table is None:
        return pd.DataFrame(columns=COLUMNS["posterior"])
    table = table.assign(low=table["mean"] - table["width"], high=table["mean"] + table["width"])
    return table.assign(name=[(name, OFFSETS[label]) for name in table.index])


def _describe_shown(session, label):
    movie = session.shown(label)
    genres, propensity = session.catalogue.genres[movie], session.candidates(label).loc[movie, "propensity"]
    return f"Shows <b>{escape(session.catalogue.titles[movie])}</b> ({genres}) with propensity {propensity:.3f}."


def _make_log_table(session, label):
    """Make an HTML table of the last decisions, newest first."""
    rows = ""
    if session.interactions:
        log = session.log(label).take(slice(-LOG_ROWS, None))
        columns = log.event_id, log.user_id, session.catalogue.titles[log.arm], log.propensity, log.reward
        for event, user, title, propensity, reward in reversed(list(zip(*columns, strict=True))):
            cells = event, user, escape(title), f"{propensity:.3f}", f"{reward:.2f}"
            rows += "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    names = "".join(f"<th>{name}</th>" for name in ("event", "user", "shown movie", "propensity", "reward"))
    return f"<table><tr>{names}</tr>{rows}</table>"


def make_sources() -> dict[str, ColumnDataSource]:
    """Make the source of each picture of an agent, without rows."""
    return {name: ColumnDataSource({column: [] for column in columns}) for name, columns in COLUMNS.items()}


def draw_candidates(source: ColumnDataSource, label: str) -> list[figure]:
    """Draw predicted rewards with confidence widths, and beside them propensities, a row for each candidate."""
    rows, bar = Range1d(-0.6, CANDIDATES - 0.4), {"height": 0.3, "fill_alpha": "alpha", "line_color": None}
    left = _figure("predicted reward [rating points]", 400, x_range=Range1d(-1.6, 6), y_range=rows)
    left.text(-1.5, "title_y", "title", source=source, text_font_size="12px", text_baseline="middle")
    left.hbar("y", right="predicted", color=COLOURS[label], source=source, **bar)
    left.segment("low", "y", "high", "y", color="#1f2933", line_width=1.5, source=source)
    left.scatter("expected", "y", marker="diamond", size=10, color="white", line_color="black", source=source)
    right = _figure("propensity", 400, x_range=Range1d(0, 1), y_range=rows, sizing_mode="fixed", width=105)
    right.hbar("y", right="propensity", color=COLOURS[label], source=source, **bar)
    right.xaxis.ticker = FixedTicker(ticks=[0, 0.5, 1])
    for each in (left, right):
        each.yaxis.visible = each.ygrid.visible = False
    return [left, right]


def draw_regret(sources: dict) -> figure:
    """Draw cumulative regret against interactions, of both agents, the uniform random policy and the oracle."""
    picture = _figure("interactions", 330, name="regret", y_axis_label="cumulative expected regret [rating points]")
    lines = {UNIFORM: (sources["A"]["uniform"], REFERENCE, "dashed")}
    lines |= {f"agent {label}": (sources[label]["regret"], colour, "solid") for label, colour in COLOURS.items()}
    for label, colour in COLOURS.items():
        band = {"color": colour, "alpha": 0.18, "source": sources[label]["regret"]}
        picture.varea("interactions", "low", "high", **band)
    for text, (source, colour, dash) in lines.items():
        line = {"color": colour, "line_dash": dash, "line_width": 2.5, "legend_label": text}
        picture.line("interactions", "mean", source=source, **line)
    oracle = {"color": "black", "line_dash": "dotted", "line_width": 2, "legend_label": ORACLE}
    picture.ray(0, 0, 0, 0, **oracle)
    picture.legend.location, picture.legend.background_fill_alpha = "top_left", 0.7
    return picture


def draw_posterior(sources: dict, coefficients: pd.Series) -> figure:
    """Draw mean and confidence width of each coefficient, of both agents, and the true coefficients."""
    names = [*reversed(coefficients.index)]
    picture = _figure("coefficient", 330, name="posterior", y_range=FactorRange(*names), x_range=Range1d(-1.6, 4.2))
    for label, colour in COLOURS.items():
        source = sources[label]["posterior"]
        picture.segment("low", "name", "high", "name", color=colour, line_width=3, alpha=0.5, source=source)
        picture.scatter("mean", "name", size=7, color=colour, source=source, legend_label=f"agent {label}")
    picture.scatter(coefficients[names].to_numpy(), names, marker="x", size=9, color="black", line_width=2)
    picture.legend.location, picture.legend.background_fill_alpha = "top_right", 0.7
    return picture


def draw_estimates(source: ColumnDataSource, label: str) -> figure:
    """Draw the off-policy estimates of each policy with their intervals, and its true value."""
    picture = _figure("value of the policy [rating points]", 300, name=f"estimates_{label}", x_range=Range1d(2, 6))
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
