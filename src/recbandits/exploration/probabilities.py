"""Probabilities of actions from their scores, for NumPy arrays and TensorFlow tensors, and actions drawn with them.

The probability of the chosen action is what to log as its propensity. TensorFlow is not imported here: a caller with a
tensor has imported it. The values of tensors inside a graph are not known and are not checked.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from recbandits.checks import POSITIVE, PROBABILITY, Rule, one_of, require, require_distributions, require_rows

Array = Any  # numpy.ndarray or tensorflow.Tensor
_COLDEST = float(np.finfo(np.float32).tiny)  # temperature; below, it may be 0 in float32, and 0 / 0 is no probability
Rng = int | np.random.Generator | None


@dataclass(frozen=True)
class Exploration:
    """An exploration method with its parameter; ValueError for another name, or a value that its function refuses.

    Attributes:
      name: "greedy", "epsilon_greedy", "softmax", "inverse_gap" or "plackett_luce". The last draws a whole slate, each
        slot by a softmax over the remaining actions.
      value: epsilon, temperature or gamma of the function of that name; 0 for "greedy", which has no parameter.
    """

    name: str = "greedy"
    value: float = 0.0

    def __post_init__(self):
        require(self.name in _FUNCTIONS, "exploration", one_of(list(_FUNCTIONS)).expected, self.name)
        require(isinstance(self.value, Real), f"value of {self.name}", "a number", self.value)
        self.probabilities(np.zeros((1, 1)))
        object.__setattr__(self, "value", 0.0 if self.name == "greedy" else float(self.value))  # for JSON

    def probabilities(self, scores: Array, mask: Array | None = None) -> Array:
        """Return the probability of each action, or of each item in the first slot; see `epsilon_greedy`."""
        return _FUNCTIONS[self.name](scores, mask, self.value)


def greedy(scores: Array, mask: Array | None = None, value: float | None = None) -> Array:
    """Return the probability of each action without exploration: 1 for the best action, the first one on ties.

    Arguments and errors are those of `epsilon_greedy`; `value` takes the place of a parameter and is not used.
    """
    xp, scores, mask = as_arrays(scores, mask)
    best = xp.argmin(_gap(xp, scores, mask), axis=1)
    return indicator(xp, best[:, None] == xp.arange(scores.shape[1]), scores)


def epsilon_greedy(scores: Array, mask: Array | None, epsilon: float) -> Array:
    """Return the probability of each action under epsilon-greedy exploration, float [batch, actions], rows sum to 1.

    Ties for the best score share the greedy probability. With one best action among K available ones, its marginal
    probability is 1 - epsilon + epsilon / K. Scores are an array or a tensor [batch, actions], higher is better; the
    mask is True where an action is available, None where all are, and the others have exactly 0.

    Raises:
      ValueError: epsilon is outside [0, 1], scores and mask differ in shape, a row has no available action, or the
        score of an available action is not finite.
    """
    xp, scores, mask = as_arrays(scores, mask)
    epsilon = _parameter("epsilon", epsilon, PROBABILITY)
    best, available = indicator(xp, _gap(xp, scores, mask) == 0.0, scores), indicator(xp, mask, scores)
    exploitation = best / xp.sum(best, axis=1, keepdims=True)
    return (1.0 - epsilon) * exploitation + epsilon * available / xp.sum(available, axis=1, keepdims=True)


def softmax(scores: Array, mask: Array | None, temperature: float) -> Array:
    """Return the probability of each action under Boltzmann exploration, proportional to exp(score / temperature).

    Arguments and errors are those of `epsilon_greedy`, but for the temperature: positive and finite, in units of the
    scores. Towards 0 the result becomes greedy, towards infinity uniform.
    """
    xp, scores, mask = as_arrays(scores, mask)
    temperature = _parameter("temperature", temperature, POSITIVE)
    if isinstance(temperature, float):
        temperature = max(temperature, _COLDEST)
    weight = xp.exp(-_gap(xp, scores, mask) / temperature)
    return weight / xp.sum(weight, axis=1, keepdims=True)


def inverse_gap(scores: Array, mask: Array | None, gamma: float) -> Array:
    """Return the probability of each action under inverse-gap weighting, as in SquareCB.

    With K available actions, one whose score is d below the best has the probability 1 / (K + gamma d), and the best
    has the rest, which tied best actions share (Foster and Rakhlin 2020, "Beyond UCB: Optimal and Efficient Contextual
    Bandits with Regression Oracles", algorithm 1 with mu = K). Arguments and errors are those of `epsilon_greedy`, but
    for gamma: positive and finite, per unit of the scores. Towards 0 the result becomes uniform, towards infinity
    greedy.
    """
    xp, scores, mask = as_arrays(scores, mask)
    gamma = _parameter("gamma", gamma, POSITIVE)
    gap, actions = _gap(xp, scores, mask), xp.sum(indicator(xp, mask, scores), axis=1, keepdims=True)
    best = gap == 0.0
    others = xp.where(best, xp.zeros_like(scores), 1.0 / (actions + gamma * gap))
    rest = 1.0 - xp.sum(others, axis=1, keepdims=True)
    return xp.where(best, rest / xp.sum(indicator(xp, best, scores), axis=1, keepdims=True), others)


_FUNCTIONS: dict[str, Callable[..., Array]] = {
    "greedy": greedy,
    "epsilon_greedy": epsilon_greedy,
    "softmax": softmax,
    "inverse_gap": inverse_gap,
    "plackett_luce": softmax,
}


def sample(probabilities: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw one action int64 [batch] per row of probabilities [batch, actions]; ValueError if one is no distribution."""
    probabilities = np.asarray(probabilities, float)
    require_distributions(probabilities, "probabilities")
    return invert_cdf(probabilities, generator.random(len(probabilities)))


def invert_cdf(probabilities: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Return the action int64 [batch] at which the cumulative distribution exceeds a uniform draw in [0, 1) per row."""
    cumulative = probabilities.cumsum(axis=1)
    # normalised, the last sum is exactly 1 and above every draw in spite of rounding
    return (cumulative / cumulative[:, -1:] <= uniforms[:, None]).sum(axis=1)


def uniform_draws(number: int, rng: Rng) -> np.ndarray:
    """Draw numbers from the uniform distribution on [0, 1), float array [number].

    `rng` is a seed, a generator, or None for the operating system's entropy; ValueError for anything else.
    """
    if rng is None:
        return (np.frombuffer(os.urandom(8 * number), np.uint64) >> 11) * 2.0**-53
    seed = isinstance(rng, (int, np.integer)) and rng >= 0
    expected = "None, a seed of 0 or more, or a generator of NumPy"
    require(seed or isinstance(rng, np.random.Generator), "rng", expected, rng)
    return np.random.default_rng(rng).random(number)


def as_floats(values: Array) -> tuple[Any, Array]:
    """Return NumPy or its counterpart in TensorFlow, and the values as floats."""
    tf = sys.modules.get("tensorflow")
    if tf is not None and tf.is_tensor(values):
        return tf.experimental.numpy, values
    values = np.asarray(values)
    return np, values if np.issubdtype(values.dtype, np.floating) else values.astype(float)


def as_arrays(scores: Array, mask: Array | None) -> tuple[Any, Array, Array]:
    """Return NumPy or its counterpart in TensorFlow, the scores as floats, and the mask; check them."""
    xp, scores = as_floats(scores)
    mask = xp.ones_like(scores, bool) if mask is None else xp.asarray(mask, bool)
    shapes = tuple(scores.shape), tuple(mask.shape)
    agree = all(a == b or None in (a, b) for a, b in zip(*shapes, strict=False))  # None in a graph: not known
    if not agree or [len(shape) for shape in shapes] != [2, 2]:
        raise ValueError(f"scores and mask must have one shape, [batch, actions], got {shapes[0]} and {shapes[1]}")
    if xp is np or hasattr(scores, "numpy"):
        values, available = np.asarray(scores), np.asarray(mask)
        require_rows(available.sum(axis=1) > 0, "mask", "True for an action", available)
        require_rows(~available | np.isfinite(values), "scores", "finite where actions are available", values)
    return xp, scores, mask


def _parameter(name: str, value: Any, rule: Rule) -> Any:
    """Return a checked parameter as float; a tensor inside a graph as it is."""
    tf = sys.modules.get("tensorflow")
    if tf is None or not tf.is_symbolic_tensor(value):
        require(not isinstance(value, str) and rule.holds(float(value)), name, rule.expected, value)
        value = float(value)
    return value


def _gap(xp, scores, mask):
    """Return the difference between the best score of a row and each score, infinity where unavailable."""
    possible = xp.where(mask, scores, xp.full_like(scores, -np.inf))
    return xp.max(possible, axis=1, keepdims=True) - possible


def indicator(xp: Any, condition: Array, scores: Array) -> Array:
    """Return 1 where a condition holds and 0 elsewhere, in the type of the scores."""
    if xp is np:
        return condition.astype(scores.dtype)
    return xp.where(condition, xp.ones_like(scores), xp.zeros_like(scores))
