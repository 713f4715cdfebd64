"""Rank candidates by score, and measure slates by the relevance of their items, one value per slate.

    slate = rank(scores, 10)                             # scores [n, items]
    metrics = {"agent": measure(slate, relevance, 4.0, 5.0)}  # a row per slate, a column per metric
    tabulate_means(metrics)                              # of `intervals`: means over users with 95 % intervals
    tabulate_means({name: by_seed(runs) for ...})        # over seeds, runs = {seed: measure(...)}
    tabulate_differences(metrics, "als")                 # paired differences decide which policy is better

A slate is int [n, k], columns of the candidates from the top, -1 behind the end of a short list. `relevance` is float
[n, items] of all candidates, such as ratings, NaN in padding. With fewer than k candidates, metrics are those of a list
of all candidates. A value is NaN where a metric is undefined, such as for a user without a relevant candidate: leave
such lists out of means. All metrics raise ValueError for a slate that repeats a column, has one out of range or of
padding, or differs from `relevance` in its rows.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from recbandits.checks import distinct, one_of, require, require_each, require_rows, require_shape, whole

_UNDEFINED = ["ndcg", "map", "mrr", "hit_rate", "diversity"]  # NaN for a list without a relevant candidate, or a pair


def rank(scores: np.ndarray, k: int, mask: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Return the columns int64 [n, k] of the k best scores of every list, best first, -1 behind a short list.

    Scores are float [n, items], higher is better, in padding minus infinity or where `mask` is False; k may exceed
    their number. Ties are in random order: the order of candidates often says something about them, and breaking ties
    by column would bias the metrics of a policy that scores many candidates alike. The mean over seeds is the
    expectation. ValueError if a score is NaN outside padding, scores or mask have another shape, or k is below 1.
    """
    scores = require_shape(np.asarray(scores, float), "scores", "n", "items")
    require_each(whole(), k=k)
    if mask is not None:
        scores = np.where(require_shape(mask, "mask", *scores.shape), scores, -np.inf)
    require_rows(~np.isnan(scores), "scores", "numbers", scores)
    uniforms = np.random.default_rng(seed).random(scores.shape)
    best = np.lexsort((uniforms, -scores), axis=1)[:, :k]
    columns = np.full((len(scores), k), -1)
    columns[:, : best.shape[1]] = np.where(np.take_along_axis(scores, best, axis=1) > -np.inf, best, -1)
    return columns


def measure(
    slate: np.ndarray,
    relevance: np.ndarray,
    threshold: float,
    highest: float,
    attraction: np.ndarray | None = None,
    clicks: Any = None,
    vectors: np.ndarray | None = None,
) -> pd.DataFrame:
    """Compute ndcg, err, map, mrr and hit_rate of every slate, and clicks and diversity where their inputs are given.

    Relevance is float [n, items] in [0, highest]; for MAP, MRR and the hit rate, candidates are relevant from the
    threshold on. `attraction` float [n, items] in [0, 1] and the click model `clicks` are for `expected_clicks`,
    `vectors` float [n, items, D] of the candidates for `intra_list_diversity`. ValueError if no relevance can reach the
    threshold, for attraction without clicks or clicks without it; and as the metrics.
    """
    require(threshold <= highest, "threshold", f"at most the highest relevance, {highest:g}", threshold)
    given = [name for name, value in (("attraction", attraction), ("clicks", clicks)) if value is not None]
    require(len(given) != 1, "attraction and clicks", "given together", given)
    slate = np.asarray(slate)
    columns = {
        "ndcg": ndcg(slate, relevance),
        "err": err(slate, relevance, highest),
        "map": average_precision(slate, relevance, threshold),
        "mrr": reciprocal_rank(slate, relevance, threshold),
        "hit_rate": hit_rate(slate, relevance, threshold),
    }
    if attraction is not None:
        columns["clicks"] = expected_clicks(slate, attraction, clicks)
    if vectors is not None:
        items, shown = np.take_along_axis(np.asarray(vectors, float), slate[:, :, None], axis=1), slate >= 0
        require_rows(np.isfinite(items).all(axis=2) | ~shown, "vectors", "finite for every item in a slate", items)
        columns["diversity"] = intra_list_diversity(np.where(shown[:, :, None], items, np.nan))
    return pd.DataFrame(columns)


def by_user(metrics: pd.DataFrame, users: np.ndarray) -> pd.DataFrame:
    """Average the metrics of each user's slates, DataFrame indexed by user: slates of a user are not independent.

    A slate does not count where its metric is undefined. NaN in another column makes its mean NaN.
    """
    users = np.asarray(users)
    unknown = metrics.drop(columns=_UNDEFINED, errors="ignore").isna().groupby(users).any()
    means = metrics.groupby(users).mean()
    return means.mask(unknown.reindex(columns=means.columns, fill_value=False))


def by_seed(runs: Mapping[int, pd.DataFrame]) -> pd.DataFrame:
    """Average the metrics of each run, as `by_user` those of a user, DataFrame indexed by seed."""
    means = [by_user(metrics, np.full(len(metrics), seed)) for seed, metrics in runs.items()]
    return pd.concat(means).rename_axis("seed")


def ndcg(slate: np.ndarray, relevance: np.ndarray, gain: str = "exponential") -> np.ndarray:
    """Compute the normalised discounted cumulative gain: DCG of the slate over that of the best slate of its length.

    DCG = sum over i of gain(r_i) / log2(i + 1), i from 1 (Jarvelin and Kekalainen 2002). `gain` is "exponential", 2^r -
    1 (Burges et al. 2005), or "linear", r. Returns float [n] in [0, 1]; NaN where no candidate has a relevance above 0.
    ValueError for another gain, or a relevance below 0.
    """
    require_each(one_of(("exponential", "linear")), gain=gain)
    slate, relevance = _checked(slate, relevance)
    require_rows(~(relevance < 0), "relevance", "at least 0", relevance)
    gains = np.exp2(relevance) - 1 if gain == "exponential" else relevance
    gains = np.nan_to_num(gains)
    discount = 1 / np.log2(np.arange(slate.shape[1]) + 2)
    best = -np.sort(-gains, axis=1)[:, : slate.shape[1]] @ discount[: gains.shape[1]]
    return _ratio(_take(slate, gains) @ discount, best)


def err(slate: np.ndarray, relevance: np.ndarray, highest: float) -> np.ndarray:
    """Compute the expected reciprocal rank of the slot at which a user who looks from the top is satisfied.

    sum over i of 1/i R_i prod over j < i of (1 - R_j), with R = (2^r - 1) / 2^highest (Chapelle et al. 2009, "Expected
    reciprocal rank for graded relevance"). `highest` is the largest possible relevance. Returns float [n] in [0, 1);
    ValueError for a relevance outside [0, highest].
    """
    slate, relevance = _checked(slate, relevance)
    require_rows(~((relevance < 0) | (relevance > highest)), "relevance", f"in [0, {highest:g}]", relevance)
    satisfied = _take(slate, (np.exp2(relevance) - 1) / 2.0**highest)
    reached = np.cumprod(np.c_[np.ones(len(slate)), 1 - satisfied[:, :-1]], axis=1)
    return (reached * satisfied) @ (1 / _ranks(slate))


def average_precision(slate: np.ndarray, relevance: np.ndarray, threshold: float) -> np.ndarray:
    """Compute the average precision at k of candidates with relevance >= threshold; its mean over lists is MAP@k.

    sum over relevant slots i of (relevant among the first i) / i, over min(k, number of relevant candidates), so that
    the best slate has 1. Returns float [n] in [0, 1]; NaN where no candidate is relevant.
    """
    hits, relevant = _hits(slate, relevance, threshold)
    precision = hits.cumsum(axis=1) / _ranks(hits)
    return _ratio((precision * hits).sum(axis=1), np.minimum(relevant, hits.shape[1]))


def reciprocal_rank(slate: np.ndarray, relevance: np.ndarray, threshold: float) -> np.ndarray:
    """Compute 1 over the rank of the first item with relevance >= threshold; its mean over lists is MRR@k.

    Returns float [n] in [0, 1], 0 without such an item among the k; NaN where no candidate is relevant.
    """
    hits, relevant = _hits(slate, relevance, threshold)
    return np.where(relevant > 0, (hits / _ranks(hits)).max(axis=1, initial=0), np.nan)


def hit_rate(slate: np.ndarray, relevance: np.ndarray, threshold: float) -> np.ndarray:
    """Return 1.0 where an item has relevance >= threshold and 0.0 elsewhere, float [n]; NaN as `reciprocal_rank`."""
    hits, relevant = _hits(slate, relevance, threshold)
    return np.where(relevant > 0, hits.any(axis=1), np.nan)


def expected_clicks(slate: np.ndarray, attraction: np.ndarray, clicks: Any) -> np.ndarray:
    """Compute the expected number of clicks on every slate, float [n]; the missing slots of a short list get none.

    `attraction` float [n, items] in [0, 1] is the probability of a click on an examined candidate, NaN in padding;
    `clicks` has a method `value`, as `environments.clicks.CLICK_MODELS`.
    """
    slate, attraction = _checked(slate, attraction)
    return np.asarray(clicks.value(_take(slate, attraction)))


def intra_list_diversity(vectors: Any) -> np.ndarray:
    """Compute 1 - mean cosine similarity of the pairs of a list (Ziegler et al. 2005, where it is the similarity).

    `vectors` float [n, k, D] are those of the items in the slots, such as factors or genres; NaN behind the end of a
    list. The cosine of the zero vector is 0. Returns float [n] in [0, 2]; NaN for a list of fewer than two items.
    """
    vectors = np.asarray(vectors, float)
    present = ~np.isnan(vectors).any(axis=2)
    vectors = np.where(present[:, :, None], vectors, 0.0)
    length = np.linalg.norm(vectors, axis=2, keepdims=True)
    units = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    # the squared length of the sum has every pair twice, and each unit with itself
    twice = (units.sum(axis=1) ** 2).sum(axis=1) - (units**2).sum(axis=(1, 2))
    size = present.sum(axis=1)
    pairs = size * (size - 1.0)
    return 1 - np.divide(twice, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _checked(slate: np.ndarray, relevance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays that fit together."""
    slate = require_shape(slate, "slate", "n", "k")
    relevance = require_shape(np.asarray(relevance, float), "relevance", len(slate), "items")
    items = relevance.shape[1]
    require_rows((slate >= -1) & (slate < items), "slate", f"of columns below {items}, or -1", slate)
    # repeating its best item would make a list better than the best list
    require_rows(distinct(slate, slate >= 0), "slate", "of different columns", slate)
    known = ~np.isnan(np.take_along_axis(relevance, slate, axis=1)) | (slate < 0)
    require_rows(known, "slate", "without padding, where relevance is NaN", slate)
    return slate, relevance


def _take(slate: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the values [n, k] of the items in the slots, 0 in missing slots."""
    return np.where(slate >= 0, np.take_along_axis(values, slate, axis=1), 0.0)


def _hits(slate: np.ndarray, relevance: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return whether the item of a slot is relevant, bool [n, k], and the number of relevant candidates [n]."""
    slate, relevance = _checked(slate, relevance)
    relevant = relevance >= threshold  # false for NaN
    return _take(slate, relevant).astype(bool), relevant.sum(axis=1)


def _ranks(slots: np.ndarray) -> np.ndarray:
    return np.arange(1, slots.shape[1] + 1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
