"""Pictures of the closed loop: rewards, decisions of gate and guardrail, monitors, and a canary."""

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from recbandits.evaluation.intervals import mean_interval
from recbandits.plots.style import BESIDE, COLOURS, REFERENCE, band, coloured, figure, label_rows

_REFERENCES = {"oracle": ("oracle", "--"), "uniform": ("uniform random policy", ":")}
_KINDS = {"deployed": COLOURS[2], "held": COLOURS[1], "refused": COLOURS[7], "ramped": COLOURS[4]}
_KINDS |= {"promoted": COLOURS[0], "rolled back": COLOURS[3], "withdrawn": COLOURS[1]}
_JUDGED = {"deployed": "o", "held": "s", "refused": "X"}  # verdicts of the gate, with their markers
_LARGEST_END = 3.0  # of an interval that widens the axis; few decisions have no upper end


def rewards(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw the expected reward of the served policy, round by round, against the oracle and the uniform random policy.

    `table` has columns round, learner, value, low and high, as `loop.rounds.by_learner` and `loop.page.true_values`
    return it; "oracle" and "uniform" among the learners are references. With a column drift that changes, an axis below
    shows the preference drift.
    """
    drifts = "drift" in table and table["drift"].nunique() > 1
    ratios, size = ([4, 1], 4.8) if drifts else ([1], 4.0)
    with figure(7.5, size, len(ratios), sharex=True, squeeze=False, height_ratios=ratios) as (fig, axes):
        main, last = axes[0, 0], axes[-1, 0]
        names = table["learner"].unique()
        for name, colour in coloured(name for name in names if name not in _REFERENCES):
            part = table[table["learner"] == name].sort_values("round")
            main.plot(part["round"], part["value"], "o-", color=colour, ms=4, label=name)
            band(main, part["round"], part["low"], part["high"], colour)
        for name, (label, dashes) in _REFERENCES.items():
            if name in names:
                part = table[table["learner"] == name].sort_values("round")
                main.plot(part["round"], part["value"], dashes, color=REFERENCE, zorder=1, label=label)
        main.legend(**BESIDE)
        main.set(ylabel="expected reward [rating points]", title=title)
        main.xaxis.get_major_locator().set_params(integer=True)
        if drifts:
            by_round = table.drop_duplicates("round").sort_values("round")
            last.fill_between(by_round["round"], by_round["drift"], step="mid", color=COLOURS[5], alpha=0.5, lw=0)
            last.set(ylabel="preference\ndrift", ylim=(0, 1.05))
        last.set_xlabel("round")
    return fig


def gate(table: pd.DataFrame, margin: float, title: str | None = None, level: float = 0.95) -> Figure:
    """Draw the estimated difference of every candidate to the served policy, with the gate's margin in rating points.

    `table` has one row a candidate in order, with columns kind ("deployed", "held" or "refused"), difference, low and
    high; without a difference, as the first policy is, a candidate is drawn as a mark on the axis. `level` is the
    coverage of the intervals.
    """
    with figure(7.5, 3.6) as (fig, axes):
        _draw_margin(axes, margin)
        for kind, marker in _JUDGED.items():
            part = table.assign(round=np.arange(len(table)))[(table["kind"] == kind).to_numpy()].astype({"low": float})
            compared, colour = part[part["difference"].notna()], _KINDS[kind]
            value = compared["difference"].astype(float)
            reach = [value - compared["low"], compared["high"].astype(float) - value]
            axes.errorbar(compared["round"], value, reach, fmt=marker, color=colour, capsize=4, label=kind)
            first = part.loc[part["difference"].isna(), "round"]
            axes.plot(first, np.zeros(len(first)), "D", color=colour, markersize=5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        intervals = f"with {100 * level:g} % intervals"
        axes.set(xlabel="round", ylabel=f"candidate minus served [rating points],\n{intervals}", title=title)
        axes.legend(**BESIDE)
    return fig


def guardrail(
    looks: pd.DataFrame, verdicts: pd.DataFrame | None = None, margin: float | None = None, title: str | None = None
) -> Figure:
    """Draw the difference between canary and predecessor that the guardrail observed, look by look.

    `looks` has columns decisions (of both versions so far), value, low and high: the difference of the newest to the
    other with its confidence sequence, as in `loop.canary.Evidence`, at each look. `verdicts` map a number of decisions
    to the verdict then; `margin`, in rating points, is drawn as a line.
    """
    with figure(7.5, 3.6) as (fig, axes):
        axes.plot(looks["decisions"], looks["value"], color=REFERENCE, label="newest minus other")
        band(axes, looks["decisions"], looks["low"], looks["high"], REFERENCE)
        _draw_margin(axes, margin)
        for decisions, kind in (verdicts or {}).items():
            axes.axvline(decisions, color=_KINDS[kind], linewidth=1.6, label=kind)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="decisions of both versions", title=title)
        axes.set_ylabel("difference [rating points],\n95 % confidence sequence")
        axes.legend(**BESIDE)
    return fig


def propensities(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw the mean of 1 / (k p), whose expectation is 1, and the smallest propensity, of `loop.monitors.propensities`.

    Versions with an alarm are red.
    """
    names = [f"{version[:8]} ({count:,})" for version, count in table["decisions"].items()]
    with figure(9.0, 1.4 + 0.34 * len(table), ncols=2, sharey=True) as (fig, (left, right)):
        position = label_rows(left, names)
        left.axvline(1, color="black", linestyle="--", linewidth=1.2)
        for y, row in zip(position, table.itertuples(), strict=True):
            colour = _KINDS["refused"] if row.alarm else COLOURS[0]
            left.hlines(y, row.low, row.high, color=colour, linewidth=4, alpha=0.5)
            left.plot(row.ratio, y, "o", color=colour)
        ends = [1.0, *table["ratio"], *table["high"].clip(upper=_LARGEST_END)]
        left.set_xlim(0, 1.1 * np.nanmax(ends))
        left.set(xlabel="mean of 1 / (candidates x propensity),\n99.9 % interval", ylabel="version (decisions)")
        left.set_title(title)
        right.plot(table["smallest"], position, "s", color=COLOURS[1])
        right.set_xscale("log")
        right.set(xlabel="smallest propensity", ylim=(-0.6, len(table) - 0.4))
    return fig


def drift(table: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw mean reward, error of the served predictions and stability indices of `loop.monitors.drift`, by period.

    Bands are 95 % intervals, dotted lines the limits of an index without drift, crosses alarms.
    """
    period = np.arange(len(table))
    with figure(10.0, 3.4, ncols=3) as (fig, (left, middle, right)):
        for axes, name, ends, label in (
            (left, "reward", ("low", "high"), "mean reward [rating points]"),
            (middle, "error", ("error_low", "error_high"), "squared error of served scores\n[rating points²]"),
        ):
            axes.plot(period, table[name], "o-", color=COLOURS[0])
            band(axes, period, table[ends[0]], table[ends[1]], COLOURS[0])
            axes.set_ylabel(label)
        for name, colour in (("reward", COLOURS[1]), ("context", COLOURS[2])):
            right.plot(period, table[f"psi_{name}"], "o-", color=colour, label=name)
            right.plot(period, table[f"psi_{name}_limit"], ":", color=colour)
        right.set_ylabel("stability index against the first")
        right.legend(**BESIDE)
        alarm = (table["alarm"] != "").to_numpy()
        left.plot(period[alarm], table["reward"][alarm], "x", color=_KINDS["refused"], markersize=11, mew=2)
        for axes in (left, middle, right):
            axes.set_xlabel("period")
            axes.xaxis.get_major_locator().set_params(integer=True)
        left.set_title(title)
    return fig


def canary(visits: pd.DataFrame, title: str | None = None) -> Figure:
    """Draw the users that the canary serves at each traffic split, and the mean reward of both versions.

    Each user counts once in the 95 % intervals of the mean: users are split between the versions, not visits. `visits`
    has one row a visit: share (percentage of the canary), user_id, canary (whether it answered) and reward. ValueError
    if other users visit at one share than at another, or one user gets both versions at one share.
    """
    by_user = visits.groupby(["share", "user_id"])["canary"].agg(["min", "max"])
    if (by_user["min"] != by_user["max"]).any():
        share, user = by_user.index[np.argmax(by_user["min"] != by_user["max"])]
        raise ValueError(f"user {user} must get one version, got both at {share} %")
    table = by_user["max"].unstack()
    if table.isna().any(axis=None):
        raise ValueError("the same users must visit at every share")
    order, stages = np.argsort(-table.sum().to_numpy(), kind="stable"), np.arange(len(table))
    labels = [f"{share} %" for share in table.index]
    with figure(9.0, 3.4, ncols=2, width_ratios=[3, 2]) as (fig, (left, right)):
        colours = ListedColormap(["#e2e8f0", COLOURS[1]])
        left.pcolormesh(table.to_numpy(float)[:, order], cmap=colours, vmin=0, vmax=1, rasterized=True)
        for stage, users in zip(stages, table.sum(axis=1), strict=True):
            left.text(users, stage + 0.5, f" {users:,}", va="center", color=COLOURS[1])
        left.invert_yaxis()
        left.set_yticks(stages + 0.5, labels)
        left.set(xlabel="users, in the order in which the canary serves them", ylabel="share of the canary")
        left.set_title(title)
        left.grid(visible=False)
        by_version = visits.groupby(["canary", "share", "user_id"])["reward"].mean().groupby(["canary", "share"])
        for is_canary, label, colour in ((False, "current version", REFERENCE), (True, "canary", COLOURS[1])):
            groups = [(share, rewards) for (version, share), rewards in by_version if version == is_canary]
            if groups:
                mean, low, high = np.array([mean_interval(rewards) for _, rewards in groups]).T
                x = table.index.get_indexer([share for share, _ in groups]) + (0.1 if is_canary else -0.1)
                reach = np.array([mean - low, high - mean])
                right.errorbar(x, mean, reach, fmt="o", color=colour, capsize=3, label=label)
        right.set_xticks(stages, labels)
        right.set(xlabel="share of the canary", ylabel="mean reward per user [rating points],\n95 % interval")
        right.legend(**BESIDE)
    return fig


def _draw_margin(axes, margin):
    """Draw the line of no difference, and that of the margin of non-inferiority."""
    axes.axhline(0, color=REFERENCE, linewidth=1)
    if margin is not None:
        axes.axhline(-margin, color="black", linestyle="--", linewidth=1.2, label=f"margin, -{margin:.3g}")
