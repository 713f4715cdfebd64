"""Policies whose coefficients are known, and what they log: a `World` is linear in its features."""

from datetime import UTC, datetime

import numpy as np

from recbandits.exploration import Exploration
from recbandits.loop.memory import in_memory
from recbandits.records import Log
from recbandits.serving.scorer import Scorer, linear_head

SOFT = Exploration("softmax", 0.2)


def policy(world, quality=1.0, exploration=SOFT):
    """Score by mean + biases + `quality` times the products of factors: 1 is the truth, -1 turns movies round."""
    rank = world.model.rank
    theta = [world.model.mean, 1, *np.zeros(rank), quality, *np.zeros(rank), *np.full(rank, quality)]
    scorer = Scorer("concat", "relu", (), (), (linear_head(np.array([theta], np.float32)),))
    return in_memory(scorer, world.features, exploration)


def logged(world, decider, n, seed=0, candidates=5):
    """Log of n decisions with the true ratings of `World.rate`; its users and items are numbered as in the world."""
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


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
