"""Simulated recommenders whose expected rewards are known, and the models behind them.

- `StationaryLinearEnvironment`, `SyntheticRankingEnvironment`: synthetic users with a known formula of their rewards.
- `MovieLensEnvironment`, `MovieLensRankingEnvironment`: MovieLens users; a factorisation predicts their ratings.
- `RatedEnvironment`: MovieLens users and movies that they have rated.
- `Environment`, `RankingEnvironment`: bases of those that ask for one action, and for a slate.
- `Batch`, `RankingBatch`, `Response`: all that an environment knows of a batch, and the answer to actions.
- `Cascade`, `DependentClick`, `PositionBased`, `Choice`: models of clicks on a slate, subclasses of `ClickModel`;
  `CLICK_MODELS` has them by name. `attraction` maps ratings to click probabilities. Need no TensorFlow for arrays.
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
