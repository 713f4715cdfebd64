"""Click models: from the attraction of the items in a slate to clicks, for NumPy arrays and for tensors.

The attraction of an item is the probability that a user who examines it alone clicks it. NumPy arrays need no
TensorFlow. Inside a graph, where values are not known yet, they are not checked.
"""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from recbandits.checks import NON_NEGATIVE, PROBABILITY, check_fields, require, require_rows
from recbandits.exploration.probabilities import Array, as_floats, indicator

_ALMOST_ONE = 1.0 - 1e-6  # an attraction of 1 would have infinite weight


class ClickModel(abc.ABC):
    """Examination of a slate from slot 1 downwards, and clicks.

    Under each of these models the best slate has the items with the largest attraction, in descending order. Methods
    take the attraction float [batch, slots] of the items in slates, an array or a tensor, and raise ValueError for
    another shape or for values outside [0, 1].
    """

    # Where order does not matter, values are computed in one order, as rounding could prefer one of several slates.
    _order_matters: ClassVar[bool] = False

    def examination(self, attraction: Array) -> Array:
        """Return the probability [batch, slots] that the user examines a slot."""
        return self._examination(*_check(attraction))

    def probabilities(self, attraction: Array) -> Array:
        """Return the marginal probability [batch, slots] of a click on each slot."""
        return self._probabilities(*_check(attraction))

    def value(self, attraction: Array) -> Array:
        """Return the expected number of clicks [batch] on a slate."""
        xp, attraction = _check(attraction)
        attraction = attraction if self._order_matters else xp.sort(attraction, axis=1)
        return xp.sum(self._probabilities(xp, attraction), axis=1)

    def draw(self, attraction: Array, seed: Array) -> Array:
        """Draw clicks float32 [batch, slots], 1 or 0, with the seed int64 [2] of a stateless generator."""
        from recbandits.tf import tf

        attraction = tf.cast(attraction, tf.float32)
        uniforms = tf.random.stateless_uniform(tf.concat([[2], tf.shape(attraction)], axis=0), seed)
        return self._compute_clicks(*_check(attraction), uniforms)

    @abc.abstractmethod
    def _examination(self, xp, attraction):
        """Return the examination; xp is NumPy, or TensorFlow's module of the same functions."""

    @abc.abstractmethod
    def _compute_clicks(self, xp, attraction, uniforms):
        """Return the clicks float [batch, slots], 1 or 0, of uniform draws [2, batch, slots]."""

    def _probabilities(self, xp, attraction):
        return self._examination(xp, attraction) * attraction


class _Sequential(ClickModel):
    """Users examine slot by slot, click by attraction, and after a click continue with probability `continuation`."""

    def _examination(self, xp, attraction):
        return _product_above(xp, 1.0 - (1.0 - self.continuation) * attraction)

    def _compute_clicks(self, xp, attraction, uniforms):
        interest = uniforms[0] < attraction
        continuation = ~interest | (uniforms[1] < self.continuation)
        return indicator(xp, interest, attraction) * _product_above(xp, indicator(xp, continuation, attraction))


@dataclass(frozen=True)
class Cascade(_Sequential):
    """Users click the first item that attracts them and leave: one click at most.

    Slot k is examined with probability prod_{j<k} (1 - a_j), and the value of a slate is 1 - prod_j (1 - a_j) (Craswell
    et al. 2008, "An Experimental Comparison of Click Position-bias Models").
    """

    continuation: ClassVar[float] = 0.0


@dataclass(frozen=True)
class DependentClick(_Sequential):
    """As a cascade, but after a click users continue with probability `continuation`; without a click they always do.

    Slot k is examined with probability prod_{j<k} (1 - (1 - c) a_j) for the continuation c (Guo et al. 2009, "Efficient
    Multiple-click Models in Web Search", there with one c for each slot); with 0 it is the cascade. Hence the value of
    a slate is (1 - prod_j (1 - (1 - c) a_j)) / (1 - c).
    """

    continuation: float = 0.7

    def __post_init__(self):
        check_fields(self, continuation=PROBABILITY)


@dataclass(frozen=True)
class PositionBased(ClickModel):
    """Users examine slot k with probability 1 / k**eta, and click examined items by their attraction.

    Several clicks are possible, independent of each other (Joachims et al. 2017, "Unbiased Learning-to-Rank with Biased
    Feedback"). The severity `eta` of the position bias is 0 or more; 0 is none, 1.3 that of TF-Agents' ranking example.
    """

    eta: float = 1.3
    _order_matters: ClassVar[bool] = True

    def __post_init__(self):
        check_fields(self, eta=NON_NEGATIVE)

    def _examination(self, xp, attraction):
        slots = xp.asarray(np.arange(1, attraction.shape[1] + 1), attraction.dtype)
        return xp.ones_like(attraction) * slots**-self.eta

    def _compute_clicks(self, xp, attraction, uniforms):
        return indicator(xp, uniforms[0] < self._probabilities(xp, attraction), attraction)


@dataclass(frozen=True)
class Choice(ClickModel):
    """Users examine the whole slate and click one item or none, by Luce's choice axiom.

    Item k is clicked with probability w_k / (1 + sum_j w_j), where the odds w = a / (1 - a) make the attraction a the
    probability of a click on a slate of that item alone, and 1 is the weight of leaving. Items below a slot matter as
    much as those above it. TF-Agents' "ghost actions" give leaving a weight in the same way.
    """

    def _examination(self, xp, attraction):
        return xp.ones_like(attraction)

    def _probabilities(self, xp, attraction):
        attraction = xp.minimum(attraction, xp.full_like(attraction, _ALMOST_ONE))
        weight = attraction / (1.0 - attraction)
        return weight / (1.0 + xp.sum(weight, axis=1, keepdims=True))

    def _compute_clicks(self, xp, attraction, uniforms):
        ends = xp.cumsum(self._probabilities(xp, attraction), axis=1)
        starts = xp.concatenate([xp.zeros_like(ends[:, :1]), ends[:, :-1]], axis=1)
        point = uniforms[0][:, :1]
        return indicator(xp, (starts <= point) & (point < ends), attraction)


CLICK_MODELS = {
    "cascade": Cascade,
    "position_based": PositionBased,
    "dependent_click": DependentClick,
    "choice": Choice,
}


def attraction(rating: Array) -> Array:
    """Return the probability that a user who examines a movie clicks it, from the rating that the user would give.

    0.5 * (2**(rating - 1) - 1) / 15, with the grades 0 to 4 for 1 to 5 stars: the mapping of expected reciprocal rank
    (Chapelle et al. 2009, "Expected Reciprocal Rank for Graded Relevance"), scaled so that 5 stars give 0.5. Ratings,
    an array or a tensor of any shape, are clipped to [1, 5].
    """
    xp, rating = as_floats(rating)
    return (2.0 ** (xp.clip(rating, 1.0, 5.0) - 1.0) - 1.0) * (0.5 / 15.0)


def _check(attraction: Array) -> tuple[Any, Array]:
    """Check the shape of attractions, and the values where they are known; return what `as_floats` does."""
    xp, attraction = as_floats(attraction)
    shape = list(attraction.shape)
    require(len(shape) == 2, "the shape of attraction", "[batch, slots]", shape)
    if xp is np or hasattr(attraction, "numpy"):
        values = np.asarray(attraction)
        require_rows(PROBABILITY.holds(values), "attraction", PROBABILITY.expected, values)
    return xp, attraction


def _product_above(xp, factors):
    """Return the product float [batch, slots] of the factors above each slot: 1 for the first."""
    return xp.cumprod(xp.concatenate([xp.ones_like(factors[:, :1]), factors[:, :-1]], axis=1), axis=1)
