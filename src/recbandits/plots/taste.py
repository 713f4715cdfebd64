"""Is there anything to personalise? A picture of how far users agree."""

import numpy as np

from recbandits.plots.style import COLOURS, figure


def disagreement(rewards, titles):
    """Draw what each arm pays over all users, and for how many of them it is the best one.

    Args:
      rewards: float array [users, arms], expected rewards.
      titles: one name per arm.

    Returns:
      The matplotlib figure, arms ordered by mean reward.
    """
    order = np.argsort(rewards.mean(axis=0))
    best = np.bincount(rewards.argmax(axis=1), minlength=rewards.shape[1]) / len(rewards)
    names = [title if len(title) <= 32 else f"{title[:30]}…" for title in np.asarray(titles)[order]]
    position = np.arange(len(order))
    with figure(8.5, 0.8 + 0.22 * len(order), ncols=2, sharey=True) as (fig, (pay, share)):
        low, middle, high = np.percentile(rewards[:, order], [10, 50, 90], axis=0)
        pay.hlines(position, low, high, color=COLOURS[0], alpha=0.4, linewidth=3, label="80 % of users")
        pay.plot(middle, position, "|", color=COLOURS[0], markersize=9, label="median")
        pay.plot(rewards.mean(axis=0)[order], position, "o", color=COLOURS[1], markersize=4, label="mean")
        pay.set_yticks(position, names, fontsize="small")
        pay.set(xlabel="expected reward (rating)")
        pay.legend(fontsize="small", loc="lower right")
        share.barh(position, 100 * best[order], color=COLOURS[2])
        share.set(xlabel="users for whom it is the best arm (%)")
    return fig
