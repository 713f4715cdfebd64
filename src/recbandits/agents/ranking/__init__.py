"""Agents that fill slates; `recbandits.agents.make_agent` makes them.

- Parameters, by name in `RANKING_NAMES`: `Ranking` of a network that scores items, TF-Agents' `RankingAgent`;
  `CascadingLinUCB` and `CascadingLinTS` of linear models of the attraction of items; `RandomRanking`,
  `PopularityRanking`, `AlsRanking` and `OptimalRanking` of baselines.
- `SlatePolicy`: the TF-Agents policy that fills slates, with exact propensities.
- `slotted`: features of the items in a slate.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "parameters": "Ranking CascadingLinUCB CascadingLinTS RandomRanking PopularityRanking AlsRanking "
        "OptimalRanking RANKING_NAMES",
        "policy": "SlatePolicy slotted",
    },
)
