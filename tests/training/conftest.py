"""Fixtures of the tests of training."""

import pytest

from recbandits.data import formats


@pytest.fixture(scope="session")
def data(movielens, tmp_path_factory):
    """The argument that names the data's directory."""
    directory = tmp_path_factory.mktemp("data")
    formats.write(movielens, directory)
    return f"--data={directory}"
