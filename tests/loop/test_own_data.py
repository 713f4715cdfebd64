"""The core closes the loop on a log of Open Bandit: import, learn, judge, deploy."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from recbandits.agents.parameters import LinUCB
from recbandits.data import Features, synthetic_open_bandit
from recbandits.exploration import Exploration
from recbandits.loop.gate import judge_log
from recbandits.loop.ingest import import_log, read_log, write_log
from recbandits.loop.rounds import MemoryCore
from recbandits.loop.settings import Gate, Guardrail, Settings
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.warehouse import Join
from recbandits.records import Log

WINDOW = 60.0
START = datetime(2019, 1, 1, tzinfo=UTC)
SETTINGS = Settings(
    Join(window=WINDOW, lowest=0.0, highest=1.0),
    holdout=0.5,
    agent=LinUCB(alpha=0.0, tikhonov=10.0),
    exploration=Exploration("softmax", 0.01),
    gate=Gate(margin=0.5, effective_sample_size=50.0),
    guardrail=Guardrail(canary=20),
)
CONTEXT = [f"user_feature_{number}" for number in range(4)]
ITEMS = [f"item_feature_{number}" for number in range(1, 4)]
MONTHS = 90 * 24 * 3600.0  # seconds


def read(policy, days):
    """Log of 10,000 decisions for anonymous visitors by a policy, shifted by some days, and the table of items."""
    frame, items, _ = synthetic_open_bandit.generate(policy=policy)
    frame = frame.assign(time=frame["time"] + timedelta(days=days), event=[f"{policy} {row}" for row in frame.index])
    frame = frame.astype(dict.fromkeys(CONTEXT, "str"))
    columns = {"item": "item_id", "reward": "click", "propensity": "propensity", "time": "time", "event_id": "event"}
    return Log.from_frame(frame, items.index, context=CONTEXT, **columns), items.astype(dict.fromkeys(ITEMS, "str"))


@pytest.fixture(scope="module")
def logs():
    """Tables of the log of the random policy, of the one of the other policy a month later, and the features.

    10,000 decisions have the clicks of 200,000 of the real shop: fewer would not do for the gate.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_open_bandit, "CLICK_RATE", 20 * synthetic_open_bandit.CLICK_RATE)
        (first, items), (second, _) = read("random", 0), read("bts", 30)
    return first.to_tables("random"), second.to_tables("bts"), Features.fit(items, first.context)


@pytest.fixture
def core(logs, tmp_path):
    """A core whose warehouse has the first log, from files, and whose first policy learnt from it."""
    first, _, features = logs
    write_log(tmp_path / "log", *first)
    core = MemoryCore(LocalWarehouse(), features, SETTINGS, overlap=MONTHS)
    summary = import_log(core.warehouse, *read_log(tmp_path / "log"))
    start, end = (pd.Timestamp(summary[name]).to_pydatetime() for name in ("start", "end"))
    core.deploy(core.train(start, end), None, end)
    return core


def test_a_log_of_anonymous_visitors_is_learnt_judged_and_deployed_by_the_core(logs, core):
    """The second log is new: one tick trains a candidate, judges it on both, and makes it a canary."""
    (first,) = core.endpoint.traffic_split
    summary = import_log(core.warehouse, *logs[1])
    now = pd.Timestamp(summary["end"]).to_pydatetime() + timedelta(seconds=2 * WINDOW)
    assert core.tick(now, least_new=10_001) == []
    (verdict,) = core.tick(now, least_new=9_900)  # all but those whose window may not have closed
    assert (verdict.kind, verdict.against) == ("deployed", first), verdict.why
    assert core.endpoint.traffic_split == {first: 80, verdict.version: 20}
    assert core.models[verdict.version].agent.learned_events.numpy().size > 9_500
    held_out = core.train(START, now).held_out
    assert len(held_out) == pytest.approx(10_000, abs=300)
    judgement = judge_log(held_out, *(core.models[name].policy for name in (verdict.version, first)), SETTINGS.gate)
    assert verdict.difference == pytest.approx(judgement.difference)
    assert (verdict.low, verdict.high) == pytest.approx((judgement.low, judgement.high))
