"""Logs of decisions simulated from ratings: every candidate was rated, one rating is revealed as the reward.

This converts a supervised data set into bandit feedback (Dudík, Langford and Li 2011, "Doubly Robust Policy Evaluation
and Learning", section 4.1), with the movies that a user has rated in the place of classes. The value of every policy on
such a log is known.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from recbandits.checks import POSITIVE, require, require_distributions, require_each, require_rows, require_shape, whole
from recbandits.data.tables import check_ratings
from recbandits.records.log import Log, as_ids

# A logging policy: function from user_ids [n], candidates [n, k] and mask [n, k] to probabilities float [n, k], whose
# rows sum to 1 and are 0 where the mask is False.
Policy = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class LoggedDecisions:
    """A log, with the rewards and probabilities of all candidates.

    Attributes:
      log: n decisions among up to k candidates, ordered by time; their context is empty, `Log.join_users` completes it.
      user_ids: int64 [n], MovieLens' own.
      movie_ids: int64 [n, k], of the candidates; 0 in padding.
      ratings: float64 [n, k], the rating of every candidate; NaN in padding.
      probabilities: float64 [n, k], of the logging policy; 0 in padding.
    """

    log: Log
    user_ids: np.ndarray
    movie_ids: np.ndarray
    ratings: np.ndarray
    probabilities: np.ndarray

    @property
    def arm(self) -> np.ndarray:
        """Ids of the chosen movies, int64 [n]."""
        return self.movie_ids[np.arange(len(self.log)), self.log.action]

    def value(self, probabilities: np.ndarray) -> float:
        """Compute the true value of a policy on these decisions by its probabilities float [n, k], 0 in padding."""
        require(len(self.log) > 0, "decisions", "at least one to have a value", len(self.log))
        probabilities = np.asarray(probabilities, float)
        _check_probabilities(probabilities, self.log.mask)
        return float((probabilities * np.where(self.log.mask, self.ratings, 0.0)).sum(axis=1).mean())

    def take(self, rows: Any) -> "LoggedDecisions":
        """Select some of the decisions, as `Log.take`."""
        arrays = self.user_ids, self.movie_ids, self.ratings, self.probabilities
        return LoggedDecisions(self.log.take(rows), *(array[rows] for array in arrays))

    def join_users(self, users: pd.DataFrame) -> "LoggedDecisions":
        """Return the same decisions with the columns of a table of users as context, as `Log.join_users`."""
        return replace(self, log=self.log.join_users(users))


def log_decisions(
    ratings: pd.DataFrame,
    policy: Policy,
    candidates: int | tuple[int, int] = 10,
    decisions: int | None = None,
    seed: int = 0,
    visits: str = "equal",
) -> LoggedDecisions:
    """Let a logging policy choose among movies that a user has rated, and log its decisions.

    Every decision is for a user drawn at random. Its candidates are different movies that this user has rated, drawn
    and ordered at random. Its time is that of the latest of their ratings, so that all of them were known by then.

    Args:
      ratings: with columns user_id, movie_id, rating and time (UTC); `check_ratings` accepts them.
      policy: the logging policy.
      candidates: number of candidates, or a range (smallest, largest) from which it is drawn for each decision, up to
        the number of ratings of its user. Users with fewer ratings than the smallest number are left out.
      decisions: number of decisions; None for the number of ratings.
      seed: the same seed gives the same log.
      visits: "equal" draws all users alike: values are those for a random user; "active" draws them in proportion to
        their numbers of ratings: values are those for a random visit.

    Raises:
      ValueError: invalid ratings, a time that is missing, another invalid argument, no user with enough ratings, or
        invalid probabilities of the policy.
    """
    check_ratings(ratings)
    decisions = len(ratings) if decisions is None else decisions
    require(visits in ("equal", "active"), "visits", "one of equal, active", visits)
    require_each(whole(0), decisions=decisions)
    low, high = candidates if isinstance(candidates, (tuple, list)) and len(candidates) == 2 else [candidates] * 2
    valid = whole().accepts(low) and whole().accepts(high) and low <= high
    require(valid, "candidates", "a positive number or a pair such as (2, 20)", candidates)
    require("time" in ratings, "columns of ratings", "user_id, movie_id, rating, time", list(ratings.columns))
    zone = isinstance(ratings["time"].dtype, pd.DatetimeTZDtype)
    require(zone, "time", "a column of times with a zone, such as UTC", str(ratings["time"].dtype))
    known = ratings["time"].notna().to_numpy()
    require_rows(known, "time", "known", ratings["time"].array, ratings["user_id"].array)
    rng = np.random.default_rng(seed)
    rows, mask = _draw_rows(ratings, low, high, decisions, visits == "active", rng)
    times = ratings["time"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]")
    time = np.where(mask, times[rows], times.min()).max(axis=1)
    order = np.argsort(time, kind="stable")
    time, rows, mask = time[order], rows[order], mask[order]
    users = ratings["user_id"].to_numpy()[rows[:, 0]]
    movies = np.where(mask, ratings["movie_id"].to_numpy()[rows], 0)
    rewards = np.where(mask, ratings["rating"].to_numpy(float)[rows], np.nan)
    probabilities = np.asarray(policy(users, movies, mask), float)
    _check_probabilities(probabilities, mask)
    # a column of each row, by inverting its cumulative distribution; none of probability 0
    cumulative = probabilities.cumsum(axis=1)
    action = (cumulative <= rng.random((len(cumulative), 1)) * cumulative[:, -1:]).sum(axis=1)
    row = np.arange(len(users))
    known_users, user_rows = np.unique(users, return_inverse=True)
    known_movies = np.unique(ratings["movie_id"])
    log = Log(
        event_id=_make_event_ids(users, movies, action),
        time=time,
        user_id=user_rows,
        candidates=np.where(mask, np.searchsorted(known_movies, movies), 0),
        mask=mask,
        action=action,
        propensity=probabilities[row, action],
        reward=rewards[row, action],
        pass_prob=np.ones(len(users)),
        item_ids=as_ids(known_movies, "movies"),
        user_ids=as_ids(known_users, "users"),
    )
    return LoggedDecisions(log, users, movies, rewards, probabilities)


def uniform(user_ids: np.ndarray, candidates: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the probabilities of the uniform random policy, a logging policy for `log_decisions`."""
    return mask / mask.sum(axis=1, keepdims=True)


def popularity(ratings: pd.DataFrame, temperature: float = 1.0) -> Policy:
    """Make a logging policy with probabilities proportional to (1 + ratings of the movie) ** (1 / temperature)."""
    require_each(POSITIVE, temperature=temperature)
    count = ratings["movie_id"].value_counts()

    def policy(user_ids, candidates, mask):
        row = count.index.get_indexer(candidates.ravel()).reshape(candidates.shape)
        logits = np.log1p(np.append(count.to_numpy(), 0)[row]) / temperature  # row -1 is the appended 0
        logits = np.where(mask, logits, -np.inf)
        weight = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weight / weight.sum(axis=1, keepdims=True)

    return policy


def explore_scores(scores: Policy, exploration: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Policy:
    """Make a logging policy of scores [n, k], higher is better, and an exploration, as in `recbandits.exploration`."""
    return lambda user_ids, candidates, mask: exploration(scores(user_ids, candidates, mask), mask)


def _draw_rows(ratings, low, high, decisions, active, rng):
    """Draw row numbers [n, high] of the candidates' ratings and the mask [n, high], which is True in leading columns.

    Floyd's algorithm (Bentley and Floyd 1987, "A Sample of Brilliance") draws the j-th of s out of c among the first
    c - s + j + 1, and takes the last of these if the drawn one is in the sample already.
    """
    by_user = np.argsort(ratings["user_id"].to_numpy(), kind="stable")
    count = ratings["user_id"].value_counts().sort_index().to_numpy()
    first = np.cumsum(count) - count
    eligible = np.flatnonzero(count >= low)
    require(eligible.size > 0, "candidates", f"at most {count.max(initial=0)}, the most ratings of a user", low)
    user = rng.choice(eligible, decisions, p=count[eligible] / count[eligible].sum() if active else None)
    count = count[user]
    size = rng.integers(low, np.minimum(high, count), endpoint=True)
    sample = np.full((decisions, high), -1)
    for j in range(high):
        last = count - size + j
        drawn = rng.integers(0, np.where(j < size, last, 0), endpoint=True)
        repeated = (sample[:, :j] == drawn[:, None]).any(axis=1)
        sample[:, j] = np.where(repeated, last, drawn)
    mask = np.arange(high) < size[:, None]
    # Floyd's samples are uniform, their order is not.
    order = np.argsort(np.where(mask, rng.random(mask.shape), 1.0), axis=1)
    sample = np.take_along_axis(sample, order, axis=1)
    return by_user[first[user][:, None] + np.where(mask, sample, 0)], mask


def _make_event_ids(users, candidates, action):
    """Make ids that differ within a log by their number, and between logs by a digest of the decisions."""
    digest = hashlib.sha256()
    for values in (users, candidates, action):
        digest.update(np.ascontiguousarray(values, "<i8"))
    name = digest.hexdigest()[:12]
    return np.array([f"{name}-{number:07d}" for number in range(len(users))], dtype=object)


def _check_probabilities(probabilities, mask):
    require_shape(probabilities, "probabilities", *mask.shape)
    require_distributions(probabilities, "probabilities", mask)
