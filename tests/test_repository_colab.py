"""The first code cell of a notebook makes Colab's own Python run it, and its links lead to the repository's address.

The environment has the versions that Google publishes for Colab (colab_packages.txt). By default it is Colab's kernel
with NumPy and pandas; with PROFILE=full it is all that Colab and the lock share, and a notebook runs to its end.
Colab's package `google.colab` is not on a package index, so an empty module takes its place.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpec
from packaging.utils import canonicalize_name

import recbandits
from tests.commands import run
from tests.waiting import until
from tools import badges
from tools.lock import COLAB, ROOT, blocks
from tools.notebooks import find_notebooks, read

FULL = os.environ.get("PROFILE") == "full"
NOTEBOOK = ROOT / "01-online-bandit-simulation" / "01-tf-agents-basics.ipynb"
CORE = ("numpy", "pandas", "tzdata", "hatchling", "pathspec", "pluggy", "tomlkit", "trove-classifiers")
STAND_IN = "--IPKernelApp.exec_lines=import google.colab"
VERSIONS = """
import os
from importlib.metadata import version
print(os.path.basename(os.getcwd()), *map(version, ["ipykernel", "ipython", "numpy", "pandas", "recbandits"]))
"""


def name_of(pin):
    return canonicalize_name(pin.split("==")[0])


LIST = (ROOT / "tests" / "colab_packages.txt").read_text(encoding="utf-8")
LISTS = re.split(r"^# (?:Its kernel|What requirements).*\n", LIST, flags=re.M)
KERNEL, SHARED = ({name_of(pin): pin for pin in text.split()} for text in LISTS[1:])
LOCK = {name_of(pin): entry for pin, entry in blocks((ROOT / COLAB).read_text(encoding="utf-8")).items()}


def version(entry):
    return entry.split("==")[1].split()[0]


def copy_repository(folder, address):
    """Write a pyproject.toml with an address, and the notebooks, into a folder."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(text.replace(badges.address(), address), encoding="utf-8")
    for path in find_notebooks():
        (folder / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.relative_to(ROOT))
    return find_notebooks(folder)


def test_the_notebooks_have_the_links_and_the_first_cell_of_the_address(tmp_path):
    for path in copy_repository(tmp_path, badges.address()):
        before = path.read_bytes()
        badges.write(path, tmp_path)
        assert path.read_bytes() == before, f"{path.name}: run python -m tools.badges"


def test_another_address_needs_one_line_and_the_tool(tmp_path):
    paths = copy_repository(tmp_path, "https://github.com/mine/bandits")
    for path in paths:
        badges.write(path, tmp_path)
        notebook, file = read(path), path.relative_to(tmp_path).as_posix()
        assert badges.address() not in path.read_text(encoding="utf-8")
        assert f"https://colab.research.google.com/github/mine/bandits/blob/main/{file})" in notebook.cells[0].source
        assert "https://mybinder.org/v2/gh/mine/bandits/main?" in notebook.cells[0].source
        assert "https://codespaces.new/mine/bandits)" in notebook.cells[0].source
        assert '"https://github.com/mine/bandits"' in notebook.cells[1].source


def test_the_lock_replaces_no_package_that_makes_the_kernel():
    """Libraries that the kernel only uses may move; the test below starts a kernel with them."""
    used = {"decorator", "packaging", "psutil", "pygments", "python-dateutil", "setuptools", "six"}
    assert LOCK.keys() & KERNEL.keys() == used
    assert {"ipykernel", "ipython", "jupyter-client", "pyzmq", "tornado", "traitlets"} <= KERNEL.keys()


@pytest.fixture
def python(tmp_path):
    """The Python of an environment with Colab's versions, and an empty `google.colab`."""
    run(sys.executable, "-m", "venv", tmp_path / "colab")
    python = tmp_path / "colab" / "bin" / "python"
    pins = [*KERNEL.values(), *(pin for name, pin in SHARED.items() if FULL or name in CORE)]
    pins += [] if FULL else ["pytz==2025.2"]  # which only pandas 2 needs
    run(Path(sys.executable).with_name("uv"), "pip", "install", "--python", python, "--no-deps", *pins)
    (packages,) = (tmp_path / "colab").glob("lib/*/site-packages")
    (packages / "google" / "colab").mkdir(parents=True)
    (packages / "google" / "colab" / "__init__.py").touch()
    return python


@pytest.fixture
def origin(tmp_path):
    """A Git repository with what the first cell needs, in the place of the one on GitHub."""
    origin = tmp_path / "origin"
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("src", "tools"):
        shutil.copytree(ROOT / folder, origin / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, origin)
    lock = "".join(entry for name, entry in LOCK.items() if FULL or name in {*KERNEL, *CORE})
    (origin / COLAB).parent.mkdir()
    (origin / COLAB).write_text(lock, encoding="utf-8")
    (origin / NOTEBOOK.parent.name).mkdir()
    shutil.copy(NOTEBOOK, origin / NOTEBOOK.parent.name)
    git = ["git", "-C", str(origin), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "--quiet"], ["add", "--all", "--force"], ["commit", "--quiet", "--message", "test"]):
        run(*git, *command)
    return origin


class Kernel:
    """Colab's kernel, which is started again when it has ended, as Colab does."""

    def __init__(self, python, content):
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self.manager = KernelManager()
        command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}", STAND_IN]
        self.manager._kernel_spec = KernelSpec(argv=command)
        self.manager.start_kernel(cwd=str(content), env=environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def execute(self, source):
        """Return the status of a cell, and what it printed."""
        texts = []

        def collect(message):
            content = message["content"]
            texts.append(content.get("text", "") or "\n".join(content.get("traceback", [])))

        reply = self.client.execute_interactive(source, output_hook=collect, timeout=1800)
        return reply["content"]["status"], "".join(texts)

    def restart_when_it_ends(self):
        until(lambda: not self.manager.is_alive())
        self.manager.restart_kernel(now=True)
        self.client.wait_for_ready(timeout=60)

    def stop(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def test_the_first_cell_installs_the_lock_restarts_the_kernel_once_and_goes_on(python, origin, tmp_path):
    first, *cells = [cell.source for cell in read(NOTEBOOK).cells if cell.cell_type == "code"]
    first = first.replace(badges.address(), origin.as_uri()).replace("/content", str(tmp_path))
    kernel = Kernel(python, tmp_path)
    try:
        status, printed = kernel.execute(first)
        assert (status, "run the notebook again from its first cell" in printed) == ("ok", True), printed
        kernel.restart_when_it_ends()
        assert kernel.execute(first) == ("ok", "")
        status, printed = kernel.execute(VERSIONS)
        kept, replaced = [KERNEL["ipykernel"], KERNEL["ipython"]], [LOCK["numpy"], LOCK["pandas"]]
        expected = [NOTEBOOK.parent.name, *map(version, kept + replaced), recbandits.__version__]
        assert (status, printed.split()) == ("ok", expected)
        for cell in cells if FULL else []:
            status, printed = kernel.execute(cell)
            assert status == "ok", printed
    finally:
        kernel.stop()
