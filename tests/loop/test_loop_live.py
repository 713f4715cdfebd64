"""The loop as real processes: it gets better within five rounds, it says so, and nothing of it stays behind."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil
import pytest

from recbandits.config import Config
from recbandits.data import synthetic
from recbandits.loop import report
from recbandits.loop.__main__ import main, settings_of
from recbandits.loop.live import Loop
from recbandits.loop.run import canary_waits, decided, run
from recbandits.loop.simulate import counts_of, drift_of
from recbandits.loop.simulated_users import SimulatedUsers
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Verdict

SETTINGS = settings_of("quick")
ROUNDS = 5
RARELY = "0 3 29 2 *"


def marked(mark):
    """All processes whose environment has this artifacts directory, but for this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and mark in process.environ().get("RECBANDITS_ARTIFACTS", ""):
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


def below(directory):
    """All processes that hold a lock below a directory, or are told of it."""
    found = []
    for process in psutil.process_iter():
        try:
            files = [file.path for file in process.open_files()]
            if process.pid != os.getpid() and str(directory) in " ".join([*process.cmdline(), *files]):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A loop of five rounds: its report, the pages it has written, what was shown, and what ran at the end."""
    sights, directory = [], tmp_path_factory.mktemp("artifacts")
    with Loop(Config(artifacts=str(directory)), SETTINGS) as loop:
        whole = run(loop, synthetic.generate(), ROUNDS, sights.append, threading.Event())
        found = report.tables(loop.world, loop.platform.warehouse, loop.models, SETTINGS, datetime.now(UTC))
        page = report.write(found, loop.directory / "report", SETTINGS, "synthetic")
        visits, running = counts_of(loop.directory), below(directory)
    return {"report": found, "page": page, "sights": sights, "whole": whole, "visits": visits, "ran": running} | {
        "left": below(directory)
    }


def test_the_last_policy_is_truly_better_than_the_first(told):
    """The true values of both on the same 4,000 visits: the interval of their mean difference is above zero."""
    rounds, (gain, low, _) = told["report"].rounds, told["report"].gain
    assert len(rounds) == ROUNDS + 1
    assert rounds["version"].iloc[-1] != rounds["version"].iloc[0]
    assert 0 < low < gain
    last = told["report"].values.query(f"round == {ROUNDS}").set_index("learner")["value"]
    assert last["uniform"] < last["frozen"] < last["learning"] < last["oracle"]


def test_everything_that_visitors_said_is_in_the_warehouse(told):
    assert told["whole"]
    counts, visits = told["report"].counts, told["visits"]
    assert counts.total == sum(counts[1:])
    assert counts.quarantined == counts.orphan == 0
    assert visits["reported"] == visits["reports"]
    last = told["sights"][-1].rows
    assert last["interactions"] <= visits["answered"] + SETTINGS.first


def test_every_round_is_told_with_its_reason(told):
    verdicts = told["report"].verdicts
    assert decided(verdicts) >= ROUNDS
    page = told["page"].read_text(encoding="utf-8")
    assert all(version[:8] in page for version in verdicts["version"])
    assert report.headline(told["report"]) in page
    for name in ("rewards", "regret", "gate", "drift", "propensities"):
        assert f'src="{name}.png"' in page
        assert (told["page"].parent / f"{name}.png").stat().st_size > 5_000


def test_a_view_of_all_of_it_was_shown(told):
    assert told["sights"][0].doing == "a world is made"
    done = {sight.doing for sight in told["sights"]}
    assert done >= {"servers start, the first policy is trained", "a candidate is trained"}
    assert max(sight.requests for sight in told["sights"]) > 5
    assert told["sights"][-1].rounds == (ROUNDS, ROUNDS)


def test_no_process_is_left(told):
    """The endpoint and two functions ran until the context ended."""
    assert len(told["ran"]) >= 3
    assert told["left"] == []


class Ended(NamedTuple):
    """What a loop of the command line left that was ended by Ctrl-C after taste had turned."""

    directory: Path  # of the loop
    code: int
    printed: str
    ran: list  # command lines of its processes before Ctrl-C
    left: list  # processes after it
    decisions: pd.DataFrame  # with a reward


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """`python -m recbandits.loop --drift` with a cron string that is not due; two refusals are two rounds."""
    root = tmp_path_factory.mktemp("ended")
    directory = root / "a" / "loop"
    command = [sys.executable, "-m", "recbandits.loop", "--rate=40", "--drift", f"--cron={RARELY}"]
    environment = os.environ | {"RECBANDITS_ARTIFACTS": str(root / "a"), "RECBANDITS_CACHE": str(root)}
    environment.pop("RECBANDITS_MOVIELENS", None)
    warehouse = LocalWarehouse(directory / "warehouse" / "warehouse.sqlite")
    with (root / "printed").open("w") as printed:
        process = subprocess.Popen(command, env=environment, stdout=printed, stderr=printed)

        def wait(condition, seconds=300):
            deadline = time.monotonic() + seconds
            while not condition():
                assert process.poll() is None, (root / "printed").read_text()
                assert time.monotonic() < deadline, (root / "printed").read_text()
                time.sleep(0.2)

        try:
            wait(lambda: counts_of(directory).get("answered", 0) >= 20)
            first = warehouse.verdicts()["version"].item()
            now = datetime.now(UTC)
            warehouse.write([Verdict(f"{n}", now, "refused", first, first, "Nothing was learnt.") for n in range(2)])
            wait(lambda: (directory / "drift.json").exists() and drift_of(directory)(datetime.now(UTC)) == 1)
            enough = counts_of(directory)["answered"] + 400
            wait(lambda: counts_of(directory)["answered"] >= enough)
            ran = [" ".join(one.cmdline()) for one in marked(str(root))]
            process.send_signal(signal.SIGINT)
            code = process.wait(300)
        finally:
            process.terminate()  # nothing, where it has ended
            process.wait(300)
    left = marked(str(root))
    span = now - timedelta(hours=1), datetime.now(UTC)
    rule = SETTINGS.join
    decisions = warehouse.decisions(*span, rule.window, rule.default).to_pandas()  # what is read is on disk
    answered = decisions[decisions["reward_time"].notna()]
    return Ended(directory, code, (root / "printed").read_text(), ran, left, answered)


def test_ctrl_c_ends_everything_cleanly(ended):
    assert len(ended.ran) >= 5
    assert (ended.code, ended.left) == (0, []), ended.printed
    assert "The report is" in ended.printed


def test_when_taste_turns_visitors_say_so(ended):
    """Squared errors of what they said since, by the old taste less by the new one: above zero.

    Its mean is about five standard errors above with 370 who said something, and would be as far below had they kept
    the old taste.
    """
    turn, world = drift_of(ended.directory), SimulatedUsers.load(ended.directory / "world")
    said = ended.decisions[[turn(time.to_pydatetime()) == 1 for time in ended.decisions["time"]]]
    assert len(said) > 300
    users, items = world.find_users(said["user_id"]), world.find_items(said[["action"]])
    old, new = (world.expected(users, items, degree)[:, 0] for degree in (0, 1))
    gain = (said["reward"] - old) ** 2 - (said["reward"] - new) ** 2
    assert gain.mean() > 0


def test_a_report_knows_that_taste_has_turned(ended):
    """The best that was possible in each of three rounds, of the same 4,000 visits: only taste makes a difference."""
    page = (ended.directory / "report" / "report.html").read_text(encoding="utf-8")
    table = page[page.index("Reward of each round") : page.index("Regret")]
    rows = np.reshape(re.findall(r"<td>(.*?)</td>", table), (3, 6))
    assert list(rows[:, 0]) == ["0", "1", "2"]
    world = SimulatedUsers.load(ended.directory / "world")
    visits = world.visits(4000, np.random.default_rng(SETTINGS.seed), SETTINGS.candidates)
    best = [f"{world.oracle_value(visits, turned).mean():.3f}" for turned in (0, 0, 1)]
    assert best[0] != best[2]
    assert [text.split()[0] for text in rows[:, 3]] == best
    learner = json.loads((ended.directory / "settings.json").read_text())["agent"]
    assert learner["gamma"] == SETTINGS.forgetting < 1


def test_a_loop_trains_by_its_cron_string_alone(ended):
    assert any("recbandits.loop.trigger" in line and f"--cron={RARELY}" in line for line in ended.ran)
    assert {file.parent.name for file in ended.directory.glob("pipelines/*/run.json")} == {"start-up"}


def test_a_directory_that_is_not_a_loop_s_is_left_alone(tmp_path):
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "thesis.txt").write_text("mine")
    loop = Loop(Config(artifacts=str(tmp_path)), SETTINGS)
    with pytest.raises(PlatformError, match=r"must be the directory of a loop, it has no loop\.json"):
        loop.prepare(synthetic.generate())
    loop.stop()
    assert [path.name for path in (tmp_path / "loop").iterdir()] == ["thesis.txt"]


def test_a_second_loop_in_the_same_place_is_refused_and_harms_nothing(tmp_path):
    with Loop(Config(artifacts=str(tmp_path)), SETTINGS) as first:
        first.prepare(synthetic.generate())
        first.start("log-reward")
        refused = pytest.raises(PlatformError, match=r"a loop in .* is running already")
        with refused, Loop(Config(artifacts=str(tmp_path)), SETTINGS) as second:
            second.prepare(synthetic.generate())
        assert first.parts["log-reward"].running()
    with Loop(Config(artifacts=str(tmp_path)), SETTINGS) as third:
        third.prepare(synthetic.generate())
        assert not third.parts["log-reward"].running()


def test_a_canary_waits_until_it_is_promoted_or_taken_back(told):
    verdicts = told["report"].verdicts
    assert not canary_waits(verdicts.iloc[:1]), "the first policy is no canary"
    second = verdicts[verdicts["kind"] == "deployed"].index[1]
    assert canary_waits(verdicts.loc[:second])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"rounds": 0}, "rounds must be at least 1, got 0"), ({"cron": "nightly"}, "cron must have five fields")],
)
def test_options_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(SystemExit, match=sentence):
        main(**options)
