"""Training in this process: references bound the regret of the agents, and all agents have the same users."""

import numpy as np
import pandas as pd
import pytest
from src.training.local import picture, train

from recbandits.agents.parameters import LinUCB
from recbandits.data.tables import GENRES, MovieLens
from recbandits.evaluation.regret import totals

ARGUMENTS = ("simulate", "--factorization=svd", "--rank=4", "--num_actions=4", "--steps=60", "--seeds=0,1")


@pytest.fixture(scope="module")
def runs():
    """40 users like either odd or even movies: rated 5 or 1, which four factors represent exactly."""
    user, movie = (ids.ravel() for ids in np.meshgrid(np.arange(1, 41), np.arange(1, 5), indexing="ij"))
    ratings = pd.DataFrame({"user_id": user, "movie_id": movie, "rating": np.where((user + movie) % 2, 1.0, 5.0)})
    ratings["time"] = pd.Timestamp("2026-01-01", tz="UTC")
    users, titles = pd.DataFrame(index=range(1, 41)), {"title": "a movie", "year": pd.NA}
    movies = pd.DataFrame(titles | dict.fromkeys(GENRES, False), range(1, 5))
    data = MovieLens(ratings, users, movies, source="odd and even")
    return train(ARGUMENTS, data, {"LinUCB": LinUCB(alpha=0.1), "again": LinUCB(alpha=0.1)}, points=6)


def test_the_oracle_earns_five_the_best_arm_three_and_linucb_is_near_the_oracle(runs):
    """Half of the users like any one movie: (5 + 1) / 2; random the same in the mean."""
    last = runs[runs["step"] == 60].groupby("agent")["reward"].mean()
    assert last["oracle"] == pytest.approx(5.0, abs=1e-5)
    assert last["LinUCB"] > 4.9
    reward = totals(runs).groupby("agent")["reward"].mean()
    assert reward["best non-personalised policy"] == pytest.approx(3.0, abs=0.3)
    assert reward["uniform random policy"] == pytest.approx(3.0, abs=0.3)


def test_equal_agents_meet_equal_users(runs):
    first, second = (runs[runs["agent"] == name].drop(columns="agent").to_numpy() for name in ("LinUCB", "again"))
    np.testing.assert_array_equal(first, second)


def test_the_picture_has_the_agents_and_the_references(runs):
    (axes,) = picture(runs, "a title").axes
    labels = [line.get_label() for line in axes.get_lines()]
    assert labels == ["uniform random policy", "best non-personalised policy", "oracle", "LinUCB", "again"]
