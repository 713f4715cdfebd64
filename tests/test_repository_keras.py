"""TF-Agents gets Keras 2 in whichever order the packages are imported, or the import ends with a message."""

import subprocess
import sys

import pytest

from recbandits.platforms.images import image_steps
from tools.lock import ROOT

VARIABLES = ("TF_USE_LEGACY_KERAS", "TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL", "GRPC_VERBOSITY")
# Nor does the garbage collector look at the objects of TensorFlow during its import.
CLEAR = f"import gc, os, sys; gc.disable(); [os.environ.pop(name, None) for name in {VARIABLES}]"
SHOW_KERAS = "from recbandits.tf import tf; print(tf.keras.Model.__module__)"
TOO_LATE = "TensorFlow was imported with Keras 3, which TF-Agents cannot use: import recbandits before TensorFlow"


def run(*lines):
    """Run lines of Python in a process that has none of the variables."""
    return subprocess.run([sys.executable, "-c", "\n".join([CLEAR, *lines])], capture_output=True, text=True)


@pytest.mark.parametrize(
    "lines",
    [
        ["import recbandits, tensorflow", SHOW_KERAS],
        ["os.environ['TF_USE_LEGACY_KERAS'] = '1'; import tf_agents", SHOW_KERAS],
    ],
    ids=["recbandits first", "variable set, then TF-Agents"],
)
def test_tensorflow_has_keras_2(lines):
    assert run(*lines).stdout.startswith("tf_keras.")


@pytest.mark.parametrize(
    "lines",
    [
        ["import tensorflow, recbandits; tensorflow.keras.Model"],
        ["import tf_agents"],
        ["os.environ['TF_USE_LEGACY_KERAS'] = '0'"],
    ],
    ids=["variable set between TensorFlow and Keras", "TF-Agents first", "variable of the user"],
)
def test_keras_3_is_refused(lines):
    """In the first case, tf.keras is Keras 2 until TF-Agents is imported, and Keras 3 afterwards."""
    last = run(*lines, SHOW_KERAS).stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {TOO_LATE}")


@pytest.mark.parametrize("package", ["tensorflow", "tf_agents"])
def test_a_missing_package_is_named_with_the_two_commands_that_install_it(package):
    last = run(f"sys.modules[{package!r}] = None", SHOW_KERAS).stderr.splitlines()[-1]
    assert last == (
        f"ImportError: this module of recbandits needs {package}, which is not installed: run "
        'pip install "recbandits[tf]" && pip install --no-deps tf-agents==0.19.0 gym==0.23.0'
    )


def test_the_garbage_collector_goes_on_and_does_not_look_at_the_objects_of_tensorflow_again():
    """A collector that the user has disabled stays disabled; at the end, DuckDB does not report objects as leaked."""
    show = "print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    for before, expected in (("gc.enable()", "True True"), ("gc.disable()", "False True")):
        process = run(before, "import duckdb, recbandits.tf", show)
        assert (process.stdout.strip(), "leaked" in process.stderr) == (expected, False)


def test_the_variables_of_the_user_stay():
    show = f"import recbandits; print([os.environ[name] for name in {VARIABLES}])"
    assert run("os.environ['GRPC_VERBOSITY'] = 'DEBUG'", show).stdout.strip() == "['1', '0', '1', 'DEBUG']"


def test_the_images_set_the_same_variables():
    """They also hold for programs that import TensorFlow without recbandits."""
    variables = run(f"import recbandits; print(*(os.environ[name] for name in {VARIABLES}))").stdout.split()
    for name in ("lab", "train", "train-gpu"):
        steps = image_steps(name, ROOT)
        settings = dict(word.split("=", 1) for keyword, value in steps if keyword == "ENV" for word in value.split())
        assert variables == [settings[name] for name in VARIABLES]
