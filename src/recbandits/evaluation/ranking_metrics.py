"""How good a slate is, given what the user would have liked: one number per list.

A slate is int [n, k], columns of the candidates from the top, -1 where a short list ends (as `ranking.rank` gives it,
or as a policy showed it); `relevance` is float [n, items], of every candidate, NaN in padding. With fewer than k
candidates the metrics are those of a list as long as there are candidates. A value is NaN where the metric is
undefined, such as for a user who likes none of the candidates: such a list says nothing about a policy and is left out
of means.
"""

import numpy as np


def ndcg(slate, relevance, gain="exponential"):
    """Normalised discounted cumulative gain: DCG of the slate over that of the best slate of the same length.

    DCG = sum over i of gain(r_i) / log2(i + 1), i from 1. Jarvelin and Kekalainen 2002; the exponential gain is that of
    Burges et al. 2005.

    Args:
      slate: int [n, k].
      relevance: float [n, items], at least 0; NaN in padding.
      gain: "exponential", 2^r - 1, or "linear", r.

    Returns:
      float [n] in [0, 1]; NaN where no candidate has a relevance above 0.

    Raises:
      ValueError: another gain, a relevance below 0, or a slate that does not fit.
    """
    if gain not in ("exponential", "linear"):
        raise ValueError(f"gain must be exponential or linear, got {gain!r}")
    slate, relevance = _checked(slate, relevance)
    if (relevance < 0).any():
        raise ValueError(f"relevance must be at least 0, got {relevance[relevance < 0][0]:g}")
    gains = np.exp2(relevance) - 1 if gain == "exponential" else relevance
    gains = np.nan_to_num(gains)
    discount = 1 / np.log2(np.arange(slate.shape[1]) + 2)
    best = -np.sort(-gains, axis=1)[:, : slate.shape[1]] @ discount[: gains.shape[1]]
    return _ratio(_of_slots(slate, gains) @ discount, best)


def err(slate, relevance, highest=5.0):
    """Expected reciprocal rank of the slot at which a user who looks from the top is satisfied.

    sum over i of 1/i R_i prod over j < i of (1 - R_j), with R = (2^r - 1) / 2^highest (Chapelle et al. 2009, "Expected
    reciprocal rank for graded relevance").

    Args:
      slate: int [n, k].
      relevance: float [n, items] in [0, highest]; NaN in padding.
      highest: the highest grade there is.

    Returns:
      float [n] in [0, 1).

    Raises:
      ValueError: a relevance outside [0, highest], or a slate that does not fit.
    """
    slate, relevance = _checked(slate, relevance)
    outside = (relevance < 0) | (relevance > highest)
    if outside.any():
        raise ValueError(f"relevance must be in [0, {highest:g}], got {relevance[outside][0]:g}")
    satisfied = _of_slots(slate, (np.exp2(relevance) - 1) / 2.0**highest)
    reached = np.cumprod(np.c_[np.ones(len(slate)), 1 - satisfied[:, :-1]], axis=1)
    return (reached * satisfied) @ (1 / _ranks(slate))


def average_precision(slate, relevance, threshold=4.0):
    """Average precision at k; its mean over lists is MAP@k.

    sum over relevant slots i of (relevant among the first i) / i, over min(k, number of relevant candidates), so that
    the best slate has 1.

    Args:
      slate: int [n, k].
      relevance: float [n, items]; NaN in padding.
      threshold: a candidate is relevant from here on.

    Returns:
      float [n] in [0, 1]; NaN where no candidate is relevant.

    Raises:
      ValueError: a slate that does not fit.
    """
    hits, relevant = _hits(slate, relevance, threshold)
    precision = hits.cumsum(axis=1) / _ranks(hits)
    return _ratio((precision * hits).sum(axis=1), np.minimum(relevant, hits.shape[1]))


def reciprocal_rank(slate, relevance, threshold=4.0):
    """1 over the rank of the first relevant item, 0 without one among the k; its mean over lists is MRR@k.

    Args:
      slate: int [n, k].
      relevance: float [n, items]; NaN in padding.
      threshold: a candidate is relevant from here on.

    Returns:
      float [n] in [0, 1]; NaN where no candidate is relevant.

    Raises:
      ValueError: a slate that does not fit.
    """
    hits, relevant = _hits(slate, relevance, threshold)
    return np.where(relevant > 0, (hits / _ranks(hits)).max(axis=1, initial=0), np.nan)


def hit_rate(slate, relevance, threshold=4.0):
    """1 if any of the k items is relevant, else 0.

    Args:
      slate: int [n, k].
      relevance: float [n, items]; NaN in padding.
      threshold: a candidate is relevant from here on.

    Returns:
      float [n], 0 or 1; NaN where no candidate is relevant.

    Raises:
      ValueError: a slate that does not fit.
    """
    hits, relevant = _hits(slate, relevance, threshold)
    return np.where(relevant > 0, hits.any(axis=1), np.nan)


def expected_clicks(slate, attraction, clicks):
    """Clicks that a user is expected to give to the slate.

    Args:
      slate: int [n, k].
      attraction: float [n, items] in [0, 1], probability of a click on a candidate that is examined; NaN in padding.
      clicks: one of `environments.clicks.CLICK_MODELS`, or another with its `value`.

    Returns:
      float [n]; the slots that a short list lacks attract nobody.

    Raises:
      ValueError: a slate that does not fit.
    """
    slate, attraction = _checked(slate, attraction)
    return np.asarray(clicks.value(_of_slots(slate, attraction)))


def _checked(slate, relevance):
    """Both as arrays, or a sentence about what does not fit."""
    slate, relevance = np.asarray(slate), np.asarray(relevance, float)
    if slate.ndim != 2 or relevance.ndim != 2 or len(slate) != len(relevance):
        raise ValueError(
            f"slate and relevance must be [n, k] and [n, items], got {list(slate.shape)} and {list(relevance.shape)}"
        )
    if slate.min(initial=-1) < -1 or slate.max(initial=-1) >= relevance.shape[1]:
        raise ValueError(
            f"slate must hold columns below {relevance.shape[1]}, or -1, got {slate.min()} to {slate.max()}"
        )
    ordered = np.sort(slate, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    if twice.any():  # or a list that repeats its best item would be better than the best list
        raise ValueError(f"slate must hold different columns, list {twice.argmax()} is {slate[twice][0].tolist()}")
    if np.isnan(np.take_along_axis(relevance, slate, axis=1)[slate >= 0]).any():
        raise ValueError("slate must not show padding: relevance is NaN there")
    return slate, relevance


def _of_slots(slate, values):
    """Values [n, k] of what is in the slots, 0 where there is nothing."""
    return np.where(slate >= 0, np.take_along_axis(values, slate, axis=1), 0.0)


def _hits(slate, relevance, threshold):
    """(relevant slots bool [n, k], number of relevant candidates [n])."""
    slate, relevance = _checked(slate, relevance)
    relevant = relevance >= threshold  # false for NaN
    return _of_slots(slate, relevant).astype(bool), relevant.sum(axis=1)


def _ranks(slots):
    return np.arange(1, slots.shape[1] + 1)


def _ratio(numerator, denominator):
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
