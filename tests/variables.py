"""Comparison of the variables of agents and models."""

import numpy as np


def read_values(agent):
    """Return the values of all variables of an agent."""
    return [variable.numpy() for variable in agent.variables]


def assert_values(values, expected, rtol=0.0, atol=0.0):
    """Compare variables or their values with others one by one, by default exactly."""
    for value, other in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=rtol, atol=atol)
