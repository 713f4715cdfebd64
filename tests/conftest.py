"""Fixtures that every test may ask for."""

import os
import signal
import time

import pytest

import recbandits  # noqa: F401  # before TensorFlow, which a test may import first: it selects Keras 2

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


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Directories of three small exported policies for 30 users and 40 movies, ids 1 to 30 and 101 to 140.

    They score about 100, 200 and 300, so that a score tells which one has decided; they explore, 30 %.
    """
    import numpy as np
    import pandas as pd

    from recbandits.agents.factory import make_agent
    from recbandits.data import simulated_logs
    from recbandits.data.examples import make_examples
    from recbandits.serving.policy import Exploration, export
    from recbandits.training.offline import Specs, fit
    from tests.rating_tables import rating_features

    rng = np.random.default_rng(0)
    pairs = pd.MultiIndex.from_product([range(1, 31), range(101, 141)], names=["user_id", "movie_id"])
    time = pd.date_range("2024-01-01", periods=len(pairs), freq="h", tz="UTC")
    ratings = pairs.to_frame(index=False).assign(rating=rng.integers(1, 6, len(pairs)), time=time)
    users = pd.DataFrame(rng.normal(size=(30, 3)), range(1, 31), ["one", "age", "activity"]).assign(one=1.0)
    movies = pd.DataFrame(rng.normal(size=(40, 2)), range(101, 141), ["year", "popularity"])
    known = rating_features(users, movies)
    log = simulated_logs.log_decisions(ratings, simulated_logs.uniform, candidates=10, decisions=300).log
    batch = make_examples(log.join_users(users), known.features)
    folder, directories = tmp_path_factory.mktemp("exported"), []
    for level in (100, 200, 300):
        agent = make_agent("linucb", Specs(known.spec(10)))
        fit(agent, batch._replace(reward=batch.reward + np.float32(level)))
        way, titles = Exploration("epsilon_greedy", 0.3), {movie: f"title {movie}" for movie in movies.index}
        directories.append(export(agent.policy, folder / str(level), known, exploration=way, titles=titles))
    return directories


@pytest.fixture
def kill_when():
    """Function that kills a process as soon as a condition holds, and fails if it ended before."""

    def kill(process, condition, seconds=600):
        deadline = time.monotonic() + seconds
        while not condition():
            assert process.poll() is None, "the process ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    return kill
