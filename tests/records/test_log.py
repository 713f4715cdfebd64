"""Logs of one's own decisions: what is read from a table, and what is refused by column, row and value."""

import warnings

import numpy as np
import pandas as pd
import pytest

from recbandits.records import Log

ITEMS = ["tea", "煎茶", "Earl’s", "a | b"]
FRAME = pd.DataFrame(
    {
        "shown": ["煎茶", "a | b", "tea"],
        "click": [1, 0, 1],
        "p": [0.5, 0.25, 1.0],
        "at": ["2026-03-01T10:00:00+01:00", "2026-03-01T09:00:00.25", "2026-03-02"],
        "who": ["x", None, "y"],
        "device": ["tv", "phone", None],
        "lists": [["tea", "煎茶"], ["a | b", "Earl’s", "tea"], ["tea"]],
    }
)
COLUMNS = {"item": "shown", "reward": "click", "propensity": "p", "time": "at"}


def read(frame=FRAME, items=ITEMS, **columns):
    return Log.from_frame(frame, items, **COLUMNS | columns)


def test_candidates_are_rows_of_the_items_and_ids_are_kept_as_they_are():
    log = read(candidates="lists", context=["device"], user="who")
    assert log.item_ids.tolist() == ITEMS
    np.testing.assert_array_equal(log.candidates, [[0, 1, 0], [3, 2, 0], [0, 0, 0]])
    np.testing.assert_array_equal(log.mask, [[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(log.action, [1, 0, 0])
    np.testing.assert_array_equal(log.reward, [1.0, 0.0, 1.0])
    assert log.context["device"].fillna("").tolist() == ["tv", "phone", ""]


def test_times_are_in_utc_for_every_zone():
    expected = ["2026-03-01T09:00:00", "2026-03-01T09:00:00.25", "2026-03-02"]
    np.testing.assert_array_equal(read().time, np.array(expected, "datetime64[us]"))


def test_every_item_is_a_candidate_where_no_lists_are_named():
    log = read()
    np.testing.assert_array_equal(log.candidates, [[0, 1, 2, 3]] * 3)
    assert log.mask.all()
    np.testing.assert_array_equal(log.action, [1, 3, 0])


@pytest.mark.parametrize("dtype", [np.uint64, object])
def test_whole_numbers_become_their_text_however_large(dtype):
    ids = np.array([2**53, 2**53 + 1, 2**63 - 1], dtype)
    frame = FRAME.assign(shown=ids)
    log = read(frame, ids)
    assert log.item_ids.tolist() == ["9007199254740992", "9007199254740993", "9223372036854775807"]
    np.testing.assert_array_equal(log.action, [0, 1, 2])


@pytest.mark.parametrize("bad", [1.5, None, True, ""])
def test_an_id_that_is_neither_text_nor_a_whole_number_is_refused(bad):
    frame = FRAME.assign(shown=pd.Series(["tea", bad, "tea"], dtype=object))
    with pytest.raises(ValueError, match="row 1: shown must be text or a whole number"):
        read(frame)


def test_users_without_an_account_share_a_number_with_no_other_user():
    """Two of them must not share a number: intervals that are clustered by user would take them for one."""
    frame = pd.concat([FRAME, FRAME.assign(who=[None, "x", None])])
    numbers = read(frame, user="who").user_id
    assert len(set(numbers)) == 2 + 3  # x and y; three decisions without an id
    assert numbers[0] == numbers[4]
    assert len(set(read(FRAME).user_id)) == 3


def test_the_columns_of_users_join_the_context_and_are_missing_for_others():
    users = pd.DataFrame({"plan": ["free", "premium"]}, index=["y", "x"])
    context = read(context=["device"], user="who", users=users).context
    assert context.columns.tolist() == ["device", "plan"]
    assert context["plan"].fillna("").tolist() == ["premium", "", "free"]


def test_users_must_be_unique_and_have_a_column_to_join_by():
    users = pd.DataFrame({"plan": ["free", "premium"]}, index=["x", "x"])
    with pytest.raises(ValueError, match="row 1: users must be different from all others, got 'x'"):
        read(user="who", users=users)
    with pytest.raises(ValueError, match="user must be the column by which users are joined, got None"):
        read(users=users)


def test_a_missing_reward_is_refused_or_takes_the_declared_default():
    frame = FRAME.assign(click=[1.0, np.nan, 0.0])
    with pytest.raises(ValueError, match="row 1: click must be a number where there is no default_reward, got nan"):
        read(frame)
    np.testing.assert_array_equal(read(frame, default_reward=0.0).reward, [1.0, 0.0, 0.0])


def test_a_reward_may_be_a_function_of_the_table():
    log = read(reward=lambda frame: frame["click"] * 60)
    np.testing.assert_array_equal(log.reward, [60.0, 0.0, 60.0])


def test_rewards_of_a_function_belong_to_the_decisions_of_their_index():
    """The order of the rewards is that of another sort; an array has no index and is taken by its position."""
    frame = FRAME.assign(click=[3, 1, 2]).set_index(pd.Index([7, 8, 9]))
    assert read(frame, reward=lambda frame: frame["click"].sort_values()).reward.tolist() == [3.0, 1.0, 2.0]
    assert read(frame, reward=lambda frame: frame["click"].to_numpy()).reward.tolist() == [3.0, 1.0, 2.0]
    for wrong in (lambda frame: frame["click"].reset_index(drop=True), lambda frame: frame["click"].iloc[:2]):
        with pytest.raises(ValueError, match="index of the rewards must be that of the table, in any order, got"):
            read(frame, reward=wrong)


@pytest.mark.parametrize(
    "values",
    [
        pd.to_timedelta([1, None, 3], unit="s"),
        pd.to_datetime(["2026-01-01", None, "2026-01-02"], utc=True),
        pd.array(pd.to_timedelta([1, None, 3], unit="s"), dtype="duration[ns][pyarrow]"),
        np.array([1j, 2, 3]),
    ],
)
def test_times_and_durations_are_no_rewards(values):
    with pytest.raises(ValueError, match=r"click must be numbers, such as the seconds of a duration, got '"):
        read(FRAME.assign(click=values), default_reward=0.0)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"reward": lambda frame: frame["click"] * 7}, "row 0: reward must be from 0 to 5, got 7"),
        ({"default_reward": -1.0}, "default_reward must be from 0 to 5, got -1.0"),
        ({"default_reward": np.nan}, "default_reward must be from 0 to 5, got nan"),
        ({"default_reward": "0"}, "default_reward must be a number, got '0'"),
        ({"reward_range": 3600}, r"reward_range must be \(lowest, highest\), lowest below highest, got 3600"),
        ({"reward_range": [0]}, r"reward_range must be \(lowest, highest\), lowest below highest, got \[0\]"),
    ],
)
def test_rewards_and_the_default_are_within_the_declared_range(columns, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(**{"reward_range": (0, 5)} | columns)


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({}, {"items": ["tea", "tea"]}, "row 1: items must be different from all others, got 'tea'"),
        ({}, {"items": []}, "items must be one or more ids, got 'none'"),
        ({}, {"items": ["tea"]}, "row 0: shown must be the id of an item, got '煎茶'"),
        ({}, {"item": "video"}, "column must be one of shown, click, p, at, who, device, lists, got 'video'"),
        ({}, {"context": "device"}, "context must be a list of columns, got 'device'"),
        ({}, {"context": ["who", "who"]}, r"columns of the context must be different, got \['who', 'who'\]"),
        (
            {},
            {"context": ["who", "click"]},
            "context must be known before the decision, without the reward, got 'click'",
        ),
        ({}, {"context": ["p"]}, "context must be known before the decision, without the propensity, got 'p'"),
        ({}, {"context": ["shown"]}, "context must be known before the decision, without the item that was shown, got"),
        ({"p": [0.5, 0.0, 1.0]}, {}, r"row 1 \(decision 1\): propensity must be in \(0, 1\]"),
        ({"p": [0.5, "high", 1.0]}, {}, "row 1: p must be a number, got 'high'"),
        ({"click": ["yes", "no", "no"]}, {}, "row 0: click must be a number, got 'yes'"),
        ({"click": [1, np.inf, 0]}, {}, "row 1 .*reward must be finite"),
        ({"at": ["2026-03-01", "yesterday", None]}, {}, "^row 1: at must be times or ISO 8601 text, got 'yesterday'$"),
        ({"at": ["2026-03-01", "2026-03-02", "now"]}, {}, "row 2: at must be times or ISO 8601 text, got 'now'"),
        ({"at": ["today"] * 3}, {}, "row 0: at must be times or ISO 8601 text, got 'today'"),
        ({"at": [1767225600, 1999, 20260101]}, {}, "at must be times or ISO 8601 text, got numbers: convert them by "),
        ({"at": pd.Categorical([2025, 2026, 2026])}, {}, "at must be times or ISO 8601 text, got numbers"),
        ({"at": [1999.0, None, 2000.0]}, {}, r"got numbers: convert them by pd.to_datetime\(..., unit='s'\)"),
        ({"at": np.array([1999, None, "2026-01-01"], object)}, {}, "at must be times or ISO 8601 text, got numbers"),
        ({"at": [True, False, True]}, {}, "row 0: at must be times or ISO 8601 text, got True"),
        ({"at": pd.to_timedelta([1, 2, 3], unit="s")}, {}, "row 0: at must be times or ISO 8601 text, got 0 days"),
        ({"at": [None, None, None]}, {}, r"row 0 \(decision 0\): time must be a time of the years 1 to 9999, got NaT"),
        ({"lists": [["tea"]] * 3}, {"candidates": "lists"}, "row 0: shown must be one of the candidates, got '煎茶'"),
        (
            {"lists": [["煎茶"], ["a | b", "mocha"], ["tea"]]},
            {"candidates": "lists"},
            "row 1: lists must be ids of items, got .mocha.",
        ),
        (
            {"lists": [["煎茶"], [], ["tea"]]},
            {"candidates": "lists"},
            "row 1: lists must be a list of ids, one or more",
        ),
        (
            {"lists": [["煎茶", "tea"], ["a | b"], ["tea", None]]},
            {"candidates": "lists"},
            "row 2: lists must be text or a whole number, got None",
        ),
        (
            {"lists": [["煎茶", "tea"], ["a | b", ""], ["tea"]]},
            {"candidates": "lists"},
            "row 1: lists must be text or a whole number, got ''",
        ),
        ({"lists": ["煎茶", "a", "tea"]}, {"candidates": "lists"}, "row 0: lists must be a list of ids"),
        (
            {"lists": [["煎茶", "煎茶"], ["a | b"], ["tea"]]},
            {"candidates": "lists"},
            "row 0 .*different from each other",
        ),
        ({"id": ["e", "e", "f"]}, {"event_id": "id"}, r"row 1 \(e\): event_id must be different from all others"),
    ],
)
def test_what_no_log_can_be_made_of_is_refused_by_column_row_and_value(changes, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(FRAME.assign(**changes), **options)


def test_a_column_of_the_table_that_occurs_twice_is_refused_where_it_is_read():
    frame = pd.concat([FRAME, FRAME[["click", "device"]]], axis=1)
    with pytest.raises(ValueError, match="column 'click' must be there once, got 2"):
        read(frame)
    assert read(frame, reward=lambda frame: FRAME["click"]).reward.tolist() == [1.0, 0.0, 1.0]


def test_numbers_of_candidates_have_the_shape_of_the_candidates_and_are_finite():
    price = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 5.0], [6.0, np.nan, np.nan]])
    log = read(candidates="lists", candidate_features={"price": price})
    np.testing.assert_array_equal(log.take([2, 0]).candidate_features["price"], price[[2, 0]])
    price[1, 1] = np.inf
    with pytest.raises(
        ValueError, match=r"row 1 \(decision 1\), column 1: candidate feature 'price' must be finite, got inf"
    ):
        read(candidates="lists", candidate_features={"price": price})
    with pytest.raises(ValueError, match=r"shape of candidate feature 'price' must be \[3, 3\]"):
        read(candidates="lists", candidate_features={"price": price[:2]})


def test_a_split_by_time_keeps_the_order_and_every_part_of_a_decision():
    log = read(context=["device"])
    earlier, later = log.split(0.67)
    assert earlier.event_id.tolist() == ["decision 0", "decision 1"]
    assert (len(earlier), len(later)) == (2, 1)
    assert later.context["device"].isna().tolist() == [True]
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\), got 1"):
        log.split(1)


PARTS = {name: getattr(read(candidates="lists", user="who"), name) for name in Log.columns} | {
    "item_ids": ITEMS,
    "user_ids": ["x", "y"],
    "context": FRAME[["device"]],
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"item_ids": ["tea", "煎茶", "tea", "a | b"]}, "row 2: item_ids must be different from all others, got 'tea'"),
        ({"item_ids": ["tea", "煎茶", 7.5, "a | b"]}, "row 2: item_ids must be text or a whole number, got 7.5"),
        ({"user_ids": ["x", ""]}, "row 1: user_ids must be text or a whole number, got ''"),
        ({"item_ids": ITEMS[:3]}, r"row 1 \(decision 1\), column 0: candidates must be rows of .*, 0 to 2, got 3"),
        ({"user_id": [0, 2, 2]}, r"row 2 \(decision 2\): user_id must be a row of user_ids, or a number of its own"),
        ({"user_id": [0, -1, 1]}, r"row 1 \(decision 1\): user_id must be a row of user_ids, .* got -1"),
        ({"context": FRAME[["device"]].set_axis([3], axis=1)}, "the name of a column must be text, got 3"),
        ({"context": FRAME[["device"]][:2]}, "context must be a table of 3 rows, got 2"),
        ({"candidate_features": {"\ud800": np.zeros((3, 3))}}, "the name of a column must be text, got "),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Log(**PARTS | changes)


def test_the_numbers_of_a_log_are_rows_of_its_ids():
    log = read(candidates="lists", user="who")
    assert log.candidate_ids.tolist() == [["tea", "煎茶", ""], ["a | b", "Earl’s", "tea"], ["tea", "", ""]]
    assert log.item_ids[log.arm].tolist() == FRAME["shown"].tolist()
    assert log.user_ids.tolist() == ["x", "y"]
    assert log.user_id.tolist() == [0, 2, 1]
    part = log.take([2, 1])
    assert (part.user_id.tolist(), part.user_ids.tolist()) == ([1, 2], ["x", "y"])
    assert part.candidate_ids.tolist() == log.candidate_ids[[2, 1]].tolist()


@pytest.mark.parametrize(
    "ids", [[7, 8, 7], [7.0, np.nan, 8.0], [2**53 + 1, 2**53, 3], np.array([2**64 - 1, 1, 2], np.uint64)]
)
def test_whole_numbers_of_users_become_their_text(ids):
    """Beside a missing value, pandas has doubles."""
    log = read(FRAME.assign(who=ids), user="who")
    expected = [None if pd.isna(each) else str(int(each)) for each in ids]
    assert [log.user_ids[number] if number < len(log.user_ids) else None for number in log.user_id] == expected


@pytest.mark.parametrize("bad", [2.0**53, 1.5, np.inf])
def test_an_id_of_a_user_that_may_have_been_rounded_is_refused(bad):
    with pytest.raises(ValueError, match="row 2: who must be text or a whole number"):
        read(FRAME.assign(who=[np.nan, 1.0, bad]), user="who")


def test_users_are_joined_to_a_log_by_their_text():
    users = pd.DataFrame({"plan": ["free", "premium"], "age": [20, 30]}, index=[8, 7])
    log = read(FRAME.assign(who=["7", None, "9"]), user="who", context=["device"])
    context = log.join_users(users).context
    assert context.columns.tolist() == ["device", "plan", "age"]
    assert context["plan"].fillna("").tolist() == ["premium", "", ""]
    assert context["age"].isna().tolist() == [False, True, True]
    assert log.context.columns.tolist() == ["device"]
    with pytest.raises(ValueError, match="column of users must be none of the context, got 'device'"):
        log.join_users(users.rename(columns={"plan": "device"}))


def test_a_table_without_any_user_of_the_log_gives_a_warning():
    """Ids that are written in two ways agree nowhere; a decision without an id has no user to look for."""
    log = read(FRAME.assign(who=["49.0", None, "50.0"]), user="who")
    users = pd.DataFrame({"plan": ["free", "premium"]}, index=[49, 50])
    with pytest.warns(UserWarning, match="no user of the log is in the table of users: '49.0' is not, for example"):
        assert log.join_users(users).context["plan"].isna().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.take([1]).join_users(users)
        read(FRAME.assign(who=[49, 7, 8]), user="who").join_users(users)
