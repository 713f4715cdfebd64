"""The commands of docs/notebooks.md run as they are written there, and find `.venv` in the place of this Python."""

import contextlib
import json
import re
import shlex
import subprocess
import sys
import uuid

import nbformat
import pytest
import requests
import websocket
from urllib3.util import Retry

from recbandits.config import Config
from tests import commands
from tools.lock import ROOT
from tools.notebooks import code_cells, find_notebooks, read

PAGE = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
STEPS = ROOT / "04-pipelines" / "01-step_by_step_sdk_tf_agents_bandit" / "01-train_deploy_mab.ipynb"


def find_commands(program):
    """Return (folder, arguments) of each command on the page that starts a program of `.venv`."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S):
        folder = ROOT
        for line in block.splitlines():
            if line.startswith("cd "):
                folder = ROOT / line.removeprefix("cd ")
            elif f"/{program} " in line:
                found.append((folder, shlex.split(line.split(f"/{program} ")[1])))
    return found


@pytest.fixture(scope="module", autouse=True)
def config(isolated, tmp_path_factory):
    """A configuration of this module, so that nothing is written to the checkout."""
    folder = tmp_path_factory.mktemp("config")
    with pytest.MonkeyPatch.context() as patch:
        file = Config(artifacts=str(folder)).write(folder / "recbandits.toml")
        patch.setenv("RECBANDITS_CONFIG", str(file))
        yield


def run(folder, *arguments):
    """Run a module of Python in a folder, and return what it printed."""
    return commands.run(sys.executable, "-m", *arguments, cwd=folder)


@pytest.mark.parametrize("number", [0, 1], ids=["from the root", "from its folder"])
def test_papermill_runs_a_notebook(tmp_path, number):
    folder, (source, target, *parameters) = find_commands("papermill")[number]
    assert (folder == ROOT, parameters) == (number == 0, ["-p", "PROFILE", "quick"])
    run(folder, "papermill", source, str(tmp_path / target), *parameters, "-k", "python3")
    assert all(cell.execution_count for cell in code_cells(read(tmp_path / target)))


def test_papermill_from_the_root_finds_what_is_beside_the_notebook(tmp_path):
    """04-01 imports `src` and runs its tests by relative paths. What follows these cells is left out for time."""
    notebook = read(STEPS)
    last = max(place for place, cell in enumerate(notebook.cells) if "pytest" in cell.source and "src/" in cell.source)
    notebook.cells = notebook.cells[: last + 1]
    nbformat.write(notebook, tmp_path / "first-cells.ipynb")
    run(ROOT, "papermill", str(tmp_path / "first-cells.ipynb"), str(tmp_path / "out.ipynb"), "-k", "python3")
    assert "passed" in code_cells(read(tmp_path / "out.ipynb"))[-1].outputs[0].text


def test_nbval_collects_every_notebook_and_compares_one():
    ((folder, (_, program, *options)),) = find_commands("python")
    assert (folder, program, options) == (ROOT, "pytest", ["--nbval-lax", "*.ipynb", "0*/"])
    everything = [str(path) for pattern in options[1:] for path in ROOT.glob(pattern.rstrip("/"))]
    quiet = ["-p", "no:cacheprovider", "-q"]
    notebooks_alone = ["--collect-only", "--ignore-glob=*.py"]  # without the tests of components, for time
    collected = run(ROOT, "pytest", *options[:1], *everything, *notebooks_alone, *quiet)
    missing = [path for path in find_notebooks() if f"{path.relative_to(ROOT).as_posix()}::" not in collected]
    assert missing == []
    assert " passed" in run(ROOT, "pytest", *options[:1], "00-env-setup.ipynb", *quiet)


@pytest.fixture(scope="module")
def lab(config):
    """Address and token of the server that `make lab` starts."""
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    command = [sys.executable, "-m", "jupyter", "lab", *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        found = (re.search(r"http://([\d.]+:\d+)/lab\?token=(\w+)", line) for line in process.stderr)
        host, token = next(filter(None, found)).groups()
        with requests.Session() as session:  # it says where it listens before it does
            session.mount("http://", requests.adapters.HTTPAdapter(max_retries=Retry(connect=10, backoff_factor=0.1)))
            assert session.get(f"http://{host}/api", timeout=30).ok
        yield host, token
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("path", [ROOT / "00-env-setup.ipynb", STEPS], ids=lambda path: path.stem)
def test_jupyterlab_runs_all_cells(lab, path):
    """As JupyterLab's page does: read the notebook, start its kernel, execute each cell. Of 04-01 the first cells."""
    host, token = lab
    name, header = path.relative_to(ROOT).as_posix(), {"Authorization": f"token {token}"}
    assert requests.get(f"http://{host}/lab/tree/{name}", headers=header, timeout=30).ok
    notebook = requests.get(f"http://{host}/api/contents/{name}", headers=header, timeout=30).json()["content"]
    session = {"path": name, "name": path.stem, "type": "notebook", "kernel": {"name": "python3"}}
    started = requests.post(f"http://{host}/api/sessions", json=session, headers=header, timeout=60).json()
    kernel = started["kernel"]
    channels = f"ws://{host}/api/kernels/{kernel['id']}/channels?token={token}"
    cells = code_cells(nbformat.from_dict(notebook))
    if path == STEPS:
        cells = cells[: 1 + next(number for number, cell in enumerate(cells) if "from src" in cell.source)]
    with contextlib.closing(websocket.create_connection(channels, timeout=120)) as connection:
        replies = [execute(connection, cell.source) for cell in cells]
    assert requests.delete(f"http://{host}/api/sessions/{started['id']}", headers=header, timeout=60).ok
    assert [reply for reply in replies if reply["status"] != "ok"] == []


def execute(connection, source):
    """Execute a cell by Jupyter's protocol, and return the content of the kernel's reply."""
    number = uuid.uuid4().hex
    header = {"msg_id": number, "msg_type": "execute_request", "session": "test", "username": "", "version": "5.3"}
    content = {"code": source, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    connection.send(json.dumps(message))
    while True:
        answer = json.loads(connection.recv())
        if answer["parent_header"].get("msg_id") == number and answer["header"]["msg_type"] == "execute_reply":
            return answer["content"]
