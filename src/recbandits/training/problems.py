"""What the training task works on: problems whose settings are fixed while agents are tuned on them."""

from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import numpy as np

from recbandits.agents.parameters import NAMES
from recbandits.agents.ranking.parameters import RANKING_NAMES
from recbandits.evaluation.intervals import mean_interval


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What all problems have in common.

    Attributes:
      data: directory with the files of MovieLens, or its gs:// URI; empty looks where `data.movielens.load` does.
      seeds: one repetition each, with users or splits, logs and weights of its own; the first one's agent is exported.
      serve_epsilon: share of random choices of the exported policy, where its agent has no exploration of its own.
    """

    data: str = ""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    serve_epsilon: float = 0.1

    def __post_init__(self):
        good = self.seeds and all(isinstance(seed, Integral) and seed >= 0 for seed in self.seeds)
        self._require("seeds", good and len(set(self.seeds)) == len(self.seeds), "different whole numbers of 0 or more")
        self._require("serve_epsilon", 0 <= self.serve_epsilon <= 1, "in [0, 1]")

    def check(self, agent):
        """Refuse parameters of an agent that the problem cannot judge."""

    def _require(self, field, allowed, expected):
        if not allowed:
            raise ValueError(f"{type(self).__name__}: {field} must be {expected}, got {getattr(self, field)!r}")

    def _require_counts(self, *names, least=1):
        for name in names:
            value = getattr(self, name)
            counts = isinstance(value, Integral) and value >= least
            self._require(name, counts, f"a whole number of at least {least}")

    def _require_one_of(self, field, values):
        self._require(field, getattr(self, field) in values, f"one of {', '.join(values)}")


@dataclass(frozen=True, kw_only=True)
class Simulation(Problem):
    """An agent serves users whose taste is known, and learns from what they say.

    Attributes:
      factorization: "als" or "svd", what the taste of users is made of.
      rank: number of its factors.
      num_actions: movies to choose from.
      per_arm: whether each user brings other movies with features; otherwise they are always the same, with "als" those
        with the most ratings, with "svd" the first ones.
      batch_size: users served between two updates.
      steps: batches.
    """

    factorization: str = "als"
    rank: int = 20
    num_actions: int = 20
    per_arm: bool = False
    batch_size: int = 8
    steps: int = 1250

    def __post_init__(self):
        super().__post_init__()
        self._require_one_of("factorization", ("als", "svd"))
        self._require_counts("rank", "batch_size", "steps")
        self._require_counts("num_actions", least=2)


@dataclass(frozen=True, kw_only=True)
class Fit(Problem):
    """An agent learns from a log of decisions, and is judged by ratings that it has never seen.

    Attributes:
      split: "random" holds out any ratings, "time" the latest of each user.
      judge: "validation" keeps the test ratings for the last word; "test" is that word, after learning from all others.
      behaviour: "popularity" or "uniform", the policy that wrote the log.
      candidates: movies to choose from in each decision.
      decisions: how many to learn from.
      judged: how many to be judged by.
      weights: "none", or "ips" to weigh examples by the inverse of their propensities.
      epochs: passes over the log, of networks; a linear model makes one.
      batch_size: examples per update.
      strategy: "none", "mirrored" (all GPUs of a machine) or "multi_worker" (several machines).
    """

    split: str = "random"
    judge: str = "validation"
    behaviour: str = "popularity"
    candidates: int = 10
    decisions: int = 30_000
    judged: int = 10_000
    weights: str = "none"
    epochs: int = 10
    batch_size: int = 512
    strategy: str = "none"

    def __post_init__(self):
        super().__post_init__()
        self._require_one_of("split", ("random", "time"))
        self._require_one_of("judge", ("validation", "test"))
        self._require_one_of("behaviour", ("popularity", "uniform"))
        self._require_one_of("weights", ("none", "ips"))
        self._require_one_of("strategy", ("none", "mirrored", "multi_worker"))
        self._require_counts("decisions", "judged", "epochs", "batch_size")
        self._require_counts("candidates", least=2)


@dataclass(frozen=True, kw_only=True)
class Rank(Problem):
    """An agent learns to rank from lists of movies that users have rated, and is judged by lists it has never seen.

    What is judged is its order of all held-out movies of each user.

    Attributes:
      split: "user" holds out users, who are then known by half of their ratings and judged by the other half; "random"
        holds out any ratings, "time" the latest of each user.
      judge: "validation" keeps the test ratings for the last word; "test" is that word, after learning from all others.
      size: movies in a list to learn from, the slots of a slate.
      lists: drawn for each user from each fifth of the ratings, which its features have not seen.
      feedback: "score_vector" learns the ratings of a list, "cascading" which movie is the first that was rated 4 or
        more.
      candidates: movies that the exported policy chooses a slate from where it is asked by TF-Agents' action; by ids it
        takes any number.
      top: places that are judged, 10 as in NDCG@10.
      epochs: passes over the lists, of networks; a linear model makes one.
      batch_size: lists per update.
    """

    split: str = "user"
    judge: str = "validation"
    size: int = 10
    lists: int = 4
    feedback: str = "score_vector"
    candidates: int = 50
    top: int = 10
    epochs: int = 3
    batch_size: int = 256

    def __post_init__(self):
        super().__post_init__()
        self._require_one_of("split", ("user", "random", "time"))
        self._require_one_of("judge", ("validation", "test"))
        self._require_one_of("feedback", ("score_vector", "cascading"))
        self._require_counts("size", "lists", "top", "epochs", "batch_size")
        self._require_counts("candidates", least=self.size + 1)

    def check(self, agent):
        """Refuse what does not fit lists in random order, whose movies are judged and served by their scores."""
        if getattr(agent, "policy", None) == "cosine_distance":
            raise ValueError("Rank: policy must be no_penalty or descending_scores, got 'cosine_distance'")
        if (bias := getattr(agent, "position_bias", "none")) != "none":
            raise ValueError(f"Rank: position_bias must be none, as lists are in random order, got {bias!r}")


def _learning(names):
    """Agents with parameters, by name; baselines have none, learn nothing and are not exported."""
    return {name: kind for name, kind in names.items() if kind.__dataclass_fields__}


BANDITS, RANKERS = _learning(NAMES), _learning(RANKING_NAMES)
PROBLEMS = {"simulate": Simulation, "fit": Fit, "rank": Rank}
AGENTS_OF = {"simulate": BANDITS, "fit": BANDITS, "rank": RANKERS}  # the first is taken where none is named


class Outcome(NamedTuple):
    """What came of a problem.

    Attributes:
      policy: of the first seed's agent, to be exported.
      features: its FeatureBundle.
      arms: movie ids of its fixed arms in order; None where arms have features.
      by_seed: dict from metric to a list of floats, one a seed.
      examples: interactions or examples that the exported agent learnt from.
    """

    policy: object
    features: object
    arms: np.ndarray | None
    by_seed: dict
    examples: int

    def metrics(self):
        """Dict from metric to (mean, low, high) over the seeds, in 95 % intervals; a single seed gives its value."""
        return {name: _interval(values) for name, values in self.by_seed.items()}


def _interval(values):
    return mean_interval(values) if len(values) > 1 else float(values[0])
