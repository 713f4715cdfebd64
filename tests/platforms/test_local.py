"""The laptop keeps the platform contract, and never removes anything outside its artifacts."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from recbandits.config import Config
from recbandits.platforms.functions import Function
from recbandits.platforms.local import DIRECTORIES, LocalPlatform
from recbandits.platforms.protocol import PlatformError
from tests.platforms.platform_contract import PlatformContract


@pytest.fixture
def platform(tmp_path):
    return LocalPlatform(Config(artifacts=str(tmp_path / "artifacts")))


def directory(platform, name):
    return platform.config.artifacts_dir / name


class TestLocal(PlatformContract):
    def present(self, platform):
        return [("directory", name) for name in DIRECTORIES if directory(platform, name).is_dir()]

    def occupy(self, platform):
        directory(platform, "metrics").mkdir(parents=True)
        return "directory", "metrics"

    def block_making(self, platform):
        directory(platform, "").mkdir()
        directory(platform, "metrics").write_text("a file is in the way")
        return directory(platform, "metrics").unlink

    def block_removal(self, platform):
        """A symbolic link in its place: what it points to is not ours."""
        elsewhere = platform.config.artifacts_dir.parent / "elsewhere"
        directory(platform, "data").rename(elsewhere)
        directory(platform, "data").symlink_to(elsewhere)
        return directory(platform, "data").unlink


def test_clean_up_takes_the_contents_along_and_nothing_else(platform):
    platform.create()
    root = platform.config.artifacts_dir
    (root / "data" / "train.tfrecord").write_text("x")
    (root / "notes.txt").write_text("mine")
    platform.clean_up(dry_run=False)
    assert [file.name for file in root.iterdir()] == ["notes.txt"]


def test_clean_up_ends_what_runs_and_removes_what_was_made_meanwhile(platform, tmp_path):
    """A function is deployed without `create`; the directory of endpoints belongs to another user."""
    (platform.config.artifacts_dir / "endpoints" / "theirs").mkdir(parents=True)
    assert platform.endpoints
    (tmp_path / "main.py").write_text("def ignore(event): pass")
    platform.functions.deploy(Function("ignore", tmp_path, "ignore", platform.messages.topic("rewards")))
    assert [outcome.name for outcome in platform.clean_up()] == ["functions", "messages"], "functions use messages"
    members = list(platform.functions.unit("ignore").members())
    assert len(members) == 2
    platform.clean_up()
    assert all(process.is_running() for process in members), "a dry run ends nothing"
    platform.clean_up(dry_run=False)
    _, alive = psutil.wait_procs(members, timeout=5)
    assert alive == []
    assert [path.name for path in platform.config.artifacts_dir.iterdir()] == ["endpoints"]
    assert platform.clean_up(dry_run=False) == []


def test_what_is_made_again_after_a_clean_up_is_removed_by_the_next_one(platform):
    for _ in range(2):
        platform.create()
        platform.warehouse.create()
        topic = platform.messages.topic("rewards")
        platform.messages.subscription("rewards", topic)
        removed = {outcome.name for outcome in platform.clean_up(dry_run=False)}
        assert removed == {*DIRECTORIES, "warehouse", "messages"}
        assert list(platform.config.artifacts_dir.iterdir()) == []


@pytest.mark.parametrize("service", ["jobs", "experiments"])
def test_clean_up_removes_the_runs_of_a_service_that_is_used_before_create(platform, service):
    if service == "jobs":
        platform.jobs.unit("slow").start([sys.executable, "-c", "import time; time.sleep(100)"], {})
        members = list(platform.jobs.unit("slow").members())
    else:
        platform.experiments.run("search", "first").log_metrics({"reward": 1.0})
        members = []
    platform.create()
    assert "runs" in [outcome.name for outcome in platform.clean_up(dry_run=False)]
    assert psutil.wait_procs(members, timeout=5)[1] == []
    assert list(platform.config.artifacts_dir.iterdir()) == []


def test_artifacts_that_cannot_hold_a_directory_are_refused(tmp_path):
    (tmp_path / "notes").write_text("a file")
    platform = LocalPlatform(Config(artifacts=str(tmp_path / "notes")))
    with pytest.raises(PlatformError, match=r"^directory data could not be created: /.*/notes/data: Not a directory$"):
        platform.create()


def test_a_directory_that_another_process_makes_meanwhile_is_used(platform, monkeypatch):
    def make_twice(path, *arguments, make=Path.mkdir, **options):
        make(path, parents=True)
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", make_twice)
    assert {outcome.outcome for outcome in platform.create()} == {"exists"}


def test_directories_are_for_their_owner_alone(platform):
    platform.create()
    modes = {path.stat().st_mode & 0o777 for path in platform.config.artifacts_dir.iterdir()}
    assert modes == {0o700}


def test_windows_is_refused_with_a_message(tmp_path):
    """It has no `fcntl`, whose import must not fail before."""
    code = f"""
import os, sys
sys.modules["fcntl"] = None
import recbandits.loop.__main__, recbandits.platforms
config, os.name = recbandits.config.Config(artifacts={str(tmp_path)!r}), "nt"
recbandits.platforms.choose(config)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "Error: the local platform must run on Linux or macOS, got Windows: use WSL" in printed.splitlines()[-1]
