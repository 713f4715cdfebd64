"""Exploration: probabilities of actions from their scores, and actions drawn with them, without TensorFlow.

- `Exploration`: an exploration method with its parameter, as policies store it.
- `greedy`, `epsilon_greedy`, `softmax`, `inverse_gap`: probabilities of all actions from their scores.
- `sample` draws actions with a generator, `invert_cdf` from given uniform draws, as of `uniform_draws`.
- `plackett_luce`: slates drawn without replacement, with exact probabilities; `draw_slate` is for one user.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "plackett_luce": "plackett_luce draw_slate",
        "probabilities": "Exploration epsilon_greedy greedy inverse_gap invert_cdf sample softmax uniform_draws",
    },
)
