"""A small environment of slates that can be enumerated: every slate, every outcome of its clicks, every probability."""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from recbandits.evaluation.estimate import Estimate
from recbandits.records.slate_log import SlateLog

ITEMS, SLOTS, USERS = 4, 3, 2
SLATES = np.array(list(permutations(range(ITEMS), SLOTS)))
CLICKS = np.array(list(product([0.0, 1.0], repeat=SLOTS)))
_GENERATOR = np.random.default_rng(5)
ATTRACTION = _GENERATOR.uniform(0.1, 0.8, (USERS, ITEMS))
# scores of two Plackett-Luce policies: the logging policy prefers items that the target avoids
LOGGING, TARGET = _GENERATOR.normal(0, 0.2, (USERS, ITEMS)) - 3 * ATTRACTION, 3 * ATTRACTION


def cascade(attraction, clicks):
    """Probability of the clicks: at most one, at the first item that attracts."""
    first = np.flatnonzero(clicks)
    if not len(first):
        return np.prod(1 - attraction)
    return np.prod(1 - attraction[: first[0]]) * attraction[first[0]] * (clicks.sum() == 1)


def dependent_click(attraction, clicks, continuation=0.7):
    """Without a click to the next slot, after one with probability 0.7: summed over where the user has stopped."""
    total = 0.0
    for depth in range(1, len(attraction) + 1):
        a, c = attraction[:depth], clicks[:depth]
        reach_probability = np.prod(np.where(c == 1, continuation * a, 1 - a)[:-1])
        last_probability = (a if c[-1] else 1 - a)[-1]
        stop_probability = 1.0 if depth == len(attraction) else (1 - continuation) * c[-1]
        total += reach_probability * last_probability * stop_probability * (not clicks[depth:].any())
    return total


def position_based(attraction, clicks, eta=1.3):
    """Slots are independent, clicked with probability attraction / k^1.3."""
    click_probability = attraction / np.arange(1, len(attraction) + 1) ** eta
    return np.prod(np.where(clicks == 1, click_probability, 1 - click_probability))


def choice(attraction, clicks):
    """One click or none, in proportion to the odds of the attractions, and 1 for none."""
    weights = attraction / (1 - attraction)
    if clicks.sum() > 1:
        return 0.0
    return (weights @ clicks if clicks.any() else 1.0) / (1 + weights.sum())


CLICK_MODELS = {
    "cascade": cascade,
    "dependent_click": dependent_click,
    "position_based": position_based,
    "choice": choice,
}


def conditional(scores, items_above):
    """Probability [items] of the next item of a Plackett-Luce policy below the items above."""
    weights = np.exp(scores)
    weights[list(items_above)] = 0
    return weights / weights.sum()


def propensities(scores):
    """Of all slates [slates, slots]: the probability of each item conditional on those above."""
    return np.array([[conditional(scores, s[:k])[s[k]] for k in range(SLOTS)] for s in SLATES])


def position_propensities(scores):
    """Of all slates [slates, slots]: the probability of each item in its slot, summed over the slates that have it."""
    probability = propensities(scores).prod(axis=1)
    return np.array([[probability[SLATES[:, k] == s[k]].sum() for k in range(SLOTS)] for s in SLATES])


@dataclass
class Outcomes:
    """Every outcome of the environment: log, probability under both policies, and propensities of the target."""

    log: SlateLog
    logging_policy: np.ndarray
    target: np.ndarray
    target_propensity: np.ndarray
    target_position: np.ndarray
    target_conditional: np.ndarray

    @property
    def truth(self):
        """Value of the target: the expected sum of rewards."""
        return self.target @ self.log.reward.sum(axis=1)

    @property
    def q(self):
        """Float [outcomes, slots, items]: expected rewards from slot k on, with each item in it below the logged ones.

        The target fills the slots below. 0 for items that stand above.
        """
        values = np.zeros(self.target_conditional.shape)
        user, slate, reward = self.log.user_id, self.log.slate, self.log.reward
        for row, slot, item in np.argwhere(self.target_conditional > 0):
            same_items_above = (slate[:, :slot] == slate[row, :slot]).all(axis=1)
            rows = (user == user[row]) & same_items_above & (slate[:, slot] == item)
            values[row, slot, item] = self.target[rows] @ reward[rows, slot:].sum(axis=1) / self.target[rows].sum()
        return values

    def any_q(self, seed=0):
        """Predictions of a model that has learnt nothing: normal noise [outcomes, slots, items].

        By user, items above and item, as any model's are: it does not know the clicks to come.
        """
        predictions = np.empty(self.target_conditional.shape)
        for slot in range(SLOTS):
            keys = np.column_stack([self.log.user_id, self.log.slate[:, :slot]])
            _, group = np.unique(keys, axis=0, return_inverse=True)
            noise = np.random.default_rng([seed, slot]).normal(size=(group.max() + 1, ITEMS))
            predictions[:, slot] = noise[group.ravel()]
        return predictions

    @property
    def arguments(self):
        """Arguments of `slate_estimates` besides q."""
        return {
            "target_propensity": self.target_propensity,
            "target_position": self.target_position,
            "target_conditional": self.target_conditional,
        }

    def resample(self, estimate, n, generator):
        """The estimate from n slates, drawn from the outcomes by the logging policy."""
        rows = generator.choice(len(self.log), n, p=self.logging_policy)
        parts = tuple((top[rows], bottom[rows]) for top, bottom in estimate.parts)
        return Estimate(parts, tuple(weight[rows] for weight in estimate.weights))


def enumerate_outcomes(model):
    """Outcomes under a click model, for two users with equal frequency."""
    columns = {name: [] for name in ("user", "slate", "reward", "row", "click_probability")}
    for user in range(USERS):
        for row, slate in enumerate(SLATES):
            for clicks in CLICKS:
                probability = CLICK_MODELS[model](ATTRACTION[user, slate], clicks)
                for name, value in zip(columns, (user, slate, clicks, row, probability), strict=True):
                    columns[name].append(value)
    user, slate, reward, row, click_probability = (np.array(values) for values in columns.values())

    def of_slates(function, scores):
        return np.stack([function(scores[u]) for u in range(USERS)])[user, row]

    propensity, target = (of_slates(propensities, scores) for scores in (LOGGING, TARGET))
    target_conditional = [
        [conditional(TARGET[u], s[:k]) for k in range(SLOTS)] for u, s in zip(user, slate, strict=True)
    ]
    log = SlateLog(
        event_id=[f"{number}" for number in range(len(user))],
        user_id=user,
        candidates=np.tile(np.arange(ITEMS), (len(user), 1)),
        slate=slate,
        reward=reward,
        propensity=propensity,
        position_propensity=of_slates(position_propensities, LOGGING),
    )
    probability = click_probability / USERS
    position = of_slates(position_propensities, TARGET)
    return Outcomes(
        log,
        probability * propensity.prod(axis=1),
        probability * target.prod(axis=1),
        target,
        position,
        np.array(target_conditional),
    )
