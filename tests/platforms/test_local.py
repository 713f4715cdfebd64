"""The laptop keeps the platform contract, and never removes anything outside its artifacts."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from platform_contract import PlatformContract

from recbandits.config import Config
from recbandits.platforms.functions import Function
from recbandits.platforms.jobs import Job
from recbandits.platforms.local import LocalPlatform
from recbandits.platforms.local.jobs import LocalJobs
from recbandits.platforms.protocol import PlatformError, Resource
from recbandits.platforms.provisioning import clean_up, create, manifest


@pytest.fixture
def platform(tmp_path):
    return LocalPlatform(Config(artifacts=str(tmp_path / "artifacts")))


def path(platform, resource):
    return platform.config.artifacts_dir / resource.name


class TestLocal(PlatformContract):
    def present(self, platform):
        return [resource for resource in platform.plan() if path(platform, resource).is_dir()]

    def occupy(self, platform, resource):
        path(platform, resource).mkdir(parents=True)

    def block_making(self, platform, resource):
        self.occupy(platform, Resource("directory", ""))
        path(platform, resource).write_text("a file is in the way")
        return path(platform, resource).unlink

    def block_removal(self, platform, resource):
        """A symbolic link in its place: what it points to is not ours."""
        elsewhere = platform.config.artifacts_dir.parent / "elsewhere"
        path(platform, resource).rename(elsewhere)
        path(platform, resource).symlink_to(elsewhere)
        return path(platform, resource).unlink


def test_clean_up_takes_the_contents_along_and_nothing_else(platform):
    create(platform)
    root = platform.config.artifacts_dir
    (root / "data" / "train.tfrecord").write_text("x")
    (root / "notes.txt").write_text("mine")
    clean_up(platform, dry_run=False)
    assert [file.name for file in root.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["../outside", "", ".", "/etc", "data/../../outside"])
def test_nothing_outside_the_artifacts_can_be_named(platform, name):
    for act in (platform.make, platform.remove):
        with pytest.raises(PlatformError, match="is not inside the artifacts directory"):
            act(Resource("directory", name))


SLOW_CREATION = """
import sys, time
from recbandits.config import Config
from recbandits.platforms.jobs import Job
from recbandits.platforms.local import LocalPlatform
from recbandits.platforms.local.jobs import LocalJobs
from recbandits.platforms.provisioning import create

class SlowPlatform(LocalPlatform):
    def make(self, resource):
        if resource.name != "policies":
            return super().make(resource)
        if sys.argv[2] == "after":
            super().make(resource)
        print("in the middle", flush=True)
        time.sleep(60)

create(SlowPlatform(Config(artifacts=sys.argv[1])))
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_clean_up_after_a_killed_process_removes_what_it_made_and_nothing_else(platform, moment):
    root = platform.config.artifacts_dir
    (root / "data").mkdir(parents=True)
    (root / "data" / "mine.txt").write_text("mine")
    command = [sys.executable, "-c", SLOW_CREATION, str(root), moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in the middle\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert [resource.name for resource in manifest(platform)] == ["runs", "policies"]
    assert (root / "policies").exists() == (moment == "after")
    clean_up(platform, dry_run=False)
    assert sorted(path.relative_to(root).as_posix() for path in root.rglob("*")) == ["data", "data/mine.txt"]


def test_clean_up_ends_what_runs_and_removes_what_was_made_meanwhile(platform, tmp_path):
    """A function is deployed without `create`; the directory of endpoints is somebody else's."""
    (platform.config.artifacts_dir / "endpoints" / "theirs").mkdir(parents=True)
    assert platform.endpoints
    (tmp_path / "main.py").write_text("def ignore(event): pass")
    platform.functions.deploy(Function("ignore", tmp_path, "ignore", platform.messages.topic("rewards")))
    assert manifest(platform) == [Resource("directory", "functions"), Resource("directory", "messages")]
    members = list(platform.functions.unit("ignore").members())
    assert len(members) == 2
    clean_up(platform)
    assert all(process.is_running() for process in members), "a dry run ends nothing"
    clean_up(platform, dry_run=False)
    _, alive = psutil.wait_procs(members, timeout=5)
    assert alive == []
    assert [path.name for path in platform.config.artifacts_dir.iterdir()] == ["endpoints"]
    assert clean_up(platform, dry_run=False) == []


def test_a_part_that_was_only_asked_for_leaves_a_name_that_clean_up_passes_over(platform):
    assert platform.pipelines
    assert manifest(platform) == [Resource("directory", "pipelines")]
    clean_up(platform, dry_run=False)
    assert manifest(platform) == []


def test_artifacts_that_cannot_hold_a_manifest_are_refused_before_anything_is_made(tmp_path):
    (tmp_path / "notes").write_text("a file")
    platform = LocalPlatform(Config(artifacts=str(tmp_path / "notes")))
    with pytest.raises(
        PlatformError, match=r"the manifest .*/notes/manifest-local.json could not be written: File exi"
    ):
        create(platform)


def test_clean_up_ends_jobs_that_run(platform, tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "task.py").write_text("import time; print('ready', flush=True); time.sleep(100)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"), prepend=os.pathsep)
    create(platform)
    jobs = LocalJobs(platform.config, module="task")
    jobs.run(Job("first"), wait=False)
    while not jobs.logs("first"):
        time.sleep(0.02)
    members = list(jobs.unit("first").members())
    assert len(members) == 2
    clean_up(platform, dry_run=False)
    _, alive = psutil.wait_procs(members, timeout=5)
    assert alive == []
    assert not (platform.config.artifacts_dir / "runs").exists()


def test_windows_is_refused_with_a_sentence(tmp_path, monkeypatch):
    config = Config(artifacts=str(tmp_path))
    monkeypatch.setattr("recbandits.platforms.local.os.name", "nt")
    with pytest.raises(PlatformError, match="the local platform must run on Linux or macOS, got Windows: use WSL"):
        LocalPlatform(config)
    monkeypatch.undo()
