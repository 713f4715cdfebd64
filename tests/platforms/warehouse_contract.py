"""The contract of a warehouse, for every platform."""

from datetime import UTC, datetime, timedelta

import pytest

from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.warehouse import Join
from recbandits.records import Interaction, Log, Quarantined, Reward, Verdict, from_table, to_table

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def time_at(seconds):
    """Return the time so many seconds after `START`."""
    return START + timedelta(seconds=seconds)


def decision(event, seconds, version="a", user="1", propensity=0.5):
    context, numbers = f'{{"hour": {0.1 * seconds}, "device": "煎茶\\"", "home": null}}', '{"price": [0.1, -1e-300, 3]}'
    items = ("7", "9007199254740993", "Earl’s | b")
    return Interaction(
        event, time_at(seconds), version, user, context, items, items[0], propensity, candidate_features=numbers
    )


def reward(event, seconds, value):
    return Reward(event, time_at(seconds), value)


def join(window, default=None, take="first", lowest=-1e9, highest=1e9, skew=0.0):
    """Return the rule of most tests: any reward, and no tolerance for clocks."""
    return Join(window, lowest, highest, default, take, skew)


class WarehouseContract:
    """A test class supplies the fixture `warehouse`, an empty one."""

    def test_a_record_written_twice_is_stored_once(self, warehouse):
        records = [decision("e", 0), reward("e", 1, 5.0), reward("e", 1, 5.0), decision("e", 0)]
        assert warehouse.write(records) == 2
        assert warehouse.write(records) == 0
        assert warehouse.write([]) == 0
        assert warehouse.write([*records, reward("e", 1, 4.0)]) == 1, "a second report of the event is a second row"
        rows = warehouse.query(
            "SELECT COUNT(*) AS n FROM interactions UNION ALL SELECT COUNT(*) FROM rewards ORDER BY n"
        )
        assert rows["n"].to_pylist() == [1, 2]

    def test_decisions_are_read_bit_for_bit_with_their_rewards(self, warehouse):
        """Window 10 s: the reward at its very end counts, the one a microsecond later does not."""
        first, second, third = (
            decision("c", 0, user="煎茶", propensity=1 / 3),
            decision("b", 1, user="\0"),
            decision("a", 1),
        )
        warehouse.write([third, second, first, reward("c", 10, 4.5), reward("b", 11.000001, 3.0)])
        table = warehouse.decisions(START, time_at(100), join(10, -1.0))
        assert from_table(table, Interaction) == [first, third, second]
        assert table["reward"].to_pylist() == [4.5, -1.0, -1.0]
        assert table["reward_time"].to_pylist() == [time_at(10), None, None]

    def test_a_span_includes_its_start_and_excludes_its_end(self, warehouse):
        warehouse.write(
            [decision("before", -0.000001), decision("first", 0), decision("last", 9.999999), decision("after", 10)]
        )
        assert warehouse.decisions(START, time_at(10), join(1, 0.0))["event_id"].to_pylist() == ["first", "last"]
        assert len(warehouse.decisions(time_at(10), time_at(10), join(1, 0.0))) == 0

    def test_the_earliest_of_two_reports_counts(self, warehouse):
        """Two decisions under one id: the one at 0 s; of its rewards at 2, 3 and 1 s, the one at 1 s."""
        warehouse.write([decision("e", 5, user="2"), reward("e", 2, 2.0), reward("e", 3, 3.0)])
        warehouse.write([decision("e", 0), reward("e", 1, 1.0)])
        table = warehouse.decisions(START, time_at(100), join(60, 0.0))
        assert table.select(["user_id", "reward"]).to_pylist() == [{"user_id": "1", "reward": 1.0}]
        assert len(warehouse.decisions(time_at(1), time_at(100), join(60, 0.0))) == 0, (
            "the decision is earlier than the span"
        )

    @pytest.mark.parametrize(
        ("take", "value", "seconds"), [("first", 5.0, 1), ("last", 7.0, 4), ("sum", 24.0, 4), ("max", 9.0, 2)]
    )
    def test_a_rule_makes_one_reward_of_several_reports_as_a_log_does(self, warehouse, take, value, seconds):
        """5 at 1 s, 9 at 2 s, 2 at 3 s, 1 and 7 at 4 s, one delivered twice; and a decision without a report."""
        reports = [
            reward("e", 4, 7.0),
            reward("e", 2, 9.0),
            reward("e", 4, 1.0),
            reward("e", 3, 2.0),
            reward("e", 1, 5.0),
        ]
        warehouse.write(
            [decision("e", 0), decision("silent", 0), *reports, reward("e", 2, 9.0), reward("e", 60, 100.0)]
        )
        table = warehouse.decisions(START, time_at(10), join(10, 0.25, take))
        assert table["reward"].to_pylist() == [value, 0.25]
        assert table["reward_time"].to_pylist() == [time_at(seconds), None]
        log = Log.from_tables(table, to_table([*reports, reports[1]]), default_reward=0.25, take=take)
        assert log.reward.tolist() == [value, 0.25]
        rewarded = warehouse.decisions(START, time_at(10), join(10, None, take))
        assert rewarded.select(["event_id", "reward"]).to_pylist() == [{"event_id": "e", "reward": value}]
        assert warehouse.by_user(START, time_at(10), join(10, 0.25, take))["total"].tolist() == [value + 0.25]
        assert warehouse.counts(START, time_at(10), join(10)).duplicate == 5, (
            "under any rule, further rows are duplicates"
        )

    @pytest.mark.parametrize(("take", "value"), [("first", 1e308), ("last", 1000.0), ("sum", -1e9), ("max", -1e9)])
    def test_a_reward_outside_the_range_is_quarantined_for_every_reader_alike(self, warehouse, take, value):
        """User 3 reports an impossible value twice: nothing changes but one more in quarantine and one duplicate."""
        rule, span = join(10, 0.0, take, 0.0, 5.0), (START, time_at(10))

        def results():
            return warehouse.decisions(*span, rule).to_pylist(), warehouse.by_user(*span, rule).to_csv()

        warehouse.write([decision("a", 0), decision("b", 1, user="2"), reward("a", 1, 4.0)])
        before, counts = results(), warehouse.counts(*span, rule)
        warehouse.write([decision("x", 3, user="3"), reward("x", 4, value), reward("x", 5, value)])
        assert results() == before
        expected = counts._replace(total=counts.total + 2, quarantined=1, duplicate=1)
        assert warehouse.counts(*span, rule) == expected
        assert warehouse.outside(*span, rule)["event_id"].to_pylist() == ["x"]

    def test_a_client_whose_clock_is_behind_is_tolerated_and_counted(self, warehouse):
        """Tolerance 2 s: of reports 2 s and 2.000001 s before their decisions, the first is taken, the other late."""
        warehouse.write([decision("a", 0), decision("b", 0), decision("c", 0)])
        warehouse.write([reward("a", -2, 4.0), reward("b", -2.000001, 3.0), reward("c", 1, 5.0)])
        span, rule = (START, time_at(10)), join(10, 0.0, skew=2)
        assert warehouse.decisions(*span, rule)["reward"].to_pylist() == [4.0, 0.0, 5.0]
        counts = warehouse.counts(*span, rule)
        assert (counts.total, counts.joined, counts.defaulted, counts.late, counts.skewed) == (4, 2, 1, 1, 1)
        assert warehouse.counts(*span, join(10)) == counts._replace(total=5, joined=1, defaulted=2, late=2, skewed=0)

    def test_each_event_is_counted_once(self, warehouse):
        """a: a pair, a duplicate; b: defaulted; c: also late; d: also late and a duplicate; e: an orphan; 2 are bad."""
        warehouse.write([decision(event, 0) for event in "abcd"])
        warehouse.write(
            [reward("a", 1, 5.0), reward("a", 2, 4.0), reward("c", 11, 3.0), reward("d", -1, 2.0), reward("d", 20, 1.0)]
        )
        warehouse.write([reward("e", 3, 1.0), reward("elsewhere", 100, 1.0)])
        entries = [
            Quarantined(f"m{k}", time_at(k), "rewards", "value must be a finite number", b"\xff{") for k in (1, 2)
        ]
        assert warehouse.write(entries) == 2
        assert warehouse.write(entries) == 0
        counts = warehouse.counts(START, time_at(50), join(10))
        assert counts._asdict() == {
            "total": 11,
            "joined": 1,
            "defaulted": 3,
            "late": 2,
            "duplicate": 2,
            "orphan": 1,
            "quarantined": 2,
            "skewed": 0,
        }
        assert counts.total == sum(counts[1:-1])
        assert warehouse.query("SELECT data FROM quarantine")["data"].to_pylist() == ["\\xff{"] * 2

    def test_a_snapshot_changes_only_with_the_rows_that_can_be_read(self, warehouse):
        warehouse.write([decision("a", 0), reward("a", 1, 5.0)])
        before = warehouse.snapshot(START, time_at(10))
        warehouse.write([decision("a", 0), decision("later", 10), reward("later", 11, 1.0), reward("orphan", 12, 1.0)])
        assert warehouse.snapshot(START, time_at(10)) == before
        snapshots = {before}
        for record in (
            reward("a", 99, 1.0),
            decision("b", 9),
            reward("c", 9, 1.0),
            Quarantined("m", time_at(9), "", "why", ""),
        ):
            warehouse.write([record])
            snapshots.add(warehouse.snapshot(START, time_at(10)))
        assert len(snapshots) == 5

    def test_rewards_are_added_up_by_version_and_user(self, warehouse):
        """User 1 has 5 and the default 1 from version a, 2 from version b; user 2 has 4 from version b."""
        warehouse.write(
            [decision("p", 0), decision("q", 1), decision("r", 2, "b"), decision("s", 3, "b", "2"), decision("t", 10)]
        )
        warehouse.write([reward("p", 1, 5.0), reward("q", 9, 3.0), reward("r", 3, 2.0), reward("s", 4, 4.0)])
        table = warehouse.by_user(START, time_at(10), join(5, 1.0))
        assert table.columns.tolist() == ["policy_version", "user_id", "decisions", "total"]
        assert table.to_numpy().tolist() == [["a", "1", 2, 6.0], ["b", "1", 1, 2.0], ["b", "2", 1, 4.0]]
        assert len(warehouse.by_user(time_at(50), time_at(60), join(5, 1.0))) == 0

    def test_each_decision_without_a_user_id_counts_as_a_user(self, warehouse):
        """Two decisions without a user id and two of user 2^53 + 1, whose id is not rounded beside missing ones."""
        records = [
            decision(name, 0, user=user) for name, user in zip("abcd", [str(2**53 + 1)] * 2 + [None] * 2, strict=True)
        ]
        warehouse.write([*records, reward("a", 1, 1.0), reward("c", 1, 3.0)])
        table = warehouse.decisions(START, time_at(10), join(5, 0.0))
        assert from_table(table, Interaction) == records
        users = warehouse.by_user(START, time_at(10), join(5, 0.0))
        assert users["user_id"].fillna("").tolist().count("9007199254740993") == 1
        assert users["user_id"].isna().sum() == 2
        assert sorted(zip(users["decisions"], users["total"], strict=True)) == [(1, 0.0), (1, 3.0), (2, 1.0)]

    def test_the_decisions_of_a_version_are_counted_with_and_without_rewards(self, warehouse):
        """A reward, one outside any range, and none; an event that is logged twice is one decision."""
        warehouse.write(
            [decision("p", 0), decision("q", 1), decision("r", 2), decision("s", 3, "b"), decision("t", 10)]
        )
        warehouse.write([reward("p", 1, 5.0), reward("q", 2, 1e300), decision("p", 4)])
        assert [warehouse.served(START, time_at(10), version) for version in ("a", "b", "c")] == [3, 1, 0]

    def test_verdicts_are_stored_in_order_with_their_missing_values(self, warehouse):
        second = Verdict("v2", time_at(5), "refused", "b", "a", "the difference may be -0.3", -0.1, -0.3, 0.1, 250.5)
        first = Verdict("v1", time_at(1), "deployed", "a", "", "nothing serves yet")
        assert warehouse.write([second, first, second]) == 2
        table = warehouse.verdicts()
        assert table["verdict_id"].tolist() == ["v1", "v2"]
        assert table.loc[1].tolist() == list(vars(second).values())
        assert table.loc[0, ["difference", "low", "high", "effective_sample_size"]].isna().all()

    def test_an_empty_warehouse_can_be_queried(self, warehouse):
        assert len(warehouse.decisions(START, time_at(10), join(5, 1.0))) == 0
        assert warehouse.counts(START, time_at(10), join(5)) == (0,) * 8
        assert len(warehouse.verdicts()) == 0
        assert warehouse.snapshot(START, time_at(10)) == warehouse.snapshot(time_at(20), time_at(30))
        assert warehouse.state()["interactions"] == {"rows": 0, "newest": None}

    def test_the_state_has_the_rows_and_the_newest_time_of_each_table(self, warehouse):
        warehouse.write([decision("a", 0), decision("b", 7), reward("a", 9, 1.0)])
        state = warehouse.state()
        assert state["interactions"] == {"rows": 2, "newest": time_at(7)}
        assert state["rewards"] == {"rows": 1, "newest": time_at(9)}
        assert set(state) == {"interactions", "rewards", "quarantine", "verdicts"}

    def test_dropped_decisions_leave_no_orphans(self, warehouse):
        """The old event also has a second report of its decision, from after the time limit."""
        warehouse.write([decision("old", 0), reward("old", 20, 1.0), decision("new", 10), reward("new", 20, 2.0)])
        warehouse.write([decision("old", 12, version="b")])
        warehouse.write([Quarantined("m", START, "", "why", ""), Verdict("v", START, "deployed", "a", "", "first")])
        warehouse.drop_before(time_at(10))
        assert warehouse.counts(START, time_at(100), join(10))._asdict()["total"] == 1
        assert warehouse.decisions(START, time_at(100), join(10, 0.0))["event_id"].to_pylist() == ["new"]
        assert len(warehouse.verdicts()) == 1

    def test_a_forgotten_user_leaves_no_decision_and_no_reward(self, warehouse):
        warehouse.write([decision("a", 0), reward("a", 1, 1.0), decision("b", 0, user="2"), reward("b", 1, 2.0)])
        warehouse.forget("1")
        assert warehouse.decisions(START, time_at(10), join(10, 0.0))["user_id"].to_pylist() == ["2"]
        assert warehouse.counts(START, time_at(10), join(10))._asdict()["total"] == 1
        warehouse.forget("unknown")
        assert warehouse.state()["rewards"]["rows"] == 1
        for user in (2.0, None, "", ["2"]):
            with pytest.raises(ValueError, match=r"^user_id must be text or a whole number, got "):
                warehouse.forget(user)
        warehouse.forget(2)
        assert warehouse.state()["interactions"]["rows"] == 0

    def test_queries_have_a_view_and_parameters(self, warehouse):
        warehouse.write([decision("a", 0), reward("a", 1.5, 4.0), decision("b", 2, version="b")])
        text = "SELECT event_id, reward, seconds FROM decisions WHERE time <= @time AND policy_version = @version"
        rows = warehouse.query(text, {"time": time_at(1), "version": "a"}).to_pylist()
        assert rows == [{"event_id": "a", "reward": 4.0, "seconds": 1.5}]
        warehouse.create()
        assert warehouse.query("SELECT COUNT(*) AS n FROM decisions")["n"].to_pylist() == [2], (
            "the view is there already"
        )

    def test_invalid_arguments_are_refused_in_one_sentence(self, warehouse):
        with pytest.raises(ValueError, match="records must be Interaction, Reward, Verdict or Quarantined, got 'a'"):
            warehouse.write(["a"])
        with pytest.raises(ValueError, match="start must be a datetime with its zone"):
            warehouse.snapshot(datetime(2026, 1, 1), START)
        with pytest.raises(PlatformError, match=r": .*nothing") as error:
            warehouse.query("SELECT nothing FROM interactions")
        assert "\n" not in str(error.value)
