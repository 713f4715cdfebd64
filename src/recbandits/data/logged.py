"""From ratings to a log of decisions whose truth is known: every candidate was rated, one rating is revealed.

It is the conversion of a supervised data set into bandit feedback (Dudík, Langford and Li 2011, "Doubly Robust Policy
Evaluation and Learning", section 4.1), with movies that a user has rated in the place of classes.
"""

import hashlib
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from recbandits.data.tables import check_rated_once
from recbandits.records.bandit_log import BanditLog

VISITS = ("equal", "active")


@dataclass(frozen=True, eq=False)
class LoggedDecisions:
    """A log, and what nobody who has only the log can know.

    Attributes:
      log: BanditLog of n decisions among up to k candidates, ordered by time.
      ratings: float64 [n, k], the rating of every candidate; NaN in padding.
      probabilities: float64 [n, k], of the behaviour policy; 0 in padding.
    """

    log: BanditLog
    ratings: np.ndarray
    probabilities: np.ndarray

    def value(self, probabilities):
        """True value of a policy on these decisions: the mean over them of the rating it expects.

        Args:
          probabilities: float [n, k], what the policy would do; rows sum to 1, 0 in padding.

        Returns:
          float, rating points.

        Raises:
          ValueError: other probabilities, or no decision.
        """
        if not len(self.log):
            raise ValueError("decisions must be at least one to have a value, got none")
        probabilities = np.asarray(probabilities, float)
        _check_probabilities(probabilities, self.log.mask)
        return float((probabilities * np.where(self.log.mask, self.ratings, 0.0)).sum(axis=1).mean())

    def take(self, rows):
        """Some of the decisions, as `BanditLog.take`."""
        return LoggedDecisions(self.log.take(rows), self.ratings[rows], self.probabilities[rows])


def log_decisions(ratings, behaviour, candidates=10, decisions=None, seed=0, visits="equal"):
    """Let a behaviour policy decide what to show to users whose answers are all known, and log what it would have.

    Every decision is for a user drawn at random. Its candidates are different movies that this user has rated, drawn
    and ordered at random. Its time is that of the latest of their ratings, so that nothing in it was unknown by then.

    Args:
      ratings: DataFrame with columns user_id, movie_id, rating and time (UTC).
      behaviour: function of (user_ids [n], candidates [n, k], mask [n, k]) giving probabilities float [n, k] that sum
        to 1 in each row and are 0 where the mask is False.
      candidates: number of candidates, or a pair of the smallest and the largest number: then each decision has a
        number drawn from that range, as far as its user has rated so many. Users with fewer ratings than (the smallest)
        number are left out.
      decisions: how many; None for as many as there are ratings.
      seed: the same seed gives the same log.
      visits: "equal" draws all users alike, however many ratings they gave: values are those for a random user;
        "active" draws them in proportion to their ratings: values are those for a random visit.

    Returns:
      LoggedDecisions

    Raises:
      ValueError: candidates or decisions that are no such number or range, other visits, times without a zone, no user
        with enough ratings, a movie rated twice by a user, or a behaviour whose probabilities are none.
    """
    low, high = _range(candidates)
    if visits not in VISITS:
        raise ValueError(f"visits must be one of {', '.join(VISITS)}, got {visits!r}")
    check_rated_once(ratings)
    if ratings["time"].dt.tz is None:
        raise ValueError("time must be a column of times with a zone, such as UTC, got times without one")
    rng = np.random.default_rng(seed)
    decisions = len(ratings) if decisions is None else decisions
    if not (isinstance(decisions, Integral) and decisions >= 0):
        raise ValueError(f"decisions must be a whole number of 0 or more, got {decisions!r}")
    rows, mask = _draw_rows(ratings, low, high, decisions, visits == "active", rng)
    times = ratings["time"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]")
    time = np.where(mask, times[rows], times.min()).max(axis=1)
    order = np.argsort(time, kind="stable")
    time, rows, mask = time[order], rows[order], mask[order]
    user = ratings["user_id"].to_numpy()[rows[:, 0]]
    movies = np.where(mask, ratings["movie_id"].to_numpy()[rows], 0)
    true = np.where(mask, ratings["rating"].to_numpy(float)[rows], np.nan)
    probabilities = np.asarray(behaviour(user, movies, mask), float)
    _check_probabilities(probabilities, mask)
    action = _draw_actions(probabilities, rng)
    decision = np.arange(len(user))
    log = BanditLog(
        event_id=_event_ids(user, movies, action),
        time=time,
        user_id=user,
        candidates=movies,
        mask=mask,
        action=action,
        propensity=probabilities[decision, action],
        reward=true[decision, action],
        pass_prob=np.ones(len(user)),
    )
    return LoggedDecisions(log, true, probabilities)


def uniform(user_ids, candidates, mask):
    """Behaviour that chooses each candidate with the same probability."""
    return mask / mask.sum(axis=1, keepdims=True)


def popularity(ratings, temperature=1.0):
    """Behaviour that prefers what many have rated: probability proportional to (1 + ratings of the movie)^(1 / T).

    Args:
      ratings: DataFrame with column movie_id, of the training part.
      temperature: T, positive; 1 chooses in proportion to the counts, towards 0 always the most popular candidate,
        towards infinity any.

    Returns:
      A behaviour for `log_decisions`.

    Raises:
      ValueError: temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    count = ratings["movie_id"].value_counts()

    def behaviour(user_ids, candidates, mask):
        row = count.index.get_indexer(candidates.ravel()).reshape(candidates.shape)
        popular = np.log1p(np.append(count.to_numpy(), 0)[row]) / temperature  # row -1 is the appended 0
        popular = np.where(mask, popular, -np.inf)
        weight = np.exp(popular - popular.max(axis=1, keepdims=True))
        return weight / weight.sum(axis=1, keepdims=True)

    return behaviour


def scored(scores, exploration):
    """Behaviour of a policy that scores candidates and explores around the best, such as one trained earlier.

    Args:
      scores: function of (user_ids [n], candidates [n, k], mask [n, k]) giving float [n, k], higher is better.
      exploration: function of (scores, mask) giving probabilities float [n, k], as in `agents.exploration`.

    Returns:
      A behaviour for `log_decisions`.
    """
    return lambda user_ids, candidates, mask: exploration(scores(user_ids, candidates, mask), mask)


def _range(candidates):
    """(smallest, largest) number of candidates."""
    pair = tuple(candidates) if isinstance(candidates, tuple | list) else (candidates, candidates)
    whole = len(pair) == 2 and all(isinstance(size, int | np.integer) for size in pair)
    if not (whole and 1 <= pair[0] <= pair[1]):
        raise ValueError(f"candidates must be a positive number or a pair such as (2, 20), got {candidates!r}")
    return pair


def _draw_rows(ratings, low, high, decisions, active, rng):
    """Row numbers [n, high] of the candidates' ratings, and which count (bool [n, high]): first all that do.

    Floyd's algorithm (Bentley and Floyd 1987, "A Sample of Brilliance") draws the j-th of s out of c among the first
    c - s + j + 1, and takes the last of these if the drawn one is taken already.
    """
    by_user = np.argsort(ratings["user_id"].to_numpy(), kind="stable")
    count = ratings["user_id"].value_counts().sort_index().to_numpy()
    first = np.cumsum(count) - count
    enough = np.flatnonzero(count >= low)
    if not enough.size:
        raise ValueError(f"candidates must be at most {count.max(initial=0)}, the most ratings of a user, got {low}")
    user = rng.choice(enough, decisions, p=count[enough] / count[enough].sum() if active else None)
    count = count[user]
    size = rng.integers(low, np.minimum(high, count), endpoint=True)
    chosen = np.full((decisions, high), -1)
    for j in range(high):
        last = count - size + j
        drawn = rng.integers(0, np.where(j < size, last, 0), endpoint=True)
        taken = (chosen[:, :j] == drawn[:, None]).any(axis=1)
        chosen[:, j] = np.where(taken, last, drawn)
    mask = np.arange(high) < size[:, None]
    # Floyd's sets are uniform, their order is not
    order = np.argsort(np.where(mask, rng.random(mask.shape), 1.0), axis=1)
    chosen = np.take_along_axis(chosen, order, axis=1)
    return by_user[first[user][:, None] + np.where(mask, chosen, 0)], mask


def _draw_actions(probabilities, rng):
    """One column [n] of each row, by inverting the cumulative distribution; none of probability 0."""
    cumulative = probabilities.cumsum(axis=1)
    return (cumulative <= rng.random((len(cumulative), 1)) * cumulative[:, -1:]).sum(axis=1)


def _event_ids(user, candidates, action):
    """Ids that differ within a log by their number, and between logs by a digest of what was decided."""
    digest = hashlib.sha256()
    for values in (user, candidates, action):
        digest.update(np.ascontiguousarray(values, "<i8"))
    name = digest.hexdigest()[:12]
    return np.array([f"{name}-{number:07d}" for number in range(len(user))], dtype=object)


def _check_probabilities(probabilities, mask):
    if probabilities.shape != mask.shape:
        raise ValueError(f"probabilities must have the shape {list(mask.shape)}, got {list(probabilities.shape)}")
    right = (probabilities >= 0).all(axis=1) & (np.abs(probabilities.sum(axis=1) - 1) < 1e-5)
    right &= (mask | (probabilities == 0)).all(axis=1)
    if not right.all():
        row = np.flatnonzero(~right)[0]
        raise ValueError(f"row {row}: probabilities must sum to 1, with 0 in padding, got {probabilities[row]}")
