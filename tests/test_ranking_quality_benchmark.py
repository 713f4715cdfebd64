"""The numbers on rankings: what is held out stays out, users count once, and tables say what was measured."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import ranking_quality
from recbandits.environments.factorization import als


def pairs(ratings):
    return set(zip(ratings["user_id"], ratings["movie_id"], strict=True))


def judged_pairs(world):
    users = np.broadcast_to(world.judged.user_id[:, None], world.judged.mask.shape)
    return set(zip(users[world.judged.mask], world.judged.candidates[world.judged.mask], strict=True))


@pytest.fixture(scope="module")
def users(movielens):
    return ranking_quality.held_out_users(movielens, seed=1)


def test_held_out_users_are_known_by_what_they_told_alone(users, movielens):
    """189 of 943 users are in no training rating; movies are as the others rated them; what is judged was not told."""
    new = set(users.judged.user_id)
    assert len(new) == 189
    assert not new & set(users.train["user_id"])
    assert new <= set(users.known["user_id"])
    assert not judged_pairs(users) & pairs(users.known)
    told = users.known[users.known["user_id"].isin(new)]
    assert abs(len(told) - users.judged.mask.sum()) < 0.05 * len(told)
    np.testing.assert_array_equal(users.model.movie_factors, als(users.train).movie_factors)
    assert new <= set(users.model.user_ids)


def test_held_out_interactions_are_a_fifth_of_the_ratings(movielens):
    world = ranking_quality.held_out_interactions(movielens, seed=1)
    assert len(world.train) == 80_000
    assert not judged_pairs(world) & pairs(world.train)
    assert 19_900 < world.judged.mask.sum() <= 20_000


def test_lists_to_learn_from_and_to_stop_by_are_of_different_users_and_unseen(users):
    """Features are fitted on all ratings but those that its lists are drawn from: 10 of each user, or a fifth."""
    fits, features = [], users.features(users.train)
    learn, stop = ranking_quality.learnable(users, 10, lambda ratings: fits.append(ratings) or features)
    assert len(learn.event) > 8 * len(stop.event)
    everybody = users.train["user_id"].value_counts()
    missing = [everybody.sub(part["user_id"].value_counts(), fill_value=0) for part in fits]
    groups = [set(each.index[each > 0]) for each in missing]
    assert len(groups) == 10
    assert not groups[0] & groups[-1]
    assert groups[0] | groups[-1] == set(everybody.index[everybody > 10])
    for each in missing:
        left_out = each[each > 0]
        np.testing.assert_array_equal(left_out, np.maximum(10, everybody[left_out.index] // 5))


def test_users_who_were_held_out_twice_count_once(monkeypatch):
    """User 1 has (0.2 + 0.4) / 2 and user 2 has 0.8: the mean is 0.55; above the baseline by 0.1 and 0.3."""
    monkeypatch.setattr(ranking_quality, "SEEDS", [0, 1])

    def table(ndcg, users):
        return pd.DataFrame({"ndcg": ndcg, "err": ndcg}, users)

    runs = {
        0: {"ALS": table([0.1, 0.5], [1, 2]), "agent": table([0.2, 0.8], [1, 2])},
        1: {"ALS": table([0.3], [1]), "agent": table([0.4], [1])},
    }
    text = ranking_quality.as_text(runs).set_index("")
    assert text.loc["agent", "NDCG@10"].startswith("0.550 (")
    assert text.loc["agent", "NDCG minus that of ALS, over users"].startswith("+0.2000 (")
    assert text.loc["agent", "the same over splits"].startswith("+0.1500 (")
    assert text.loc["ALS", "the same over splits"] == ""


def test_random_scores_are_chance_and_the_ratings_themselves_are_perfect(users):
    perfect = users.measured(np.nan_to_num(users.judged.rating))
    assert perfect["ndcg"].min() == pytest.approx(1)
    chance = users.measured(np.zeros(users.judged.mask.shape))
    assert 0.5 < chance["ndcg"].mean() < 0.65
    assert list(chance.index) == list(users.judged.user_id)
