"""Which candidates of one user are shown, and how probable that was."""

import os

import numpy as np

from recbandits.exploration import pick, plackett_luce

SLATES = "plackett_luce"  # the exploration that draws every place, not only the first


def draw(exploration, scores, k, rng):
    """Choose k different candidates.

    Under the exploration "plackett_luce" all places are drawn, one after the other and without replacement, with
    probability proportional to exp(score / temperature). Under any other the first place is drawn, and the others
    follow by score: given the first, they are certain.

    Args:
      exploration: `Exploration`
      scores: float array [candidates].
      k: how many, from 1 to the number of candidates.
      rng: as for `uniforms`.

    Returns:
      (list [k] of columns of the candidates, list [k] of their probabilities given those above).

    Raises:
      ValueError: another k, a score that is not finite, or an `rng` that is none.
    """
    if not (isinstance(k, (int, np.integer)) and 1 <= k <= len(scores)):
        raise ValueError(f"k must be a whole number from 1 to the number of candidates, {len(scores)}, got {k!r}")
    if exploration.name == SLATES:
        logits = scores[None] / exploration.value
        slate = plackett_luce.sample(logits, k, uniforms(len(scores), rng)[None])
        return slate[0].tolist(), plackett_luce.propensities(logits, slate)[0].tolist()
    probabilities = exploration.probabilities(scores[None])
    first = int(pick(probabilities, uniforms(1, rng))[0])
    propensity = float(probabilities[0, first])
    if k == 1:
        return [first], [propensity]
    order = np.argsort(-scores, kind="stable")
    return [first, *order[order != first][: k - 1].tolist()], [propensity] + [1.0] * (k - 1)


def uniforms(number, rng):
    """Uniform numbers in [0, 1).

    Args:
      number: how many.
      rng: None for the system's entropy, different in every process; a seed, or a `numpy.random.Generator`.

    Returns:
      float array [number].

    Raises:
      ValueError: another `rng`.
    """
    if rng is None:
        return (np.frombuffer(os.urandom(8 * number), np.uint64) >> 11) * 2.0**-53
    if not isinstance(rng, np.random.Generator) and not (isinstance(rng, (int, np.integer)) and rng >= 0):
        raise ValueError(f"rng must be None, a seed of 0 or more, or a generator of NumPy, got {rng!r}")
    return np.random.default_rng(rng).random(number)
