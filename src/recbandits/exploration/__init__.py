"""Exploration: probabilities of actions from their scores, and actions drawn with them. Needs no TensorFlow."""

from recbandits.exploration.probabilities import (
    Exploration,
    epsilon_greedy,
    greedy,
    inputs,
    inverse_gap,
    pick,
    sample,
    softmax,
)

__all__ = ["Exploration", "epsilon_greedy", "greedy", "inputs", "inverse_gap", "pick", "sample", "softmax"]
