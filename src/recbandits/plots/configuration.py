"""How resource names are put together."""

import re

from recbandits.plots.style import COLOURS, REFERENCE, figure

SETTINGS = ("project", "region", "prefix", "version")


def resource_names(config):
    """Show every derived resource name with the parts in the colour of the setting that they come from.

    Args:
      config: a `Config` with a project.

    Returns:
      matplotlib.figure.Figure
    """
    names = {
        "bucket": config.bucket,
        "BigQuery dataset": config.dataset,
        "container image": config.image("train"),
        "service account": config.service_account,
        "Pub/Sub topic": config.topic("interactions"),
        "endpoint": config.endpoint,
    }
    colours = dict(zip(SETTINGS, COLOURS, strict=False))
    with figure(9.5, 0.36 * (len(names) + 2)) as (fig, ax):
        ax.set(xlim=(0, 1), ylim=(-len(names) - 0.8, 0.8))
        ax.axis("off")
        _write(ax, 0, "made from", [(f"{name}  ", colours[name]) for name in SETTINGS])
        for row, (label, name) in enumerate(names.items(), 1):
            _write(ax, -row - 0.3, label, coloured_parts(config, name, colours))
    return fig


def coloured_parts(config, name, colours):
    """Cut a name into (text, colour) pieces, one for each setting in it and one for what lies between."""
    by_value = {getattr(config, setting): colours[setting] for setting in SETTINGS}
    by_value[config.prefix.replace("-", "_")] = colours["prefix"]
    values = "|".join(re.escape(value) for value in sorted(by_value, key=len, reverse=True))
    pieces = re.split(rf"(?<![a-z0-9])({values})(?![a-z0-9])", name)
    return [(piece, by_value.get(piece, REFERENCE)) for piece in pieces if piece]


def _write(ax, y, label, pieces):
    """One row: a label, then the pieces, each beginning where the one before it ends."""
    ax.text(0, y, label, va="bottom")
    previous, at = ax.transData, (0.2, y)
    for text, colour in pieces:
        previous = ax.annotate(
            text, at, xycoords=previous, va="bottom", color=colour, family="monospace", weight="bold"
        )
        at = (1, 0)
