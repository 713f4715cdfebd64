"""Splits: every rating in one part, no training rating later than a test rating, lists that share no rating."""

import numpy as np
import pandas as pd
import pytest

from recbandits.data.splits import (
    Split,
    draw_lists,
    half_of_users,
    random_split,
    split_by_time,
    split_by_user,
    train_validation_test,
)


def make_ratings(times):
    """Make ratings of {user: seconds of each rating}."""
    rows = [(user, pd.Timestamp(second, unit="s", tz="UTC")) for user, seconds in times.items() for second in seconds]
    return pd.DataFrame(rows, columns=["user_id", "time"])


def test_a_random_split_has_all_rows_80_to_20(movielens):
    train, test = random_split(movielens.ratings)
    assert (len(train), len(test)) == (80_000, 20_000)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(100_000))


def test_a_random_split_is_seeded(movielens):
    first, again, other = (random_split(movielens.ratings, seed=seed).test for seed in (42, 42, 43))
    np.testing.assert_array_equal(first, again)
    assert np.intersect1d(first, other).size == pytest.approx(4_000, abs=200)


def test_the_latest_ratings_of_a_user_are_held_out():
    """User 1 keeps 4 of 5 ratings: row 1 is the latest. User 2 keeps 8 of 10: rows 13 and 14 are the latest."""
    ratings = make_ratings({1: [10, 50, 20, 30, 40], 2: range(100, 110)})
    train, test = split_by_time(ratings)
    assert test.tolist() == [1, 13, 14]
    assert len(train) == 12


def test_ratings_of_the_same_second_stay_together_in_training():
    """Of 5 ratings one is to be held out; the two latest are of the same second, so none is."""
    assert split_by_time(make_ratings({1: [1, 2, 3, 9, 9]})).test.tolist() == []
    assert split_by_time(make_ratings({1: [1, 2, 9, 9, 9, 9, 9, 9, 10, 11]})).test.tolist() == [8, 9]


def test_rows_are_positions_and_not_labels_of_the_index():
    ratings = make_ratings({1: [10, 50, 20, 30, 40]}).set_axis([7, 7, 7, 9, 9])
    assert split_by_time(ratings).test.tolist() == [1]


def test_no_training_rating_is_as_late_as_a_held_out_one_of_the_same_user(movielens):
    train, test = split_by_time(movielens.ratings)
    latest = movielens.ratings.iloc[train].groupby("user_id")["time"].max()
    held_out = movielens.ratings.iloc[test]
    assert (held_out["time"].to_numpy() > latest.loc[held_out["user_id"]].to_numpy()).all()
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(100_000))
    assert 0.17 < len(test) / 100_000 <= 0.2


@pytest.mark.parametrize("split", [random_split, split_by_time, split_by_user])
def test_a_share_that_leaves_a_part_empty_is_refused(split):
    for share in (0, 1, float("nan")):
        with pytest.raises(ValueError, match=r"test_share must be in \(0, 1\), got"):
            split(make_ratings({1: [1, 2, 3]}), test_share=share)


def test_by_user_all_ratings_of_a_user_are_in_one_part(movielens):
    """943 users: 189 are held out, with all they rated."""
    users = movielens.ratings["user_id"].to_numpy()
    train, test = split_by_user(movielens.ratings)
    assert np.intersect1d(users[train], users[test]).size == 0
    assert (len(np.unique(users[train])), len(np.unique(users[test]))) == (754, 189)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(100_000))
    assert (split_by_user(movielens.ratings, seed=1).test[:100] != test[:100]).any()


@pytest.mark.parametrize("split", [random_split, split_by_time, split_by_user])
def test_three_parts_share_no_row_and_leave_none(movielens, split):
    parts = train_validation_test(movielens.ratings, split, test_share=0.1)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(100_000))
    np.testing.assert_array_equal(parts.test, split(movielens.ratings, test_share=0.1).test)
    assert len(parts.train) > 6 * len(parts.validation) > 0


def test_of_ten_ratings_in_order_two_are_for_the_test_and_one_to_validate():
    """Of 10 the last 2 are held out, of the 8 left floor(1.6) = 1."""
    parts = train_validation_test(make_ratings({1: range(10)}), split_by_time)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3, 4, 5, 6], [7], [8, 9]]


def test_a_split_is_stored_and_read(tmp_path, movielens):
    split = random_split(movielens.ratings)
    split.save(tmp_path / "splits" / "random.npz")
    again = Split.load(tmp_path / "splits" / "random.npz")
    np.testing.assert_array_equal(split.train, again.train)
    np.testing.assert_array_equal(split.test, again.test)


def test_the_selected_ratings_are_those_not_held_out():
    """Of rows 0 to 6, rows 2, 5 and 6 are in test lists; rows 1 and 3 in no list."""
    split = Split(np.array([[0, 4]]), np.array([[2, 5], [5, 6]]))
    assert split.select_training(pd.DataFrame({"rating": range(10, 17)}, index=[9] * 7))["rating"].tolist() == [
        10,
        11,
        13,
        14,
    ]


def test_the_selected_ratings_of_a_split_of_all_ratings_are_its_training_part(movielens):
    split = split_by_time(movielens.ratings)
    pd.testing.assert_frame_equal(split.select_training(movielens.ratings), movielens.ratings.iloc[split.train])


@pytest.mark.parametrize("size", [3, 5])
def test_every_user_gets_50_training_lists_and_1_to_validate_without_its_ratings(movielens, size):
    train, test = draw_lists(movielens.ratings, size)
    assert train.shape == (47_150, size)
    assert test.shape == (943, size)
    assert np.intersect1d(train, test).size == 0
    user = movielens.ratings["user_id"].to_numpy()
    for lists, number in ((train, 50), (test, 1)):
        np.testing.assert_array_equal(user[lists], np.repeat(np.arange(1, 944), number)[:, None].repeat(size, axis=1))
        assert (np.diff(np.sort(lists, axis=1), axis=1) > 0).all(), "a list must not hold a movie twice"


def test_the_order_in_a_list_says_nothing_about_the_rating(movielens):
    """If candidates were sorted by label, as in a predecessor, the first position would have the best mean rating."""
    rating = movielens.ratings["rating"].to_numpy()[draw_lists(movielens.ratings, 5).train]
    np.testing.assert_allclose(rating.mean(axis=0), rating.mean(), atol=0.02)


def test_lists_are_seeded(movielens):
    first, again, other = (draw_lists(movielens.ratings, 5, seed=seed).train for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9


def test_a_user_with_too_few_ratings_is_named():
    with pytest.raises(ValueError, match="number of ratings of user 8 must be at least 6 for lists of 3, got 5"):
        draw_lists(make_ratings({7: range(6), 8: range(5)}), 3)


@pytest.mark.parametrize("split", [split_by_time, split_by_user, lambda ratings: draw_lists(ratings, 2)])
def test_a_rating_without_a_user_is_refused(split, movielens):
    ratings = movielens.ratings.iloc[:50].astype({"user_id": "Int64"}).reset_index(drop=True)
    ratings.loc[7, "user_id"] = pd.NA
    with pytest.raises(ValueError, match=r"row 7 \(7\): user_id must be known, got <NA>"):
        split(ratings)


def test_a_rating_without_a_time_is_refused_by_a_split_by_time_and_no_ratings_by_lists(movielens):
    """A missing time had no rank, so that its rating went to training silently."""
    ratings = movielens.ratings.iloc[:50].reset_index(drop=True)
    with pytest.raises(ValueError, match=r"row 3 \(3\): time must be known, got NaT"):
        split_by_time(ratings.assign(time=ratings["time"].where(ratings.index != 3)))
    with pytest.raises(ValueError, match="number of ratings must be at least 1, got 0"):
        draw_lists(ratings.iloc[:0], 2)


def test_each_user_is_in_one_half_on_every_machine():
    """The first bytes of `printf 1 | sha256sum` to `printf 4 | sha256sum` are 6b, d4, 4e and 4b in hexadecimal."""
    assert half_of_users([1, 2, 3, 4], "tune").tolist() == [1, 3, 4]
    assert half_of_users([1, 2, 3, 4], "report").tolist() == [2]
    assert half_of_users([], "tune").tolist() == []


def test_halves_are_of_equal_size_up_to_chance_and_the_other_users_do_not_matter():
    """10,000 users: the standard deviation of a half's size is 50; an id and its text are one user."""
    ids = np.arange(10_000)
    tune, report = (half_of_users(ids, half) for half in ("tune", "report"))
    np.testing.assert_array_equal(np.sort(np.concatenate([tune, report])), ids)
    assert abs(len(tune) - 5_000) < 200
    np.testing.assert_array_equal(half_of_users(ids[::-3], "tune"), ids[::-3][np.isin(ids[::-3], tune)])
    np.testing.assert_array_equal(half_of_users(ids.astype(str), "report").astype(int), report)


def test_another_half_is_refused():
    with pytest.raises(ValueError, match="half must be one of tune, report, got 'all'"):
        half_of_users([1], "all")
