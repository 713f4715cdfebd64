"""The loop as real processes: it improves, says so, and leaves no process behind.

PROFILE=full runs five rounds in place of two.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import psutil
import pytest

import recbandits
from recbandits.config import Config
from recbandits.data import synthetic
from recbandits.loop.__main__ import decided, main, run, settings_of
from recbandits.loop.canary import find_experiment
from recbandits.loop.live import Loop
from recbandits.loop.page import gain_sentence, rounds_of, true_values, write_page
from recbandits.loop.settings import Settings
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Verdict
from recbandits.serving.policy import load
from tests.forks import run_unprivileged

SETTINGS = settings_of("quick")
ROUNDS = 5 if os.environ.get("PROFILE") == "full" else 2
RARELY = "0 3 29 2 *"


def processes_of(directory):
    """Processes, but for this one, that have a directory in their environment, arguments or open files."""
    found = []
    for process in psutil.process_iter():
        try:
            files = [file.path for file in process.open_files()]
            texts = [*process.cmdline(), *files, process.environ().get("RECBANDITS_ARTIFACTS", "")]
            if process.pid != os.getpid() and str(directory) in " ".join(texts):
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]


class Ended(NamedTuple):
    """A loop that has ended, with its observations."""

    loop: Loop
    lines: list  # of its status
    complete: bool  # whether all was in the warehouse
    page: Path
    rewards: pd.DataFrame
    sentences: list
    running: list  # processes before its end
    left: list  # processes after it
    seconds: float


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A loop of `ROUNDS` rounds."""
    lines, directory, start = [], tmp_path_factory.mktemp("artifacts"), time.monotonic()
    with Loop(Config(artifacts=str(directory)), SETTINGS) as loop:
        complete = run(loop, synthetic.generate(), ROUNDS, threading.Event(), show=lines.append)
        seconds = time.monotonic() - start
        page, rewards, sentences = write_page(loop, datetime.now(UTC))
        running = processes_of(directory)
    return Ended(loop, lines, complete, page, rewards, sentences, running, processes_of(directory), seconds)


def test_the_last_policy_is_truly_better_than_the_first(ended):
    """The true values of both on the same 4,000 visits: the interval of their mean difference is above zero."""
    loop = ended.loop
    rounds = rounds_of(loop.platform.warehouse.verdicts(), datetime.now(UTC))
    assert len(rounds) == ROUNDS + 1
    policies = {version: load(loop.models / version / "policy") for version in set(rounds["version"])}
    visits = loop.users.visits(4000, np.random.default_rng(SETTINGS.seed), SETTINGS.candidates)
    values = true_values(loop.users, policies, rounds, visits, loop.simulator.drift)
    last = values.query(f"round == {ROUNDS}").set_index("learner")
    assert 0 < last.loc["learning", "gain_low"] < last.loc["learning", "gain"]
    assert last["value"].loc[["uniform", "frozen", "learning", "oracle"]].is_monotonic_increasing
    assert ended.sentences[0] == gain_sentence(values, rounds)
    learners = ["uniform", "frozen", "learning", "oracle"]
    np.testing.assert_allclose(ended.rewards, last.loc[learners, ["value", "low", "high"]], atol=0.0005)
    assert ended.rewards.to_html(border=0) in ended.page.read_text(encoding="utf-8")


def test_everything_that_users_reported_is_in_the_warehouse(ended):
    assert ended.complete
    warehouse, now, counts = ended.loop.platform.warehouse, datetime.now(UTC), ended.loop.simulator.counts
    logged = warehouse.counts(now - timedelta(hours=1), now, SETTINGS.join)
    assert logged.total == sum(logged[1:-1])  # the last field is no class
    assert logged.quarantined == logged.orphan == 0
    assert counts["reported"] == counts["reports"]
    assert warehouse.state()["interactions"]["rows"] == counts["answered"] + SETTINGS.first


def test_every_verdict_is_shown_with_its_reason_and_is_on_the_page(ended):
    verdicts = ended.loop.platform.warehouse.verdicts()
    assert decided(verdicts) >= ROUNDS
    assert all(f"{row.kind} {row.version[:8]}: {row.why}" in "\n".join(ended.lines) for row in verdicts.itertuples())
    text = ended.page.read_text(encoding="utf-8")
    assert all(version in text for version in verdicts["version"])
    for name in ("rewards", "gate", "drift", "propensities"):
        assert re.search(rf'src="{name}.png" alt="[A-Z][^"]+ [^"]+\."', text)
        assert (ended.page.parent / f"{name}.png").stat().st_size > 5_000


def test_the_status_says_which_round_it_is_and_which_version_serves(ended):
    last = [line for line in ended.lines if " · " in line][-1]
    assert f"round {ROUNDS}/{ROUNDS}" in last
    assert rounds_of(ended.loop.platform.warehouse.verdicts(), datetime.now(UTC))["version"].iloc[-1][:8] in last


def test_no_process_is_left(ended):
    """The endpoint and two functions ran until the context ended."""
    assert len(ended.running) >= 3
    assert ended.left == []


def test_a_loop_of_some_rounds_ends_with_a_verdict_on_its_last_canary(ended):
    """Its canary has been decided long before the time to settle is over."""
    verdicts, shares = ended.loop.platform.warehouse.verdicts(), ended.loop.endpoint.traffic_split
    experiment = find_experiment(shares, verdicts)
    assert experiment is None or experiment.promoted


class Interrupted(NamedTuple):
    """A loop of the command line that Ctrl-C ended, after preferences had drifted."""

    directory: Path  # of the loop
    code: int
    printed: str
    running: list  # command lines of its processes before Ctrl-C
    left: list  # processes after it


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """`python -m recbandits.loop --drift` of the package alone, in a directory far from the repository.

    Its cron string is never due; two refusals are two rounds. The package is a copy, as a wheel installs it.
    """
    root = tmp_path_factory.mktemp("interrupted")
    directory = root / "a" / "loop"
    site = install_wheel(root)
    command = [sys.executable, "-P", "-m", "recbandits.loop", "--rate=40", "--drift", f"--cron={RARELY}"]
    variables = {"RECBANDITS_ARTIFACTS": str(root / "a"), "RECBANDITS_CACHE": str(root), "PYTHONPATH": str(site)}
    environment = os.environ | variables
    environment.pop("RECBANDITS_MOVIELENS", None)
    warehouse = LocalWarehouse(directory / "warehouse" / "warehouse.sqlite")
    with (root / "printed").open("w") as printed:
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=printed, stderr=printed)

        def wait(condition, seconds=300):
            deadline = time.monotonic() + seconds
            while not condition():
                assert process.poll() is None, (root / "printed").read_text()
                assert time.monotonic() < deadline, (root / "printed").read_text()
                time.sleep(0.2)

        def decisions():
            return warehouse.state()["interactions"]["rows"]

        try:
            wait(lambda: (directory / "warehouse").exists() and decisions() > SETTINGS.first + 20)
            first, now = warehouse.verdicts()["version"].item(), datetime.now(UTC)
            warehouse.write([Verdict(f"{n}", now, "refused", first, first, "Nothing was learnt.") for n in range(2)])
            wait(lambda: "preferences drift" in (root / "printed").read_text())
            running = [" ".join(one.cmdline()) for one in processes_of(root / "a")]
            process.send_signal(signal.SIGINT)
            code = process.wait(300)
        finally:
            process.terminate()  # without effect where it has ended
            process.wait(300)
    return Interrupted(directory, code, (root / "printed").read_text(), running, processes_of(root / "a"))


def install_wheel(root):
    """Build the wheel of the package and unpack it, as an installer does; return the folder of packages."""
    repository = Path(recbandits.__file__).parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(root)]
    subprocess.run(build, cwd=repository, check=True, capture_output=True)
    (wheel,) = root.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(root / "site")
    return root / "site"


def test_ctrl_c_ends_everything_cleanly(interrupted):
    assert len(interrupted.running) >= 4
    assert (interrupted.code, interrupted.left) == (0, []), interrupted.printed
    assert "The pictures are on" in interrupted.printed


def test_the_installed_package_runs_its_loop_by_itself(interrupted):
    """No process of it knows the path of the repository: the functions and pipelines are the package's own."""
    repository, site = str(Path(recbandits.__file__).parents[2]), interrupted.directory.parents[1] / "site"
    lines = [line.replace(sys.prefix, "") for line in interrupted.running]  # the interpreter may be in the repository
    assert [line for line in lines if repository in line] == []
    function = json.loads((interrupted.directory / "functions" / "log-reward" / "function.json").read_text())
    assert Path(function["source"]).is_relative_to(site)


def test_a_loop_trains_by_its_cron_string_alone(interrupted):
    assert {file.parent.name for file in interrupted.directory.glob("pipelines/*/run.json")} == {"start-up"}


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "thesis.txt").write_text("mine")
    refused = pytest.raises(PlatformError, match=r"must be the directory of a loop, it has no loop\.json")
    with refused, Loop(Config(artifacts=str(tmp_path)), SETTINGS) as loop:
        loop.prepare(synthetic.generate())
    assert [path.name for path in (tmp_path / "loop").iterdir()] == ["thesis.txt"]


def test_a_directory_of_another_user_is_refused_with_what_is_expected_of_it(tmp_path):
    loop, data = Loop(Config(artifacts=str(tmp_path)), SETTINGS), synthetic.generate()
    tmp_path.chmod(0)

    def prepare():
        with pytest.raises(PlatformError, match=f"^loop could not be started: {tmp_path}.*: it must be readable and"):
            loop.prepare(data)
        return "refused"

    assert run_unprivileged(prepare) == "refused"
    tmp_path.chmod(0o700)


def test_a_second_loop_in_the_same_place_is_refused_and_harms_nothing(tmp_path):
    def running(loop):
        return loop.platform.functions.unit("log-reward").running

    with Loop(Config(artifacts=str(tmp_path)), SETTINGS) as first:
        first.prepare(synthetic.generate())
        first.start()
        refused = pytest.raises(PlatformError, match=r"a loop in .* is running already")
        with refused, Loop(Config(artifacts=str(tmp_path)), SETTINGS) as second:
            second.prepare(synthetic.generate())
        assert running(first)
    with Loop(Config(artifacts=str(tmp_path)), SETTINGS) as third:
        third.prepare(synthetic.generate())
        assert not running(third)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"rounds": 0}, "rounds must be at least 1, got 0"), ({"cron": "nightly"}, "cron must be five fields")],
)
def test_options_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(SystemExit, match=sentence):
        main(**options)


@pytest.mark.parametrize(
    ("options", "expected", "rate"),
    [({"rate": 7.0}, ["deploy", "follow"], [7.0]), ({"remove": True}, ["remove"], [])],
)
def test_on_google_cloud_the_command_deploys_and_follows_the_loop_or_removes_it(options, expected, rate, monkeypatch):
    for name, value in (("PLATFORM", "gcp"), ("PROJECT", "movie-lab-42")):
        monkeypatch.setenv(f"RECBANDITS_{name}", value)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # those of the test runner stay
    calls, rates = [], []

    def call(name, config, *arguments):
        calls.append((name, config.project))
        rates.extend(each.rate for each in arguments if isinstance(each, Settings))

    for name in ("deploy", "follow", "remove"):
        monkeypatch.setattr(f"recbandits.loop.__main__.{name}_loop", partial(call, name))
    main(**options)
    assert calls == [(name, "movie-lab-42") for name in expected]
    assert rates == rate
