"""The local warehouse: the contract, and the join compared with plain Python."""

import random
from collections import defaultdict
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warehouse_contract import START, WarehouseContract, decision, join, reward, time_at

from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.warehouse import Counts, digest_of
from recbandits.records import REPORT_RULES, Interaction, Quarantined, Verdict

START_SECOND, END_SECOND, WINDOW, DEFAULT = 2, 8, 2.5, -1.0


@pytest.fixture
def warehouse():
    return LocalWarehouse()


class TestLocalWarehouse(WarehouseContract):
    """Each test has its own file."""


def earliest(records):
    """Return the record that counts: the earliest, ties in time by digest, as in the tables."""
    return min(records, key=lambda record: (record.time, digest_of(record.to_json())))


def combine(reports, take):
    """Return (value, time) of the reward that a rule makes of some reports."""
    ordered = sorted(reports, key=lambda reward: (reward.time, reward.value))
    if take == "sum":
        return sum(reward.value for reward in ordered), ordered[-1].time
    reward = {"first": ordered[0], "last": ordered[-1], "max": max(ordered, key=lambda reward: reward.value)}[take]
    return reward.value, reward.time


def expected(records, take):
    """Return (joined rows, `Counts`) of a list of deliveries, by loops over sets."""
    decisions, rewards = defaultdict(set), defaultdict(set)
    for record in records:
        if not isinstance(record, Quarantined):
            (decisions if isinstance(record, Interaction) else rewards)[record.event_id].add(record)
    rows, tally = [], defaultdict(int)
    for event, reports in decisions.items():
        decision = earliest(reports)
        if not time_at(START_SECOND) <= decision.time < time_at(END_SECOND):
            continue
        last = decision.time + timedelta(seconds=WINDOW)
        timely = [reward for reward in rewards[event] if decision.time <= reward.time <= last]
        rows.append((decision, combine(timely, take) if timely else (DEFAULT, None)))
        tally["joined" if timely else "defaulted"] += 1
        tally["late"] += bool(rewards[event]) and not timely
        tally["duplicate"] += len(reports) - 1 + max(0, len(rewards[event]) - 1)
    for event, reports in rewards.items():
        if event not in decisions:
            tally["orphan"] += sum(time_at(START_SECOND) <= reward.time < time_at(END_SECOND) for reward in reports)
    quarantined = {record.message_id: record for record in records if isinstance(record, Quarantined)}
    tally["quarantined"] = sum(
        time_at(START_SECOND) <= record.time < time_at(END_SECOND) for record in quarantined.values()
    )
    counts = [tally[name] for name in Counts._fields[1:]]
    return sorted(rows, key=lambda row: (row[0].time, row[0].event_id)), Counts(sum(counts), *counts)


_EVENTS = st.sampled_from("abcd")
_SECONDS = st.integers(0, 12)
DELIVERIES = st.lists(
    st.one_of(
        st.builds(decision, _EVENTS, _SECONDS, st.sampled_from("vw"), st.sampled_from("12")),
        st.builds(reward, _EVENTS, _SECONDS, st.sampled_from([1.0, 2.0])),
        st.builds(lambda k: Quarantined(f"m{k}", time_at(k), "t", "why", "data"), _SECONDS),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(deliveries=DELIVERIES, seed=st.integers(0, 2**32), take=st.sampled_from(REPORT_RULES))
def test_the_join_of_any_deliveries_in_any_order_equals_plain_python(deliveries, seed, take):
    """Duplicates, conflicting ones, late ones, orphans; in two orders, batches of any size, half of them twice."""
    rows, counts = expected(deliveries, take)
    draws, results = random.Random(seed), []
    for _ in range(2):
        warehouse = LocalWarehouse()
        queue = [*deliveries, *draws.sample(deliveries, len(deliveries) // 2)]
        draws.shuffle(queue)
        while queue:
            size = draws.randint((len(queue) + 2) // 3, len(queue))
            warehouse.write(queue[:size])
            queue = queue[size:]
        table = warehouse.decisions(time_at(START_SECOND), time_at(END_SECOND), join(WINDOW, DEFAULT, take))
        results.append((table, warehouse.snapshot(time_at(START_SECOND), time_at(END_SECOND))))
        assert warehouse.counts(time_at(START_SECOND), time_at(END_SECOND), join(WINDOW)) == counts
    (table, snapshot), (other_table, other_snapshot) = results
    assert table.equals(other_table)
    assert snapshot == other_snapshot
    joined = table.to_pylist()
    assert [Interaction(**{name: row[name] for name in vars(rows[0][0])}) for row in joined] == [row[0] for row in rows]
    assert [(row["reward"], row["reward_time"]) for row in joined] == [row[1] for row in rows]


@settings(max_examples=10, deadline=None)
@given(deliveries=DELIVERIES)
def test_rows_inserted_twice_by_concurrent_writers_count_once(deliveries):
    """BigQuery allows it: with each row of each table stored twice, no query result changes."""
    warehouse = LocalWarehouse()
    tables = ("interactions", "rewards", "quarantine", "verdicts")
    verdict = Verdict("id", START, "deployed", "v", "", "first", None, None, None, None)
    warehouse.write([*deliveries, verdict])

    def query_results():
        span = time_at(START_SECOND), time_at(END_SECOND)
        for take in REPORT_RULES:
            yield warehouse.decisions(*span, join(WINDOW, DEFAULT, take)).to_pylist()
        yield warehouse.counts(*span, join(WINDOW))
        yield warehouse.snapshot(time_at(START_SECOND), time_at(END_SECOND))
        yield warehouse.by_user(*span, join(WINDOW, DEFAULT)).to_csv()
        yield warehouse.verdicts()["verdict_id"].tolist()
        yield warehouse.state()
        yield sorted(warehouse.query("SELECT event_id, reward FROM decisions").to_pylist(), key=str)

    initial_results = list(query_results())
    for name in tables:
        warehouse._copy.connection.execute(f"INSERT INTO {name} SELECT * FROM {name}")
    assert list(query_results()) == initial_results


def test_the_counts_of_adjacent_spans_add_up(warehouse):
    """Conflicting decisions and rewards on both sides of a boundary: the counts of the parts add up to the whole."""
    warehouse.write([decision(event, k) for k, event in enumerate("abcabc")])
    warehouse.write([reward(event, k, 1.0) for k, event in enumerate("xabcxab")])
    total_counts = warehouse.counts(START, time_at(10), join(1))
    parts = [warehouse.counts(time_at(k), time_at(k + 1), join(1)) for k in range(10)]
    assert tuple(map(sum, zip(*parts, strict=True))) == total_counts
    rows = warehouse.state()
    assert total_counts.total == rows["interactions"]["rows"] + rows["rewards"]["rows"] - total_counts.joined
