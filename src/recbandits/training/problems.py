"""Problems of training jobs: settings that stay the same while the parameters of agents are tuned."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin

from recbandits.agents.parameters import NAMES
from recbandits.agents.ranking.parameters import RANKING_NAMES
from recbandits.checks import FRACTION, PROBABILITY, SEED, Rule, check_fields, one_of, require, require_field, whole


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Settings that all problems share.

    Attributes:
      data: directory with the files of MovieLens, or its gs:// URI; empty looks where `data.movielens.load` does.
      seeds: one repetition each, with users or splits, logs and weights of its own; the first one's agent is exported.
        The test split of `Fit` and `Rank` is the same for all seeds.
      serve_epsilon: exploration rate of the exported policy, where its agent has no exploration of its own.
    """

    data: str = ""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    serve_epsilon: float = 0.1
    # Without annotations, as they are no fields: `Fit` alone can set the first two.
    strategy = weights = "none"
    limit = "evaluated on movies that users have rated; their ratings of other movies are unobserved"

    def __post_init__(self, **rules: Rule):
        """Check every field by the rule of its type, or by one that is given."""
        rules = {field.name: rule for field in fields(self) if (rule := _rule(field.type))} | rules
        check_fields(self, serve_epsilon=PROBABILITY, **rules)
        seeds = self.seeds if isinstance(self.seeds, (tuple, list)) else ()
        distinct = all(map(SEED.accepts, seeds)) and 0 < len(seeds) == len(set(seeds))
        require_field(self, "seeds", distinct, "different whole numbers from 0 to 2**63 - 1")

    def check_agent(self, agent: Any) -> None:
        """Refuse parameters of an agent that cannot be evaluated on the problem."""


@dataclass(frozen=True, kw_only=True)
class Simulation(Problem):
    """Learn online from simulated users whose expected rewards are known.

    Attributes:
      users: "all", or one of two halves without a user in common, "tune" to choose parameters and "report" to evaluate
        them; a hash of the user id decides.
      factorization: "als" or "svd" of the ratings of all users, whose predictions are the expected rewards.
      rank: number of its factors.
      num_actions: movies to choose from.
      per_arm: whether each user brings other movies with features; otherwise they are always the same, with "als" those
        with the most ratings, with "svd" the first ones.
      batch_size: users served between two updates.
      steps: batches.
    """

    limit = "rewards are predictions of a factorization of ratings, not observed ratings"
    users: Literal["all", "tune", "report"] = "all"
    factorization: Literal["als", "svd"] = "als"
    rank: int = 20
    num_actions: int = 20
    per_arm: bool = False
    batch_size: int = 8
    steps: int = 1250

    def __post_init__(self):
        super().__post_init__(num_actions=whole(2))


@dataclass(frozen=True, kw_only=True)
class Fit(Problem):
    """Learn from a log of decisions, and be evaluated on held-out ratings.

    Attributes:
      split: "random" holds out any ratings, "time" the latest of each user.
      judge: "validation" keeps the test split unused; "test" learns from all other ratings and is evaluated on it.
      behaviour: "popularity" or "uniform", the logging policy.
      candidates: movies to choose from in each decision.
      decisions: how many to learn from.
      judged: how many to be evaluated on.
      weights: "none", or "ips" to weigh examples by the inverse of their propensities.
      epochs: passes over the log, of networks; a linear model makes one.
      batch_size: examples per update.
      strategy: "none", "mirrored" (all GPUs of a machine) or "multi_worker" (several machines).
    """

    split: Literal["random", "time"] = "random"
    judge: Literal["validation", "test"] = "validation"
    behaviour: Literal["popularity", "uniform"] = "popularity"
    candidates: int = 10
    decisions: int = 30_000
    judged: int = 10_000
    weights: Literal["none", "ips"] = "none"
    epochs: int = 10
    batch_size: int = 512
    strategy: Literal["none", "mirrored", "multi_worker"] = "none"

    def __post_init__(self):
        super().__post_init__(candidates=whole(2))


@dataclass(frozen=True, kw_only=True)
class Rank(Problem):
    """Learn to rank from lists of rated movies, and be evaluated on the ranking of all held-out movies of each user.

    Attributes:
      split: "user" holds out users, whose features come from half of their ratings and who are evaluated on the other
        half; "random" holds out any ratings, "time" the latest of each user.
      judge: "validation" keeps the test split unused; "test" learns from all other ratings and is evaluated on it.
      size: movies in a list to learn from, the slots of a slate.
      lists: drawn for each user from each fifth of the ratings, which its features have not seen.
      feedback: "score_vector" learns the ratings of a list, "cascading" which movie is the first that was rated 4 or
        more.
      candidates: movies that the exported policy chooses a slate from where it is asked by TF-Agents' action; by ids it
        takes any number.
      top: places that are evaluated, 10 as in NDCG@10.
      epochs: passes over the lists, of networks; a linear model makes one.
      batch_size: lists per update.
    """

    split: Literal["user", "random", "time"] = "user"
    judge: Literal["validation", "test"] = "validation"
    size: int = 10
    lists: int = 4
    feedback: Literal["score_vector", "cascading"] = "score_vector"
    candidates: int = 50
    top: int = 10
    epochs: int = 3
    batch_size: int = 256

    def __post_init__(self):
        super().__post_init__()
        check_fields(self, candidates=whole(self.size + 1))

    def check_agent(self, agent: Any) -> None:
        """Refuse what does not fit lists in random order, whose movies are evaluated and served by their scores."""
        policy, bias = getattr(agent, "policy", None), getattr(agent, "position_bias", "none")
        require(policy != "cosine_distance", "Rank: policy", "no_penalty or descending_scores", policy)
        require(bias == "none", "Rank: position_bias", "none, as lists are in random order", bias)


@dataclass(frozen=True, kw_only=True)
class Learn(Problem):
    """Learn from a log of decisions of your own, and be evaluated on its latest ones.

    Attributes:
      data: TOML file that describes the log (see `recbandits.data.data_file`), or its gs:// URI.
      seeds: one training each, on the same decisions.
      test_share: share of the decisions, the latest, to be evaluated on.
      estimator: of the value of the exported policy.
      weights: "none", or "ips" to weigh examples by the inverse of their propensities.
      epochs: passes over the log, of networks; a linear model makes one.
      batch_size: examples per update.
    """

    limit = "evaluated by logged decisions; actions that the logging policy never took are unobserved"
    seeds: tuple[int, ...] = (0,)
    test_share: float = 0.3
    estimator: Literal["SNIPS", "DR", "SNDR", "Switch-DR"] = "DR"
    weights: Literal["none", "ips"] = "none"
    epochs: int = 10
    batch_size: int = 512

    def __post_init__(self):
        super().__post_init__(test_share=FRACTION)


def as_text(value: Any) -> str:
    """Return a value as the command line takes it: (64, 32) is "64,32", True is "true"."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(as_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _rule(kind: Any) -> Rule | None:
    """Return the rule of a field's type, None where there is none."""
    if get_origin(kind) is Literal:
        return one_of(get_args(kind))
    return {int: whole(1), bool: one_of((True, False))}.get(kind)


PROBLEMS = {"simulate": Simulation, "fit": Fit, "rank": Rank, "learn": Learn}
# Baselines have no parameters, learn nothing and are not exported; the mixture learns from no log. The first agent is
# the default.
_ONLINE = {name: kind for name, kind in NAMES.items() if fields(kind)}
_OFFLINE = {name: kind for name, kind in _ONLINE.items() if name != "exp3_mixture"}
_RANKING = {name: kind for name, kind in RANKING_NAMES.items() if fields(kind)}
AGENTS_OF = {"simulate": _ONLINE, "fit": _OFFLINE, "rank": _RANKING, "learn": _OFFLINE}
