"""Policies whose coefficients are known, and what they log: a `SimulatedUsers` is linear in its features."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from recbandits.data import Features
from recbandits.exploration import Exploration
from recbandits.loop.memory import serve_in_memory
from recbandits.records import Log
from recbandits.serving.scorer import Scorer, linear_head

SOFT = Exploration("softmax", 0.2)


def policy(world, quality=1.0, exploration=SOFT):
    """Score by mean + biases + `quality` times the products of factors: 1 is the truth, -1 turns movies round."""
    rank = world.model.rank
    theta = [world.model.mean, 1, *np.zeros(rank), quality, *np.zeros(rank), *np.full(rank, quality)]
    return linear(theta, world.features, exploration)


def linear(theta, features, exploration=SOFT):
    """Score by the coefficients `theta` of context and arm."""
    scorer = Scorer("concat", "relu", (), (), (linear_head(np.array([theta], np.float32)),))
    return serve_in_memory(scorer, features, exploration)


def logged(world, decider, n, seed=0, candidates=5):
    """Log of n decisions with ratings of `SimulatedUsers.rate`; users and items are numbered as in the world."""
    rng = np.random.default_rng(seed)
    users, items = world.visits(n, rng, candidates)
    decided = decider.decide(world.contexts(users), world.candidate_ids(items), rng=rng)
    rewards = world.rate(world.expected(users, items)[np.arange(n), decided.action], rng)
    return Log(
        event_id=np.array([f"event {row}" for row in range(n)], object),
        time=np.full(n, datetime(2026, 1, 1), "datetime64[us]"),
        user_id=users,
        candidates=items,
        mask=np.ones(items.shape, bool),
        action=decided.action,
        propensity=decided.propensity,
        reward=rewards,
        pass_prob=np.ones(n),
        item_ids=world.item_ids,
        user_ids=world.user_ids,
        context=world.contexts(users),
    )


def priced(weight, names=("price",)):
    """A policy of four drinks whose scores change by `weight` with each unit of the price of the moment."""
    drinks = pd.DataFrame({"kind": list("abba")}, index=["tea", "ale", "rum", "milk"])
    features = Features.fit(drinks, pd.DataFrame({"device": ["tv", "phone"]}))
    theta = [0.0, 1.0, 2.0, 0.5, 0.0, *[weight] * len(names)]  # constant, two devices, two kinds, price
    return linear(theta, replace(features, candidate_features=names))


def sold(decider, n):
    """Log of n decisions of a `priced` policy by people without an id, whose rewards are its scores."""
    rng = np.random.default_rng(0)
    prices = {"price": rng.uniform(1, 9, (n, 4))}
    context = pd.DataFrame({"device": rng.choice(["tv", "phone"], n)})
    decided = decider.decide(context, rng=rng, candidate_features=prices)
    return Log(
        event_id=np.array([f"event {row}" for row in range(n)], object),
        time=np.full(n, NOON.replace(tzinfo=None), "datetime64[us]"),
        user_id=np.arange(n),
        candidates=np.tile(np.arange(4), (n, 1)),
        mask=np.ones((n, 4), bool),
        action=decided.action,
        propensity=decided.propensity,
        reward=decided.scores[np.arange(n), decided.action],
        pass_prob=np.ones(n),
        item_ids=decider.features.item_ids,
        user_ids=[],
        context=context,
        candidate_features=prices,
    )


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
