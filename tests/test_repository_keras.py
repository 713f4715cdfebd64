"""TF_USE_LEGACY_KERAS, which TF-Agents needs, is set wherever this package is installed, before any import."""

import subprocess
import sys
import venv
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tools.lock import ROOT

SHOW = "import os; print(os.environ.get('TF_USE_LEGACY_KERAS'))"


def output(*command, **environment):
    """What a command prints in an environment that has nothing but this."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_tensorflow_takes_keras_2_in_a_plain_process():
    code = "import tensorflow as tf; print(tf.keras.Model.__module__)"
    assert output(sys.executable, "-c", code).startswith("tf_keras.")


def test_a_jupyter_kernel_has_it(monkeypatch):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOW)])
    NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    assert notebook.cells[0].outputs[0].text == "1\n"


def test_a_setting_of_the_user_stays():
    assert output(sys.executable, "-c", SHOW, TF_USE_LEGACY_KERAS="0") == "0"


@pytest.fixture(scope="module")
def fresh_python(tmp_path_factory):
    """The Python of a fresh environment that holds the wheel of this package and nothing else."""
    folder = tmp_path_factory.mktemp("fresh")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    install = [
        Path(sys.executable).with_name("uv"),
        "pip",
        "install",
        "--offline",
        "--no-deps",
        "--python",
        python,
        wheel,
    ]
    subprocess.run(install, check=True, capture_output=True)
    return python


def test_the_wheel_brings_it_into_a_fresh_environment(fresh_python):
    assert output(fresh_python, "-c", SHOW) == "1"


def test_the_wheel_holds_the_package(fresh_python):
    place = output(fresh_python, "-c", "import recbandits; print(recbandits.__file__)")
    assert Path(place).is_relative_to(fresh_python.parents[1])
