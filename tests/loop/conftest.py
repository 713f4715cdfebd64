"""Fixtures of the tests of the loop."""

import pytest


@pytest.fixture(scope="session")
def users():
    """A `SimulatedUsers` of 30 movies and preferences of rank 4, made of the synthetic ratings."""
    from recbandits.data import synthetic
    from recbandits.loop.settings import Settings
    from recbandits.loop.simulated_users import STARS, SimulatedUsers

    return SimulatedUsers.of(Settings(STARS, movies=30, rank=4), synthetic.generate())
