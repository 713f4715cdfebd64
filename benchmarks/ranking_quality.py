"""Ranking quality of agents that learnt from lists: NDCG@10 of each user's held-out movies, against baselines.

Five splits. Held-out interactions are 20 % of all ratings. Held-out users are 20 % of the users: they are
in no training rating. Half of their ratings, the support ratings, are folded into the factorisation; the other half,
the query ratings, are ranked. Agents learn from lists of movies that one user has rated, in random order. The features
of a list are fitted on other ratings. Networks stop by the lists of a tenth of the users.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.profiles import choose
from benchmarks.training import fit_features
from recbandits.agents.factory import make_agent
from recbandits.agents.ranking.parameters import CascadingLinUCB, Ranking
from recbandits.data.slates import RatedLists, cross_fitted_lists, rated_lists
from recbandits.data.splits import random_split, split_by_user
from recbandits.environments.factorization import Factorization, als
from recbandits.evaluation import ranking_metrics, tabulate_differences, tabulate_means
from recbandits.training.offline import Specs, fit, score_candidates

SEEDS = range(choose(5, 2))
TOP, CANDIDATES = 10, 50
SIZES, LISTS = (3, 5, 10), 4  # movies a list, lists a user and fold
NETWORK = Ranking(network="dot_product", layers=(32,), learning_rate=0.003, weight_decay=3.0)
TRAINING = {"epochs": choose(40, 3), "patience": 4}
PAIRS = 2560  # of a list and a movie in it, in a batch
BASELINE = "ALS"


class Split(NamedTuple):
    """Training ratings, ratings that features are fitted on, and test lists of one seed."""

    data: object
    train: pd.DataFrame  # lists to learn from are drawn from these
    known_ratings: pd.DataFrame  # these and the support ratings of held-out users
    model: Factorization
    test_lists: RatedLists
    seed: int

    def features(self, ratings, model=None):
        """Features fitted on some of the ratings."""
        return fit_features(self.data, ratings, model)

    def compute_metrics(self, values):
        """Metrics of the lists that scores [n, items] make, a row a user."""
        lists = self.test_lists
        slate = ranking_metrics.rank(values, TOP, lists.mask, self.seed)
        return ranking_metrics.measure(slate, lists.rating, threshold=4.0, highest=5.0).set_index(lists.user_id)


def measure(data):
    """Measure baselines and agents, with 95 % intervals."""
    splits = {"users": held_out_users, "interactions": held_out_interactions}
    tables = {}
    for held_out, make_split in splits.items():
        runs = {seed: evaluate_policies(make_split(data, seed)) for seed in SEEDS}
        tables[f"Movies of held-out {held_out} ranked, {len(SEEDS)} splits"] = as_text(runs)
    return tables


def held_out_users(data, seed):
    """Hold out a fifth of the users: half of their ratings are support ratings, the others query ratings."""
    train, rest = (data.ratings.iloc[rows] for rows in split_by_user(data.ratings, seed))
    support, query = (rest.iloc[rows] for rows in random_split(rest, seed, 0.5))
    return Split(data, train, pd.concat([train, support]), als(train).fold_in(support), rated_lists(query), seed)


def held_out_interactions(data, seed):
    """Hold out a fifth of the ratings."""
    train, test = (data.ratings.iloc[rows] for rows in random_split(data.ratings, seed))
    return Split(data, train, train, als(train), rated_lists(test), seed)


def evaluate_policies(split):
    """Metrics of every policy, a row a user, by its name."""
    lists = split.test_lists
    requests = lists.user_id, lists.candidates, lists.mask
    count = split.known_ratings["movie_id"].value_counts().reindex(lists.candidates.ravel(), fill_value=0)
    values = {
        "uniform random policy": np.zeros(lists.candidates.shape),
        "popularity": count.to_numpy().reshape(lists.candidates.shape),
        "movie bias": score_candidates(als(split.train, rank=0), None, *requests),
        BASELINE: score_candidates(split.model, None, *requests),
    }
    features = split.features(split.known_ratings, split.model)
    longest = max(SIZES)
    for size in SIZES:
        examples = make_lists(split, size, split.features)
        agents = {"network": NETWORK} | ({"linear": CascadingLinUCB()} if size == longest else {})
        for name, parameters in agents.items():
            agent = train_agent(features, size, parameters, examples, split.seed)
            values[f"{name}, lists of {size}"] = score_candidates(agent, features, *requests)
    in_sample_lists = make_lists(split, longest, lambda ratings: features)
    agent = train_agent(features, longest, NETWORK, in_sample_lists, split.seed)
    values[f"network, lists of {longest} that its features have seen"] = score_candidates(agent, features, *requests)
    return {name: split.compute_metrics(value) for name, value in values.items()}


def make_lists(split, size, fit_features):
    """(training lists, validation lists) of different users; their features are fitted on other ratings."""
    parts = [split.train.iloc[rows] for rows in split_by_user(split.train, split.seed, 0.1)]
    return [
        cross_fitted_lists(
            part,
            size,
            lambda rest, other_part=other_part: fit_features(pd.concat([rest, other_part])),
            LISTS,
            seed=split.seed,
        )
        for part, other_part in zip(parts, parts[::-1], strict=True)
    ]


def train_agent(features, size, parameters, examples, seed):
    """An agent trained on examples; networks stop by the others."""
    agent = make_agent(parameters, Specs(features.spec(CANDIDATES), size), seed)
    training_lists, validation_lists = examples
    if isinstance(parameters, Ranking):
        fit(agent, training_lists, validation=validation_lists, batch_size=PAIRS // size, seed=seed, **TRAINING)
    else:
        fit(agent, training_lists)
    return agent


def as_text(runs):
    """NDCG and what it is above the baseline's, over users and over splits.

    A user who is held out in several splits counts once, with the mean.
    """
    policies = runs[SEEDS[0]]
    tables = {name: pd.concat([runs[seed][name] for seed in SEEDS]) for name in policies}
    users = {name: ranking_metrics.by_user(table, table.index) for name, table in tables.items()}
    seeds = {name: ranking_metrics.by_seed({seed: runs[seed][name] for seed in SEEDS}) for name in policies}
    text = pd.DataFrame(
        {
            f"NDCG@{TOP}": interval(tabulate_means(users), "ndcg", "{:.3f}"),
            f"ERR@{TOP}": interval(tabulate_means(users), "err", "{:.3f}"),
            f"NDCG minus that of {BASELINE}, over users": interval(
                tabulate_differences(users, BASELINE), "ndcg", "{:+.4f}"
            ),
            "the same over splits": interval(tabulate_differences(seeds, BASELINE), "ndcg", "{:+.4f}"),
        }
    )
    return text.reindex(list(policies)).fillna("").rename_axis("").reset_index()


def interval(table, metric, form):
    """Mean and interval of a metric as text, by policy."""
    bounds = zip(*(table[f"{metric}{end}"] for end in ("", "_low", "_high")), strict=True)
    return pd.Series(["{} ({} to {})".format(*map(form.format, row)) for row in bounds], table.index)
