"""`.venv` is made once, brought up to date when something changed, and survives interruptions.

A tiny project with one locked package stands in for ours.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.waiting import until
from tools import environment
from tools.lock import ROOT

# The build backend of the stand-in: its editable install brings one module, and hangs as long as a file `slow` exists.
BACKEND = """
import pathlib, time, zipfile

def build_editable(directory, config_settings=None, metadata_directory=None):
    while pathlib.Path("slow").exists():
        pathlib.Path("started").touch()
        time.sleep(0.05)
    name, info = "project-1.0-py3-none-any.whl", "project-1.0.dist-info/"
    with zipfile.ZipFile(pathlib.Path(directory, name), "w") as wheel:
        wheel.writestr("project.pth", str(pathlib.Path.cwd()))
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: project\\nVersion: 1.0\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name

build_wheel = build_editable
"""


class Project:
    """A directory with our tools, a package that is locked, and the programs that may be used."""

    def __init__(self, folder):
        self.folder, self.programs = folder / "project", folder / "bin"
        self.folder.mkdir()
        self.programs.mkdir()
        shutil.copytree(ROOT / "tools", self.folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
        (self.folder / "backend.py").write_text(BACKEND)
        (self.folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            '[project]\nname = "project"\nversion = "1.0"\n'
        )
        self.lock("1.0")

    def lock(self, version, digest=None):
        """Make the lock ask for this version of the package `demo`."""
        wheel, info = self.folder / f"demo-{version}-py3-none-any.whl", f"demo-{version}.dist-info/"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("demo.py", f"VERSION = {version!r}\n")
            archive.writestr(info + "METADATA", f"Metadata-Version: 2.1\nName: demo\nVersion: {version}\n")
            archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(info + "RECORD", "")
        digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
        (self.folder / "requirements.txt").write_text(f"demo @ {wheel.as_uri()} --hash=sha256:{digest}\n")

    def start(self):
        """Start the installation in a process group of its own."""
        environment = {"PATH": str(self.programs), "HOME": str(self.folder.parent), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, self.folder / "tools" / "environment.py"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)

    def make(self):
        """Install, and return the exit code and the output."""
        process = self.start()
        said = "".join(process.communicate(timeout=120))
        return process.returncode, said

    @contextlib.contextmanager
    def hanging(self):
        """An installation that hangs half-way; yields its process."""
        (self.folder / "slow").touch()
        process = self.start()
        try:
            until((self.folder / "started").exists)
            yield process
        finally:
            (self.folder / "slow").unlink()
            process.communicate()

    def python(self, code):
        """Return the output of the environment's Python."""
        command = [self.folder / ".venv" / "bin" / "python", "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    (project.programs / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    return project


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_packages_and_project_are_installed_with_bytecode_and_then_left_alone(project, installer):
    if installer == "pip":
        (project.programs / "uv").unlink()
    code, said = project.make()
    assert code == 0, said
    assert f"with {installer}" in said
    assert project.python("import backend, demo; print(demo.VERSION)") == "1.0"
    assert list(project.folder.glob(".venv/lib/*/site-packages/__pycache__/demo.*.pyc"))

    stamp = (project.folder / ".venv" / "recbandits-stamp").stat().st_mtime_ns
    assert project.make() == (0, "")
    assert (project.folder / ".venv" / "recbandits-stamp").stat().st_mtime_ns == stamp


def test_a_changed_lock_is_installed_into_the_same_environment(project):
    project.make()
    (project.folder / ".venv" / "mine").touch()
    project.lock("10.0")
    assert project.make()[0] == 0
    assert project.python("import demo; print(demo.VERSION)") == "10.0"
    assert (project.folder / ".venv" / "mine").exists()


def test_a_project_that_moved_imports_itself_from_its_new_place(project):
    project.make()
    project.folder = project.folder.rename(project.folder.with_name("elsewhere"))
    project.lock("1.0")
    assert project.make()[0] == 0
    assert project.python("import backend; print(backend.__file__)") == str(project.folder / "backend.py")


def test_an_environment_that_lost_its_python_is_made_anew(project):
    project.make()
    (project.folder / ".venv" / "bin" / "python").unlink()
    code, said = project.make()
    assert (code, "lost its Python" in said) == (0, True)
    assert project.python("import demo; print(demo.VERSION)") == "1.0"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_installation_is_started_over(project, number):
    with project.hanging() as process:
        os.killpg(process.pid, number)
        process.wait(timeout=30)
        said = process.stderr.read()
    assert process.returncode != 0
    assert "Traceback" not in said
    assert ("run make again" in said) == (number == signal.SIGINT)
    code, said = project.make()
    assert (code, "left unfinished" in said) == (0, True)
    assert project.python("import demo; print(demo.VERSION)") == "1.0"


def test_a_second_installation_at_the_same_time_is_refused_and_harms_nothing(project):
    with project.hanging() as process:
        code, said = project.make()
        assert (code, said.count("\n")) == (1, 1)
        assert "Another make is installing .venv right now" in said
    assert process.returncode == 0
    assert project.make() == (0, "")


def test_no_second_installation_starts_while_the_installer_of_a_killed_make_runs(project):
    with project.hanging() as process:
        process.kill()
        process.wait()
        assert "Another make is installing" in project.make()[1]


def test_a_failed_installation_shows_why_and_can_be_repeated(project):
    project.lock("1.0", digest="0" * 64)
    code, said = project.make()
    assert code == 1
    assert "Hash mismatch" in said
    assert "Traceback" not in said
    project.lock("1.0")
    assert project.make()[0] == 0


def test_a_failed_update_keeps_the_environment(project):
    """Without a network it could not be made again."""
    project.make()
    (project.folder / ".venv" / "mine").touch()
    project.lock("10.0", digest="0" * 64)
    assert project.make()[0] == 1
    assert project.python("import demo; print(demo.VERSION)") == "1.0"
    project.lock("10.0")
    assert project.make()[0] == 0
    assert project.python("import demo; print(demo.VERSION)") == "10.0"
    assert (project.folder / ".venv" / "mine").exists()


def test_another_python_behind_the_link_is_noticed(tmp_path, monkeypatch):
    digests = set()
    for name in ("python3.11", "python3.13"):
        (tmp_path / "python").unlink(missing_ok=True)
        (tmp_path / "python").symlink_to(tmp_path / name)
        monkeypatch.setattr(environment, "PYTHON", tmp_path / "python")
        digests.add(environment.digest())
    assert len(digests) == 2


def test_an_environment_made_by_hand_is_filled_not_replaced(project):
    venv.create(project.folder / ".venv", symlinks=True)
    (project.folder / ".venv" / "mine").touch()
    assert project.make()[0] == 0
    assert project.python("import demo; print(demo.VERSION)") == "1.0"
    assert (project.folder / ".venv" / "mine").exists()


def test_an_unsuitable_environment_made_by_hand_is_not_changed(project):
    (project.folder / ".venv").mkdir()
    (project.folder / ".venv" / "pyvenv.cfg").write_text("version = 3.9.18\n")
    code, said = project.make()
    assert (code, said.count("\n")) == (1, 1)
    assert "was not made by make" in said
    assert os.listdir(project.folder / ".venv") == ["pyvenv.cfg"]
