"""A picture of what diversity costs: how alike the items of a slate are, against how much they please."""

from recbandits.plots.style import COLOURS, REFERENCE, figure


def trade_off(table, references=None, title=None, relevance="NDCG", parameter="penalty"):
    """Draw relevance against diversity, a dot per setting with 95 % intervals both ways, joined in the table's order.

    Args:
      table: DataFrame indexed by setting, such as the penalty of similar items, with columns diversity, diversity_low,
        diversity_high, relevance, relevance_low and relevance_high.
      references: DataFrame with the columns diversity and relevance, indexed by label, of policies to compare with;
        None for none.
      title: of the picture.
      relevance: what relevance is measured in.
      parameter: what the index of the table is.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: a table without a row.
    """
    if not len(table):
        raise ValueError("table must have at least one setting to draw, got none")
    x, y = table["diversity"], table["relevance"]
    across = [x - table["diversity_low"], table["diversity_high"] - x]
    along = [y - table["relevance_low"], table["relevance_high"] - y]
    with figure(6.5, 4.0) as (fig, axes):
        axes.errorbar(x, y, along, across, color=COLOURS[0], marker="o", capsize=2, label=f"by {parameter}")
        for setting, row in table.iterrows():
            place = row["diversity"], row["relevance"]
            axes.annotate(f"{setting:g}", place, (6, 5), textcoords="offset points", size=9)
        if references is not None:
            for (label, row), marker in zip(references.iterrows(), "sD^v*P" * len(references), strict=False):
                axes.plot(
                    row["diversity"], row["relevance"], marker, color=REFERENCE, label=label, linestyle="none", ms=7
                )
        axes.margins(0.12)
        axes.set(xlabel="diversity within a slate (1 - mean cosine similarity)", ylabel=relevance, title=title)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig
