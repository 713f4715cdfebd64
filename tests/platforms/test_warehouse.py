"""The warehouse of this machine: the contract, and the join against plain Python."""

import itertools
import random
from collections import defaultdict
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warehouse_contract import START, WarehouseContract, at, shown, told

from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.warehouse import Counts, digest_of
from recbandits.records import REPORT_RULES, Interaction, Quarantined, Reward, Verdict

BEGIN, END, WINDOW, DEFAULT = 2, 8, 2.5, -1.0


@pytest.fixture
def warehouse():
    return LocalWarehouse()


class TestLocalWarehouse(WarehouseContract):
    """A file of its own for each test."""


def earliest(records):
    """The record that counts: of the earliest time; equal times are told apart by digest, as the tables do."""
    return min(records, key=lambda record: (record.time, digest_of(record)))


def taken(reports, take):
    """(value, time) of the reward that a rule makes of some reports."""
    ordered = sorted(reports, key=lambda reward: (reward.time, reward.value))
    if take == "sum":
        return sum(reward.value for reward in ordered), ordered[-1].time
    one = {"first": ordered[0], "last": ordered[-1], "max": max(ordered, key=lambda reward: reward.value)}[take]
    return one.value, one.time


def expected(records, take):
    """(joined rows, `Counts`) of a list of deliveries, by loops over sets."""
    shows, tells = defaultdict(set), defaultdict(set)
    for record in records:
        if not isinstance(record, Quarantined):
            (shows if isinstance(record, Interaction) else tells)[record.event_id].add(record)
    rows, found = [], defaultdict(int)
    for event, reports in shows.items():
        decision = earliest(reports)
        if not at(BEGIN) <= decision.time < at(END):
            continue
        last = decision.time + timedelta(seconds=WINDOW)
        timely = [reward for reward in tells[event] if decision.time <= reward.time <= last]
        rows.append((decision, taken(timely, take) if timely else (DEFAULT, None)))
        found["joined" if timely else "defaulted"] += 1
        found["late"] += bool(tells[event]) and not timely
        found["duplicate"] += len(reports) - 1 + max(0, len(tells[event]) - 1)
    for event, reports in tells.items():
        if event not in shows:
            found["orphan"] += sum(at(BEGIN) <= reward.time < at(END) for reward in reports)
    bad = {record.message_id: record for record in records if isinstance(record, Quarantined)}
    found["quarantined"] = sum(at(BEGIN) <= record.time < at(END) for record in bad.values())
    counts = [found[name] for name in Counts._fields[1:]]
    return sorted(rows, key=lambda row: (row[0].time, row[0].event_id)), Counts(sum(counts), *counts)


_EVENTS = st.sampled_from("abcd")
_SECONDS = st.integers(0, 12)
DELIVERIES = st.lists(
    st.one_of(
        st.builds(shown, _EVENTS, _SECONDS, st.sampled_from("vw"), st.sampled_from("12")),
        st.builds(told, _EVENTS, _SECONDS, st.sampled_from([1.0, 2.0])),
        st.builds(lambda k: Quarantined(f"m{k}", at(k), "t", "why", "data"), _SECONDS),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(deliveries=DELIVERIES, seed=st.integers(0, 2**32), take=st.sampled_from(REPORT_RULES))
def test_any_order_of_any_deliveries_gives_what_plain_python_gives(deliveries, seed, take):
    """Duplicates, conflicting ones, late ones, orphans; in two orders, batches of any size, half of them twice."""
    rows, counts = expected(deliveries, take)
    draws, results = random.Random(seed), []
    for _ in range(2):
        warehouse = LocalWarehouse()
        again = [*deliveries, *draws.sample(deliveries, len(deliveries) // 2)]
        draws.shuffle(again)
        while again:
            size = draws.randint((len(again) + 2) // 3, len(again))
            warehouse.write(again[:size])
            again = again[size:]
        table = warehouse.decisions(at(BEGIN), at(END), WINDOW, DEFAULT, take)
        results.append((table, warehouse.snapshot(at(BEGIN), at(END))))
        assert warehouse.counts(at(BEGIN), at(END), WINDOW) == counts
    (table, snapshot), (other, same) = results
    assert table.equals(other)
    assert snapshot == same
    joined = table.to_pylist()
    assert [Interaction(**{name: row[name] for name in vars(rows[0][0])}) for row in joined] == [row[0] for row in rows]
    assert [(row["reward"], row["reward_time"]) for row in joined] == [row[1] for row in rows]


@settings(max_examples=25, deadline=None)
@given(deliveries=DELIVERIES)
def test_rows_that_two_writers_added_at_one_moment_are_taken_for_one(deliveries):
    """BigQuery lets them: each row of each table is there twice, and nothing that is asked changes."""
    warehouse = LocalWarehouse()
    tables = ("interactions", "rewards", "quarantine", "verdicts")
    verdict = Verdict("id", START, "deployed", "v", "", "first", None, None, None, None)
    warehouse.write([*deliveries, verdict])

    def all_that_is_asked():
        span = at(BEGIN), at(END), WINDOW
        for take in REPORT_RULES:
            yield warehouse.decisions(*span, DEFAULT, take).to_pylist()
        yield warehouse.counts(*span)
        yield warehouse.snapshot(at(BEGIN), at(END))
        yield warehouse.by_version(*span, DEFAULT).to_csv()
        yield warehouse.rewards_of("v", *span, DEFAULT).tolist()
        yield warehouse.verdicts()["verdict_id"].tolist()
        yield warehouse.state()
        yield sorted(warehouse.query("SELECT event_id, reward FROM decisions").to_pylist(), key=str)

    before = list(all_that_is_asked())
    for name in tables:
        warehouse._copy.connection.execute(f"INSERT INTO {name} SELECT * FROM {name}")
    assert list(all_that_is_asked()) == before


def test_spans_that_meet_count_everything_once(warehouse):
    """Conflicting decisions and rewards on both sides of a border: the parts add up to the whole."""
    warehouse.write([shown(event, k) for k, event in enumerate("abcabc")])
    warehouse.write([told(event, k, 1.0) for k, event in enumerate("xabcxab")])
    whole = warehouse.counts(START, at(10), 1)
    parts = [warehouse.counts(at(k), at(k + 1), 1) for k in range(10)]
    assert tuple(map(sum, zip(*parts, strict=True))) == whole
    rows = warehouse.state()
    assert whole.total == rows["interactions"]["rows"] + rows["rewards"]["rows"] - whole.joined


def test_a_reward_belongs_to_its_own_user(warehouse):
    """Every user is shown every arm at the same time; the reward says who and what: 100 user + arm."""
    users, arms = range(1, 31), range(10)
    pairs = list(itertools.product(users, arms))
    random.Random(0).shuffle(pairs)
    items = tuple(map(str, arms))
    shows = [Interaction(f"{u}-{a}", START, "v", str(u), f'{{"user": {u}}}', items, str(a), 0.1) for u, a in pairs]
    random.Random(1).shuffle(pairs)
    warehouse.write([Reward(f"{u}-{a}", at(1), 100.0 * u + a) for u, a in pairs])
    warehouse.write(shows)
    table = warehouse.decisions(START, at(1), 5, 0.0).to_pylist()
    assert len(table) == 300
    for row in table:
        assert row["reward"] == 100 * int(row["user_id"]) + int(row["action"])
        assert row["context"] == f'{{"user": {row["user_id"]}}}'
