"""A data set of one's own, described by a TOML file."""

import re

import numpy as np
import pandas as pd
import pytest

from recbandits.data import data_file
from tests.videos import make_tables, write_tables


@pytest.fixture
def folder(tmp_path):
    write_tables(tmp_path, n=50)
    return tmp_path


def rewrite(folder, old, new):
    file = folder / "data.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return file


def test_everything_that_the_file_names_is_read(folder):
    data = data_file.load(folder / "data.toml")
    decisions, items, users, expected = make_tables(50)
    assert repr(data) == "data.toml: 50 decisions, 12 items"
    assert data.items.columns.tolist() == ["genre", "minutes"]
    assert data.titles.tolist() == items["name"].tolist()
    assert data.log.item_ids.tolist() == items["video"].tolist()
    assert data.log.event_id.tolist() == decisions["request"].tolist()
    np.testing.assert_array_equal(data.log.reward, decisions["seconds"].fillna(0.0))
    np.testing.assert_array_equal(data.log.mask.sum(axis=1), [len(each) for each in expected])
    plans = users.set_index("user")["plan"].reindex(decisions["user"]).tolist()
    assert data.log.context["plan"].fillna("").tolist() == pd.Series(plans).fillna("").tolist()
    assert data.fit_features(data.log).crosses == (("plan", "genre"),)


def test_ids_that_look_like_numbers_stay_as_they_are_written(folder):
    for name in ("decisions", "items"):
        file = folder / f"{name}.csv"
        file.write_text(re.sub(r"v-90+(\d\d)", r"0\1", file.read_text()))
    assert data_file.load(folder / "data.toml").log.item_ids.tolist()[:2] == ["000", "001"]


def test_numbers_of_candidates_are_read_from_lists(folder):
    frame = pd.read_csv(folder / "decisions.csv", dtype=str)
    frame["price"] = ["|".join(f"{number}.5" for number in range(text.count("|") + 1)) for text in frame["candidates"]]
    frame.to_csv(folder / "decisions.csv", index=False)
    data = data_file.load(rewrite(folder, 'event_id = "request"', 'candidate_features = ["price"]'))
    mask = data.log.mask
    expected = np.where(mask, np.arange(mask.shape[1]) + 0.5, 0.0)
    np.testing.assert_array_equal(data.log.candidate_features["price"], expected)


@pytest.mark.parametrize("text", ["1.5", "", "1|2|3|4|5|6|7|8"])
def test_another_number_of_numbers_than_of_candidates_is_refused(folder, text):
    """No decision has fewer than 4 candidates or more than 7: a number that is missing does not count as 0."""
    frame = pd.read_csv(folder / "decisions.csv", dtype=str)
    frame["price"] = frame["candidates"].str.replace(r"[^|]+", "1", regex=True)
    frame.loc[1, "price"] = text
    frame.to_csv(folder / "decisions.csv", index=False)
    file = rewrite(folder, 'event_id = "request"', 'candidate_features = ["price"]')
    with pytest.raises(ValueError, match=r"row 1: price must be numbers between '\|', one for each candidate"):
        data_file.load(file)


def test_parquet_is_read_as_csv_is(folder):
    frame = pd.read_csv(folder / "decisions.csv", dtype={"user": str})
    frame.to_parquet(folder / "decisions.parquet")
    before = data_file.load(folder / "data.toml").log
    after = data_file.load(rewrite(folder, "decisions.csv", "decisions.parquet")).log
    for name in before.columns:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_a_word_for_a_missing_value_is_an_id_or_a_level_as_it_is_written(folder):
    for name in ("decisions", "items"):
        file = folder / f"{name}.csv"
        file.write_text(re.sub(r"v-90+00\b", "NA", file.read_text()).replace("tv", "None").replace("drama", "null"))
    data = data_file.load(folder / "data.toml")
    assert data.log.item_ids[0] == "NA"
    assert set(data.log.context["device"]) == {"None", "phone"}
    assert data.fit_features(data.log).item_encoder.columns["genre"]["levels"] == ["kids", "news", "null"]


def test_a_word_for_a_missing_value_is_missing_among_numbers_and_flags(folder):
    """An R data frame is written with NA, and the missing number of Python is written nan."""
    frame, items = pd.read_csv(folder / "decisions.csv"), pd.read_csv(folder / "items.csv")
    frame.astype({"hour": object, "seconds": object}).fillna({"seconds": "NA"}).to_csv(folder / "decisions.csv")
    items = items.assign(minutes=["nan", *range(10), ""], live=["NA", *["True", "FALSE"] * 5, None])
    items.to_csv(folder / "items.csv", index=False)
    data = data_file.load(folder / "data.toml")
    np.testing.assert_array_equal(data.log.reward, frame["seconds"].fillna(0.0))
    np.testing.assert_array_equal(data.items["minutes"], [np.nan, *range(10), np.nan])
    assert data.items["live"].dropna().tolist() == [True, False] * 5
    assert data.fit_features(data.log).item_encoder.columns["live"] == {}


def test_whole_numbers_of_users_that_were_written_with_decimals_find_their_users(folder):
    """A whole number beside a missing id is written by pandas as 49.0."""
    frame, users = (pd.read_csv(folder / f"{name}.csv") for name in ("decisions", "users"))
    before = data_file.load(folder / "data.toml").log
    frame.assign(user=frame["user"].str[1:].astype(float)).to_csv(folder / "decisions.csv", index=False)
    users.assign(user=users["user"].str[1:].astype(int)).to_csv(folder / "users.csv", index=False)
    assert ".0," in (folder / "decisions.csv").read_text()
    after = data_file.load(folder / "data.toml").log
    assert after.user_ids.tolist() == [str(int(each[1:])) for each in before.user_ids]
    assert after.context["plan"].fillna("").tolist() == before.context["plan"].fillna("").tolist()


@pytest.mark.parametrize("make_id", [str, lambda text: int(text[-3:])])
def test_lists_and_named_indexes_of_parquet_are_read_as_csv_is(folder, make_id):
    """Ids and numbers of candidates are lists; the tables are indexed by their ids, text or whole numbers."""
    frame, items = pd.read_csv(folder / "decisions.csv"), pd.read_csv(folder / "items.csv")
    lists = [[make_id(each) for each in text.split("|")] for text in frame["candidates"]]
    frame = frame.assign(candidates=lists, shown=frame["shown"].map(make_id))
    frame["price"] = [np.arange(len(each)) + 0.5 for each in frame["candidates"]]
    frame.set_index("request").to_parquet(folder / "decisions.parquet")
    items.assign(video=items["video"].map(make_id)).set_index("video").to_parquet(folder / "items.parquet")
    before = data_file.load(folder / "data.toml").log
    rewrite(folder, 'event_id = "request"', 'event_id = "request"\ncandidate_features = ["price"]')
    rewrite(folder, "items.csv", "items.parquet")
    after = data_file.load(rewrite(folder, "decisions.csv", "decisions.parquet")).log
    for name in before.columns:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert after.item_ids.tolist() == [str(make_id(each)) for each in before.item_ids]
    expected = np.where(after.mask, np.arange(after.mask.shape[1]) + 0.5, 0.0)
    np.testing.assert_array_equal(after.candidate_features["price"], expected)


def test_a_whole_number_of_parquet_is_the_only_candidate(folder):
    frame = pd.read_csv(folder / "decisions.csv").assign(candidates=7, shown=7, price=1.5)
    frame.to_parquet(folder / "decisions.parquet")
    pd.DataFrame({"video": [7, 8], "genre": ["news", "kids"], "name": "x"}).to_csv(folder / "items.csv", index=False)
    rewrite(folder, 'event_id = "request"', 'candidate_features = ["price"]')
    log = data_file.load(rewrite(folder, "decisions.csv", "decisions.parquet")).log
    assert (log.mask.shape, log.candidate_ids[0].tolist()) == ((50, 1), ["7"])
    assert log.candidate_features["price"].tolist() == [[1.5]] * 50


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('item = "shown"', 'itm = "shown"', "data.toml: key of decisions must be one of file, item, reward"),
        ('item = "shown"', "", "data.toml: decisions must be a table with the key 'item'"),
        ("[users]", "[people]", "data.toml: table must be one of decisions, items, users, features, got 'people'"),
        ("[items]", "[items", "data.toml must be a TOML file"),
        ('item = "shown"', 'item = "watched"', "decisions.csv: column must be one of request, at, user"),
        ("crosses", "products", "data.toml: key of features must be one of crosses"),
        (
            'title = "name"',
            'title = "titel"',
            "data.toml: title of items must be one of genre, minutes, name, got 'titel'",
        ),
        (
            'title = "name"',
            'title = "video"',
            "data.toml: title of items must be one of genre, minutes, name, got 'video'",
        ),
        (
            '[["plan", "genre"]]',
            '["plan", "genre"]',
            r"data.toml: crosses of features must be pairs \[column of .*, got \[",
        ),
        ('[["plan", "genre"]]', '[["plan"]]', r"data.toml: crosses of features must be pairs \[column of .*, got \["),
        (
            "default_reward = 0.0",
            'default_reward = "0"',
            "data.toml: default_reward of decisions must be a number, got '0'",
        ),
        ("[0, 3600]", "3600", r"data.toml: reward_range of decisions must be \[lowest, highest\], got 3600"),
        (
            "[0, 3600]",
            '["0", 3600]',
            r"data.toml: reward_range of decisions must be \[lowest, highest\], got \['0', 3600",
        ),
        ("[0, 3600]", "[0]", r"reward_range must be \(lowest, highest\), lowest below highest, got \[0\]"),
        ('["device", "hour"]', '"device"', "data.toml: context of decisions must be a list of texts, got 'device'"),
        ('["device", "hour"]', '["hour", "seconds"]', "context must be known before the decision, without the reward"),
        ('["device", "hour"]', "[1]", r"data.toml: context of decisions must be a list of texts, got \[1\]"),
        ('"items.csv"', "3", "data.toml: file of items must be text that is not empty, got 3"),
        ('id = "user"', "id = true", "data.toml: id of users must be text that is not empty, got True"),
        (
            "crosses",
            "max_levels = 0\ncrosses",
            "data.toml: max_levels of features must be a whole number of at least 1, got 0",
        ),
        (
            "crosses",
            'max_levels = "x"\ncrosses',
            "data.toml: max_levels of features must be a whole number of at least 1",
        ),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_table_and_key(folder, old, new, sentence):
    with pytest.raises(ValueError, match=sentence):
        data_file.load(rewrite(folder, old, new))


def test_a_file_of_another_encoding_is_named(folder):
    file = folder / "data.toml"
    file.write_bytes(b"# caf\xe9\n" + file.read_bytes())
    with pytest.raises(ValueError, match=r"data\.toml must be a TOML file in UTF-8: 'utf-8' codec can't decode"):
        data_file.load(file)


def test_a_table_without_decisions_is_named(folder):
    file = folder / "decisions.csv"
    file.write_text(file.read_text().splitlines()[0])
    with pytest.raises(ValueError, match=r"decisions\.csv must be a table with one or more decisions, got 'none'"):
        data_file.load(folder / "data.toml")


@pytest.mark.parametrize("name", ["decisions.csv", "decisions.parquet"])
def test_a_table_that_cannot_be_read_is_named(folder, name):
    (folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{name} must be a table in CSV or Parquet: "):
        data_file.load(rewrite(folder, "decisions.csv", name))


def test_a_table_that_is_missing_is_named(folder):
    (folder / "items.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"data\.toml names items\.csv, which is not in"):
        data_file.load(folder / "data.toml")
