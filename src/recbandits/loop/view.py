"""The live view of the loop: what comes in, what is logged, who serves, what users think of it, what was decided.

A terminal shows tables that change in place; anything else gets one plain line at a time.
"""

import contextlib
from datetime import datetime
from typing import NamedTuple

import pandas as pd
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from recbandits.evaluation.intervals import half_width

_LATEST = 6  # verdicts shown
_NEWEST = 5  # versions shown
_EVERY = 5.0  # seconds between two lines
_COLOURS = {"deployed": "cyan", "held": "yellow", "refused": "red", "ramped": "cyan"}
_COLOURS |= {"promoted": "green", "rolled back": "red", "withdrawn": "yellow"}


class Sight(NamedTuple):
    """All that the view shows, at one time.

    Attributes:
      time: datetime, with its zone.
      seconds: since the loop started.
      doing: what it does now, one phrase.
      rounds: (decided, wanted) re-trainings; wanted is None for a loop without an end.
      requests: per second that the endpoint answered.
      events: per second that reached the warehouse.
      rows: dict from a table of the warehouse to its rows.
      lag: seconds from the newest interaction that has its reward to now; None before there is one.
      visits: dict of the simulator's counts.
      backlog: dict from a topic to the messages that wait.
      shares: dict from the version of a policy to its percentage.
      versions: DataFrame indexed by policy_version with decisions, mean, variance, first and last.
      verdicts: DataFrame with time, kind, version, against, why, difference, low and high, oldest first.
      restarts: dict from a process to how often it was started again.
    """

    time: datetime
    seconds: float
    doing: str
    rounds: tuple
    requests: float
    events: float
    rows: dict
    lag: float | None
    visits: dict
    backlog: dict
    shares: dict
    versions: pd.DataFrame
    verdicts: pd.DataFrame
    restarts: dict


@contextlib.contextmanager
def shown(file=None):
    """Give a function that shows a `Sight`, for a `with` block.

    Args:
      file: where to write; None is standard output.

    Yields:
      Function of a Sight. In a terminal it replaces what it showed before; elsewhere it writes a line every few seconds
      and when something else is done, and one for each verdict that is new.
    """
    console = Console(file=file)
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=False) as live:
            yield lambda sight: live.update(picture(sight))
        return
    told, before = 0, None

    def tell(sight):
        nonlocal told, before
        lines = [verdict_line(verdict) for _, verdict in sight.verdicts.iloc[told:].iterrows()]
        told = len(sight.verdicts)
        if lines or before is None or sight.doing != before.doing or sight.seconds - before.seconds >= _EVERY:
            lines.append(line(sight))
            before = sight
        for text in lines:
            console.print(text, soft_wrap=True, highlight=False, markup=False)

    yield tell


def line(sight):
    """A sight as one line of text."""
    decided, wanted = sight.rounds
    rows = sight.rows
    parts = [
        f"{sight.seconds:4.0f} s",
        f"round {decided}" + (f"/{wanted}" if wanted else ""),
        f"{sight.requests:.0f} requests/s",
        f"{rows.get('interactions', 0):,} decisions and {rows.get('rewards', 0):,} rewards logged",
        "lag -" if sight.lag is None else f"lag {sight.lag:.1f} s",
        ", ".join(f"{name[:8]} {share} %" for name, share in _by_share(sight.shares)) or "nothing served",
        sight.doing,
    ]
    return " · ".join(parts)


def verdict_line(verdict):
    """A verdict as one line of text."""
    return f"       {verdict['kind']} {verdict['version'][:8]}: {verdict['why']}"


def picture(sight):
    """A sight as tables and panels of rich."""
    return Group(
        Panel(Text(line(sight)), title="RecBandits: the loop", title_align="left"),
        Columns([_flow(sight), _served(sight)], padding=(0, 2)),
        _decided(sight),
    )


def _flow(sight):
    table = Table(title="events", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    visits, rows = sight.visits, sight.rows
    facts = {
        "requests/s": f"{sight.requests:.1f}",
        "events logged/s": f"{sight.events:.1f}",
        "visits": f"{visits.get('visits', 0):,}",
        "visits without an answer": f"{visits.get('unanswered', 0) + visits.get('missed', 0):,}",
        "interactions": f"{rows.get('interactions', 0):,}",
        "rewards": f"{rows.get('rewards', 0):,}",
        "quarantined": f"{rows.get('quarantine', 0):,}",
        "join lag": "-" if sight.lag is None else f"{sight.lag:.1f} s",
        "waiting messages": ", ".join(f"{name} {count}" for name, count in sight.backlog.items()) or "-",
        "restarted": ", ".join(f"{name} {count}x" for name, count in sight.restarts.items()) or "-",
    }
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def _served(sight):
    table = Table(title="policies", title_justify="left")
    table.add_column("version")
    table.add_column("traffic", justify="right")
    table.add_column("decisions", justify="right")
    table.add_column("mean reward, 95 %", justify="right")
    versions = sight.versions
    latest = versions.sort_values("last").index[-_NEWEST:] if len(versions) else []
    for name in [*latest, *(name for name in sight.shares if name not in set(latest))]:
        share = sight.shares.get(name)
        known = versions.loc[name] if name in versions.index else None
        table.add_row(
            name[:8],
            f"{share} %" if share else "-",
            "0" if known is None else f"{int(known['decisions']):,}",
            "-" if known is None else mean_text(known["mean"], known["variance"], known["decisions"]),
            style="bold" if share and share == max(sight.shares.values()) else None,
        )
    return table


def _decided(sight):
    table = Table(title="decisions of gate and guardrail", title_justify="left", expand=True)
    for name in ("time", "what", "version", "difference, interval", "why"):
        table.add_column(name, no_wrap=name != "why")
    for _, verdict in sight.verdicts.iloc[-_LATEST:].iterrows():
        table.add_row(
            f"{verdict['time']:%H:%M:%S}",
            Text(verdict["kind"], _COLOURS[verdict["kind"]]),
            verdict["version"][:8],
            Text(difference_text(verdict["difference"], verdict["low"], verdict["high"])),
            Text(verdict["why"]),
        )
    return table


def mean_text(mean, variance, n):
    """A mean with the half-width of its 95 % interval, such as "3.71 ± 0.04"; without it where there is one value."""
    return f"{mean:.2f} ± {half_width(variance, n):.2f}" if n > 1 else f"{mean:.2f}"


def difference_text(value, low, high):
    """A difference with its interval, such as "+0.21 [+0.05, +0.37]"; "-" where there is none."""
    return "-" if pd.isna(value) else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _by_share(shares):
    return sorted(((name, share) for name, share in shares.items() if share), key=lambda item: -item[1])
