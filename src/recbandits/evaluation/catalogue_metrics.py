"""Metrics of what users see, whether relevant or not: coverage of the catalogue and diversity of lists."""

from typing import Any

import numpy as np


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
