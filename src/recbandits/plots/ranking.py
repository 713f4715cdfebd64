"""Pictures of rankings: metrics by policy with intervals, and which tenths of the catalogue get the slots."""

import numpy as np
from matplotlib.ticker import PercentFormatter

from recbandits.evaluation.regret import mean_interval
from recbandits.plots.style import COLOURS, REFERENCE, figure

_TENTHS = np.arange(1, 11)
_LABELS = {
    "ndcg": "NDCG",
    "err": "ERR",
    "map": "MAP",
    "mrr": "MRR",
    "hit_rate": "hit rate",
    "clicks": "expected clicks",
}


def metrics(table, names=None, reference=None, title=None):
    """Draw each metric with its interval, an axis per metric, a row per policy from the top in the order of the table.

    Args:
      table: DataFrame of `evaluation.ranking.report` or `differences`.
      names: some of its metrics; by default all.
      reference: policy whose values are drawn as dashed lines, or a number, such as 0 for differences; None for none.
      title: of the picture.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: a table without a row, or a metric or policy that it does not have.
    """
    if not len(table):
        raise ValueError("table must have at least one policy to draw, got none")
    known = [name for name in table if f"{name}_low" in table]
    names = known if names is None else names
    for name in names:
        if name not in known:
            raise ValueError(f"names must be among {', '.join(known)}, got {name!r}")
    if isinstance(reference, str) and reference not in table.index:
        raise ValueError(f"reference must be one of {', '.join(table.index)}, got {reference!r}")
    position = np.arange(len(table))[::-1]
    shape = {"nrows": 1, "ncols": len(names), "sharey": True, "squeeze": False}
    with figure(1.4 + 2.1 * len(names), 1.1 + 0.32 * len(table), **shape) as (fig, axes):
        for axis, name in zip(axes[0], names, strict=True):
            if reference is not None:
                at = table.loc[reference, name] if isinstance(reference, str) else reference
                axis.axvline(at, color=REFERENCE, linestyle="--", linewidth=1.2)
            axis.hlines(
                position, table[f"{name}_low"], table[f"{name}_high"], color=COLOURS[0], alpha=0.45, linewidth=5
            )
            axis.plot(table[name], position, "o", color=COLOURS[0])
            axis.set_yticks(position, table.index)
            axis.set_ylim(-0.6, len(table) - 0.4)
            axis.grid(axis="y", visible=False)
            axis.set_xlabel(_LABELS.get(name, name))
        fig.suptitle(title)
    return fig


def by_decile(exposure, title=None):
    """Draw which share of the slots each tenth of the catalogue gets, a line per policy, with intervals over lists.

    Args:
      exposure: mapping from a policy to float [n, 10] of `evaluation.ranking.decile_exposure`, a row for each
        independent replication (one list a user, or the mean of a user's lists).
      title: of the picture.

    Returns:
      The matplotlib figure; on the dashed line every movie is shown equally often.

    Raises:
      ValueError: no policy, or not ten shares a row.
    """
    if not exposure:
        raise ValueError("exposure must have at least one policy to draw, got none")
    with figure(7.5, 3.8) as (fig, axes):
        axes.axhline(0.1, color=REFERENCE, linestyle="--", linewidth=1.2, label="all alike")
        side = np.linspace(-0.15, 0.15, len(exposure)) if len(exposure) > 1 else [0.0]
        for (label, shares), shift, colour in zip(exposure.items(), side, COLOURS * len(exposure), strict=False):
            shares = np.asarray(shares, float)
            if shares.ndim != 2 or shares.shape[1] != len(_TENTHS):
                raise ValueError(f"{label}: exposure must have the shape [n, 10], got {list(shares.shape)}")
            shares = shares[~np.isnan(shares).any(axis=1)]
            mean, low, high = np.array([mean_interval(column) for column in shares.T]).T
            axes.errorbar(_TENTHS + shift, mean, [mean - low, high - mean], fmt="o-", ms=4, color=colour, label=label)
        axes.set_xticks(_TENTHS)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylim(bottom=0)
        axes.set(xlabel="tenth of the movies, 1 the most popular", ylabel="share of the slots", title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig
