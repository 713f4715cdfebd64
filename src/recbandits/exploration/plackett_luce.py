"""Slates drawn without replacement by a softmax: the Plackett-Luce model, for NumPy arrays and tensors alike.

The item of the first slot is drawn with probability proportional to exp(logit), each further one likewise among the
items that are left (Plackett 1975, "The Analysis of Permutations"). Scores become logits divided by a temperature. All
is computed in logarithms, so that low temperatures neither overflow nor lose the small probabilities. As in
`exploration`, TensorFlow is not imported here, and inside a graph values are not checked.
"""

import numpy as np

from recbandits import exploration

# The nodes of the integral over arrival times; see `position_probabilities`.
_STEP = 0.2
_FIRST, _LATE = -3.4, np.log(40.0)  # before and after, 1e-14 of the probability is left out
_APART = 60.0  # an item with a logit that much lower arrives before the other once in e^60 races
_CELLS = 1 << 12  # integrated at a time: rows times nodes, so that the arrays stay in the processor's cache


def sample(logits, slots, uniforms, mask=None):
    """Draw slates: the items with the largest logits after Gumbel noise, in descending order.

    Adding independent Gumbel noise and sorting is the same as drawing one item after another (Yellott 1977, "The
    Relationship between Luce's Choice Axiom, Thurstone's Theory of Comparative Judgment, and the Double Exponential
    Distribution", theorem 5).

    Args:
      logits: float [n, items], array or tensor; whatever an unavailable item has is ignored.
      slots: items to draw, at most as many as are available.
      uniforms: uniform numbers in [0, 1), [n, items] of the kind of `logits`; in float64, or slates would tie.
      mask: bool [n, items], True where the item is available; None when all are.

    Returns:
      int [n, slots] of the kind of `logits`: columns, all different in a row.

    Raises:
      ValueError: fewer items than slots in a row, and as `exploration.softmax`.
    """
    xp, logits, mask = exploration.inputs(logits, mask)
    _check_slots(logits, mask, slots)
    with np.errstate(divide="ignore"):  # uniforms 0 comes last, which has no chance worth speaking of
        noisy = xp.where(mask, xp.asarray(logits, uniforms.dtype) - xp.log(-xp.log(uniforms)), -np.inf)
    return xp.argsort(-noisy, axis=1, kind="stable")[:, :slots]


def conditional(logits, prefix, mask=None):
    """Distribution of the next item, given those in the slots above.

    Args:
      logits: float [n, items], array or tensor.
      prefix: int [n, j], columns of the items in the first j slots; j may be 0.
      mask: as for `sample`.

    Returns:
      float [n, items] of the kind of `logits`; rows sum to 1, items that are taken or unavailable are exactly 0.

    Raises:
      ValueError: a prefix that leaves no item, and as `propensities`.
    """
    xp, logits, mask = exploration.inputs(logits, mask)
    return exploration.softmax(logits, mask & ~_taken(xp, logits, prefix, mask), 1.0)


def propensities(logits, slate, mask=None):
    """Probability of the item in each slot, given those above: what to log with a slate.

    Their product along the slots is the probability of the slate. The denominator of slot k, the total weight of what
    is left, is added up from the last slot to the first: subtracting from the first would lose it to rounding.

    Args:
      logits: float [n, items], array or tensor.
      slate: int [n, slots], columns of the items.
      mask: as for `sample`.

    Returns:
      float [n, slots] of the kind of `logits`, in (0, 1].

    Raises:
      ValueError: a slate with an item twice, unavailable or out of range, and as `exploration.softmax`.
    """
    xp, logits, mask = exploration.inputs(logits, mask)
    rest = xp.where(mask & ~_taken(xp, logits, slate, mask), logits, xp.full_like(logits, -np.inf))
    best = xp.max(rest, axis=1, keepdims=True)
    best = xp.where(best == -np.inf, xp.zeros_like(best), best)  # nothing is left when all items are slotted
    with np.errstate(divide="ignore"):
        left = xp.log(xp.sum(xp.exp(rest - best), axis=1)) + best[:, 0]
    chosen, found = xp.take_along_axis(logits, slate, axis=1), []
    for slot in reversed(range(slate.shape[1])):
        left = xp.logaddexp(chosen[:, slot], left)
        found.insert(0, xp.exp(chosen[:, slot] - left))
    return xp.stack(found, axis=1)


def position_probabilities(logits, slots, mask=None):
    """Probability that an item stands in a slot, whatever stands above it.

    The items race: item i arrives after an exponential time with rate exp(logit), and slot k gets the k-th to arrive,
    which is the same model. Hence P(i in slot k) is the integral over time of the density of i's arrival times the
    probability that exactly k - 1 of the others have arrived before, which is Poisson-binomial. On the axis u with
    log(time) = u - exp(-u) the integrand is smooth and vanishes fast at both ends, where the trapezoidal rule converges
    exponentially (Takahasi and Mori 1974, "Double Exponential Formulas for Numerical Integration", section 4). Absolute
    errors are below 1e-12, however unequal the logits.

    Args:
      logits: float [n, items].
      slots: how many.
      mask: as for `sample`.

    Returns:
      float64 array [n, slots, items]; the items of a slot sum to 1.

    Raises:
      ValueError: as `sample`.
    """
    _, logits, mask = exploration.inputs(np.asarray(logits, float), mask)
    _check_slots(logits, mask, slots)
    return _position_probabilities(np.where(mask, logits, -np.inf), slots, logits.shape[1])


def position_propensities(logits, slate, mask=None):
    """Probability that the item in each slot stands there, whatever stands above it.

    These are the `position_probabilities` of a slate's own items, in a fraction of the time.

    Args:
      logits: float [n, items].
      slate: int [n, slots], columns of the items.
      mask: as for `sample`.

    Returns:
      float64 array [n, slots], in (0, 1].

    Raises:
      ValueError: as `propensities`.
    """
    slate = np.asarray(slate)
    _, logits, mask = exploration.inputs(np.asarray(logits, float), mask)
    taken = _taken(np, logits, slate, mask)
    rest = np.argsort(taken, axis=1, kind="stable")[:, : logits.shape[1] - slate.shape[1]]
    ordered = np.take_along_axis(np.where(mask, logits, -np.inf), np.concatenate([slate, rest], axis=1), axis=1)
    found = _position_probabilities(ordered, slate.shape[1], slate.shape[1])
    return np.einsum("nkk->nk", found)


def _position_probabilities(logits, slots, wanted):
    """Probabilities [n, slots, wanted] of the first `wanted` items; unavailable ones have minus infinity."""
    logits = _closer(logits - logits.max(axis=1, keepdims=True))
    total = np.log(np.exp(logits).sum(axis=1, keepdims=True))
    slowest = np.partition(logits, -slots, axis=1)[:, -slots]  # when it has arrived, all slots are filled
    stop = _LATE + 0.1 + (total[:, 0] - slowest).max(initial=0.0)
    step = _STEP / max(1.0, np.sqrt(slots / 10))  # the more slots, the narrower is the time at which one is filled
    axis = np.linspace(_FIRST, stop, int(np.ceil((stop - _FIRST) / step)) + 1)
    rows = max(1, _CELLS // len(axis))
    found = np.empty((len(logits), slots, wanted))
    for first in range(0, len(logits), rows):
        part = slice(first, first + rows)
        found[part] = _integrate(logits[part] - total[part], axis, slots, wanted)
    return found


def _closer(logits):
    """Logits [n, items] with the same order and no two neighbours further apart than `_APART`.

    The axis of times reaches from the first arrival to the last: at low temperatures it would be nearly all gaps, in
    which nobody arrives, and too long for the memory.
    """
    order = np.argsort(-logits, axis=1)
    ordered = np.take_along_axis(logits, order, axis=1)
    with np.errstate(invalid="ignore"):  # between two unavailable items
        steps = np.maximum(np.diff(ordered, axis=1, prepend=0.0), -_APART).cumsum(axis=1)
    closer = np.empty_like(logits)
    np.put_along_axis(closer, order, np.where(ordered > -np.inf, steps, -np.inf), axis=1)
    return closer


def _integrate(logits, axis, slots, wanted):
    """The integrals over all times, for a total rate of 1."""
    weight = (axis[1] - axis[0]) * (1.0 + np.exp(-axis))
    passed = np.exp(np.minimum(logits.T[:, :, None] + axis - np.exp(-axis), 100.0))  # rate times time
    waiting, arrived = np.exp(-passed), -np.expm1(-passed)
    counts = np.zeros((slots, *passed.shape[1:]))
    counts[0] = 1.0
    counts = _with(range(wanted, len(passed)), counts, arrived, waiting)
    found = np.empty((len(logits), slots, wanted))
    for item, others in _without_each(range(wanted), counts, arrived, waiting):
        found[:, :, item] = ((others * (passed[item] * waiting[item])) @ weight).T
    return found


def _without_each(items, counts, arrived, waiting):
    """Yield, for each item, the probability [slots, n, nodes] that exactly 0, 1, ... of the others have arrived.

    `counts` is that of those outside `items`. Half of the items are added before the others are visited, and so on:
    no probability is ever divided out again, which would lose precision.
    """
    if len(items) == 1:
        yield items[0], counts
        return
    half = len(items) // 2
    for visited, added in ((items[:half], items[half:]), (items[half:], items[:half])):
        yield from _without_each(visited, _with(added, counts, arrived, waiting), arrived, waiting)


def _with(items, counts, arrived, waiting):
    """The same counts with some items more."""
    for item in items:
        before, counts = counts, counts * waiting[item]
        counts[1:] += before[:-1] * arrived[item]
    return counts


def _taken(xp, logits, slate, mask):
    """Bool [n, items]: which items a slate [n, slots] holds; slates that cannot be are refused where they are known."""
    if xp is np or hasattr(slate, "numpy"):
        _check_slate(np.asarray(slate), np.asarray(mask))
    columns = xp.arange(logits.shape[1], dtype=slate.dtype)
    return xp.any(slate[:, :, None] == columns, axis=1)


def _check_slots(logits, mask, slots):
    known = isinstance(mask, np.ndarray) or hasattr(mask, "numpy")
    items = np.asarray(mask).sum(axis=1) if known else np.array([logits.shape[1]])
    short = items < slots
    if short.any():
        raise ValueError(f"row {np.argmax(short)}: there must be at least {slots} items, got {items[short][0]}")


def _check_slate(slate, mask):
    """Refuse a slate whose items are not columns, not available or not different."""
    if slate.ndim != 2 or len(slate) != len(mask):
        raise ValueError(f"slate must have the shape [{len(mask)}, slots], got {slate.shape}")
    inside = (slate >= 0) & (slate < mask.shape[1])
    good = inside & np.take_along_axis(mask, np.where(inside, slate, 0).astype(int), axis=1)
    ordered = np.sort(slate, axis=1)
    wrong = ~good.all(axis=1) | (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if wrong.any():
        row = np.argmax(wrong)
        raise ValueError(f"row {row}: slate must hold different available items, got {slate[row]}")
