"""Slates drawn without replacement by a softmax: the Plackett-Luce model.

The item of the first slot is drawn with probability proportional to exp(logit), that of each further slot likewise from
the remaining items (Plackett 1975, "The Analysis of Permutations"). A logit is a score divided by a temperature.
Computations are in logarithms: low temperatures neither overflow nor lose small probabilities. `sample`, `conditional`
and `propensities` take NumPy arrays or TensorFlow tensors and return the same type, as the functions of
`probabilities`: TensorFlow is not imported here, and values inside a graph are not checked.

In all functions, `logits` are float [n, items], `mask` is bool [n, items], True where the item is available (None when
all are; logits of the others are ignored), and `slate` is int [n, slots], columns of the items from the top. All raise
ValueError if a row has no available item or fewer than slots, if the logit of an available item is not finite, or if a
slate repeats an item or has one that is unavailable or out of range.
"""

import numpy as np

from recbandits.checks import distinct, require, require_rows, require_shape
from recbandits.exploration.probabilities import Array, Exploration, Rng, as_arrays, invert_cdf, softmax, uniform_draws

# Nodes of the integral over arrival times; see `position_probabilities`.
_NODE_DISTANCE = 0.2
_AXIS_START, _AXIS_END = -3.4, np.log(40.0)  # less than 1e-14 of the probability lies outside
_LARGEST_GAP = 60.0  # with a logit lower by 60, an item arrives before the other once in e^60 races
_CHUNK = 1 << 12  # rows times nodes that are integrated at a time, so that arrays fit in the processor's cache


def sample(logits: Array, slots: int, uniforms: Array, mask: Array | None = None) -> Array:
    """Draw slates: the items with the largest logits after adding Gumbel noise, in descending order.

    Sorting after independent Gumbel noise is the same as drawing one item after another (Yellott 1977, "The
    Relationship between Luce's Choice Axiom, Thurstone's Theory of Comparative Judgment, and the Double Exponential
    Distribution", theorem 5).

    `uniforms` are uniform draws in [0, 1) [n, items]; float64, because float32 gives ties.
    """
    xp, logits, mask = as_arrays(logits, mask)
    _check_slots(logits, mask, slots)
    with np.errstate(divide="ignore"):  # a draw of exactly 0 gives minus infinity and comes last
        noisy = xp.where(mask, xp.asarray(logits, uniforms.dtype) - xp.log(-xp.log(uniforms)), -np.inf)
    return xp.argsort(-noisy, axis=1, kind="stable")[:, :slots]


def draw_slate(exploration: Exploration, scores: np.ndarray, k: int, rng: Rng) -> tuple[list[int], list[float]]:
    """Draw a slate of k different items for one user, by scores [items] and an `rng` as for `uniform_draws`.

    The exploration "plackett_luce" draws every slot. Any other draws the first slot; the remaining items follow by
    descending score with probability 1. Returns (columns of the items, their probabilities given the items above), one
    of each for every slot. ValueError if k is not from 1 to the number of items, a score is not finite, or
    `uniform_draws` refuses rng.
    """
    valid = isinstance(k, (int, np.integer)) and 1 <= k <= len(scores)
    require(valid, "k", f"a whole number from 1 to the number of candidates, {len(scores)}", k)
    if exploration.name == "plackett_luce":
        logits = scores[None] / exploration.value
        slate = sample(logits, k, uniform_draws(len(scores), rng)[None])
        return slate[0].tolist(), propensities(logits, slate)[0].tolist()
    probabilities = exploration.probabilities(scores[None])
    first = int(invert_cdf(probabilities, uniform_draws(1, rng))[0])
    propensity = float(probabilities[0, first])
    if k == 1:
        return [first], [propensity]
    order = np.argsort(-scores, kind="stable")
    return [first, *order[order != first][: k - 1].tolist()], [propensity] + [1.0] * (k - 1)


def conditional(logits: Array, prefix: Array, mask: Array | None = None) -> Array:
    """Return the distribution float [n, items] of the next item, given the items in the slots above.

    `prefix` is a slate of the first j slots, where j may be 0. Rows sum to 1; items of the prefix and unavailable ones
    are exactly 0.
    """
    xp, logits, mask = as_arrays(logits, mask)
    return softmax(logits, mask & ~_contained(xp, logits, prefix, mask), 1.0)


def propensities(logits: Array, slate: Array, mask: Array | None = None) -> Array:
    """Return the probability float [n, slots] of the item in each slot, given the items above: what to log of a slate.

    Their product over the slots is the probability of the slate. The denominator of a slot, the total weight of the
    remaining items, is added up from the last slot to the first, because subtraction would lose it to rounding.
    """
    xp, logits, mask = as_arrays(logits, mask)
    others = xp.where(mask & ~_contained(xp, logits, slate, mask), logits, xp.full_like(logits, -np.inf))
    largest = xp.max(others, axis=1, keepdims=True)
    largest = xp.where(largest == -np.inf, xp.zeros_like(largest), largest)  # a slate of all items has no others
    with np.errstate(divide="ignore"):
        total = xp.log(xp.sum(xp.exp(others - largest), axis=1)) + largest[:, 0]
    chosen = xp.take_along_axis(logits, slate, axis=1)
    columns: list[Array] = []
    for slot in reversed(range(slate.shape[1])):
        total = xp.logaddexp(chosen[:, slot], total)
        columns.insert(0, xp.exp(chosen[:, slot] - total))
    return xp.stack(columns, axis=1)


def position_probabilities(logits: np.ndarray, slots: int, mask: np.ndarray | None = None) -> np.ndarray:
    """Compute the marginal probability that an item is in a slot, float64 array [n, slots, items].

    The same model is a race: item i arrives after an exponential time with rate exp(logit), and slot k gets the k-th
    arrival. P(i in slot k) is the integral over time of the density of i's arrival times the Poisson-binomial
    probability that exactly k - 1 other items arrived before. On the axis u with log(time) = u - exp(-u) the integrand
    is smooth and vanishes fast at both ends, and the trapezoidal rule converges exponentially (Takahasi and Mori 1974,
    "Double Exponential Formulas for Numerical Integration", section 4). Absolute errors are below 1e-12.
    """
    _, logits, mask = as_arrays(np.asarray(logits, float), mask)
    _check_slots(logits, mask, slots)
    return _integrate_rows(np.where(mask, logits, -np.inf), slots, logits.shape[1])


def position_propensities(logits: np.ndarray, slate: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Compute the marginal probability of each item of a slate in its slot, float64 array [n, slots].

    These entries of `position_probabilities` take a fraction of the time of all.
    """
    slate = np.asarray(slate)
    _, logits, mask = as_arrays(np.asarray(logits, float), mask)
    contained = _contained(np, logits, slate, mask)
    others = np.argsort(contained, axis=1, kind="stable")[:, : logits.shape[1] - slate.shape[1]]
    ordered = np.take_along_axis(np.where(mask, logits, -np.inf), np.concatenate([slate, others], axis=1), axis=1)
    return np.einsum("nkk->nk", _integrate_rows(ordered, slate.shape[1], slate.shape[1]))


def _integrate_rows(logits: np.ndarray, slots: int, items: int) -> np.ndarray:
    """Return position probabilities [n, slots, items] of the first items; minus infinity marks unavailable ones."""
    if len(logits) > 1 and (logits == logits[0]).all():  # as in a log of uniform slates
        return np.repeat(_integrate_rows(logits[:1], slots, items), len(logits), axis=0)
    logits = _limit_gaps(logits - logits.max(axis=1, keepdims=True))
    total = np.log(np.exp(logits).sum(axis=1, keepdims=True))
    slowest = np.partition(logits, -slots, axis=1)[:, -slots]  # when it arrives, all slots are filled
    end = _AXIS_END + 0.1 + (total[:, 0] - slowest).max(initial=0.0)
    distance = _NODE_DISTANCE / max(1.0, np.sqrt(slots / 10))  # with more slots, each fills in a narrower time
    axis = np.linspace(_AXIS_START, end, int(np.ceil((end - _AXIS_START) / distance)) + 1)
    rows = max(1, _CHUNK // len(axis))
    probabilities = np.empty((len(logits), slots, items))
    for start in range(0, len(logits), rows):
        part = slice(start, start + rows)
        probabilities[part] = _integrate(logits[part] - total[part], axis, slots, items)
    return probabilities


def _limit_gaps(logits: np.ndarray) -> np.ndarray:
    """Return logits [n, items] in the same order, with neighbours at most `_LARGEST_GAP` apart.

    The axis covers the first arrival to the last; with large gaps it would not fit in memory.
    """
    order = np.argsort(-logits, axis=1)
    ordered = np.take_along_axis(logits, order, axis=1)
    with np.errstate(invalid="ignore"):  # between two unavailable items
        steps = np.maximum(np.diff(ordered, axis=1, prepend=0.0), -_LARGEST_GAP).cumsum(axis=1)
    limited = np.empty_like(logits)
    np.put_along_axis(limited, order, np.where(ordered > -np.inf, steps, -np.inf), axis=1)
    return limited


def _integrate(logits: np.ndarray, axis: np.ndarray, slots: int, items: int) -> np.ndarray:
    """Integrate over all times, for a total rate of 1."""
    weight = (axis[1] - axis[0]) * (1.0 + np.exp(-axis))
    work = np.exp(np.minimum(logits.T[:, :, None] + axis - np.exp(-axis), 100.0))  # rate times time
    absent, present = np.exp(-work), -np.expm1(-work)
    counts = np.zeros((slots, *work.shape[1:]))
    counts[0] = 1.0
    counts = _add_items(range(items, len(work)), counts, present, absent)
    probabilities = np.empty((len(logits), slots, items))
    for item, others in _leave_one_out(range(items), counts, present, absent):
        probabilities[:, :, item] = ((others * (work[item] * absent[item])) @ weight).T
    return probabilities


def _leave_one_out(items, counts, present, absent):
    """Yield, for each item, the probability [slots, n, nodes] that exactly 0, 1, ... of the others have arrived.

    `counts` are those without `items`, of which one half is added before the other is visited, and so on: to divide a
    probability out again would lose precision.
    """
    if len(items) == 1:
        yield items[0], counts
        return
    half = len(items) // 2
    for visit, add in ((items[:half], items[half:]), (items[half:], items[:half])):
        yield from _leave_one_out(visit, _add_items(add, counts, present, absent), present, absent)


def _add_items(items, counts, present, absent):
    for item in items:
        previous, counts = counts, counts * absent[item]
        counts[1:] += previous[:-1] * present[item]
    return counts


def _contained(xp, logits, slate, mask):
    """Return bool [n, items], True for the items of a slate [n, slots]; check slates of known values."""
    if xp is np or hasattr(slate, "numpy"):
        _check_slate(np.asarray(slate), np.asarray(mask))
    if xp is np:
        contained = np.zeros(logits.shape, bool)
        np.put_along_axis(contained, np.asarray(slate, int), True, axis=1)
        return contained
    columns = xp.arange(logits.shape[1], dtype=slate.dtype)
    return xp.any(slate[:, :, None] == columns, axis=1)


def _check_slots(logits, mask, slots):
    known = isinstance(mask, np.ndarray) or hasattr(mask, "numpy")
    items = np.asarray(mask).sum(axis=1) if known else np.array([logits.shape[1]])
    require_rows(items >= slots, "number of items", f"at least {slots}", items)


def _check_slate(slate: np.ndarray, mask: np.ndarray) -> None:
    require_shape(slate, "slate", len(mask), "slots")
    inside = (slate >= 0) & (slate < mask.shape[1])
    available = inside & np.take_along_axis(mask, np.where(inside, slate, 0).astype(int), axis=1)
    require_rows(available.all(axis=1) & distinct(slate), "slate", "of different available items", slate)
