"""What users get to see, liked or not: how much of the catalogue, how varied a list, how well known its items."""

import numpy as np
import pandas as pd


def coverage(items, catalogue):
    """Share of the catalogue that is shown to anybody.

    Args:
      items: int [n, k] ids of what was shown; ids outside the catalogue, as -1 where a short list ends, do not count.
      catalogue: int [m] ids of all that could be shown.

    Returns:
      float in [0, 1].

    Raises:
      ValueError: an empty catalogue.
    """
    catalogue = np.unique(catalogue)
    if not len(catalogue):
        raise ValueError("catalogue must have at least one item, got none")
    return float(np.isin(catalogue, items).mean())


def intra_list_diversity(vectors):
    """1 - mean cosine similarity of the pairs of a list (Ziegler et al. 2005, where it is the similarity).

    Args:
      vectors: float [n, k, D] of what is in the slots, such as factors or genres; NaN where a short list ends. The zero
        vector is similar to nothing, cosine 0.

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


def decile_exposure(items, popularity):
    """Share of a list's slots that each tenth of the catalogue takes, from the most to the least popular tenth.

    Args:
      items: int [n, k] ids of what was shown, -1 where a short list ends.
      popularity: Series by item id, such as the number of ratings; at least 10 items. Among equally popular ones the
        first in the Series counts as more popular.

    Returns:
      float [n, 10]; rows sum to 1. Each tenth has 0.1 where all movies are shown equally often. NaN for an empty list.

    Raises:
      ValueError: fewer than 10 items, or one that was shown and has no popularity.
    """
    if len(popularity) < 10:
        raise ValueError(f"popularity must have at least 10 items to make tenths of, got {len(popularity)}")
    items = np.asarray(items)
    rank = popularity.rank(ascending=False, method="first").astype(int) - 1
    place = pd.Index(popularity.index).get_indexer(items.ravel()).reshape(items.shape)
    if ((place < 0) & (items != -1)).any():
        raise ValueError(
            f"popularity must have every item shown, got none of item {items[(place < 0) & (items != -1)][0]}"
        )
    decile = rank.to_numpy()[place] * 10 // len(popularity)
    counts = ((decile[:, :, None] == np.arange(10)) & (place >= 0)[:, :, None]).sum(axis=1)
    size = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, size, out=np.full(counts.shape, np.nan), where=size > 0)
