"""The parameters of agents that fill slates: names, defaults and checks."""

from dataclasses import dataclass

from recbandits import checks
from recbandits.agents.parameters import LinUCB, Network

POLICIES = ("no_penalty", "descending_scores", "cosine_distance")
POSITION_BIASES = ("none", "base", "exponent", "inverse_propensity")


@dataclass(frozen=True, kw_only=True)
class Ranking(Network):
    """A network that scores items, trained by the feedback on whole slates: TF-Agents' `RankingAgent`.

    It serves greedily: in each slot the item with the largest logit of the policy by which it collects.

    Args:
      policy: "no_penalty" draws slot after slot with probability proportional to exp(score / temperature) (the
        Plackett-Luce model); "cosine_distance" subtracts from the logits a penalty for similarity to the items above;
        "descending_scores" takes the largest scores and never explores.
      temperature: positive, in units of the scores; descending scores do not read it.
      penalty: for "cosine_distance", 0 or more; each filled slot lowers the logits of the other items by it, times 1 +
        the largest cosine similarity of their features to those of an item above.
      non_click_score: under cascading feedback, the target score of items above the click; a score vector has scores of
        its own.
      position_bias: "none" does not correct the feedback. "base" weighs the error in slot k by k ** severity and
        "exponent" by severity ** (k - 1), as TF-Agents does after Ovaisi et al. 2020, "Correcting for Selection Bias in
        Learning-to-rank Systems". "inverse_propensity" learns score / examination, with examination k ** -severity of
        slot k; it needs a score vector. See `ranking.models.SlateNetwork` for the scores that each of them learns.
      severity: of the position bias, positive.
      positive_only: whether "base" and "exponent" weigh only slots with a positive score.
    """

    policy: str = "no_penalty"
    temperature: float = 0.1
    penalty: float = 1.0
    non_click_score: float = -1.0
    position_bias: str = "none"
    severity: float = 1.3
    positive_only: bool = False

    def __post_init__(self):
        checks.check_fields(
            self,
            policy=checks.one_of(POLICIES),
            temperature=checks.POSITIVE,
            penalty=checks.NON_NEGATIVE,
            non_click_score=checks.FINITE,
            position_bias=checks.one_of(POSITION_BIASES),
            severity=checks.POSITIVE,
            positive_only=checks.one_of((True, False)),
        )
        weighs = self.position_bias in ("base", "exponent")
        checks.require_field(self, "positive_only", weighs or not self.positive_only, "False without weights by slot")
        super().__post_init__()


@dataclass(frozen=True)
class CascadingLinUCB(LinUCB):
    """The items with the largest upper confidence bounds on one linear model of their attraction.

    It is CascadeLinUCB (Zong et al. 2016, "Cascading Bandits for Large-Scale Recommendation Problems", algorithm 2)
    without the cut at 1, which would only tie the items about which least is known. Under cascading feedback it learns
    from the slots down to the click, from all of them if there was none, and from a score vector from all slots.
    """


@dataclass(frozen=True)
class CascadingLinTS(LinUCB):
    """The items with the largest attraction under coefficients drawn from their posterior, one draw for each slate.

    It is CascadeLinTS (Zong et al. 2016, algorithm 1): normal coefficients around the estimate, whose covariance is
    that of the estimate times `alpha` squared. It learns as `CascadingLinUCB`.
    """


@dataclass(frozen=True)
class RandomRanking:
    """Baseline: any slate with the same probability."""


@dataclass(frozen=True)
class PopularityRanking:
    """Baseline: the most popular items, as the environment counts them, the same for all users."""


@dataclass(frozen=True)
class AlsRanking:
    """Baseline: the items with the largest ratings that a factorization predicts, as the environment knows them."""


@dataclass(frozen=True)
class OptimalRanking:
    """Baseline: the items with the largest attraction, which only the environment knows."""


RANKING_NAMES = {
    "ranking": Ranking,
    "cascading_linucb": CascadingLinUCB,
    "cascading_lints": CascadingLinTS,
    "random_ranking": RandomRanking,
    "popularity_ranking": PopularityRanking,
    "als_ranking": AlsRanking,
    "optimal_ranking": OptimalRanking,
}
