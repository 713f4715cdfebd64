"""Simulated recommenders whose expected rewards are known, and the models behind them.

- `StationaryLinearEnvironment`, `SyntheticRankingEnvironment`: synthetic users with a known formula of their rewards.
- `MovieLensEnvironment`, `MovieLensRankingEnvironment`: MovieLens users; a factorisation predicts their ratings. Those
  of `RatedEnvironment` have rated the movies.
- `Environment`, `RankingEnvironment`: bases of those that ask for one action, and for a slate; `Batch` and
  `RankingBatch` are all that they know of a batch, `Response` is the answer to actions.
- `Cascade`, `DependentClick`, `PositionBased`, `Choice`: models of clicks on a slate, subclasses of `ClickModel`, by
  name in `CLICK_MODELS`. `attraction` maps ratings to click probabilities. Need no TensorFlow for arrays.
- `als`, `svd`: fit a `Factorization` of ratings. Need no TensorFlow.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "base": "Environment Batch Response",
        "clicks": "Cascade DependentClick PositionBased Choice ClickModel CLICK_MODELS attraction",
        "factorization": "Factorization als svd",
        "movielens": "MovieLensEnvironment MovieLensRankingEnvironment RatedEnvironment",
        "ranking": "RankingEnvironment RankingBatch",
        "synthetic": "StationaryLinearEnvironment SyntheticRankingEnvironment",
    },
)
