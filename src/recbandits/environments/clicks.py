"""Click models: from the attraction of the items in a slate to what a user clicks, for NumPy arrays and for tensors.

The attraction of an item is the probability that a user who looks at it alone clicks it. TensorFlow is not imported
before something is drawn; inside a graph, where values are not known yet, they are not checked.
"""

import abc
import sys
from dataclasses import dataclass

import numpy as np

_NEARLY_SURE = 1.0 - 1e-6  # an attraction of 1 would have infinite weight


class ClickModel(abc.ABC):
    """How users read a slate from slot 1 downwards and what they click.

    Under each of these the best slate holds the items with the largest attraction, in descending order.
    """

    # Whether the value of a slate is the same in any order. Where it is, it is computed in one order, lest rounding
    # make one of two slates of the same items the better one.
    _any_order = True

    def examination(self, attraction):
        """Probability [batch, slots] that the user looks at a slot.

        Args:
          attraction: float [batch, slots] in [0, 1].

        Returns:
          float [batch, slots]

        Raises:
          ValueError: another shape, or an attraction outside [0, 1].
        """
        return self._examination(*_inputs(attraction))

    def probabilities(self, attraction):
        """Probability [batch, slots] of a click on each slot, whatever happens on the others; as `examination`."""
        return self._probabilities(*_inputs(attraction))

    def value(self, attraction):
        """Expected number of clicks [batch] on a slate; arguments and errors as `examination`."""
        xp, attraction = _inputs(attraction)
        attraction = xp.sort(attraction, axis=1) if self._any_order else attraction
        return xp.sum(self._probabilities(xp, attraction), axis=1)

    def clicked(self, attraction, uniforms):
        """Clicks that uniform numbers stand for.

        Args:
          attraction: float [batch, slots] in [0, 1].
          uniforms: float [2, batch, slots] in [0, 1), independent.

        Returns:
          float [batch, slots], 1 for a click and 0 for none.

        Raises:
          ValueError: as `examination`.
        """
        return self._clicked(*_inputs(attraction), uniforms)

    def draw(self, attraction, seed):
        """Draw the clicks of users.

        Args:
          attraction: float [batch, slots] in [0, 1].
          seed: int64 [2], of a stateless generator.

        Returns:
          float32 tensor [batch, slots], 1 for a click and 0 for none; the same for the same seed.

        Raises:
          ValueError: as `examination`.
        """
        import tensorflow as tf  # whoever computes with arrays alone does not wait for it

        attraction = tf.cast(attraction, tf.float32)
        uniforms = tf.random.stateless_uniform(tf.concat([[2], tf.shape(attraction)], axis=0), seed)
        return self.clicked(attraction, uniforms)

    @abc.abstractmethod
    def _examination(self, xp, attraction):
        """As `examination`; xp is NumPy or its like in TensorFlow."""

    @abc.abstractmethod
    def _clicked(self, xp, attraction, uniforms):
        """As `clicked`."""

    def _probabilities(self, xp, attraction):
        return self._examination(xp, attraction) * attraction


class _Walk(ClickModel):
    """Users go down slot by slot, click what attracts them, and after a click go on with probability `continuation`."""

    def _examination(self, xp, attraction):
        return _product_above(xp, 1.0 - (1.0 - self.continuation) * attraction)

    def _clicked(self, xp, attraction, uniforms):
        attracted = uniforms[0] < attraction
        stays = ~attracted | (uniforms[1] < self.continuation)
        return _ones(xp, attracted, attraction) * _product_above(xp, _ones(xp, stays, attraction))


@dataclass(frozen=True)
class Cascade(_Walk):
    """Users click the first item that attracts them and leave: one click at most.

    Slot k is looked at with probability prod_{j<k} (1 - a_j), and a slate is worth 1 - prod_j (1 - a_j) (Craswell et
    al. 2008, "An Experimental Comparison of Click Position-bias Models").
    """

    @property
    def continuation(self):
        """Nobody goes on after a click."""
        return 0.0


@dataclass(frozen=True)
class DependentClick(_Walk):
    """As a cascade, but after a click users go on with some probability; without a click they always do.

    Slot k is looked at with probability prod_{j<k} (1 - (1 - c) a_j) for the continuation c (Guo et al. 2009,
    "Efficient Multiple-click Models in Web Search", there with one c for each slot). Hence a slate is worth
    (1 - prod_j (1 - (1 - c) a_j)) / (1 - c).

    Attributes:
      continuation: probability in [0, 1] of going on after a click; with 0 it is the cascade.

    Raises:
      ValueError: a continuation outside [0, 1].
    """

    continuation: float = 0.7

    def __post_init__(self):
        if not 0.0 <= self.continuation <= 1.0:
            raise ValueError(f"continuation must be in [0, 1], got {self.continuation}")


@dataclass(frozen=True)
class PositionBased(ClickModel):
    """Users look at slot k with probability 1 / k**eta, whatever is shown, and click what they see and like.

    Several clicks are possible, independent of each other (Joachims et al. 2017, "Unbiased Learning-to-Rank with Biased
    Feedback").

    Attributes:
      eta: severity of the position bias, 0 or more; 0 is none, 1.3 what TF-Agents' ranking example has.

    Raises:
      ValueError: a negative eta or one that is not finite.
    """

    eta: float = 1.3
    _any_order = False

    def __post_init__(self):
        if not 0.0 <= self.eta < float("inf"):
            raise ValueError(f"eta must be 0 or more and finite, got {self.eta}")

    def _examination(self, xp, attraction):
        slots = xp.asarray(np.arange(1, attraction.shape[1] + 1), attraction.dtype)
        return xp.ones_like(attraction) * slots**-self.eta

    def _clicked(self, xp, attraction, uniforms):
        return _ones(xp, uniforms[0] < self._probabilities(xp, attraction), attraction)


@dataclass(frozen=True)
class Choice(ClickModel):
    """Users look at the whole slate and click one item or none, by Luce's choice axiom.

    Item k is clicked with probability w_k / (1 + sum_j w_j), where the odds w = a / (1 - a) make the attraction a the
    probability of a click on a slate of that item alone, and 1 is the weight of leaving. What stands below an item
    matters as much as what stands above it. Everything is looked at, yet a click takes more: that nothing else in the
    slate is preferred. TF-Agents' "ghost actions" give leaving a weight in the same way.
    """

    def _examination(self, xp, attraction):
        return xp.ones_like(attraction)

    def _probabilities(self, xp, attraction):
        attraction = xp.minimum(attraction, xp.full_like(attraction, _NEARLY_SURE))
        weight = attraction / (1.0 - attraction)
        return weight / (1.0 + xp.sum(weight, axis=1, keepdims=True))

    def _clicked(self, xp, attraction, uniforms):
        ends = xp.cumsum(self._probabilities(xp, attraction), axis=1)
        starts = xp.concatenate([xp.zeros_like(ends[:, :1]), ends[:, :-1]], axis=1)
        point = uniforms[0][:, :1]
        return _ones(xp, (starts <= point) & (point < ends), attraction)


CLICK_MODELS = {
    "cascade": Cascade,
    "position_based": PositionBased,
    "dependent_click": DependentClick,
    "choice": Choice,
}


def attraction(rating, top=0.5):
    """Probability that a user who looks at a movie clicks it, from the rating that the user would give.

    top * (2**(rating - 1) - 1) / 15, with the grades 0 to 4 for 1 to 5 stars: the mapping of expected reciprocal rank
    (Chapelle et al. 2009, "Expected Reciprocal Rank for Graded Relevance"), scaled so that 5 stars give
    `top`: even perfect movies are not always clicked.

    Args:
      rating: float array or tensor of any shape, stars; what is outside [1, 5] is clipped.
      top: attraction of 5 stars, in (0, 1].

    Returns:
      float of the same shape, in [0, top].

    Raises:
      ValueError: a `top` outside (0, 1].
    """
    if not 0.0 < top <= 1.0:
        raise ValueError(f"top must be in (0, 1], got {top}")
    xp, rating = _numbers(rating)
    return (2.0 ** (xp.clip(rating, 1.0, 5.0) - 1.0) - 1.0) * (top / 15.0)


def _numbers(values):
    """(NumPy or its like in TensorFlow, values as floating-point numbers)."""
    tf = sys.modules.get("tensorflow")
    if tf is not None and tf.is_tensor(values):
        return tf.experimental.numpy, values
    values = np.asarray(values)
    return np, values if np.issubdtype(values.dtype, np.floating) else values.astype(float)


def _inputs(attraction):
    xp, attraction = _numbers(attraction)
    if len(attraction.shape) != 2:
        raise ValueError(f"attraction must be [batch, slots], got {list(attraction.shape)}")
    if xp is np or hasattr(attraction, "numpy"):
        known = np.asarray(attraction)
        if (wrong := ~((known >= 0.0) & (known <= 1.0))).any():
            raise ValueError(f"attraction must be in [0, 1], got {known[wrong][0]}")
    return xp, attraction


def _product_above(xp, factors):
    """Product of the factors above each slot: 1 for the first, float [batch, slots]."""
    return xp.cumprod(xp.concatenate([xp.ones_like(factors[:, :1]), factors[:, :-1]], axis=1), axis=1)


def _ones(xp, condition, like):
    """1 where a condition holds and 0 elsewhere, in the type of `like`."""
    return xp.where(condition, xp.ones_like(like), xp.zeros_like(like))
