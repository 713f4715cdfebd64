"""Exploration: probabilities of actions from their scores, and actions drawn with them, without TensorFlow.

- `Exploration`: an exploration method with its parameter, as policies store it.
- `greedy`, `epsilon_greedy`, `softmax`, `inverse_gap`: probabilities of all actions from their scores.
- `sample`: draw actions from probabilities with a generator; `invert_cdf`: the same from given uniform draws.
- `uniform_draws`: uniform random numbers from a seed, a generator or the operating system.
- `draw_slate`: draw a slate for one user, with the probability of each item given those above.
- `plackett_luce`: module of slates drawn without replacement, with exact probabilities of slates and positions.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "plackett_luce": "plackett_luce draw_slate",
        "probabilities": "Exploration epsilon_greedy greedy inverse_gap invert_cdf sample softmax uniform_draws",
    },
)
