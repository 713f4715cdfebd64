"""From scores to the probability of each arm: pure functions, for NumPy arrays and for TensorFlow tensors alike.

Whoever logs a decision logs the probability that these give the chosen arm. TensorFlow is not imported here: who has a
tensor has imported it. Inside a graph, where values are not known yet, they are not checked.
"""

import numbers
import sys
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Exploration:
    """A way to explore with its parameter.

    Attributes:
      name: "greedy" (the best arm, the first one on ties), "epsilon_greedy", "softmax", "inverse_gap", or
        "plackett_luce", which is the softmax again and again among the arms that are left: a whole slate is drawn.
      value: epsilon, temperature or gamma, as the function of that name says; greedy has none.

    Raises:
      ValueError: another name, or a value that the function refuses.
    """

    name: str = "greedy"
    value: float = 0.0

    def __post_init__(self):
        if self.name not in _FUNCTIONS:
            raise ValueError(f"exploration must be one of {', '.join(_FUNCTIONS)}, got {self.name!r}")
        if not isinstance(self.value, numbers.Real):
            raise ValueError(f"value of {self.name} must be a number, got {self.value!r}")
        self.probabilities(np.zeros((1, 1)))
        object.__setattr__(self, "value", 0.0 if self.name == "greedy" else float(self.value))  # which JSON can hold

    def probabilities(self, scores, mask=None):
        """Probability of each arm, in the first slot of a slate: float [batch, arms] for scores and a mask alike."""
        return _FUNCTIONS[self.name](scores, mask, self.value)


def greedy(scores, mask=None, value=None):
    """Probability of each arm without exploration: 1 for the best one, the first on ties.

    Args:
      scores: as for `epsilon_greedy`.
      mask: likewise.
      value: not read; the others have a parameter here.

    Returns:
      As `epsilon_greedy`.

    Raises:
      ValueError: as `epsilon_greedy`.
    """
    xp, scores, mask = inputs(scores, mask)
    best = xp.argmin(_gap(xp, scores, mask), axis=1)
    return _ones(xp, best[:, None] == xp.arange(scores.shape[1]), scores)


def epsilon_greedy(scores, mask, epsilon):
    """Probability of each arm under epsilon-greedy exploration.

    The greedy share is split evenly among tied best arms, the random share evenly among the available ones: a single
    best arm among K available is chosen with probability 1 - epsilon + epsilon / K (the marginal, not the branch).

    Args:
      scores: float [batch, arms], array or tensor, higher is better; whatever an unavailable arm has is ignored.
      mask: bool [batch, arms], True where the arm is available; None when all are.
      epsilon: exploration rate in [0, 1].

    Returns:
      float [batch, arms] of the kind of `scores`; rows sum to 1, unavailable arms are exactly 0.

    Raises:
      ValueError: epsilon outside [0, 1], a mask of another shape or without any arm in a row, a score of an available
        arm that is not finite.
    """
    xp, scores, mask = inputs(scores, mask)
    epsilon = _parameter("epsilon", epsilon, "in [0, 1]", lambda value: 0 <= value <= 1)
    best, available = _ones(xp, _gap(xp, scores, mask) == 0.0, scores), _ones(xp, mask, scores)
    greedy = best / xp.sum(best, axis=1, keepdims=True)
    return (1.0 - epsilon) * greedy + epsilon * available / xp.sum(available, axis=1, keepdims=True)


def softmax(scores, mask, temperature):
    """Probability of each arm under Boltzmann exploration, proportional to exp(score / temperature).

    Args:
      scores: as for `epsilon_greedy`.
      mask: likewise.
      temperature: positive, in units of the scores; towards 0 it becomes greedy, towards infinity uniform.

    Returns:
      As `epsilon_greedy`.

    Raises:
      ValueError: temperature that is not positive and finite, and as `epsilon_greedy`.
    """
    xp, scores, mask = inputs(scores, mask)
    temperature = _parameter("temperature", temperature, "positive and finite", lambda value: 0 < value < np.inf)
    weight = xp.exp(-_gap(xp, scores, mask) / temperature)
    return weight / xp.sum(weight, axis=1, keepdims=True)


def inverse_gap(scores, mask, gamma):
    """Probability of each arm under inverse-gap weighting, as in SquareCB.

    With K available arms, one whose score is d below the best is chosen with probability 1 / (K + gamma d), and the
    best with the rest, which tied best arms share (Foster and Rakhlin 2020, "Beyond UCB: Optimal and Efficient
    Contextual Bandits with Regression Oracles", algorithm 1 with mu = K). Hence arms that look almost as good are tried
    often, and hopeless ones hardly ever.

    Args:
      scores: as for `epsilon_greedy`, predicted rewards.
      mask: likewise.
      gamma: positive, per unit of the scores; towards 0 it becomes uniform, towards infinity greedy.

    Returns:
      As `epsilon_greedy`.

    Raises:
      ValueError: gamma that is not positive and finite, and as `epsilon_greedy`.
    """
    xp, scores, mask = inputs(scores, mask)
    gamma = _parameter("gamma", gamma, "positive and finite", lambda value: 0 < value < np.inf)
    gap, arms = _gap(xp, scores, mask), xp.sum(_ones(xp, mask, scores), axis=1, keepdims=True)
    best = gap == 0.0
    others = xp.where(best, xp.zeros_like(scores), 1.0 / (arms + gamma * gap))
    rest = 1.0 - xp.sum(others, axis=1, keepdims=True)
    return xp.where(best, rest / xp.sum(_ones(xp, best, scores), axis=1, keepdims=True), others)


def sample(probabilities, generator):
    """Draw one arm per row, by inverting the cumulative distribution.

    Args:
      probabilities: float array [batch, arms]; rows sum to 1.
      generator: `numpy.random.Generator`.

    Returns:
      int64 array [batch]; arms of probability 0 are never drawn.

    Raises:
      ValueError: a row that is no distribution.
    """
    probabilities = np.asarray(probabilities, float)
    wrong = ~((probabilities >= 0).all(axis=1) & (np.abs(probabilities.sum(axis=1) - 1) < 1e-5))
    if wrong.any():
        row = np.argmax(wrong)
        raise ValueError(f"row {row}: probabilities must be 0 or more and sum to 1, got {probabilities[row]}")
    return pick(probabilities, generator.random(len(probabilities)))


def pick(probabilities, uniforms):
    """The arm per row that uniform numbers `uniforms`, float [batch] in [0, 1), stand for; int64 array [batch]."""
    cumulative = probabilities.cumsum(axis=1)
    # divided by itself the last is exactly 1, which uniforms stays below, however the sum was rounded
    return (cumulative / cumulative[:, -1:] <= uniforms[:, None]).sum(axis=1)


_FUNCTIONS = {
    "greedy": greedy,
    "epsilon_greedy": epsilon_greedy,
    "softmax": softmax,
    "inverse_gap": inverse_gap,
    "plackett_luce": softmax,
}


def inputs(scores, mask):
    """What the functions here compute with.

    Args:
      scores: float [batch, arms], array or tensor.
      mask: bool of that shape, or None.

    Returns:
      NumPy or its like in TensorFlow, the scores as floats, and the mask, both of that kind.

    Raises:
      ValueError: as `epsilon_greedy`, where values are known.
    """
    tf = sys.modules.get("tensorflow")
    if tf is not None and tf.is_tensor(scores):
        xp, known = tf.experimental.numpy, hasattr(scores, "numpy")
        mask = tf.ones_like(scores, tf.bool) if mask is None else tf.cast(mask, tf.bool)
    else:
        xp, known, scores = np, True, np.asarray(scores)
        scores = scores if np.issubdtype(scores.dtype, np.floating) else scores.astype(float)
        mask = np.ones(scores.shape, bool) if mask is None else np.asarray(mask, bool)
    shapes = tuple(scores.shape), tuple(mask.shape)
    if not all(len(shape) == 2 for shape in shapes) or any(
        a != b for a, b in zip(*shapes, strict=True) if None not in (a, b)
    ):
        raise ValueError(f"scores and mask must have one shape, [batch, arms], got {shapes[0]} and {shapes[1]}")
    if known:
        _check_rows(np.asarray(scores), np.asarray(mask))
    return xp, scores, mask


def _check_rows(scores, mask):
    if (empty := ~mask.any(axis=1)).any():
        raise ValueError(f"row {np.argmax(empty)}: mask must leave an arm, it has none")
    if (wrong := mask & ~np.isfinite(scores)).any():
        row, arm = np.argwhere(wrong)[0]
        raise ValueError(f"row {row}: the score of arm {arm} must be finite, got {scores[row, arm]}")


def _parameter(name, value, expected, holds):
    """A number that holds, as a float; a tensor inside a graph as it is."""
    tf = sys.modules.get("tensorflow")
    if tf is not None and tf.is_symbolic_tensor(value):
        return value
    if not holds(value):
        raise ValueError(f"{name} must be {expected}, got {value}")
    return float(value)


def _gap(xp, scores, mask):
    """How far each score is below the best of its row, [batch, arms]; infinity where the arm is unavailable."""
    possible = xp.where(mask, scores, xp.full_like(scores, -np.inf))
    return xp.max(possible, axis=1, keepdims=True) - possible


def _ones(xp, condition, scores):
    """1 where a condition holds and 0 elsewhere, in the type of the scores."""
    return (
        condition.astype(scores.dtype) if xp is np else xp.where(condition, xp.ones_like(scores), xp.zeros_like(scores))
    )
