"""Agents that fill slates; `recbandits.agents.make_agent` makes them.

- `Ranking`: parameters of a network that scores items, TF-Agents' `RankingAgent`.
- `CascadingLinUCB`, `CascadingLinTS`: parameters of linear models of the attraction of items.
- `RandomRanking`, `PopularityRanking`, `AlsRanking`, `OptimalRanking`: parameters of baselines.
- `RANKING_NAMES`: class of the parameters of every name.
- `SlatePolicy`: the TF-Agents policy that fills slates, with exact propensities.
- `slotted`: features of the items in a slate.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "parameters": "Ranking CascadingLinUCB CascadingLinTS RandomRanking PopularityRanking AlsRanking "
        "OptimalRanking RANKING_NAMES",
        "policy": "SlatePolicy",
        "slotting": "slotted",
    },
)
