"""A synthetic set with the shape of the Open Bandit sample, whose click model and policies are known.

Counts and shares follow those of the sample: 34, 46 or 80 items, 10,000 decisions in a week, three positions, about
one click in 200 decisions, and four features of users, whose levels have about the shares in the sample.
"""

import numpy as np
import pandas as pd

from recbandits.checks import one_of, require_each

SOURCE = "synthetic, shaped like Open Bandit"
ITEMS = {"men": 34, "women": 46, "all": 80}
CAMPAIGNS, POLICIES, POSITIONS = tuple(ITEMS), ("random", "bts"), (1, 2, 3)
DECISIONS, CLICK_RATE = 10_000, 0.005

_START, _MICROSECONDS = np.datetime64("2019-11-24", "us"), 7 * 86_400 * 10**6
_ITEM_LEVELS = (7, 16, 4)
_USER_SHARES = (  # of the levels of each user feature
    (0.87, 0.125, 0.005),
    (0.79, 0.11, 0.09, 0.007, 0.003),
    (0.21, 0.20, 0.19, 0.18, 0.08, 0.06, 0.04, 0.03, 0.01),
    (0.40, 0.30, 0.13, 0.09, 0.04, 0.02, 0.01, 0.01),
)
_POSITION_EFFECT = (0.7, 1.3, 1.0)
_PAST_CLICKS = 0.3  # of a user on an item, for each unit of the probability of a click


def generate(
    campaign: str = "men", policy: str = "random", seed: int = 42
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Generate 10,000 decisions with the clicks of `click_probability`; the same seed gives the same set.

    Neither policy depends on user or position: "random" is uniform, "bts" chooses items in proportion to their mean
    probability of a click.

    Returns:
      (decisions, items, affinities), as `open_bandit.OpenBandit` describes them.
    """
    check_log(campaign, policy)
    items, clicks = _make_items(campaign, seed), click_probability(campaign, seed)
    weights = np.ones(len(items)) if policy == "random" else _mean_over_users(clicks).mean(axis=1)
    probabilities = weights / weights.sum()
    rng = _generator(campaign, seed, policy)
    users = {f"user_feature_{number}": _draw(rng, shares) for number, shares in enumerate(_USER_SHARES)}
    item, position = _draw(rng, probabilities), rng.integers(len(POSITIONS), size=DECISIONS)
    level = users["user_feature_2"]
    decisions = pd.DataFrame(
        {
            "item_id": items.index[item],
            "position": np.array(POSITIONS)[position],
            "click": (rng.random(DECISIONS) < clicks[level, item, position]).astype("int64"),
            "propensity": probabilities[item],
            "time": pd.DatetimeIndex(_START + np.sort(rng.integers(_MICROSECONDS, size=DECISIONS)), tz="UTC"),
            **{name: _name_levels(levels) for name, levels in users.items()},
            "campaign": campaign,
            "policy": policy,
        }
    )
    return decisions, items, rng.poisson(_PAST_CLICKS * clicks.mean(axis=2)[level]).astype(np.float32)


def click_probability(campaign: str = "men", seed: int = 42) -> np.ndarray:
    """Compute the probability of a click, the product of effects of item, user's preference and position.

    Returns:
      float64 [9, items, 3], by level of user_feature_2, item and position. Its mean over users, items and positions,
      the value of the uniform random policy, is CLICK_RATE.
    """
    items, rng = _make_items(campaign, seed), _generator(campaign, seed, "clicks")
    quality = 0.4 * items["item_feature_0"].to_numpy() + 0.3 * rng.normal(size=len(items))
    preference = 0.5 * rng.normal(size=(len(_USER_SHARES[2]), _ITEM_LEVELS[0]))
    effect = np.exp(quality + preference[:, items["item_feature_1"].cat.codes])[:, :, None] * np.array(_POSITION_EFFECT)
    return CLICK_RATE * effect / _mean_over_users(effect).mean()


def check_log(campaign: str, policy: str) -> None:
    """Raise ValueError for an unknown campaign or policy."""
    require_each(one_of(CAMPAIGNS), campaign=campaign)
    require_each(one_of(POLICIES), policy=policy)


def _make_items(campaign, seed):
    rng, number = _generator(campaign, seed, "items"), ITEMS[campaign]
    items = pd.DataFrame({"item_feature_0": rng.normal(size=number)})
    for feature, levels in enumerate(_ITEM_LEVELS, start=1):
        items[f"item_feature_{feature}"] = _name_levels(rng.integers(levels, size=number))
    return items.set_index(pd.Index([f"{campaign}-{row}" for row in range(number)], name="item_id"))


def _generator(campaign, seed, stream):
    return np.random.default_rng([seed, CAMPAIGNS.index(campaign), ("items", "clicks", *POLICIES).index(stream)])


def _draw(rng, shares):
    return rng.choice(len(shares), DECISIONS, p=shares)


def _mean_over_users(values):
    """Average values [9, ...] over the levels of user_feature_2."""
    return np.tensordot(_USER_SHARES[2], values, axes=1)


def _name_levels(levels):
    return pd.Series([f"level {level}" for level in levels], dtype="str").astype("category")
