"""Metrics of what users see, whether relevant or not: coverage, diversity of lists, exposure by popularity."""

from typing import Any

import numpy as np
import pandas as pd


def coverage(items: Any, catalogue: Any) -> float:
    """Compute the share of the catalogue, int [m] ids, that is in any list.

    `items` are int [n, k] ids in lists; ids outside the catalogue, such as -1 behind the end of a list, do not count.

    Raises:
      ValueError: the catalogue is empty.
    """
    catalogue = np.unique(catalogue)
    if not len(catalogue):
        raise ValueError("catalogue must have at least one item, got none")
    return float(np.isin(catalogue, items).mean())


def intra_list_diversity(vectors: Any) -> np.ndarray:
    """Compute 1 - mean cosine similarity of the pairs of a list (Ziegler et al. 2005, where it is the similarity).

    Args:
      vectors: float [n, k, D] of the items in the slots, such as factors or genres; NaN behind the end of a list. The
        cosine of the zero vector is 0.

    Returns:
      float [n] in [0, 2]; NaN for a list of fewer than two items.
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


def decile_exposure(items: Any, popularity: pd.Series) -> np.ndarray:
    """Compute the share of a list's slots in each popularity decile of the catalogue, most popular first.

    Args:
      items: int [n, k] ids in lists, -1 behind the end.
      popularity: of all items by id, such as the number of ratings. Among equally popular items, the first is ranked
        higher.

    Returns:
      float [n, 10]; rows sum to 1, NaN for an empty list. Uniform exposure is 0.1 everywhere.

    Raises:
      ValueError: popularity has fewer than 10 items, or not all items of the lists.
    """
    if len(popularity) < 10:
        raise ValueError(f"popularity must have at least 10 items, got {len(popularity)}")
    items = np.asarray(items)
    rank = popularity.rank(ascending=False, method="first").astype(int) - 1
    row = pd.Index(popularity.index).get_indexer(items.ravel()).reshape(items.shape)
    unknown = (row < 0) & (items != -1)
    if unknown.any():
        raise ValueError(f"popularity must have every item shown, got none of item {items[unknown][0]}")
    decile = rank.to_numpy()[row] * 10 // len(popularity)
    counts = ((decile[:, :, None] == np.arange(10)) & (row >= 0)[:, :, None]).sum(axis=1)
    size = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, size, out=np.full(counts.shape, np.nan), where=size > 0)
