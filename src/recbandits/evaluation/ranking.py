"""Rank candidates by score, measure the lists, and report the means with intervals.

    slate = rank(scores, 10)                                 # scores [n, items]
    lists = {"agent": measure(slate, relevance), ...}        # one row a list, one column a metric
    report(lists)                                            # means over users with 95 % intervals
    report({name: by_seed(runs) for ...})                    # over seeds, runs = {seed: measure(...)}
    differences(lists, "als")                                # paired, which is what decides who is better

The metrics themselves are in `list_metrics` and `shown`; all can be had from here.
"""

import numpy as np
import pandas as pd

from recbandits.evaluation.catalogue_metrics import coverage, decile_exposure, intra_list_diversity
from recbandits.evaluation.ranking_metrics import (
    average_precision,
    err,
    expected_clicks,
    hit_rate,
    ndcg,
    reciprocal_rank,
)
from recbandits.evaluation.regret import mean_interval

__all__ = [
    "average_precision",
    "by_seed",
    "by_user",
    "coverage",
    "decile_exposure",
    "differences",
    "err",
    "expected_clicks",
    "hit_rate",
    "intra_list_diversity",
    "measure",
    "ndcg",
    "rank",
    "reciprocal_rank",
    "report",
]


def rank(scores, k, mask=None, seed=0):
    """Columns of the k best scores of every list, the best first; ties are broken at random.

    An order of columns says nothing about a policy that scores many candidates alike, but breaking ties by it can earn
    or cost a lot: candidates often stand in a telling order. At random, the mean over seeds is the expectation.

    Args:
      scores: float [n, items], higher is better; minus infinity in padding.
      k: length of the lists, at least 1; may be larger than there are candidates.
      mask: bool [n, items], False in padding, or None.
      seed: of the order among ties.

    Returns:
      int64 [n, k], -1 behind the end of a short list.

    Raises:
      ValueError: a score that is NaN outside padding, a mask of another shape, or k below 1.
    """
    scores = np.asarray(scores, float)
    if scores.ndim != 2:
        raise ValueError(f"scores must have the shape [n, items], got {list(scores.shape)}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if mask is not None:
        if np.shape(mask) != scores.shape:
            raise ValueError(f"mask must have the shape of scores, {list(scores.shape)}, got {list(np.shape(mask))}")
        scores = np.where(mask, scores, -np.inf)
    if np.isnan(scores).any():
        raise ValueError(f"scores must be numbers, got NaN in list {np.argwhere(np.isnan(scores))[0, 0]}")
    uniforms = np.random.default_rng(seed).random(scores.shape)
    best = np.lexsort((uniforms, -scores), axis=1)[:, :k]
    columns = np.full((len(scores), k), -1)
    columns[:, : best.shape[1]] = np.where(np.take_along_axis(scores, best, axis=1) > -np.inf, best, -1)
    return columns


def measure(slate, relevance, threshold=4.0, highest=5.0, attraction=None, clicks=None, vectors=None):
    """Every metric of every list.

    Args:
      slate: int [n, k] columns of the candidates from the top, -1 behind the end.
      relevance: float [n, items] in [0, highest], such as ratings; NaN in padding.
      threshold: what `average_precision`, `reciprocal_rank` and `hit_rate` count as relevant.
      highest: the highest relevance there is, for `err`.
      attraction: float [n, items] in [0, 1], for `expected_clicks`, or None.
      clicks: click model, together with `attraction`.
      vectors: float [n, items, D] of the candidates, for `intra_list_diversity`, or None.

    Returns:
      DataFrame [n] with columns ndcg, err, map, mrr, hit_rate, and clicks and diversity where they can be had.

    Raises:
      ValueError: attraction without a click model or the other way round, and as the metrics.
    """
    if (attraction is None) != (clicks is None):
        missing = "attraction" if attraction is None else "clicks"
        raise ValueError(f"attraction and clicks must come together, got no {missing}")
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
        shown = np.take_along_axis(np.asarray(vectors, float), slate[:, :, None], axis=1)
        columns["diversity"] = intra_list_diversity(np.where(slate[:, :, None] >= 0, shown, np.nan))
    return pd.DataFrame(columns)


def by_user(lists, users):
    """Mean of each user's lists: lists of one user are alike, and an interval that counts each is too narrow.

    Args:
      lists: DataFrame [n] of metrics.
      users: int [n].

    Returns:
      DataFrame indexed by user, with the same columns.
    """
    return lists.groupby(np.asarray(users)).mean()


def by_seed(runs):
    """Mean of each run over its lists, for intervals over seeds.

    Args:
      runs: mapping from seed to DataFrame of metrics, one row a list.

    Returns:
      DataFrame indexed by seed, with the same columns.
    """
    return pd.DataFrame({seed: lists.mean() for seed, lists in runs.items()}).T.rename_axis("seed")


def report(lists, confidence=0.95):
    """Mean of each metric with Student's t interval, one row per policy.

    Args:
      lists: mapping from policy to DataFrame of metrics, a row for each independent replication: a user, or a seed.
        Rows where a metric is NaN do not count for it.
      confidence: coverage in (0, 1).

    Returns:
      DataFrame indexed by policy with columns ndcg, ndcg_low, ndcg_high, err, ...
    """
    rows = {policy: _bounds(table, confidence) for policy, table in lists.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")


def differences(lists, baseline, confidence=0.95):
    """Mean of policy minus baseline with its interval, over the same users or seeds.

    Both ranked the same candidates for the same users, so the difference varies less than either: its interval decides
    which is better, and overlapping intervals of the two do not.

    Args:
      lists: as for `report`; the tables have the same index, row by row the same user or seed.
      baseline: one of the policies.
      confidence: coverage in (0, 1).

    Returns:
      DataFrame as of `report`, without the row of the baseline.

    Raises:
      ValueError: no such baseline, or a policy that was measured on other lists.
    """
    if baseline not in lists:
        raise ValueError(f"baseline must be one of {', '.join(lists)}, got {baseline!r}")
    for policy, table in lists.items():
        if not table.index.equals(lists[baseline].index):
            raise ValueError(f"{policy!r} and {baseline!r} must be measured on the same lists to be compared")
    others = {policy: table - lists[baseline] for policy, table in lists.items() if policy != baseline}
    return report(others, confidence)


def _bounds(table, confidence):
    row = {}
    for metric in table:
        bounds = mean_interval(table[metric].dropna(), confidence) if table[metric].notna().any() else [np.nan] * 3
        row |= dict(zip([metric, f"{metric}_low", f"{metric}_high"], bounds, strict=True))
    return row
