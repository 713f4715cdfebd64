"""The numbers on rankings: what is held out stays out, users count once, and tables say what was measured."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import ranking_quality
from recbandits.environments.factorization import als


def pairs(ratings):
    return set(zip(ratings["user_id"], ratings["movie_id"], strict=True))


def pairs_of_lists(split):
    users = np.broadcast_to(split.test_lists.user_id[:, None], split.test_lists.mask.shape)
    return set(zip(users[split.test_lists.mask], split.test_lists.candidates[split.test_lists.mask], strict=True))


@pytest.fixture(scope="module")
def users(movielens):
    return ranking_quality.held_out_users(movielens, seed=1)


def test_held_out_users_are_known_by_their_support_ratings_alone(users, movielens):
    """189 of 943 users are in no training rating; support and query ratings are disjoint; movie factors ignore both."""
    held_out_users = set(users.test_lists.user_id)
    assert len(held_out_users) == 189
    assert not held_out_users & set(users.train["user_id"])
    assert held_out_users <= set(users.known_ratings["user_id"])
    assert not pairs_of_lists(users) & pairs(users.known_ratings)
    support_ratings = users.known_ratings[users.known_ratings["user_id"].isin(held_out_users)]
    assert abs(len(support_ratings) - users.test_lists.mask.sum()) < 0.05 * len(support_ratings)
    np.testing.assert_array_equal(users.model.movie_factors, als(users.train).movie_factors)
    assert held_out_users <= set(users.model.user_ids)


def test_held_out_interactions_are_a_fifth_of_the_ratings(movielens):
    split = ranking_quality.held_out_interactions(movielens, seed=1)
    assert len(split.train) == 80_000
    assert not pairs_of_lists(split) & pairs(split.train)
    assert 19_900 < split.test_lists.mask.sum() <= 20_000


def test_training_and_validation_lists_are_of_different_users_and_not_in_the_features(users):
    """Features are fitted on all ratings but those that its lists are drawn from: 10 of each user, or a fifth."""
    fits, features = [], users.features(users.train)
    training_lists, validation_lists = ranking_quality.make_lists(
        users, 10, lambda ratings: fits.append(ratings) or features
    )
    assert len(training_lists.event) > 8 * len(validation_lists.event)
    counts = users.train["user_id"].value_counts()
    held_out_counts = [counts.sub(part["user_id"].value_counts(), fill_value=0) for part in fits]
    groups = [set(held_out.index[held_out > 0]) for held_out in held_out_counts]
    assert len(groups) == 10
    assert not groups[0] & groups[-1]
    assert groups[0] | groups[-1] == set(counts.index[counts > 10])
    for held_out in held_out_counts:
        nonzero = held_out[held_out > 0]
        np.testing.assert_array_equal(nonzero, np.maximum(10, counts[nonzero.index] // 5))


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
    perfect = users.compute_metrics(np.nan_to_num(users.test_lists.rating))
    assert perfect["ndcg"].min() == pytest.approx(1)
    chance = users.compute_metrics(np.zeros(users.test_lists.mask.shape))
    assert 0.5 < chance["ndcg"].mean() < 0.65
    assert list(chance.index) == list(users.test_lists.user_id)
