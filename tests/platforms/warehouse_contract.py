"""What a warehouse must do on every platform."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from recbandits.platforms.protocol import PlatformError
from recbandits.records import Interaction, Log, Quarantined, Reward, Verdict, check_table, to_table

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds):
    return START + timedelta(seconds=seconds)


def shown(event, seconds, version="a", user="1", propensity=0.5):
    context, numbers = f'{{"hour": {0.1 * seconds}, "device": "煎茶\\"", "home": null}}', '{"price": [0.1, -1e-300, 3]}'
    items = ("7", "9007199254740993", "Earl’s | b")
    return Interaction(
        event, at(seconds), version, user, context, items, items[0], propensity, candidate_features=numbers
    )


def told(event, seconds, value):
    return Reward(event, at(seconds), value)


class WarehouseContract:
    """A test class supplies the fixture `warehouse`, an empty one."""

    def test_what_is_written_twice_is_there_once(self, warehouse):
        records = [shown("e", 0), told("e", 1, 5.0), told("e", 1, 5.0), shown("e", 0)]
        assert warehouse.write(records) == 2
        assert warehouse.write(records) == 0
        assert warehouse.write([]) == 0
        assert warehouse.write([*records, told("e", 1, 4.0)]) == 1, "another report of the event is another row"
        rows = warehouse.query(
            "SELECT COUNT(*) AS n FROM interactions UNION ALL SELECT COUNT(*) FROM rewards ORDER BY n"
        )
        assert rows["n"].to_pylist() == [1, 2]

    def test_decisions_come_back_to_the_last_bit_with_their_rewards(self, warehouse):
        """Window 10 s: the reward at its very end counts, the one a microsecond later does not."""
        first, second, third = shown("c", 0, user="煎茶", propensity=1 / 3), shown("b", 1, user="\0"), shown("a", 1)
        warehouse.write([third, second, first, told("c", 10, 4.5), told("b", 11.000001, 3.0)])
        table = warehouse.decisions(START, at(100), 10, -1.0)
        assert [Interaction(**row) for row in check_table(table, Interaction).to_pylist()] == [first, third, second]
        assert table["reward"].to_pylist() == [4.5, -1.0, -1.0]
        assert table["reward_time"].to_pylist() == [at(10), None, None]

    def test_a_span_begins_with_its_start_and_ends_before_its_end(self, warehouse):
        warehouse.write([shown("before", -0.000001), shown("first", 0), shown("last", 9.999999), shown("after", 10)])
        assert warehouse.decisions(START, at(10), 0, 0.0)["event_id"].to_pylist() == ["first", "last"]
        assert len(warehouse.decisions(at(10), at(10), 0, 0.0)) == 0

    def test_of_two_reports_the_earliest_counts(self, warehouse):
        """Two decisions under one id: the one at 0 s; of its rewards at 2, 3 and 1 s, the one at 1 s."""
        warehouse.write([shown("e", 5, user="2"), told("e", 2, 2.0), told("e", 3, 3.0)])
        warehouse.write([shown("e", 0), told("e", 1, 1.0)])
        table = warehouse.decisions(START, at(100), 60, 0.0)
        assert table.select(["user_id", "reward"]).to_pylist() == [{"user_id": "1", "reward": 1.0}]
        assert len(warehouse.decisions(at(1), at(100), 60, 0.0)) == 0, "it was decided before"

    @pytest.mark.parametrize(
        ("take", "value", "seconds"), [("first", 5.0, 1), ("last", 7.0, 4), ("sum", 24.0, 4), ("max", 9.0, 2)]
    )
    def test_a_rule_makes_one_reward_of_several_reports_as_a_log_does(self, warehouse, take, value, seconds):
        """5 at 1 s, 9 at 2 s, 2 at 3 s, 1 and 7 at 4 s, one delivered twice; and a decision without a report."""
        reports = [told("e", 4, 7.0), told("e", 2, 9.0), told("e", 4, 1.0), told("e", 3, 2.0), told("e", 1, 5.0)]
        warehouse.write([shown("e", 0), shown("silent", 0), *reports, told("e", 2, 9.0), told("e", 60, 100.0)])
        table = warehouse.decisions(START, at(10), 10, 0.25, take)
        assert table["reward"].to_pylist() == [value, 0.25]
        assert table["reward_time"].to_pylist() == [at(seconds), None]
        log = Log.from_tables(table, to_table([*reports, reports[1]]), default_reward=0.25, take=take)
        assert log.reward.tolist() == [value, 0.25]
        only = warehouse.decisions(START, at(10), 10, None, take)
        assert only.select(["event_id", "reward"]).to_pylist() == [{"event_id": "e", "reward": value}]
        assert warehouse.rewards_of("a", START, at(10), 10, 0.25, take).tolist() == [value, 0.25]
        assert warehouse.by_version(START, at(10), 10, None, take).loc["a", ["decisions", "mean"]].tolist() == [
            1,
            value,
        ]
        assert warehouse.by_user(START, at(10), 10, 0.25, take)["total"].tolist() == [value + 0.25]
        assert warehouse.counts(START, at(10), 10).duplicate == 5, "whatever is taken, further rows are duplicates"

    @pytest.mark.parametrize("take", ["first", "last", "sum", "max"])
    @pytest.mark.parametrize("value", [1000.0, -1e9, 1e308])
    def test_a_reward_outside_the_range_is_quarantined_for_every_reader_alike(self, warehouse, take, value):
        """User 3 reports an impossible value twice: all answers stay as they were, but for one more in quarantine."""
        rule, span = {"window": 10, "default": 0.0, "take": take, "lowest": 0.0, "highest": 5.0}, (START, at(10))

        def answers():
            return (
                warehouse.decisions(*span, **rule).to_pylist(),
                warehouse.rewards_of("a", *span, **rule).tolist(),
                warehouse.by_version(*span, **rule).to_csv(),
                warehouse.by_user(*span, **rule).to_csv(),
            )

        warehouse.write([shown("a", 0), shown("b", 1, user="2"), told("a", 1, 4.0)])
        before, counts = answers(), warehouse.counts(*span, **rule)
        warehouse.write([shown("x", 3, user="3"), told("x", 4, value), told("x", 5, value)])
        assert answers() == before
        expected = counts._replace(total=counts.total + 2, quarantined=1, duplicate=1)
        assert warehouse.counts(*span, **rule) == expected
        assert warehouse.outside(*span, **rule)["event_id"].to_pylist() == ["x"]

    def test_a_client_whose_clock_is_behind_is_tolerated_and_counted(self, warehouse):
        """Tolerance 2 s: of reports 2 s and 2.000001 s before their decisions, the first is taken, the other late."""
        warehouse.write([shown("a", 0), shown("b", 0), shown("c", 0)])
        warehouse.write([told("a", -2, 4.0), told("b", -2.000001, 3.0), told("c", 1, 5.0)])
        span, rule = (START, at(10)), {"window": 10, "default": 0.0, "skew": 2}
        assert warehouse.decisions(*span, **rule)["reward"].to_pylist() == [4.0, 0.0, 5.0]
        counts = warehouse.counts(*span, **rule)
        assert (counts.total, counts.joined, counts.defaulted, counts.late, counts.skewed) == (4, 2, 1, 1, 1)
        assert warehouse.counts(*span, 10) == counts._replace(total=5, joined=1, defaulted=2, late=2, skewed=0)

    def test_everything_is_counted_once(self, warehouse):
        """a: a pair, a duplicate; b: defaulted; c: also late; d: also late and a duplicate; e: an orphan; 2 are bad."""
        warehouse.write([shown(event, 0) for event in "abcd"])
        warehouse.write(
            [told("a", 1, 5.0), told("a", 2, 4.0), told("c", 11, 3.0), told("d", -1, 2.0), told("d", 20, 1.0)]
        )
        warehouse.write([told("e", 3, 1.0), told("elsewhere", 100, 1.0)])
        entries = [Quarantined(f"m{k}", at(k), "rewards", "value must be a finite number", b"\xff{") for k in (1, 2)]
        assert warehouse.quarantine(entries) == 2
        assert warehouse.quarantine(entries) == 0
        counts = warehouse.counts(START, at(50), 10)
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

    def test_a_snapshot_changes_with_what_can_be_read_and_with_nothing_else(self, warehouse):
        warehouse.write([shown("a", 0), told("a", 1, 5.0)])
        before = warehouse.snapshot(START, at(10))
        warehouse.write([shown("a", 0), shown("later", 10), told("later", 11, 1.0), told("orphan", 12, 1.0)])
        assert warehouse.snapshot(START, at(10)) == before
        seen = {before}
        for record in (
            told("a", 99, 1.0),
            shown("b", 9),
            told("c", 9, 1.0),
            Quarantined("m", at(9), "", "why", ""),
        ):
            warehouse.write([record])
            seen.add(warehouse.snapshot(START, at(10)))
        assert len(seen) == 5

    def test_versions_are_compared_by_what_they_got(self, warehouse):
        """Version b: rewards 1, 2, 4 and the default 1: mean 2, variance (1 + 0 + 4 + 1) / 3 = 2."""
        warehouse.write([shown(str(k), k, "b") for k in range(4)] + [shown("x", 9, "a")])
        warehouse.write([told("0", 1, 1.0), told("1", 2, 2.0), told("2", 3, 4.0), told("x", 9, 5.0)])
        table = warehouse.by_version(START, at(10), 5, 1.0)
        assert table.index.tolist() == ["b", "a"]
        row = table.loc["b"].to_dict()
        variance = row.pop("variance")  # floats that are added up in any order
        assert row == {"decisions": 4, "mean": 2.0, "first": START, "last": at(3)}
        assert variance == pytest.approx(2.0)
        assert table.loc["a"].tolist()[:2] == [1, 5.0]
        assert np.isnan(table.loc["a", "variance"])
        rewards = warehouse.rewards_of("b", START, at(10), 5, 1.0)
        assert rewards.dtype == np.float64
        assert rewards.tolist() == [1.0, 2.0, 4.0, 1.0]
        assert len(warehouse.rewards_of("nobody", START, at(10), 5, 1.0)) == 0
        assert len(warehouse.by_version(at(50), at(60), 5, 1.0)) == 0

    def test_rewards_are_added_up_by_version_and_user(self, warehouse):
        """User 1 has 5 and the default 1 from version a, 2 from version b; user 2 has 4 from version b."""
        warehouse.write([shown("p", 0), shown("q", 1), shown("r", 2, "b"), shown("s", 3, "b", "2"), shown("t", 10)])
        warehouse.write([told("p", 1, 5.0), told("q", 9, 3.0), told("r", 3, 2.0), told("s", 4, 4.0)])
        table = warehouse.by_user(START, at(10), 5, 1.0)
        assert table.columns.tolist() == ["policy_version", "user_id", "decisions", "total"]
        assert table.to_numpy().tolist() == [["a", "1", 2, 6.0], ["b", "1", 1, 2.0], ["b", "2", 1, 4.0]]
        assert len(warehouse.by_user(at(50), at(60), 5, 1.0)) == 0

    def test_decisions_without_a_user_id_come_back_and_are_each_a_user(self, warehouse):
        """Two of nobody known and two of user 2^53 + 1, whose id is not rounded beside the others."""
        records = [
            shown(name, 0, user=user) for name, user in zip("abcd", [str(2**53 + 1)] * 2 + [None] * 2, strict=True)
        ]
        warehouse.write([*records, told("a", 1, 1.0), told("c", 1, 3.0)])
        table = warehouse.decisions(START, at(10), 5, 0.0)
        assert [Interaction(**row) for row in check_table(table, Interaction).to_pylist()] == records
        users = warehouse.by_user(START, at(10), 5, 0.0)
        assert users["user_id"].fillna("").tolist().count("9007199254740993") == 1
        assert users["user_id"].isna().sum() == 2
        assert sorted(zip(users["decisions"], users["total"], strict=True)) == [(1, 0.0), (1, 3.0), (2, 1.0)]

    def test_verdicts_are_kept_in_order_with_what_they_lack(self, warehouse):
        second = Verdict("v2", at(5), "refused", "b", "a", "the difference may be -0.3", -0.1, -0.3, 0.1, 250.5)
        first = Verdict("v1", at(1), "deployed", "a", "", "nothing serves yet")
        assert warehouse.write([second, first, second]) == 2
        table = warehouse.verdicts()
        assert table["verdict_id"].tolist() == ["v1", "v2"]
        assert table.loc[1].tolist() == list(vars(second).values())
        assert table.loc[0, ["difference", "low", "high", "effective_sample_size"]].isna().all()

    def test_an_empty_warehouse_answers(self, warehouse):
        assert len(warehouse.decisions(START, at(10), 5, 1.0)) == 0
        assert warehouse.counts(START, at(10), 5) == (0,) * 8
        assert len(warehouse.verdicts()) == 0
        assert warehouse.snapshot(START, at(10)) == warehouse.snapshot(at(20), at(30))
        assert warehouse.state()["interactions"] == {"rows": 0, "newest": None}

    def test_the_state_says_how_much_there_is_and_how_new(self, warehouse):
        warehouse.write([shown("a", 0), shown("b", 7), told("a", 9, 1.0)])
        state = warehouse.state()
        assert state["interactions"] == {"rows": 2, "newest": at(7)}
        assert state["rewards"] == {"rows": 1, "newest": at(9)}
        assert state["joined"] == {"rows": 1, "newest": START}
        assert set(state) == {"interactions", "rewards", "quarantine", "verdicts", "joined"}

    def test_what_is_forgotten_leaves_no_orphans(self, warehouse):
        """Of the old event there is a second report of the decision, too, from after the time."""
        warehouse.write([shown("old", 0), told("old", 20, 1.0), shown("new", 10), told("new", 20, 2.0)])
        warehouse.write([shown("old", 12, version="b")])
        warehouse.write([Quarantined("m", START, "", "why", ""), Verdict("v", START, "deployed", "a", "", "first")])
        warehouse.drop_before(at(10))
        assert warehouse.counts(START, at(100), 10)._asdict()["total"] == 1
        assert warehouse.decisions(START, at(100), 10, 0.0)["event_id"].to_pylist() == ["new"]
        assert len(warehouse.verdicts()) == 1

    def test_a_user_who_is_forgotten_leaves_no_decision_and_no_reward(self, warehouse):
        warehouse.write([shown("a", 0), told("a", 1, 1.0), shown("b", 0, user="2"), told("b", 1, 2.0)])
        warehouse.forget("1")
        assert warehouse.decisions(START, at(10), 10, 0.0)["user_id"].to_pylist() == ["2"]
        assert warehouse.counts(START, at(10), 10)._asdict()["total"] == 1
        warehouse.forget("nobody")
        assert warehouse.state()["rewards"]["rows"] == 1

    def test_people_have_a_view_and_parameters(self, warehouse):
        warehouse.write([shown("a", 0), told("a", 1.5, 4.0), shown("b", 2, version="b")])
        text = "SELECT event_id, reward, seconds FROM decisions WHERE time <= @time AND policy_version = @version"
        rows = warehouse.query(text, {"time": at(1), "version": "a"}).to_pylist()
        assert rows == [{"event_id": "a", "reward": 4.0, "seconds": 1.5}]
        warehouse.create()
        assert warehouse.query("SELECT COUNT(*) AS n FROM decisions")["n"].to_pylist() == [2], "it was there already"

    def test_what_cannot_be_is_refused_in_one_sentence(self, warehouse):
        with pytest.raises(ValueError, match="records must be Interaction, Reward, Verdict or Quarantined, got 'a'"):
            warehouse.write(["a"])
        with pytest.raises(ValueError, match="start must be a time with its zone"):
            warehouse.snapshot(datetime(2026, 1, 1), START)
        for window in (-1, float("nan"), 2e9):
            with pytest.raises(ValueError, match=r"window must be seconds from 0 to 1000000000, got"):
                warehouse.counts(START, at(1), window)
        with pytest.raises(ValueError, match="default must be a finite number, got nan"):
            warehouse.decisions(START, at(1), 1, float("nan"))
        with pytest.raises(ValueError, match="take must be one of first, last, sum, max, got 'mean'"):
            warehouse.by_user(START, at(1), 1, 0.0, "mean")
        with pytest.raises(ValueError, match=r"range must be two finite numbers, the lower one first, got \(2, 1\)"):
            warehouse.counts(START, at(1), 1, lowest=2, highest=1)
        with pytest.raises(PlatformError, match=r": .*nothing") as caught:
            warehouse.query("SELECT nothing FROM interactions")
        assert "\n" not in str(caught.value)
