"""Pictures of the loop: what it earns round by round, what was let through, and what its monitors see."""

import numpy as np

from recbandits.plots.style import COLOURS, REFERENCE, figure

REFERENCES = {"oracle": "--", "uniform": ":"}
_KINDS = {"deployed": COLOURS[2], "refused": COLOURS[7], "promoted": COLOURS[0], "rolled back": COLOURS[3]}
_FAR = 3.0  # of a ratio that should be 1
_BESIDE = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}


def rewards(table, title=None):
    """Draw the true mean reward of what serves, round by round, against oracle and uniform choice.

    Args:
      table: DataFrame with columns round, learner, value, low, high, as `loop.rounds.by_learner` and
        `loop.history.true_values` give it; "oracle" and "uniform" among the learners are drawn as references. With a
        column drift that changes, a strip below shows how far taste has turned.
      title: of the picture.

    Returns:
      The matplotlib figure: a line a learner, the 95 % interval as a band.
    """
    drifts = "drift" in table and table["drift"].nunique() > 1
    with figure(7.5, 4.8 if drifts else 4.0, 1 + drifts, sharex=True, **_strip(drifts)) as (fig, axes):
        main = np.atleast_1d(axes)[0]
        _lines(main, table, "round")
        main.set(ylabel="true mean reward (stars)", title=title)
        _whole(main)
        if drifts:
            _draw_drift(axes[1], table)
        np.atleast_1d(axes)[-1].set_xlabel("round")
    return fig


def regret(table, title=None):
    """Draw what was lost against the best candidate, added up over the decisions.

    Args:
      table: DataFrame with columns decisions (made so far), learner, value (stars lost so far), low, high; "uniform"
        among the learners is drawn as a reference.
      title: of the picture.

    Returns:
      The matplotlib figure: a line a learner, the 95 % interval as a band. A flatter line loses less per decision.
    """
    with figure(7.5, 4.0) as (fig, axes):
        _lines(axes, table, "decisions")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="decisions", ylabel="cumulative regret (stars)", title=title)
        axes.set_ylim(bottom=0)
    return fig


def gate(table, margin, title=None):
    """Draw what the gate saw of every candidate: its estimated difference to what served.

    Args:
      table: DataFrame, one row a candidate in order, with columns kind ("deployed" or "refused"), difference, low and
        high; without a difference, as the first policy is, a candidate is drawn as a mark on the axis.
      margin: of the gate, stars.
      title: of the picture.

    Returns:
      The matplotlib figure: differences with their 95 % intervals, green for deployed and red for refused, and the line
      that the lower end must not go below.
    """
    rounds = np.arange(len(table))
    with figure(7.5, 3.6) as (fig, axes):
        axes.axhline(0, color=REFERENCE, linewidth=1)
        axes.axhline(-margin, color="black", linestyle="--", linewidth=1.2, label=f"margin, -{margin:g}")
        for kind in ("deployed", "refused"):
            rows = (table["kind"] == kind).to_numpy()
            part, colour = table[rows], _KINDS[kind]
            estimated = part["difference"].notna().to_numpy()
            value = part["difference"].astype(float).to_numpy()[estimated]
            ends = part[["low", "high"]].astype(float).to_numpy()[estimated].T
            reach = np.abs(ends - value)
            axes.errorbar(rounds[rows][estimated], value, reach, fmt="o", color=colour, capsize=4, label=kind)
            axes.plot(rounds[rows][~estimated], np.zeros((~estimated).sum()), "D", color=colour, markersize=5)
        _whole(axes)
        axes.set(xlabel="round", ylabel="candidate less serving (stars),\nwith intervals", title=title)
        axes.legend(**_BESIDE)
    return fig


def guardrail(looks, verdicts=None, margin=None, title=None):
    """Draw what the guardrail saw of one experiment, look by look.

    Args:
      looks: DataFrame with columns decisions (of both versions so far), value, low, high: the difference of the newest
        to the other with its confidence sequence, as `loop.release.observed` gives it at each look.
      verdicts: dict from a number of decisions to what was decided then; None for nothing.
      margin: of the guardrail, stars, drawn as a line; None for no line.
      title: of the picture.

    Returns:
      The matplotlib figure.
    """
    with figure(7.5, 3.6) as (fig, axes):
        axes.axhline(0, color=REFERENCE, linewidth=1)
        axes.plot(looks["decisions"], looks["value"], color=COLOURS[0], label="newest less other")
        axes.fill_between(looks["decisions"], looks["low"], looks["high"], color=COLOURS[0], alpha=0.18, lw=0)
        if margin is not None:
            axes.axhline(-margin, color="black", linestyle="--", linewidth=1.2, label=f"margin, -{margin:g}")
        for decisions, kind in (verdicts or {}).items():
            axes.axvline(decisions, color=_KINDS[kind], linewidth=1.6, label=kind)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(
            xlabel="decisions of both versions", ylabel="difference (stars),\n95 % confidence sequence", title=title
        )
        axes.legend(**_BESIDE)
    return fig


def propensities(table, title=None):
    """Draw the propensity monitor: whether the mean of 1 / (k p) is 1 for every version.

    Args:
      table: DataFrame of `loop.monitors.propensities`.
      title: of the picture.

    Returns:
      The matplotlib figure: on the left the mean with its 95 % interval, red where there is an alarm; on the right the
      smallest propensity.
    """
    place = np.arange(len(table))[::-1]
    names = [f"{version[:8]} ({count:,})" for version, count in table["decisions"].items()]
    with figure(9.0, 1.4 + 0.34 * len(table), ncols=2, sharey=True) as (fig, (left, right)):
        left.axvline(1, color="black", linestyle="--", linewidth=1.2)
        for y, row in zip(place, table.itertuples(), strict=True):
            colour = _KINDS["refused"] if row.alarm else COLOURS[0]
            left.plot([row.low, row.high], [y, y], color=colour, linewidth=4, alpha=0.5)
            left.plot(row.ratio, y, "o", color=colour)
        left.set_xlim(0, min(_FAR, 1.1 * table["high"].max()))  # what hardly anything was shown of has no end
        left.set_yticks(place, names)
        left.set(
            xlabel="mean of 1 / (candidates x propensity),\n95 % interval", title=title, ylabel="version (decisions)"
        )
        right.plot(table["smallest"], place, "s", color=COLOURS[1])
        right.set_xscale("log")
        right.set(xlabel="smallest propensity", ylim=(-0.6, len(table) - 0.4))
    return fig


def drift(table, title=None):
    """Draw the drift monitor: mean reward, error of the served predictions, and stability indices, period by period.

    Args:
      table: DataFrame of `loop.monitors.drift`.
      title: of the picture.

    Returns:
      The matplotlib figure: bands are 95 % intervals, dotted lines what an index stays below by chance, crosses alarms.
    """
    period = np.arange(len(table))
    with figure(10.0, 3.4, ncols=3) as (fig, (left, middle, right)):
        for axes, name, ends, label in (
            (left, "reward", ("low", "high"), "mean reward (stars)"),
            (middle, "error", ("error_low", "error_high"), "squared error of served scores (stars²)"),
        ):
            axes.plot(period, table[name], "o-", color=COLOURS[0])
            axes.fill_between(period, table[ends[0]], table[ends[1]], color=COLOURS[0], alpha=0.18, lw=0)
            axes.set(xlabel="period", ylabel=label)
        for name, colour in (("reward", COLOURS[1]), ("context", COLOURS[2])):
            right.plot(period, table[f"psi_{name}"], "o-", color=colour, label=name)
            right.plot(period, table[f"psi_{name}_limit"], ":", color=colour)
        right.set(xlabel="period", ylabel="stability index against the first")
        right.legend()
        alarmed = (table["alarm"] != "").to_numpy()
        left.plot(period[alarmed], table["reward"][alarmed], "x", color=_KINDS["refused"], markersize=11, mew=2)
        for axes in (left, middle, right):
            _whole(axes)
        left.set_title(title)
    return fig


def _lines(axes, table, x):
    """A line with its band for each learner; references in grey."""
    learners = [name for name in table["learner"].unique() if name not in REFERENCES]
    for name in [*learners, *(name for name in REFERENCES if name in set(table["learner"]))]:
        part = table[table["learner"] == name].sort_values(x)
        style = {"color": REFERENCE, "linestyle": REFERENCES.get(name), "zorder": 1}
        if name in learners:
            style = {"color": COLOURS[learners.index(name)], "marker": "o" if x == "round" else None, "markersize": 4}
        axes.plot(part[x], part["value"], label=name, **style)
        if name in learners:
            axes.fill_between(part[x], part["low"], part["high"], color=style["color"], alpha=0.18, lw=0)
    axes.legend(**_BESIDE)


def _strip(drifts):
    return {"height_ratios": [4, 1]} if drifts else {}


def _draw_drift(axes, table):
    turned = table.drop_duplicates("round").sort_values("round")
    axes.fill_between(turned["round"], turned["drift"], step="mid", color=COLOURS[5], alpha=0.5, lw=0)
    axes.set(ylabel="taste\nturned", ylim=(0, 1.05))


def _whole(axes):
    """Ticks at whole rounds only."""
    axes.xaxis.get_major_locator().set_params(integer=True)
