"""The loop as real processes: it gets better within five rounds, it says so, and nothing of it stays behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import psutil
import pytest

from recbandits.config import Config
from recbandits.data import synthetic
from recbandits.loop import report
from recbandits.loop.__main__ import main
from recbandits.loop.live import Loop
from recbandits.loop.run import canary_waits, decided, run
from recbandits.loop.settings import Guardrail, Settings
from recbandits.loop.simulate import counts_of
from recbandits.platforms import PlatformError

# As the default ones, but quick: rewards come soon, a canary has its decisions soon.
GUARDRAIL = Guardrail(canary=40, least=50, most=150)
SETTINGS = Settings(delay=0.3, window=1.5, decisions=600, rate=60.0, guardrail=GUARDRAIL)
ROUNDS = 5


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
    before = os.environ.get("PUBSUB_EMULATOR_HOST")
    sights, directory = [], tmp_path_factory.mktemp("artifacts")
    with Loop(Config(artifacts=str(directory)), SETTINGS) as loop:
        whole = run(loop, synthetic.generate(), ROUNDS, sights.append, threading.Event())
        found = report.tables(loop.world, loop.platform.warehouse, loop.models, SETTINGS, datetime.now(UTC))
        page = report.write(found, loop.directory / "report", SETTINGS, "synthetic")
        visits, running = counts_of(loop.directory), below(directory)
    yield {"report": found, "page": page, "sights": sights, "whole": whole, "visits": visits, "ran": running} | {
        "left": below(directory)
    }
    if before is None:
        os.environ.pop("PUBSUB_EMULATOR_HOST", None)


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
    """Pub/Sub, the warehouse, the endpoint and two pairs of a function ran until the context ended."""
    assert len(told["ran"]) >= 7
    assert told["left"] == []


def test_ctrl_c_ends_everything_cleanly(tmp_path):
    command = [sys.executable, "-m", "recbandits.loop", "--rate", "20"]
    environment = os.environ | {"RECBANDITS_ARTIFACTS": str(tmp_path / "a"), "RECBANDITS_CACHE": str(tmp_path)}
    environment.pop("RECBANDITS_MOVIELENS", None)
    with (tmp_path / "printed").open("w") as printed:
        process = subprocess.Popen(command, env=environment, stdout=printed, stderr=printed)
        counts, deadline = tmp_path / "a" / "loop" / "simulator.json", time.monotonic() + 180
        while not counts.exists() or json.loads(counts.read_text())["answered"] < 20:
            assert process.poll() is None, (tmp_path / "printed").read_text()
            assert time.monotonic() < deadline, (tmp_path / "printed").read_text()
            time.sleep(0.2)
        assert len(marked(str(tmp_path))) >= 8
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0, (tmp_path / "printed").read_text()
    assert marked(str(tmp_path)) == []
    assert "The report is" in (tmp_path / "printed").read_text()


def test_a_directory_that_is_not_a_loop_s_is_left_alone(tmp_path):
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "thesis.txt").write_text("mine")
    loop = Loop(Config(artifacts=str(tmp_path)), SETTINGS)
    with pytest.raises(PlatformError, match=r"must be the directory of a loop, it has no loop\.json"):
        loop.prepare(synthetic.generate())
    loop.stop()
    assert [path.name for path in (tmp_path / "loop").iterdir()] == ["thesis.txt"]


def test_a_canary_waits_until_it_is_promoted_or_taken_back(told):
    verdicts = told["report"].verdicts
    assert not canary_waits(verdicts.iloc[:1]), "the first policy is no canary"
    second = verdicts[verdicts["kind"] == "deployed"].index[1]
    assert canary_waits(verdicts.loc[:second])


def test_rounds_below_one_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--rounds", "0"])
    assert "--rounds must be at least 1, got 0" in capsys.readouterr().err
