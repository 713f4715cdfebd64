"""The slotting transform, drawn: from what a policy sees of one user to what its agent is trained on."""

import numpy as np
from matplotlib.patches import ConnectionPatch

from recbandits.agents.ranking.slotting import slotted
from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.plots.style import COLOURS, figure


def slotting(observation, slate, reward):
    """Draw the features of all items, those of the slate in the order of its slots, and what came of each.

    A row is an item, a column one of its features, a colour its value. Each line leads from an item to its slot.

    Args:
      observation: {"global": [G], "per_arm": [items, D]}, of one user.
      slate: int [slots], columns of the items, the top first.
      reward: float [slots].

    Returns:
      The matplotlib figure.
    """
    context, arms = np.asarray(observation[GLOBAL]), np.asarray(observation[PER_ARM])
    slate = np.asarray(slate)
    shown = slotted({GLOBAL: context[None], PER_ARM: arms[None]}, slate[None])[PER_ARM][0]
    look = {"cmap": "PuOr", "vmin": -(limit := np.abs(arms).max() or 1.0), "vmax": limit}
    (items, size), slots = arms.shape, len(slate)
    parts = [context[None], arms, context[None], shown, np.asarray(reward, float)[:, None]]
    titles = [f"global [{len(context)}]", f"per_arm [{items}, {size}]"] * 2
    titles[3] = f"per_arm [{slots}, {size}]"
    with figure(9.0, 4.6, 2, 4, width_ratios=(10, 2, 10, 1.6), height_ratios=(1, 14)) as (fig, axes):
        places = [axes[0, 0], axes[1, 0], axes[0, 2], axes[1, 2], axes[1, 3]]
        for ax, part, title in zip(places, parts, [*titles, f"reward\n[{slots}]"], strict=True):
            colours = {"cmap": "Greens", "vmin": 0} if ax is places[-1] else look
            ax.imshow(part, aspect="auto", interpolation="nearest", **colours)
            ax.set_title(title, fontsize=9)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
        for ax in (axes[0, 1], axes[1, 1], axes[0, 3]):
            ax.axis("off")
        _lines(fig, places[1], places[3], slate)
        places[1].set(ylabel="item", yticks=np.sort(slate), xlabel="what the policy sees")
        places[3].set(yticks=range(slots), xlabel="what the agent is trained on")
        places[3].yaxis.tick_right()
        places[3].set_yticklabels([f"slot {slot + 1}" for slot in range(slots)])
        for slot, value in enumerate(parts[-1][:, 0]):
            dark = value > 0.6 * max(parts[-1].max(), 1e-12)
            places[4].text(0, slot, f"{value:g}", ha="center", va="center", color="white" if dark else "black")
    return fig


def _lines(fig, items, slots, slate):
    """A line from each item of the slate to its slot."""
    right, left = items.get_xlim()[1], slots.get_xlim()[0]
    for slot, item in enumerate(slate):
        colour = COLOURS[slot % len(COLOURS)]
        ends = {"xyA": (right, item), "coordsA": items.transData, "xyB": (left, slot), "coordsB": slots.transData}
        fig.add_artist(ConnectionPatch(**ends, color=colour, linewidth=1.2))
