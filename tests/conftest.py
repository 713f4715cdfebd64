"""Fixtures that every test may ask for."""

import signal

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def movielens(tmp_path_factory):
    """MovieLens 100K when RECBANDITS_MOVIELENS names it, else the synthetic set; never a download."""
    from recbandits.data import movielens as data

    return data.load(cache=tmp_path_factory.mktemp("movielens-cache"), offline=True)


@pytest.fixture(scope="session")
def real_movielens(movielens):
    """MovieLens 100K itself; the test is skipped where it is not at hand."""
    if not movielens.is_real:
        pytest.skip("needs MovieLens 100K: set RECBANDITS_MOVIELENS to its directory")
    return movielens
