"""What the live view says, in a terminal and outside of one."""

import io
from datetime import UTC, datetime

import pandas as pd
from rich.console import Console

from recbandits.loop import view

TIME = datetime(2026, 3, 1, 12, tzinfo=UTC)
VERSIONS = pd.DataFrame(
    {"decisions": [400, 100], "mean": [3.5, 3.75], "variance": [1.0, 1.0], "first": [TIME, TIME], "last": [TIME, TIME]},
    index=pd.Index(["a" * 16, "b" * 16], name="policy_version"),
)
VERDICT = {
    "time": TIME,
    "kind": "refused",
    "version": "c" * 16,
    "against": "b" * 16,
    "why": "it may be worse by 0.40",
    "difference": -0.1,
    "low": -0.4,
    "high": 0.2,
}
EMPTY = pd.DataFrame(columns=list(VERDICT))


def sight(verdicts=EMPTY, versions=VERSIONS, **changed):
    values = {
        "time": TIME,
        "seconds": 42.0,
        "doing": "collecting",
        "rounds": (1, 5),
        "requests": 99.6,
        "events": 180.0,
        "rows": {"interactions": 1200, "rewards": 1100, "quarantine": 2},
        "lag": 1.26,
        "visits": {"visits": 1210, "unanswered": 10, "missed": 0},
        "backlog": {"interactions": 3, "rewards": 0},
        "shares": {"a" * 16: 80, "b" * 16: 20},
        "versions": versions,
        "verdicts": verdicts,
        "restarts": {"warehouse": 1},
    }
    return view.Sight(**values | changed)


def test_a_line_tells_round_rates_rows_lag_and_who_serves():
    assert view.line(sight()) == (
        "  42 s · round 1/5 · 100 requests/s · 1,200 decisions and 1,100 rewards logged · lag 1.3 s · "
        "aaaaaaaa 80 %, bbbbbbbb 20 % · collecting"
    )


def test_a_loop_that_has_just_begun_has_a_line_too():
    text = view.line(sight(rows={}, lag=None, shares={}, rounds=(0, None)))
    assert "round 0 · " in text
    assert "lag - · nothing served" in text


def test_a_mean_is_shown_with_half_the_width_of_its_interval():
    """Variance 1 over 400 decisions: 1.966 / 20 = 0.098."""
    assert view.mean_text(3.5, 1.0, 400) == "3.50 ± 0.10"
    assert view.mean_text(3.5, float("nan"), 1) == "3.50"


def test_outside_a_terminal_a_verdict_is_told_once_before_the_line():
    written = io.StringIO()
    with view.shown(written) as show:
        show(sight())
        show(sight(pd.DataFrame([VERDICT])))
        show(sight(pd.DataFrame([VERDICT])))
    lines = written.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1] == "       refused cccccccc: it may be worse by 0.40"
    assert lines[0] == lines[2] == view.line(sight())


def test_outside_a_terminal_there_is_a_line_every_five_seconds_and_when_something_else_is_done():
    written = io.StringIO()
    with view.shown(written) as show:
        for second in range(12):
            show(sight(seconds=float(second)))
        show(sight(seconds=12.0, doing="training"))
    assert [line.split()[0] for line in written.getvalue().splitlines()] == ["0", "5", "10", "12"]


def test_the_picture_names_every_policy_its_reward_and_every_decision():
    console = Console(file=io.StringIO(), width=160)
    console.print(view.picture(sight(pd.DataFrame([VERDICT]))))
    text = console.file.getvalue()
    for part in ("aaaaaaaa", "80 %", "3.50 ± 0.10", "3.75 ± 0.20", "refused", "-0.10 [-0.40, +0.20]", "warehouse 1x"):
        assert part in text


def test_a_policy_that_serves_but_was_not_asked_yet_is_shown_without_a_mean():
    console = Console(file=io.StringIO(), width=160)
    console.print(view.picture(sight(versions=VERSIONS.iloc[:0], shares={"d" * 16: 100})))
    assert "dddddddd" in console.file.getvalue()


def test_a_sentence_with_brackets_is_shown_as_it_is():
    console = Console(file=io.StringIO(), width=160)
    console.print(view.picture(sight(pd.DataFrame([VERDICT | {"why": "weights [0.1, 3.0] are [bold]"}]))))
    assert "weights [0.1, 3.0] are [bold]" in console.file.getvalue()
