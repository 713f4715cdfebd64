"""Requests for users return titles that suit them, and their propensities."""

import pandas as pd
from src.prediction.client import instances_of, recommend


def test_users_get_what_they_like(endpoint, users):
    """Odd users like odd movies; the first place is the best one with 1 - 0.25 + 0.25 / 6."""
    table = recommend(endpoint, users.loc[[6, 7]], k=3, seed=1)
    assert set(table.loc[7, "movies"].split(" · ")) == {"movie 1", "movie 3", "movie 5"}
    assert set(table.loc[6, "movies"].split(" · ")) == {"movie 0", "movie 2", "movie 4"}
    assert table["score"].gt(3.5).all()
    assert table["version"].unique().tolist() == list(endpoint.traffic_split)


def test_options_are_listed_for_every_user():
    first, second = instances_of(pd.DataFrame({"plan": ["free", "full"], "hour": [7, 21]}, [1, "b"]), k=3)
    assert first == {"user_id": "1", "context": {"plan": "free", "hour": 7}, "k": 3}
    assert second == {"user_id": "b", "context": {"plan": "full", "hour": 21}, "k": 3}


def test_the_propensity_is_that_of_the_first_movie(endpoint, users):
    """250 times with other seeds: the best movie comes with probability 0.75 + 0.25 / 6 = 0.792, others with 0.042."""
    asked = [instances_of(users.loc[[7]], seed=seed)[0] for seed in range(250)]
    answers = endpoint.predict(asked)
    best = [each["propensity"] for each in answers if each["propensity"] > 0.5]
    assert {round(each["propensity"], 3) for each in answers} == {0.792, 0.042}
    assert abs(len(best) / 250 - 0.792) < 3 * (0.792 * 0.208 / 250) ** 0.5
