"""Policies whose coefficients are known: a `SimulatedUsers` is linear in its features; and a log of prices."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from recbandits.data import Features
from recbandits.exploration import Exploration
from recbandits.loop.rounds import serve_in_memory
from recbandits.records import Log
from recbandits.serving.scorer import Scorer, linear_head

SOFT = Exploration("softmax", 0.2)


def policy(users, quality=1.0, exploration=SOFT):
    """Score by mean + biases + `quality` times the products of factors: 1 is the truth, -1 the opposite."""
    rank = users.model.rank
    theta = [users.model.mean, 1, *np.zeros(rank), quality, *np.zeros(rank), *np.full(rank, quality)]
    return linear_policy(theta, users.features, exploration)


def linear_policy(theta, features, exploration=SOFT):
    """Score by the coefficients `theta` of context and arm."""
    scorer = Scorer("concat", "relu", (), (), (linear_head(np.array([theta], np.float32)),))
    return serve_in_memory(scorer, features, exploration)


def price_policy(weight, names=("price",)):
    """Return a policy of four drinks whose scores change by `weight` with each unit of the current price."""
    drinks = pd.DataFrame({"kind": list("abba")}, index=["tea", "ale", "rum", "milk"])
    features = Features.fit(drinks, pd.DataFrame({"device": ["tv", "phone"]}))
    theta = [0.0, 1.0, 2.0, 0.5, 0.0, *[weight] * len(names)]  # constant, two devices, two kinds, price
    return linear_policy(theta, replace(features, candidate_features=names))


def price_log(seller, n):
    """Draw a log of n decisions of a `price_policy`, without user ids, whose rewards are its scores."""
    rng = np.random.default_rng(0)
    prices = {"price": rng.uniform(1, 9, (n, 4))}
    context = pd.DataFrame({"device": rng.choice(["tv", "phone"], n)})
    decisions = seller.decide(context, rng=rng, candidate_features=prices)
    return Log(
        event_id=np.array([f"event {row}" for row in range(n)], object),
        time=np.full(n, NOON.replace(tzinfo=None), "datetime64[us]"),
        user_id=np.arange(n),
        candidates=np.tile(np.arange(4), (n, 1)),
        mask=np.ones((n, 4), bool),
        action=decisions.action,
        propensity=decisions.propensity,
        reward=decisions.scores[np.arange(n), decisions.action],
        pass_prob=np.ones(n),
        item_ids=seller.features.item_ids,
        user_ids=[],
        context=context,
        candidate_features=prices,
    )


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
