"""A policy behind a real server, for the tests of its clients."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from recbandits.config import Config
from recbandits.platforms.local.endpoints import LocalEndpoints
from tests.sockets import free_ports


@pytest.fixture(scope="package")
def world():
    """Environment of 40 users and 6 movies."""
    from recbandits.environments.factorization import als
    from recbandits.environments.movielens import MovieLensEnvironment

    user, movie = (ids.ravel() for ids in np.meshgrid(np.arange(40), np.arange(6), indexing="ij"))
    model = als(pd.DataFrame({"user_id": user, "movie_id": movie, "rating": 3.0 + (-1.0) ** (user + movie)}), rank=2)
    return MovieLensEnvironment(model, num_actions=6, batch_size=8, movie_ids=range(6))


@pytest.fixture(scope="package")
def users(world):
    """Raw columns of the users, indexed by their ids."""
    return world.features.users


@pytest.fixture(scope="package")
def endpoint(world, tmp_path_factory):
    """Local endpoint with a policy of the 6 movies that has learnt a little from the users."""
    from recbandits.agents.factory import make_agent
    from recbandits.serving.policy import Exploration, export
    from recbandits.training.online import simulate

    folder = tmp_path_factory.mktemp("prediction")
    agent = make_agent("linucb", world)
    simulate(world, agent, steps=30)
    titles = {movie: f"movie {movie}" for movie in range(6)}
    options = {"arms": world.movie_ids, "titles": titles, "exploration": Exploration("epsilon_greedy", 0.25)}
    policy = export(agent.policy, folder / "policy", world.features, **options)
    endpoint = LocalEndpoints(Config(artifacts=str(folder))).create("step-test")
    endpoint.deploy(policy)
    yield endpoint
    endpoint.delete()


@pytest.fixture
def address(endpoint):
    """URL of a server that was started by hand, as in a container, with the policy of the endpoint."""
    (port,) = free_ports(1)
    variables = {"AIP_STORAGE_URI": str(endpoint.directory / "storage"), "AIP_HTTP_PORT": str(port)}
    command = [sys.executable, "-m", "recbandits.serving.server"]
    with subprocess.Popen(command, env=os.environ | variables, stderr=subprocess.PIPE, text=True) as server:
        while "running on" not in (line := server.stderr.readline()):
            assert server.poll() is None, line
        yield f"http://127.0.0.1:{port}/predict"
        server.terminate()
