"""A picture of what a policy shows: how its decisions spread over movies, from the best known to the unknown."""

import numpy as np

from recbandits.plots.style import COLOURS, figure


def exposure(shown, known, title=None):
    """Draw which share of the decisions the best-known movies take, a line per policy.

    Args:
      shown: mapping from a label to the movie ids that were shown, int array [n], n at least 1.
      known: Series of ratings per movie, indexed by movie id; movies that are not in it come last.
      title: of the picture.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: nothing was shown under a label.
    """
    rank = known.rank(ascending=False, method="first")
    movies = max(len(np.union1d(known.index, ids)) for ids in shown.values())
    colours = iter(COLOURS * len(shown))
    with figure(7.5, 4.0) as (fig, axes):
        for label, ids in shown.items():
            if not len(ids):
                raise ValueError(f"{label}: at least one movie must have been shown")
            position = np.sort(rank.reindex(ids).fillna(movies))
            share = np.arange(1, len(ids) + 1) / len(ids)
            axes.step([0, *position, movies], [0, *share, 1], where="post", color=next(colours), label=label)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="movies, from the most to the least rated", ylabel="share of the decisions", title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig
