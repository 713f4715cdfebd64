"""Logs and their tables of records: what is written is read again, and what is refused."""

import dataclasses
import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from recbandits.records import Interaction, Log, Reward, arrow_schema, from_table, to_table

LOG = Log(
    event_id=np.array(["a", "b", "c"]),
    time=np.array(["2001-01-01", "2001-01-02", "2001-01-03"], dtype="datetime64[us]"),
    user_id=np.array([0, 1, 0]),
    candidates=np.array([[2, 3, 1], [3, 2, 0], [1, 3, 2]]),
    mask=np.array([[True, True, True], [True, True, False], [True, True, True]]),
    action=np.array([2, 1, 0]),
    propensity=np.array([0.5, 1.0, 0.25]),
    reward=np.array([4.0, -1.0, 0.0]),
    pass_prob=np.array([1.0, 0.1, 1.0]),
    item_ids=["tea", "煎茶", "7", "a | b"],
    user_ids=["Zoë"],
    context=pd.DataFrame({"age": [20, 30, 40], "plan": ["free", None, "free"], "home": [True, False, True]}),
    candidate_features={"price": np.array([[1.0, 2.5, 3.0], [4.0, 5.0, np.nan], [7.0, 8.0, 9.0]])},
)
FIELDS = [*Log.columns, "item_ids", "user_ids"]


def assert_equal(read, log):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(read, name), getattr(log, name), err_msg=name)
    assert read.context.columns.tolist() == log.context.columns.tolist()
    for name, values in log.context.items():
        missing = values.isna()
        assert read.context[name].isna().tolist() == missing.tolist()
        assert read.context[name][~missing].tolist() == values[~missing].tolist()
    assert read.candidate_features.keys() == log.candidate_features.keys()
    for name, numbers in log.candidate_features.items():
        np.testing.assert_array_equal(read.candidate_features[name][log.mask], numbers[log.mask])


def reread(log, **options):
    return Log.from_tables(*log.to_tables(), item_ids=log.item_ids, **options)


def test_a_log_is_read_back_from_its_tables():
    interactions, rewards = LOG.to_tables(policy_version="v1")
    assert interactions.schema == arrow_schema(Interaction)
    assert rewards.schema == arrow_schema(Reward)
    context, numbers = '{"age": 30, "plan": null, "home": false}', '{"price": [4.0, 5.0]}'
    assert from_table(interactions, Interaction)[1] == Interaction(
        "b", datetime(2001, 1, 2, tzinfo=UTC), "v1", None, context, ("a | b", "7"), "7", 1.0, 0.1, numbers
    )
    read = Log.from_tables(interactions, rewards.take([2, 0, 1]), item_ids=LOG.item_ids)
    assert_equal(read, LOG)
    assert [read.context[name].dtype for name in read.context] == [np.int64, object, bool]
    assert read.candidate_features["price"][1, 2] == 0, "0 in padding"


def test_items_are_by_default_those_that_occur_in_the_order_of_their_text():
    read = Log.from_tables(*LOG.to_tables())
    assert read.item_ids.tolist() == ["7", "a | b", "煎茶"]
    np.testing.assert_array_equal(read.candidate_ids, LOG.candidate_ids)
    assert read.candidate_ids.tolist()[1] == ["a | b", "7", ""]
    with pytest.raises(ValueError, match="row 0: candidates must be ids of items, got '7'"):
        Log.from_tables(*LOG.to_tables(), item_ids=["tea", "煎茶", "a | b"])


@pytest.mark.parametrize("as_frame", [False, True])
def test_a_log_is_read_back_from_parquet(tmp_path, as_frame):
    for number, table in enumerate(LOG.to_tables()):
        parquet.write_table(table, tmp_path / f"{number}.parquet")
    read = [parquet.read_table(tmp_path / f"{number}.parquet") for number in range(2)]
    assert_equal(
        Log.from_tables(*(table.to_pandas() if as_frame else table for table in read), item_ids=LOG.item_ids), LOG
    )


def test_a_default_reward_that_is_no_number_is_refused():
    interactions, rewards = LOG.to_tables()
    for part in (rewards, rewards.slice(1)):
        with pytest.raises(ValueError, match="default_reward must be a number, got '0'"):
            Log.from_tables(interactions, part, default_reward="0")


def test_an_empty_log_has_empty_tables():
    tables = LOG.take([]).to_tables()
    assert [len(table) for table in tables] == [0, 0]
    read = Log.from_tables(*tables)
    assert (len(read), len(read.item_ids), read.context.shape, read.candidate_features) == (0, 0, (0, 0), {})


TEXTS = st.text(max_size=2) | st.sampled_from(["\0", "a\0", "煎茶"])
NAMES = st.text(min_size=1, max_size=2) | st.sampled_from(["\0", "a\0", "煎茶"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
KINDS = [NUMBERS, st.integers(-(2**53), 2**53), st.booleans(), TEXTS]
TIMES = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)  # microseconds of the years 1 to 9999


@st.composite
def logs(draw):
    """Logs with ids, times and contexts of any kind, uneven candidate lists, and users with and without ids."""
    n, k = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    items = draw(st.lists(NAMES, min_size=k, max_size=6, unique=True))
    sizes = np.array(draw(st.lists(st.integers(1, k), min_size=n, max_size=n)))
    sizes[-1] = k
    mask = np.arange(k) < sizes[:, None]
    rows = np.array([draw(st.permutations(range(len(items))))[:k] for _ in range(n)])
    users = [draw(st.none() | NAMES) for _ in range(n)]
    user_ids = list(dict.fromkeys(user for user in users if user is not None))
    anonymous = iter(range(len(user_ids), len(user_ids) + n))
    context = {}
    for name in draw(st.lists(TEXTS, max_size=3, unique=True)):
        kind = draw(st.sampled_from(KINDS))
        context[name] = draw(st.lists(draw(st.sampled_from([kind, kind | st.none()])), min_size=n, max_size=n))
    features = draw(st.lists(TEXTS, max_size=2, unique=True))
    numbers = st.lists(NUMBERS, min_size=k, max_size=k)
    return {
        "event_id": draw(st.lists(NAMES, min_size=n, max_size=n, unique=True)),
        "time": np.array(draw(st.lists(TIMES, min_size=n, max_size=n)), "datetime64[us]"),
        "user_id": [next(anonymous) if user is None else user_ids.index(user) for user in users],
        "candidates": np.where(mask, rows, 0),
        "mask": mask,
        "action": [draw(st.integers(0, size - 1)) for size in sizes.tolist()],
        "propensity": draw(st.lists(st.floats(0, 1, exclude_min=True), min_size=n, max_size=n)),
        "reward": draw(st.lists(NUMBERS, min_size=n, max_size=n)),
        "pass_prob": draw(st.lists(st.floats(0, 1, exclude_min=True), min_size=n, max_size=n)),
        "item_ids": pd.Index(items, dtype=object),
        "user_ids": pd.Index(user_ids, dtype=object),
        "context": pd.DataFrame(context, index=range(n)),
        "candidate_features": {name: np.array(draw(st.lists(numbers, min_size=n, max_size=n))) for name in features},
    }


@settings(max_examples=100, deadline=None)
@given(parts=logs())
def test_the_tables_of_every_log_can_be_read_again(parts):
    log = Log(**parts)
    assert_equal(reread(log), log)


def test_columns_of_contexts_are_booleans_numbers_or_objects_and_missing_where_a_context_lacks_them():
    contexts = ['{"a": true, "b": 1, "c": 1, "d": 1.5, "e": "x", "f": true}', '{"a": false, "b": 2, "d": 2, "f": 0}']
    interactions = LOG.take([0, 1]).to_tables()[0]
    interactions = interactions.set_column(4, "context", [contexts])
    context = Log.from_tables(interactions, LOG.to_tables()[1]).context
    assert context.dtypes.tolist() == [bool, np.int64, float, float, object, object]
    assert context.iloc[1].isna().tolist() == [False, False, True, False, True, False]
    assert context["f"].tolist() == [True, 0]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1.0, np.inf, 2.0], r"row 1: context must be a JSON object of .*, got '{\"x\": Infinity}'"),
        ([1, 2**53 + 1, 2], "row 1: context must be a JSON object of .*, got .*9007199254740993"),
        (
            pd.to_datetime(["2001-01-01"] * 3),
            "context must have texts, numbers, true, false or missing values, got Timesta",
        ),
        ([[1], [2], [3]], r"row 0: context must be a JSON object of .*, got '{\"x\": \[1\]}'"),
        (pd.Series(["a", "\ud800", "b"], dtype=object), "context must be text that UTF-8 can hold"),
    ],
)
def test_a_context_that_no_record_takes_is_refused_when_it_is_written(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(LOG, context=pd.DataFrame({"x": values})).to_tables()


def test_values_of_numpy_in_a_context_are_written_as_those_of_python():
    values = [np.int64(7), np.bool_(True), np.float32(0.5)]
    log = dataclasses.replace(LOG, context=pd.DataFrame({"x": pd.Series(values, dtype=object)}))
    assert [json.loads(text)["x"] for text in log.to_tables()[0]["context"].to_pylist()] == [7, True, 0.5]


@pytest.mark.parametrize(
    ("levels", "texts"),
    [
        ([7, None, 21], ["7", None, "21"]),
        ([7.0, 2.5, 7.0], ["7", "2.5", "7"]),
        ([True, False, True], ["True", "False", "True"]),
        (["a", None, "b"], ["a", None, "b"]),
    ],
)
def test_numbers_of_the_type_category_are_written_as_text(levels, texts):
    """So they are categories when they are read, as before."""
    log = dataclasses.replace(LOG, context=pd.DataFrame({"x": pd.Categorical(levels)}))
    assert [json.loads(text)["x"] for text in log.to_tables()[0]["context"].to_pylist()] == texts


def test_decisions_with_other_candidate_features_are_refused():
    interactions, rewards = LOG.to_tables()
    records = from_table(interactions, Interaction)
    records[1] = dataclasses.replace(records[1], candidate_features='{"rank": [1, 2]}')
    expected = r"row 1: names of candidate_features must be those of row 0, price, got \['rank'\]"
    with pytest.raises(ValueError, match=expected):
        Log.from_tables(to_table(records), rewards)


def test_a_decision_without_a_reward_is_refused_or_gets_the_default_reward():
    interactions, rewards = LOG.to_tables()
    with pytest.raises(ValueError, match=r"row 1: event_id must be that of a reward .*, got 'b'"):
        Log.from_tables(interactions, rewards.take([2, 0]))
    assert Log.from_tables(interactions, rewards.take([2, 0]), default_reward=-9).reward.tolist() == [4, -9, 0]


def test_rewards_of_other_decisions_are_left_out():
    interactions, rewards = LOG.to_tables()
    assert Log.from_tables(interactions.take([1]), rewards).reward.tolist() == [-1.0]
    assert Log.from_tables(interactions.take([1]), rewards.take([2, 0, 1, 2])).reward.tolist() == [-1.0]
    assert len(Log.from_tables(interactions.slice(0, 0), rewards.take([2, 2]))) == 0


def test_duplicates_are_refused_by_name():
    interactions, rewards = LOG.to_tables()
    with pytest.raises(ValueError, match="take must be given where a decision has several rewards, such as 'c'"):
        Log.from_tables(interactions, rewards.take([2, 0, 1, 2]))
    with pytest.raises(ValueError, match="take must be one of None, first, last, sum, max, got 'mean'"):
        Log.from_tables(interactions, rewards, take="mean")
    with pytest.raises(ValueError, match=r"row 3 \(a\): event_id must be different from all others"):
        Log.from_tables(interactions.take([0, 1, 2, 0]), rewards)
