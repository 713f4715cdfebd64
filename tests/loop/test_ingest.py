import dataclasses
import json
import random
import re
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recbandits.data.examples import make_examples
from recbandits.data.features import Features
from recbandits.data.tfrecords import find_records
from recbandits.data.trajectories import read_examples
from recbandits.loop.ingest import decisions_of, import_log, ingest, read_manifest, titles_of
from recbandits.loop.settings import Settings
from recbandits.loop.simulate import simulate_log
from recbandits.loop.simulated_users import STARS
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.warehouse import Join
from recbandits.records import Interaction, Log, Reward, from_table

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
END = START + timedelta(seconds=60)
RULE = STARS
CLICKS = Join(window=5.0, lowest=0.0, highest=1.0, default=0.0)


class RecordingWarehouse(LocalWarehouse):
    """Records what is written, for tests that write it in another order."""

    def write(self, records):
        self.records = [*getattr(self, "records", []), *records]
        return super().write(records)


@pytest.fixture(scope="module")
def features(users):
    return users.features


@pytest.fixture(scope="module")
def records(users):
    warehouse = RecordingWarehouse()
    import_log(warehouse, *simulate_log(users, 400, START))
    return warehouse.records


@pytest.fixture(scope="module")
def dataset(records, users, features, tmp_path_factory):
    """(directory, manifest) of the decisions as they were simulated."""
    directory = tmp_path_factory.mktemp("dataset")
    titles = dict(zip(users.item_ids, users.titles, strict=True))
    return directory, ingest(make_warehouse(records), START, END, RULE, features, directory, titles=titles)


def make_warehouse(records):
    warehouse = LocalWarehouse()
    warehouse.write(records)
    return warehouse


def is_consistent(counts):
    return counts["total"] == sum(number for name, number in counts.items() if name != "total")


def test_a_dataset_has_the_joined_decisions_of_the_warehouse(dataset, features):
    directory, manifest = dataset
    table = pq.read_table(directory / "decisions.parquet")
    assert manifest["decisions"] == len(table) == 400
    assert manifest["counts"]["joined"] + manifest["counts"]["defaulted"] == 400
    assert manifest["counts"]["joined"] == 400 - table["reward_time"].null_count
    assert is_consistent(manifest["counts"])
    assert (manifest["policy_versions"], manifest["candidates"], manifest["reasons"]) == ({"uniform": 400}, 10, {})
    log = decisions_of(directory, held_out=None)
    assert [record.event_id for record in from_table(table, Interaction)] == list(log.event_id)
    assert (np.diff(log.time) > np.timedelta64(0)).all()


def test_the_records_are_those_that_are_not_held_out(dataset, features):
    directory, manifest = dataset
    read = read_examples(find_records(directory, "train"))
    expected = make_examples(decisions_of(directory, held_out=False), Features.load(directory))
    for name, column, other in zip(read._fields, read, expected, strict=True):
        np.testing.assert_array_equal(column, other, err_msg=name)
    held_out = decisions_of(directory, held_out=True)
    assert manifest["held_out"] == len(held_out) == pytest.approx(0.3 * 400, abs=4 * np.sqrt(84))
    assert len(held_out) + len(read.event) == 400
    np.testing.assert_array_equal(Features.load(directory).items, features.items)


def test_a_decision_is_held_out_in_every_window_or_in_none(dataset, records, features, tmp_path):
    ingest(make_warehouse(records), START + timedelta(seconds=20), END, RULE, features, tmp_path)
    later = set(decisions_of(tmp_path, held_out=True).event_id)
    assert later < set(decisions_of(dataset[0], held_out=True).event_id)
    assert not later & set(decisions_of(tmp_path, held_out=False).event_id)


def test_any_order_of_delivery_and_any_repetition_give_the_same_bytes(dataset, records, users, features, tmp_path):
    directory, manifest = dataset
    shuffled = random.Random(0).sample(records * 2, 2 * len(records))
    warehouse, titles = LocalWarehouse(), titles_of(directory)
    for start in range(0, len(shuffled), 97):
        warehouse.write(shuffled[start : start + 97])
    assert ingest(warehouse, START, END, RULE, features, tmp_path, titles=titles) == manifest
    for file in directory.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name
    start = START.astimezone(timezone(timedelta(hours=2)))
    assert ingest(warehouse, start, END, RULE, features, tmp_path, titles=titles) == manifest, "in another zone"


def test_invalid_decisions_and_rewards_are_quarantined_once_and_counted_once(records, features, tmp_path):
    """Of 400 decisions one has an unknown item, one 9 stars, three unreadable features; one has no report."""
    decisions = [record for record in records if isinstance(record, Interaction)]
    first = {}
    for record in records:
        if isinstance(record, Reward):
            first.setdefault(record.event_id, record)
    rewarded = [each for each in decisions if each.event_id in first]
    unknown_item, high_reward, text_bias, extra_price = rewarded[:4]
    extra_column = next(each for each in decisions if each.event_id not in first)
    items = ("5000000", *unknown_item.candidates[1:])
    changes = {
        unknown_item: {
            "candidates": items,
            "action": unknown_item.action if unknown_item.action in items else items[0],
        },
        high_reward: {},
        text_bias: {"context": json.dumps({"bias": "high"})},
        extra_price: {"candidate_features": json.dumps({"price": [1.0] * 10})},
        extra_column: {"context": json.dumps({"mood": 1.0})},
    }
    changed = {each.event_id: dataclasses.replace(each, **values) for each, values in changes.items()}
    rewards = {each.event_id: first[each.event_id] for each in (unknown_item, text_bias, extra_price)}
    rewards[high_reward.event_id] = dataclasses.replace(first[high_reward.event_id], value=9.0)
    unchanged = [record for record in records if record.event_id not in changed]
    warehouse = make_warehouse([*unchanged, *changed.values(), *rewards.values()])
    before = warehouse.counts(START, END, RULE)
    manifest = ingest(warehouse, START, END, RULE, features, tmp_path / "one")
    columns = "bias, factor_0, factor_1, factor_2, factor_3"
    assert manifest["reasons"] == {
        "candidate_features must be none": 1,
        "candidates must be items with features": 1,
        "context: column 'bias' must be a finite number": 1,
        f"context: column must be one of {columns}": 1,
        "reward must be in [1, 5]": 1,
    }
    counts = manifest["counts"]
    assert is_consistent(counts)
    assert counts["total"] == before.total
    assert counts["quarantined"] == 5
    assert (counts["joined"], counts["defaulted"]) == (before.joined - 3, before.defaulted - 1)
    assert manifest["decisions"] == counts["joined"] + counts["defaulted"] == 395
    assert not set(changed) & set(decisions_of(tmp_path / "one", held_out=None).event_id)
    entries = warehouse.query("SELECT * FROM quarantine").to_pylist()
    reasons = {entry["message_id"].removeprefix("ingester/"): entry["reason"] for entry in entries}
    assert warehouse.outside(START, END, RULE)["event_id"].to_pylist() == [high_reward.event_id]
    assert reasons == {
        unknown_item.event_id: "candidates must be items with features",
        text_bias.event_id: "context: column 'bias' must be a finite number, got 'high'",
        extra_price.event_id: "candidate_features must be none, got price",
        extra_column.event_id: f"context: column must be one of {columns}, got 'mood'",
    }
    assert ingest(warehouse, START, END, RULE, features, tmp_path / "two") == manifest


def test_users_without_an_id_and_new_ones_are_learnt_from(records, features, tmp_path):
    """A policy reads the context alone: a missing or new user id, or an empty context, is no reason to refuse."""
    changes = [{"user_id": None}, {"user_id": "neue Kundin"}, {"user_id": None, "context": "{}"}]
    changes.append({"context": json.dumps({"bias": None, "factor_0": 1})})
    changed = [
        dataclasses.replace(record, **changes[number % 4]) if isinstance(record, Interaction) else record
        for number, record in enumerate(records)
    ]
    manifest = ingest(make_warehouse(changed), START, END, RULE, features, tmp_path)
    assert (manifest["reasons"], manifest["counts"]["quarantined"], manifest["decisions"]) == ({}, 0, 400)
    log, read = decisions_of(tmp_path, held_out=False), read_examples(find_records(tmp_path, "train"))
    for name, column, other in zip(read._fields, read, make_examples(log, features), strict=True):
        np.testing.assert_array_equal(column, other, err_msg=name)
    assert {"neue Kundin"} < set(log.user_ids)
    assert (log.user_id >= len(log.user_ids)).sum() == pytest.approx(len(log) / 2, abs=4 * np.sqrt(len(log) / 4))


def test_columns_of_any_kind_and_numbers_of_candidates_are_learnt_from(tmp_path):
    """Twenty decisions among five items with text ids: a device, an hour that is missing at times, and prices."""
    items = pd.DataFrame({"kind": list("abbca")}, index=["煎茶", "Earl’s", "a | b", "01", "1"])
    requests = pd.DataFrame({"device": ["tv", "phone"] * 10, "hour": [*range(19), None]})
    log = Log.from_frame(
        requests.assign(item=list(items.index) * 4, reward=1.0, p=0.2, time="2026-01-01T12:00:01Z"),
        items.index,
        item="item",
        reward="reward",
        propensity="p",
        time="time",
        context=["device", "hour"],
        candidate_features={"price": np.random.default_rng(0).uniform(1, 9, (20, 5))},
    )
    features = Features.fit(items, log, crosses=[("device", "kind")])
    titles = {"煎茶": "煎茶", "a | b": "Lease (2024)"}
    warehouse = make_warehouse(
        [
            record
            for table, kind in zip(log.to_tables(), (Interaction, Reward), strict=True)
            for record in from_table(table, kind)
        ]
    )
    manifest = ingest(warehouse, START, END, CLICKS, features, tmp_path, titles=titles)
    assert (manifest["reasons"], manifest["decisions"], manifest["candidates"]) == ({}, 20, 5)
    assert titles_of(tmp_path) == titles
    training = decisions_of(tmp_path, held_out=False)
    expected = make_examples(log.take(np.isin(log.event_id, training.event_id)), features)
    read = read_examples(find_records(tmp_path, "train"))
    for name, column, other in zip(read._fields, read, expected, strict=True):
        np.testing.assert_array_equal(column[np.argsort(read.event)], other[np.argsort(expected.event)], err_msg=name)


def test_a_dataset_is_of_one_moment_while_rewards_arrive(records, features, tmp_path):
    """During the readings three silent decisions get 5 stars, one for each reading; then ten: the fifth is the last."""

    class BusyWarehouse(LocalWarehouse):
        queue = ()

        def decisions(self, *span):
            table = super().decisions(*span)
            rows, self.queue = self.queue[:1], self.queue[1:]
            self.write([Reward(row["event_id"], row["time"], 5.0) for row in rows])
            return table

    warehouse = BusyWarehouse()
    warehouse.write(records)
    before = warehouse.decisions(START, END, RULE)
    silent = before.filter(pc.is_null(before["reward_time"])).to_pylist()
    warehouse.queue = silent[:3]
    manifest = ingest(warehouse, START, END, RULE, features, tmp_path / "calm")
    assert manifest["snapshot"] == warehouse.snapshot(START, END)
    assert manifest["counts"]["defaulted"] == len(silent) - 3
    assert pq.read_table(tmp_path / "calm" / "decisions.parquet")["reward_time"].null_count == len(silent) - 3
    warehouse.queue = silent[3:13]
    second = ingest(warehouse, START, END, RULE, features, tmp_path / "busy")
    assert len(warehouse.queue) == 5
    assert second["counts"]["defaulted"] == len(silent) - 8
    assert pq.read_table(tmp_path / "busy" / "decisions.parquet")["reward_time"].null_count == len(silent) - 7


def test_a_dataset_that_was_changed_or_is_incomplete_is_refused(records, features, tmp_path):
    directory = tmp_path / "data"
    manifest = ingest(make_warehouse(records), START, END, RULE, features, directory)
    assert read_manifest(directory) == manifest
    original = (directory / "titles.json").read_bytes()
    (directory / "titles.json").write_bytes(b'{"1": "Mine"}')
    with pytest.raises(ValueError, match=r"dataset data is damaged, titles.json is not what was written"):
        read_manifest(directory)
    (directory / "titles.json").write_bytes(original)
    text = (directory / "manifest.json").read_text()
    (directory / "manifest.json").write_text(text.replace('"holdout": 0.3', '"holdout": 0.2'))
    with pytest.raises(ValueError, match=r"dataset data is damaged, manifest.json is not what was written"):
        read_manifest(directory)
    (directory / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"data must be the directory of a complete dataset, it has no manifest.json"):
        read_manifest(directory)


def test_a_title_that_is_no_text_is_refused(records, features, tmp_path):
    with pytest.raises(ValueError, match="title of item 1 must be text, got 5"):
        ingest(make_warehouse(records), START, END, RULE, features, tmp_path, titles={"1": 5})


def test_a_window_without_a_decision_is_refused(records, features, tmp_path):
    with pytest.raises(ValueError, match=r"decisions from 2026-01-01T12:01:00\+00:00 to .* must be at least 1, got 0"):
        ingest(make_warehouse(records), END, END + timedelta(days=1), RULE, features, tmp_path)
    with pytest.raises(ValueError, match=r"holdout must be in \[0, 1\), got 1.0"):
        ingest(make_warehouse(records), START, END, RULE, features, tmp_path, holdout=1.0)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"window": 0.0}, "Join: window must be positive"),
        ({"window": 2e9}, "Join: window must be at most 1000000000 seconds, got 2000000000.0"),
        ({"skew": 2e9}, "Join: skew must be at most 1000000000 seconds, got 2000000000.0"),
        ({"lowest": -np.inf}, "Join: lowest must be finite, got -inf"),
        ({"highest": np.nan}, "Join: highest must be finite, got nan"),
        ({"lowest": 1.0}, "Join: highest must be above lowest, 1, got 1.0"),
        ({"default": 1.5}, "Join: default must be None or a number from lowest to highest, 0 to 1, got 1.5"),
        ({"default": True}, "Join: default must be None or a number from lowest to highest, 0 to 1, got True"),
        ({"skew": -1.0}, "Join: skew must be 0 or more and finite, got -1.0"),
        ({"take": "mean"}, "Join: take must be one of first, last, sum, max, got 'mean'"),
    ],
)
def test_an_invalid_rule_is_refused(values, sentence):
    """A rule that `ingest` cannot apply, such as a default of 0 with stars from 1 to 5, cannot be in `Settings`."""
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Settings(dataclasses.replace(CLICKS, **values))


def with_clicks(records):
    """Return 200 decisions, of which every fourth has a click and every eighth has two; the others have none."""
    decisions = [record for record in records if isinstance(record, Interaction)][:200]
    clicks = decisions[::4] + decisions[::8]
    return decisions + [
        Reward(one.event_id, one.time + timedelta(seconds=k / 100), 1.0) for k, one in enumerate(clicks)
    ]


@pytest.mark.parametrize(
    ("rule", "mean", "decisions"),
    [
        (CLICKS, 50 / 200, 200),
        (dataclasses.replace(CLICKS, default=None), 1.0, 50),
        (dataclasses.replace(CLICKS, highest=2.0, take="sum"), 75 / 200, 200),
    ],
)
def test_clicks_are_joined_with_the_default_of_the_rule_and_nothing_is_quarantined(
    records, features, tmp_path, rule, mean, decisions
):
    manifest = ingest(make_warehouse(with_clicks(records)), START, END, rule, features, tmp_path)
    assert (manifest["reasons"], manifest["counts"]["quarantined"], manifest["decisions"]) == ({}, 0, decisions)
    assert (manifest["counts"]["joined"], manifest["counts"]["defaulted"]) == (50, 150)
    assert {name: manifest[name] for name in vars(rule)} == vars(rule)
    assert decisions_of(tmp_path, held_out=None).reward.mean() == pytest.approx(mean)
