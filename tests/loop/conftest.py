"""Fixtures of the tests of the loop."""

import functools

import pytest

from recbandits.data import synthetic

_generate = functools.cache(synthetic.generate)


@pytest.fixture(scope="module", autouse=True)
def generate_once():
    """Give all tests of the loop the same synthetic set, which none of them changes."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(synthetic, "generate", _generate)
        yield


@pytest.fixture(scope="session")
def users():
    """A `SimulatedUsers` of 30 movies and preferences of rank 4, made of the synthetic ratings."""
    from recbandits.loop.settings import Settings
    from recbandits.loop.simulated_users import STARS, SimulatedUsers

    return SimulatedUsers.of(Settings(STARS, movies=30, rank=4), _generate())
