"""Units with real processes: found by their directory, killed at random moments, never confused with others."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import psutil
import pytest

from recbandits.platforms.local import files, units
from recbandits.platforms.local.files import held, is_held, read_json, require_local, write_json
from recbandits.platforms.local.units import VARIABLE, Unit, units_below
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.protocol import PlatformError
from tests.waiting import is_gone, until

SLEEP = [sys.executable, "-S", "-c", "import time; print('ready', flush=True); time.sleep(100)"]
# It sleeps with a child that has left its session and closed all files, and ignores SIGTERM.
FAMILY = [
    sys.executable,
    "-S",
    "-c",
    "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(100)'], start_new_session=True)\n"
    "print('ready', flush=True); signal.pause()",
]


def command_of(unit):
    """Return the process of the command of a unit, once it has printed something."""
    until(lambda: "ready" in unit.log())
    return next(process for process in unit.members() if process.cmdline()[-1] == unit.run["command"][-1])


def runner_of(unit):
    processes = []
    until(lambda: processes.extend(each for each in unit.members() if units.__name__ in each.cmdline()) or processes)
    return processes[0]


def test_a_unit_succeeds_or_fails_with_its_last_line(unit):
    assert (unit.status().state, unit.running, unit.log()) == ("new", False, "")
    assert unit.start([sys.executable, "-c", "print('hello')"])
    unit.wait()
    status = unit.status()
    assert (status.state, status.error, unit.log()) == ("succeeded", "", "hello\n")
    assert status.started < status.ended
    assert unit.start([sys.executable, "-c", "raise ValueError('no')"])
    unit.wait()
    assert unit.status()[::3] == ("failed", "unit a failed with exit code 1: ValueError: no")
    assert unit.start([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    unit.wait()
    assert unit.status()[::3] == ("failed", "unit a was killed by SIGKILL")


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no real-time signals")
def test_a_unit_that_a_signal_without_a_name_has_killed_says_its_number(unit):
    assert unit.start([sys.executable, "-c", "import os; os.kill(os.getpid(), 40)"])
    unit.wait()
    assert unit.status()[::3] == ("failed", "unit a was killed by signal 40")


def test_a_finished_unit_and_one_of_another_request_stay_as_they_are(unit):
    command = [sys.executable, "-c", "print('done')"]
    assert unit.start(command, request=[1])
    unit.wait()
    assert not unit.start(command, request=[1], finished=("succeeded",))
    assert not unit.start(command, request=[2])
    assert unit.start(command, request=[1])
    unit.wait()
    assert (unit.log(), unit.run["request"]) == ("done\ndone\n", [1])


def test_of_those_who_start_a_unit_at_once_one_does(unit):
    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(lambda _: unit.start(SLEEP), range(8))) == [False] * 7 + [True]
    command_of(unit)
    assert unit.log() == "ready\n"


def test_a_unit_outlives_the_process_that_started_it(unit):
    code = f"""
import os, signal
from recbandits.platforms.local.units import Unit
Unit({str(unit.directory)!r}, "unit a").start({SLEEP!r})
os.killpg(0, signal.SIGKILL)
"""
    starter = subprocess.run([sys.executable, "-c", code], start_new_session=True)
    assert starter.returncode == -signal.SIGKILL
    assert unit.running
    assert command_of(unit).is_running()


def test_all_that_a_unit_started_ends_with_it(unit):
    """The child has its own session and no file of ours, and SIGTERM is ignored by its parent."""
    unit.start(FAMILY)
    command_of(unit)
    until(lambda: len(list(unit.members())) == 3)
    members = list(unit.members())
    unit.stop(patience=0.5)
    assert all(is_gone(process) for process in members)
    assert unit.status().state == "stopped"


def test_a_unit_runs_while_one_process_of_its_start_lives(unit):
    """Runner and command are killed; the child that holds no lock is found by the name in its environment."""
    unit.start(FAMILY)
    command = command_of(unit)
    until(lambda: len(list(unit.members())) == 3)
    (child,) = [each for each in unit.members() if each not in (command, runner_of(unit))]
    runner_of(unit).kill()
    command.kill()
    until(lambda: not is_held(unit.directory))
    assert unit.running
    assert not unit.start(SLEEP)
    child.kill()
    until(lambda: not unit.running)
    assert unit.status()[::3] == (
        "interrupted",
        "unit a ended without a word: it was killed, or the disk is full, or the machine went down",
    )


def test_after_kills_at_random_moments_no_process_is_left_and_the_unit_starts_again(unit):
    """Starters, runners and commands get SIGKILL 0 to 0.6 s after a start; then the unit runs to its end."""
    rng = random.Random(0)
    code = f"""
from recbandits.platforms.local.units import Unit
Unit({str(unit.directory)!r}, "unit a").start({FAMILY!r})
"""
    for _ in range(5):
        starter = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(rng.uniform(0.2, 0.9))
        victims = [starter, *unit.members()]
        rng.choice(victims).kill()
        starter.kill()
        starter.wait()
        unit.kill()
        assert not unit.running
        assert list(unit.members()) == []
    assert unit.start([sys.executable, "-c", "print('whole')"])
    unit.wait()
    assert unit.status().state == "succeeded"
    assert unit.log().endswith("whole\n")


def test_a_stop_that_meets_a_start_does_not_write_the_end_of_what_runs(unit, monkeypatch):
    """The unit has not run before, and another process starts it after the stop has looked whether it runs."""
    wait = Unit._wait_for_runner

    def start_meanwhile(stopped):
        wait(stopped)
        Unit(unit.directory, "unit a").start(SLEEP)

    with monkeypatch.context() as patch:
        patch.setattr(Unit, "_wait_for_runner", start_meanwhile)
        unit.stop()
    assert unit.running
    command = command_of(unit)
    unit.stop()
    assert is_gone(command)
    assert unit.status().state == "stopped"


def test_a_unit_that_a_unit_started_is_on_its_own(unit, tmp_path):
    inner = Unit(tmp_path / "inner", "unit b")
    code = f"""
import time
from recbandits.platforms.local.units import Unit
Unit({str(inner.directory)!r}, "unit b").start({SLEEP!r})
print("ready", flush=True)
time.sleep(100)
"""
    unit.start([sys.executable, "-c", code])
    command_of(unit)
    unit.stop()
    assert inner.running
    inner.stop()


def test_a_stranger_who_holds_the_lock_is_refused_with_a_message_and_gets_no_signal(unit, monkeypatch):
    monkeypatch.setattr(units, "_PATIENCE", 0.3)
    unit.directory.mkdir(parents=True)
    code = f"""
import time
from pathlib import Path
from recbandits.platforms.local.files import held
with held(Path({str(unit.directory)!r})):
    print("holding", flush=True)
    time.sleep(100)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as lock_holder:
        lock_holder.stdout.readline()
        with pytest.raises(PlatformError, match=r"must be the only one that locks .*lock, another process holds"):
            unit.start(SLEEP)
        stale = {"name": "x" * 32, "started": "2026-01-01T00:00:00+00:00", "request": None}
        write_json(unit.directory / "run.json", stale | {"pid": lock_holder.pid})
        with pytest.raises(PlatformError, match="another process holds it"):
            unit.stop(patience=0.1)
        assert lock_holder.poll() is None
        lock_holder.kill()
    assert unit.status().state == "interrupted"


def test_stale_files_of_an_earlier_start_are_no_end_and_no_process(unit):
    """An end of another name counts as none; with any numbers in the files, no process gets a signal."""
    unit.start([sys.executable, "-c", "print('done')"])
    unit.wait()
    until(lambda: not is_held(unit.directory))
    bystander = subprocess.Popen(["sleep", "100"], env=os.environ | {VARIABLE: "of another start"})
    for name in ("pid", "group"):
        (unit.directory / name).write_text(str(bystander.pid))
    write_json(unit.directory / "end.json", read_json(unit.directory / "end.json") | {"name": "earlier"})
    assert unit.status().state == "interrupted"
    unit.stop()
    assert unit.status().state == "stopped"
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_process_that_took_over_the_number_of_a_member_gets_no_signal(unit, monkeypatch):
    unit.start(SLEEP)
    command = command_of(unit)
    bystander = subprocess.Popen(["sleep", "100"])
    reused = psutil.Process(command.pid)
    reused._pid, reused._ident = bystander.pid, (bystander.pid, reused._ident[1])
    monkeypatch.setattr(unit, "members", lambda: iter([reused]))
    assert not unit._signal(signal.SIGKILL)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    monkeypatch.undo()


def test_a_server_that_was_killed_comes_back_and_one_that_cannot_start_does_not(unit):
    """It starts again after SIGKILL; what ends with an error at once is reported, not tried again."""
    unit.start(SLEEP, restart=True)
    command_of(unit).kill()
    until(lambda: unit.log().count("ready\n") == 2)
    assert unit.running
    unit.stop()
    assert unit.status().state == "stopped"
    unit.start([sys.executable, "-c", "raise SystemExit('no model')"], restart=True)
    with pytest.raises(PlatformError, match="unit a did not start: no model"):
        unit.wait_ready(lambda: False)
    assert unit.log().count("no model") == 1


def test_a_server_that_ran_for_a_while_is_started_again_when_it_fails(unit, tmp_path, monkeypatch):
    monkeypatch.setattr(units, "_PROVED", 0.1)
    code = f"""
import pathlib, time
once = pathlib.Path({str(tmp_path / "once")!r})
time.sleep(0.2)
if not once.exists():
    once.touch()
    raise SystemExit("lost the network")
"""
    unit.directory.mkdir(parents=True)
    write_json(unit.directory / "run.json", {"command": [sys.executable, "-c", code], "restart": True, "name": "x"})
    before = signal.getsignal(signal.SIGTERM)
    with held(unit.directory) as lock:
        unit.execute(lock)
    signal.signal(signal.SIGTERM, before)
    assert read_json(unit.directory / "end.json")["state"] == "succeeded"


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_files_are_for_their_owner_alone_under_every_umask(unit, mask):
    before = os.umask(mask)
    try:
        unit.start([sys.executable, "-c", "print('done')"])
    finally:
        os.umask(before)
    until(lambda: not is_held(unit.directory) and unit.status().state == "succeeded")
    assert unit.directory.stat().st_mode & 0o777 == 0o700
    modes = {file.name: file.stat().st_mode & 0o777 for file in unit.directory.iterdir()}
    assert modes == dict.fromkeys(("end.json", "lock", "log.txt", "run.json"), 0o600)


def test_a_directory_that_cannot_be_written_is_refused_with_a_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match=r"unit a could not be started: /.*: (Not a directory|File exists)"):
        Unit(tmp_path / "file" / "unit", "unit a").start(SLEEP)


@pytest.mark.parametrize("content", [b'{"command": [', b"[" * 100_000, b"\xff", None])
def test_a_file_that_was_copied_in_part_is_refused_with_a_message(unit, content):
    """None is a file that the system refuses to read."""
    unit.directory.mkdir(parents=True)
    if content is None:
        (unit.directory / "run.json").symlink_to("/proc/self/mem")
    else:
        (unit.directory / "run.json").write_bytes(content)
    for method in (unit.status, unit.stop, lambda: unit.start(SLEEP), lambda: list(units_below(unit.directory))):
        with pytest.raises(PlatformError, match=r"run\.json cannot be read: "):
            method()
    (unit.directory / "run.json").unlink()


def test_a_unit_is_stopped_on_a_full_disk(unit):
    """Its end cannot be written; to stop it and to remove its files may be what makes space."""
    unit.start(SLEEP)
    until(lambda: "ready" in unit.log())
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
    try:
        unit.kill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(unit.members()) == []
    assert unit.status().state == "interrupted"


def test_the_draft_of_a_starter_that_was_killed_is_no_unit(unit):
    unit.start([sys.executable, "-S", "-c", ""])
    draft = unit.directory / ".run.json.k3x"
    draft.mkdir()
    (draft / "run.json").write_text('{"comm')
    assert [each.directory for each in units_below(unit.directory.parent)] == [unit.directory]


def test_a_network_share_and_a_small_shared_memory_are_refused_with_a_message(tmp_path, monkeypatch):
    def mount(kind):
        rows = [SimpleNamespace(mountpoint="/", fstype="ext4"), SimpleNamespace(mountpoint=str(tmp_path), fstype=kind)]
        monkeypatch.setattr(psutil, "disk_partitions", lambda all: rows)

    mount("nfs4")
    with pytest.raises(PlatformError, match=r"artifacts must be on a disk of this machine, got .* on a share \(nfs4\)"):
        require_local(tmp_path / "deeper")
    unit, warehouse = Unit(tmp_path / "unit", "unit a"), LocalWarehouse(tmp_path / "warehouse.sqlite")
    for use in (lambda: unit.start(SLEEP), warehouse.create):
        with pytest.raises(PlatformError, match=r"on a share \(nfs4\)"):
            use()
    mount("9p")
    require_local(tmp_path)
    monkeypatch.setattr(files.platform, "release", lambda: "5.15-microsoft-standard-WSL2")
    with pytest.raises(PlatformError, match=r"on a share \(9p\)"):
        require_local(tmp_path)
    mount("ext4")
    monkeypatch.setattr(psutil, "disk_usage", lambda path: SimpleNamespace(total=64 * 2**10))
    with pytest.raises(PlatformError, match=r"must have at least 16777216 bytes, got 65536: give the container more"):
        require_local(tmp_path, shared_memory=tmp_path)
    require_local(tmp_path, shared_memory=tmp_path / "none")


def test_a_lock_is_taken_while_others_look_whether_it_is_held(tmp_path):
    code = f"""
from pathlib import Path
from recbandits.platforms.local.files import is_held
print("looking", flush=True)
while True:
    is_held(Path({str(tmp_path)!r}))
"""
    (tmp_path / "lock").touch()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as reader:
        reader.stdout.readline()
        for _ in range(2000):
            with held(tmp_path) as lock:
                assert lock is not None
        assert reader.poll() is None, "it has looked all the time"
        reader.kill()


def test_threads_that_write_one_file_at_the_same_time_leave_a_whole_one(tmp_path):
    file, texts = tmp_path / "end.json", [str(number) * 10_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write_json(file, texts[number % 8]), range(100)))
    assert json.loads(file.read_text()) in texts
    assert [path.name for path in tmp_path.iterdir()] == ["end.json"]
