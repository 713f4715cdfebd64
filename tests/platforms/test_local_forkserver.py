"""Forked jobs are what executed ones are, and are found and ended as those are."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from recbandits.platforms.local import forkserver
from recbandits.platforms.local.units import VARIABLE, Unit
from tests.waiting import is_gone, until

# What a command sees of its process, without what differs between two commands that are executed, and without what an
# import of TensorFlow by an earlier test has set in this process.
OTHERS = (VARIABLE, *forkserver._BY_IMPORTS)
REPORT = f"""
import atexit, json, os, signal, sys
import psutil

umask = os.umask(0)
os.umask(umask)
atexit.register(lambda: os.write(1, b"\\nthe last line"))
modes = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)]
environment = {{name: value for name, value in os.environ.items() if not name.startswith({OTHERS!r})}}
state = [sys.argv, __name__, __spec__.name, sys.path, os.getcwd(), umask, sys.stdin.read(), environment, str(modes)]
state += [os.getsid(0) == os.getppid(), sys.stdout.write_through, sys.flags, psutil.Process().num_fds()]
names = [psutil.Process().environ()[{VARIABLE!r}], json.load(open("run.json"))["name"]]
state.append(names == [os.environ[{VARIABLE!r}]] * 2)
print(json.dumps(state, sort_keys=True))
print("error", file=sys.stderr)
os.system("echo from a child")
sys.exit(int(sys.argv[1]))
"""
# It ignores SIGTERM and has a forked child that has left the session, with a child that was executed.
FAMILY = """
import os, signal, subprocess, sys, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(100)"], start_new_session=True)
    print("ready", flush=True)
time.sleep(100)
"""


@pytest.fixture(autouse=True)
def code(tmp_path, monkeypatch):
    """Directory of modules that are forked."""
    directory = tmp_path / "code, ä and 日本"
    directory.mkdir()
    (directory / "warm_report.py").write_text(REPORT)
    (directory / "warm_family.py").write_text(FAMILY)
    monkeypatch.setenv("PYTHONPATH", str(directory), prepend=os.pathsep)
    monkeypatch.setattr(forkserver, "FORKED", ("warm_",))
    monkeypatch.setattr(forkserver, "MODULES", ("json",))
    return directory


def command(module, *arguments):
    return [sys.executable, "-m", module, *arguments]


def is_forked(unit):
    """Return whether the processes of a unit have the command line of a forkserver, as forked ones do."""
    return any(forkserver.__name__ in process.cmdline() for process in unit.members())


def current_forkserver():
    """Return the process of the forkserver that was used last."""
    processes = [each for each in psutil.Process().children() if forkserver.__name__ in each.cmdline()]
    return max(processes, key=psutil.Process.create_time)


def test_a_forked_command_is_what_an_executed_one_is(unit, monkeypatch):
    """Its arguments, environment, session, umask, exit code and all else that it sees of its process."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    unit.directory.mkdir(parents=True)
    monkeypatch.chdir(unit.directory)
    starts, before, variables = [], os.umask(0o027), {"AIP_MODEL_DIR": "a model", "RECBANDITS_CONFIG": "a file"}
    try:
        for prefix in ("warm_", "another_package."):
            monkeypatch.setattr(forkserver, "FORKED", (prefix,))
            unit.start(command("warm_report", "3", "--an argument=ä"), variables)
            starts.append(is_forked(unit))
            unit.wait()
            assert unit.status()[::3] == ("failed", "unit a failed with exit code 3: the last line")
    finally:
        os.umask(before)
    assert starts == [True, False]
    forked, executed, rest = unit.log().split("the last line")
    assert (forked, rest) == (executed, "")
    state = json.loads(forked.splitlines()[0])
    assert state[0][1:] == ["3", "--an argument=ä"]
    assert (state[4], state[5]) == (str(unit.directory), 0o027)
    assert state[7] == state[7] | variables
    assert state[-1], "the name is in the environment, and others see it there"


def test_a_process_that_imports_tensorflow_after_its_first_job_keeps_its_forkserver(monkeypatch):
    """Its imports set variables, which those of the forkserver set there, too."""
    code = "import os, recbandits\nbefore = dict(os.environ)\nimport recbandits.training.experiments, json\n"
    code += "print(json.dumps(dict(os.environ.items() - before.items())))"
    before = {name: value for name, value in os.environ.items() if not name.startswith(forkserver._BY_IMPORTS)}
    process = subprocess.run([sys.executable, "-c", code], env=before, capture_output=True, check=True)
    added = json.loads(process.stdout)
    assert added["TF2_BEHAVIOR"] == "1"
    monkeypatch.setattr(forkserver, "MODULES", ("json",))
    job = command("warm_report")
    first = forkserver.get_forkserver(job, before | {"A": "1"})
    assert forkserver.get_forkserver(job, before | {"A": "1"} | added) is first
    assert forkserver.get_forkserver(job, before | {"A": "1", "RECBANDITS_CONFIG": "of this job"}) is first
    assert forkserver.get_forkserver(job, before | {"A": "2"}) is not first


def test_a_forked_unit_ends_with_its_last_line_or_its_signal(unit, code):
    ends = {
        "": ("succeeded", ""),
        "raise ValueError('no')": ("failed", "unit a failed with exit code 1: ValueError: no"),
        "raise SystemExit('no model')": ("failed", "unit a failed with exit code 1: no model"),
        "import os; os.kill(os.getpid(), 9)": ("failed", "unit a was killed by SIGKILL"),
    }
    for number, (text, end) in enumerate(ends.items()):
        (code / f"warm_{number}.py").write_text(text)
        unit.start(command(f"warm_{number}"))
        unit.wait()
        assert unit.status()[::3] == end


def test_all_that_a_forked_unit_started_ends_with_it(unit):
    """Runner, command, its forked child, and the child of that, which was executed: two of them lead a session."""
    unit.start(command("warm_family"))
    until(lambda: len(list(unit.members())) == 4 and "ready" in unit.log())
    assert is_forked(unit)
    members = list(unit.members())
    unit.stop(patience=0.5)
    assert all(is_gone(process) for process in members)
    assert unit.status().state == "stopped"
    assert current_forkserver().is_running()


def test_what_a_killed_command_leaves_behind_is_ended_by_the_forked_runner(unit):
    unit.start(command("warm_family"))
    until(lambda: len(list(unit.members())) == 4)
    members = list(unit.members())
    runner = next(process for process in members if os.getsid(process.pid) == process.pid)
    runner.children()[0].kill()
    unit.wait()
    assert unit.status()[::3] == ("failed", "unit a was killed by SIGKILL")
    until(lambda: all(is_gone(process) for process in members))


def test_a_forked_unit_outlives_forkserver_and_starter_and_another_process_stops_it(unit):
    code = f"""
import os, signal, psutil
from recbandits.platforms.local import forkserver
from recbandits.platforms.local.units import Unit
forkserver.FORKED, forkserver.MODULES = ("warm_",), ("json",)
Unit({str(unit.directory)!r}, "unit a").start({command("warm_family")!r})
print(psutil.Process().children()[0].pid, flush=True)
os.killpg(0, signal.SIGKILL)
"""
    starter = subprocess.run([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    assert starter.returncode == -signal.SIGKILL
    until(lambda: not psutil.pid_exists(int(starter.stdout)))
    until(lambda: len(list(unit.members())) == 4)
    assert unit.status().state == "running"
    assert is_forked(unit)
    assert not unit.start(command("warm_family"))
    unit.stop(patience=0.5)
    assert unit.status().state == "stopped"


def test_after_kills_at_random_moments_no_process_is_left_and_the_unit_starts_again(unit, code):
    """A forkserver or a process that it has forked gets SIGKILL around the moment of the fork, then its starter."""
    text = f"""
from recbandits.platforms.local import forkserver
from recbandits.platforms.local.units import Unit
forkserver.FORKED, forkserver.MODULES = ("warm_",), ("json",)
forkserver.get_forkserver({command("warm_family")!r}, dict(__import__("os").environ, PYTHONUNBUFFERED="1"))
print("ready", flush=True)
Unit({str(unit.directory)!r}, "unit a").start({command("warm_family")!r})
"""
    rng = random.Random(7)
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as starter:
            starter.stdout.readline()
            time.sleep(rng.uniform(0, 0.04))
            with contextlib.suppress(psutil.Error):  # it has ended by itself
                rng.choice([*psutil.Process(starter.pid).children(), *unit.members()]).kill()
            starter.kill()
        unit.kill()
        assert not unit.running
        assert list(unit.members()) == []
    (code / "warm_whole.py").write_text("print('whole')")
    assert unit.start(command("warm_whole"))
    unit.wait()
    assert unit.status().state == "succeeded"
    assert unit.log().endswith("whole\n")


def test_without_its_forkserver_a_unit_is_executed_and_the_next_one_is_forked(unit):
    starts = []
    for _ in range(3):
        unit.start(command("warm_family"))
        until(lambda: len(list(unit.members())) == 4)
        starts.append(is_forked(unit))
        if starts[-1]:
            current_forkserver().kill()
        assert unit.running
        unit.kill()
    assert starts == [True, False, True]


def test_modules_that_are_not_installed_leave_jobs_executed(unit, monkeypatch):
    monkeypatch.setattr(forkserver, "MODULES", ("a_module_that_is_not_installed",))
    unit.start(command("warm_family"))
    until(lambda: "ready" in unit.log())
    assert not is_forked(unit)


def test_units_of_two_checkouts_run_their_own_code_and_end_alone(unit, code, tmp_path, monkeypatch):
    """Both have the same name and module, and come from one process: another environment has another forkserver."""
    other = Unit(tmp_path / "other" / unit.directory.name, "unit a")
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "warm_family.py").write_text("import time; print('other', flush=True); time.sleep(100)")
    unit.start(command("warm_family"))
    first = current_forkserver()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "checkout"), prepend=os.pathsep)
    other.start(command("warm_family"))
    until(lambda: unit.log() + other.log() == "ready\nother\n")
    assert is_forked(unit)
    assert is_forked(other)
    until(lambda: is_gone(first))
    unit.stop(patience=0.5)
    assert (unit.running, other.running) == (False, True)
    other.stop()
