"""Simulated users: their visits, their ratings of the actions, and the times of their reports.

NumPy alone computes it, so that the processes that ask or answer for users start fast.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbandits import checks
from recbandits.data.features import Features
from recbandits.data.rating_features import require_rows
from recbandits.data.tables import MovieLens
from recbandits.environments.factorization import Factorization, als
from recbandits.loop.ingest import titles_of, write_titles
from recbandits.loop.settings import Settings
from recbandits.platforms.warehouse import Join
from recbandits.records import Interaction, Reward
from recbandits.serving.served import ServedPolicy

FILE = "users.npz"
STARS = Join(window=5.0, lowest=1.0, highest=5.0, default=1.0)  # the rule for the ratings of `SimulatedUsers`
_REGULARIZATION = 0.06  # loose on purpose: users are to differ enough for personalisation to pay within thousands
_SETTINGS = ("never", "twice", "delay")
_SHARE = checks.Rule("in [0, 1)", lambda value: 0 <= value < 1)


@dataclass(frozen=True, eq=False)
class SimulatedUsers:
    """Users whose preferences are known; methods take users as rows of `user_ids`, movies as rows of `item_ids`."""

    model: Factorization  # of the ratings: the truth, its factors ordered by how much they explain
    titles: tuple  # of the movies, in the order of `item_ids`
    never: float = 0.1  # share of decisions that are never reported on, for every action, in [0, 1)
    twice: float = 0.05  # share of the reported ones that are reported on again later, in [0, 1]
    delay: float = 1.0  # mean seconds from a decision to its report, positive

    def __post_init__(self):
        checks.check_fields(self, never=_SHARE, twice=checks.PROBABILITY, delay=checks.POSITIVE)
        expected = f"one for each of the {len(self.item_ids)} movies"
        checks.require(len(self.titles) == len(self.item_ids), "titles", expected, len(self.titles))

    @classmethod
    def of(cls, settings: Settings, data: MovieLens) -> "SimulatedUsers":
        """Make the simulated users of a loop: all users of MovieLens, and the movies with the most ratings.

        ValueError for fewer movies than the rank, or more than there are.
        """
        count = data.ratings["movie_id"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
        expected = f"from the rank, {settings.rank}, to the number of rated movies, {len(count)}"
        checks.require(settings.rank <= settings.movies <= len(count), "movies", expected, settings.movies)
        popular = data.ratings[data.ratings["movie_id"].isin(count.index[: settings.movies])]
        model = _order_factors(als(popular, settings.rank, _REGULARIZATION, seed=settings.seed))
        titles = tuple(data.movies.loc[model.movie_ids, "title"])
        return cls(model, titles, **{name: getattr(settings, name) for name in _SETTINGS})

    @cached_property
    def user_ids(self) -> pd.Index:
        """Text ids of the users, an index."""
        return pd.Index(self.model.user_ids.astype(str), dtype=object)

    @cached_property
    def item_ids(self) -> pd.Index:
        """Text ids of the movies, an index."""
        return pd.Index(self.model.movie_ids.astype(str), dtype=object)

    @property
    def features(self) -> Features:
        """`Features` with which a linear policy can represent the truth."""
        return self._rating_features.features

    def find_items(self, ids: Any) -> np.ndarray:
        """Find the rows of movies, int of the shape of their ids; KeyError names unknown ones."""
        return require_rows(self.item_ids, ids, "item")

    def contexts(self, users: np.ndarray) -> pd.DataFrame:
        """Return the contexts of requests, DataFrame [n] of raw columns."""
        return self._rating_features.users.iloc[users].reset_index(drop=True)

    def candidate_ids(self, items: np.ndarray) -> np.ndarray:
        """Return the text ids of movies, object array of the shape of `items`."""
        return self.item_ids.to_numpy()[items]

    def requests(self, users: np.ndarray, items: np.ndarray) -> list[dict]:
        """Return the requests of visits, list of dicts as JSON can hold."""
        rows = zip(self.user_ids[users], users, self.candidate_ids(items).tolist(), strict=True)
        return [{"user_id": name, "context": self._contexts[user], "candidates": ids} for name, user, ids in rows]

    def interactions(
        self,
        visits: tuple[np.ndarray, np.ndarray],
        event_ids: Sequence[str],
        times: Sequence[datetime],
        versions: Sequence[str] | np.ndarray,
        action: np.ndarray,
        propensity: np.ndarray,
    ) -> list[Interaction]:
        """Return the records of decisions, list of `Interaction`; `action` int [n] are columns of the candidates."""
        users, items = visits
        contexts, actions = ([self._context_texts[user] for user in users], items[np.arange(len(items)), action])
        requests = self.user_ids[users], contexts, self.candidate_ids(items).tolist()
        rows = zip(event_ids, times, versions, *requests, self.item_ids[actions], propensity, strict=True)
        return [Interaction(*row) for row in rows]

    def visits(self, n: int, rng: np.random.Generator, candidates: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Draw n visits: users int64 [n] and for each different candidates in random order, int64 [n, candidates]."""
        count = len(self.item_ids)
        checks.require(1 <= candidates <= count, "candidates", f"in [1, {count}]", candidates)
        users = rng.choice(len(self.user_ids), n)
        return users, rng.random((n, count)).argsort(axis=1)[:, :candidates]

    def expected(self, users: np.ndarray, items: np.ndarray, drift: float = 0.0) -> np.ndarray:
        """Compute the expected ratings of candidates, float64 [n, k] in [1, 5], from rows: users [n] and items [n, k].

        Under preference drift the first half of the factors, which explain the most, have the weight cos(pi drift),
        which goes from 1 over 0 to -1. For any drift the mean is a sum of the products among the `features`, but for
        the clipping: a linear model can represent the new preferences as well as the old ones, if it learns them anew.
        At drift 0 the preferences are those of MovieLens.
        """
        checks.require_each(checks.PROBABILITY, drift=drift)
        weight = np.ones(self.model.rank)
        weight[: (self.model.rank + 1) // 2] = np.cos(np.pi * drift)
        products = np.einsum("nf,nkf->nk", weight * self.model.user_factors[users], self.model.movie_factors[items])
        bias = self.model.mean + self.model.user_bias[users][:, None] + self.model.movie_bias[items]
        return np.clip(bias + products, 1.0, 5.0)

    def rate(self, expected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw ratings of whole stars, 1 + Binomial(4, (expected - 1) / 4), whose mean is exactly `expected`."""
        return 1.0 + rng.binomial(4, np.clip((np.asarray(expected) - 1) / 4, 0.0, 1.0))

    def reports(
        self, event_ids: Sequence[str], times: Sequence[datetime], values: Any, rng: np.random.Generator
    ) -> list[Reward]:
        """Draw the reports of users on decisions, from ids, times and ratings [n], in the order of the reports' times.

        A share `never` reports nothing. The others report after an exponential time with mean `delay`, and a share
        `twice` of these once more, after another such time, with a rating that may be a star higher or lower.
        """
        n, values = len(event_ids), np.asarray(values, float)
        is_reported, is_repeated = rng.random(n) >= self.never, rng.random(n) < self.twice
        wait, second_wait = rng.exponential(self.delay, (2, n))
        second = np.clip(values + rng.integers(-1, 2, n), 1.0, 5.0)
        rewards = []
        for row in np.flatnonzero(is_reported):
            time = times[row] + timedelta(seconds=wait[row])
            rewards.append(Reward(event_ids[row], time, values[row]))
            if is_repeated[row]:
                rewards.append(Reward(event_ids[row], time + timedelta(seconds=second_wait[row]), second[row]))
        return sorted(rewards, key=lambda reward: (reward.time, reward.event_id))

    def value(self, policy: ServedPolicy, visits: tuple[np.ndarray, np.ndarray], drift: float = 0.0) -> np.ndarray:
        """Compute the expected rating of a `ServedPolicy` at each visit, float64 [n].

        Policies are compared on the same visits: their difference is then of the policies, not of the visits.
        """
        users, items = visits
        scores = policy.scores(self.contexts(users), self.candidate_ids(items))
        probabilities = policy.exploration.probabilities(scores)
        return (probabilities * self.expected(*visits, drift)).sum(axis=1)

    def uniform_value(self, visits: tuple[np.ndarray, np.ndarray], drift: float = 0.0) -> np.ndarray:
        """Compute the expected rating of the uniform random policy at each visit; as `value`."""
        return self.expected(*visits, drift).mean(axis=1)

    def oracle_value(self, visits: tuple[np.ndarray, np.ndarray], drift: float = 0.0) -> np.ndarray:
        """Compute the expected rating of the best candidate at each visit: no policy can be better; as `value`."""
        return self.expected(*visits, drift).max(axis=1)

    def save(self, directory: str | Path) -> None:
        """Write users, features and titles into a directory, made if missing, always in the same bytes."""
        self.features.save(directory)
        write_titles(Path(directory), dict(zip(self.item_ids, self.titles, strict=True)))
        parts = {f"model_{field.name}": getattr(self.model, field.name) for field in dataclasses.fields(Factorization)}
        settings = {name: getattr(self, name) for name in _SETTINGS}
        with checks.replacing(Path(directory, FILE)) as draft, draft.open("wb") as file:
            np.savez(file, **settings, **parts)

    @classmethod
    def load(cls, directory: str | Path) -> "SimulatedUsers":
        """Read the users that `save` wrote; FileNotFoundError if there are none."""
        file = Path(directory, FILE)
        if not file.is_file():
            raise FileNotFoundError(f"there are no simulated users in {directory}: it has no {FILE}")
        with np.load(file, allow_pickle=False) as parts:
            values = {name: part if part.ndim else part.item() for name, part in parts.items()}
        fields = {field.name: values[f"model_{field.name}"] for field in dataclasses.fields(Factorization)}
        settings = {name: values[name] for name in _SETTINGS}
        return cls(Factorization(**fields), tuple(titles_of(directory).values()), **settings)

    @cached_property
    def _rating_features(self):
        return self.model.features()

    @cached_property
    def _contexts(self):
        return self._rating_features.users.to_dict("records")

    @cached_property
    def _context_texts(self):
        return list(map(json.dumps, self._contexts))


def _order_factors(model):
    """Return the same ratings with factors that are orthogonal, and ordered by how much they explain.

    They are those of the singular value decomposition of user_factors @ movie_factors.T, by the QR decompositions of
    the two; each of the two gets the square roots of the singular values.
    """
    users, right_users = np.linalg.qr(model.user_factors)
    movies, right_movies = np.linalg.qr(model.movie_factors)
    left, singular, right = np.linalg.svd(right_users @ right_movies.T)
    scale = np.sqrt(singular)
    return dataclasses.replace(model, user_factors=users @ left * scale, movie_factors=movies @ right.T * scale)
