"""How well agents rank that learnt from lists: NDCG@10 of each user's held-out movies, against those who need no agent.

Five splits. Held-out interactions are 20 % of all ratings. Held-out users are 20 % of the users: the agent has never
seen them, and is told half of their ratings by folding them into the factorisation; the other half is ranked. Agents
learn from lists of movies that one user has rated, in random order, described by features that have not seen the
ratings of the list. Networks stop by the lists of a tenth of the users.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from recbandits.agents.factory import make_agent
from recbandits.agents.ranking.parameters import CascadingLinUCB, Ranking
from recbandits.data.rating_features import RatingFeatures
from recbandits.data.slates import RatedLists, cross_fitted_lists, rated_lists
from recbandits.data.splits import random_split, split_by_user
from recbandits.environments.factorization import Factorization, als
from recbandits.evaluation import ranking_metrics, tabulate_differences, tabulate_means
from recbandits.training.offline import Specs, fit, score_candidates

SEEDS = range(5)
TOP, CANDIDATES = 10, 50
SIZES, LISTS = (3, 5, 10), 4  # movies a list, lists a user and fold
NETWORK = Ranking(network="dot_product", layers=(32,), learning_rate=0.003, weight_decay=3.0)
TRAINING = {"epochs": 40, "patience": 4}
PAIRS = 2560  # of a list and a movie in it, in a batch
BASELINE = "ALS"


class World(NamedTuple):
    """What a seed leaves to learn from, to describe users by, and to be judged by."""

    data: object
    train: pd.DataFrame  # lists to learn from are drawn from these
    known: pd.DataFrame  # these and what is told of held-out users
    model: Factorization
    judged: RatedLists
    seed: int

    def features(self, ratings, model=None):
        """Features fitted on some of the ratings."""
        model = als(ratings) if model is None else model
        frames = model.user_frame(), model.movie_frame()
        return RatingFeatures.fit(ratings, self.data.users, self.data.movies, *frames)

    def measured(self, values):
        """Metrics of the lists that scores [n, items] make, a row a user."""
        lists = self.judged
        slate = ranking_metrics.rank(values, TOP, lists.mask, self.seed)
        return ranking_metrics.measure(slate, lists.rating, threshold=4.0, highest=5.0).set_index(lists.user_id)


def measure(data):
    """Measure baselines and agents.

    Args:
      data: MovieLens

    Returns:
      dict from title to DataFrame of text; intervals are of 95 %.
    """
    splits = {"users": held_out_users, "interactions": held_out_interactions}
    tables = {}
    for held_out, split in splits.items():
        runs = {seed: judged(split(data, seed)) for seed in SEEDS}
        tables[f"Movies of held-out {held_out} ranked, {len(SEEDS)} splits"] = as_text(runs)
    return tables


def held_out_users(data, seed):
    """A fifth of the users, told by half of their ratings and judged by the other half."""
    train, rest = (data.ratings.iloc[rows] for rows in split_by_user(data.ratings, seed))
    told, kept = (rest.iloc[rows] for rows in random_split(rest, seed, 0.5))
    return World(data, train, pd.concat([train, told]), als(train).fold_in(told), rated_lists(kept), seed)


def held_out_interactions(data, seed):
    """A fifth of the ratings."""
    train, kept = (data.ratings.iloc[rows] for rows in random_split(data.ratings, seed))
    return World(data, train, train, als(train), rated_lists(kept), seed)


def judged(world):
    """Metrics of every policy, a row a user, by its name."""
    lists = world.judged
    asked = lists.user_id, lists.candidates, lists.mask
    count = world.known["movie_id"].value_counts().reindex(lists.candidates.ravel(), fill_value=0)
    values = {
        "uniform random policy": np.zeros(lists.candidates.shape),
        "popularity": count.to_numpy().reshape(lists.candidates.shape),
        "movie bias": score_candidates(als(world.train, rank=0), None, *asked),
        BASELINE: score_candidates(world.model, None, *asked),
    }
    features = world.features(world.known, world.model)
    longest = max(SIZES)
    for size in SIZES:
        examples = learnable(world, size, world.features)
        agents = {"network": NETWORK} | ({"linear": CascadingLinUCB()} if size == longest else {})
        for name, parameters in agents.items():
            agent = learnt(features, size, parameters, examples, world.seed)
            values[f"{name}, lists of {size}"] = score_candidates(agent, features, *asked)
    seen = learnable(world, longest, lambda ratings: features)
    agent = learnt(features, longest, NETWORK, seen, world.seed)
    values[f"network, lists of {longest} that its features have seen"] = score_candidates(agent, features, *asked)
    return {name: world.measured(value) for name, value in values.items()}


def learnable(world, size, describe):
    """(lists to learn from, lists to stop by), of different users; features of neither have seen their ratings."""
    parts = [world.train.iloc[rows] for rows in split_by_user(world.train, world.seed, 0.1)]
    return [
        cross_fitted_lists(
            part, size, lambda left, other=other: describe(pd.concat([left, other])), LISTS, seed=world.seed
        )
        for part, other in zip(parts, parts[::-1], strict=True)
    ]


def learnt(features, size, parameters, examples, seed):
    """An agent trained on examples; networks stop by the others."""
    agent = make_agent(parameters, Specs(features.spec(CANDIDATES), size), seed)
    learn, stop = examples
    if isinstance(parameters, Ranking):
        fit(agent, learn, validation=stop, batch_size=PAIRS // size, seed=seed, **TRAINING)
    else:
        fit(agent, learn)
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
