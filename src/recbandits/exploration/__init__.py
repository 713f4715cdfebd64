"""Exploration: probabilities of actions from their scores, and actions drawn with them, without TensorFlow.

- `Exploration`: an exploration method with its parameter, as policies store it.
- `greedy`, `epsilon_greedy`, `softmax`, `inverse_gap`: probabilities of all actions from their scores.
- `sample`: draw actions from probabilities with a generator; `invert_cdf`: the same from given uniform draws.
- `uniform_draws`: uniform random numbers from a seed, a generator or the operating system.
- `draw_slate`: draw a slate for one user, with the probability of each item given those above.
- `plackett_luce`: module of slates drawn without replacement, with exact probabilities of slates and positions.
"""

from recbandits.exploration import plackett_luce
from recbandits.exploration.plackett_luce import draw_slate
from recbandits.exploration.probabilities import (
    Exploration,
    epsilon_greedy,
    greedy,
    inverse_gap,
    invert_cdf,
    sample,
    softmax,
    uniform_draws,
)

__all__ = [
    "Exploration",
    "draw_slate",
    "epsilon_greedy",
    "greedy",
    "inverse_gap",
    "invert_cdf",
    "plackett_luce",
    "sample",
    "softmax",
    "uniform_draws",
]
