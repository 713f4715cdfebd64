"""A picture of a release: whom a canary serves while it grows, and what users get from either version."""

import numpy as np
from matplotlib.colors import ListedColormap

from recbandits.plots.style import COLOURS, REFERENCE, figure

_OLD = "#e2e8f0"


def canary(visits, title=None):
    """Draw who is answered by the canary at each of its shares, and the mean reward of both versions.

    Args:
      visits: DataFrame, one row a visit: share (percentage of the canary), user_id, canary (whether it answered) and
        reward. The same users come at every share.
      title: of the picture.

    Returns:
      The matplotlib figure: on the left a line of users for each share, those first who joined the canary first; on the
      right mean rewards with 95 % intervals, mean +- 1.96 standard errors. Each user counts once: users are what is
      split between the versions, and the visits of one are alike.

    Raises:
      ValueError: other users come at one share than at another, or one user gets both versions at one share.
    """
    by_user = visits.groupby(["share", "user_id"])["canary"].agg(["min", "max"])
    if (by_user["min"] != by_user["max"]).any():
        share, user = by_user.index[np.argmax(by_user["min"] != by_user["max"])]
        raise ValueError(f"user {user} must get one version, got both at {share} %")
    table = by_user["max"].unstack()
    if table.isna().any(axis=None):
        raise ValueError("the same users must come at every share")
    order = np.argsort(-table.sum().to_numpy(), kind="stable")
    stages = np.arange(len(table))
    with figure(9.0, 3.4, ncols=2, width_ratios=[3, 2]) as (fig, (left, right)):
        left.pcolormesh(
            table.to_numpy(float)[:, order],
            cmap=ListedColormap([_OLD, COLOURS[1]]),
            vmin=0,
            vmax=1,
            edgecolors="none",
            rasterized=True,
        )
        for stage, users in zip(stages, table.sum(axis=1), strict=True):
            left.text(users, stage + 0.5, f" {users:,}", va="center", color=COLOURS[1])
        left.invert_yaxis()
        left.set_yticks(stages + 0.5, [f"{share} %" for share in table.index])
        left.set(xlabel="users", ylabel="share of the canary", title=title)
        left.grid(visible=False)
        of_users = visits.groupby(["canary", "share", "user_id"])["reward"].mean()
        means = of_users.groupby(["canary", "share"]).agg(["mean", "sem"])
        for answered, label, colour in ((False, "old version", REFERENCE), (True, "canary", COLOURS[1])):
            if answered in means.index:
                part = means.loc[answered]
                places = table.index.get_indexer(part.index) + (0.1 if answered else -0.1)
                right.errorbar(places, part["mean"], 1.96 * part["sem"], fmt="o", color=colour, capsize=3, label=label)
        right.set_xticks(stages, [f"{share} %" for share in table.index])
        right.set(xlabel="share of the canary", ylabel="mean reward of users, 95 % intervals")
        right.legend(loc="best")
    return fig
