"""Functions for notebooks: recorded metrics, a quiet import of TensorFlow, and checks of the machine."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml

from recbandits.notebook import Check, check_machine, check_packages, check_profile, record_metrics, show


@pytest.fixture(autouse=True)
def artifacts(tmp_path, monkeypatch):
    monkeypatch.setenv("RECBANDITS_CONFIG", str(tmp_path / "recbandits.toml"))
    return tmp_path / "artifacts"


def test_metrics_replace_those_of_an_earlier_run_and_are_shown(artifacts):
    record_metrics("01a", "synthetic", profile="full", of_an_earlier_run=1)
    table = record_metrics("01a", "synthetic", profile="quick", regret=np.float32(0.5), interactions=np.int64(6400))
    record = json.loads((artifacts / "metrics" / "01a.json").read_text())
    assert record == {
        "notebook": "01a",
        "data": "synthetic",
        "profile": "quick",
        "metrics": {"regret": 0.5, "interactions": 6400},
    }
    assert table["value"].to_dict() == {"regret": 0.5, "interactions": 6400}
    assert "6400\n" in f"{table}\n", "counts must not turn into 6400.0"


@pytest.mark.parametrize("value", [np.inf, "0.5", [1.0]])
def test_a_metric_that_is_not_a_finite_number_is_refused(artifacts, value):
    with pytest.raises(ValueError, match="metric 'regret' must be a finite number, got"):
        record_metrics("01a", "synthetic", profile="quick", regret=value)
    assert not artifacts.exists()


def test_a_notebook_without_a_metric_is_refused():
    with pytest.raises(ValueError, match="metrics of 01a must be at least one keyword argument"):
        record_metrics("01a", "synthetic", profile="quick")


@pytest.mark.parametrize("profile", ["Quick", None])
def test_unknown_profiles_are_refused(profile):
    with pytest.raises(ValueError, match=f"PROFILE must be 'quick' or 'full', got {profile!r}"):
        check_profile(profile)
    with pytest.raises(ValueError, match="PROFILE must be"):
        record_metrics("01a", "synthetic", profile=profile, regret=1.0)


def test_tensorflow_is_imported_without_known_lines():
    """In a process of its own: the import and the first operations write nothing to file descriptor 2."""
    code = (
        "from recbandits.notebook import quiet_tensorflow\n"
        "tf = quiet_tensorflow()\n"
        "print(float(tf.reduce_sum(tf.constant([1.0, 2.0]))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3.0\n"
    assert done.stderr == ""


def test_other_lines_of_the_import_are_written():
    code = (
        "import os, sys, types, importlib\n"
        "class Loud(types.ModuleType):\n"
        "    @property\n"
        "    def config(self):\n"
        "        os.write(2, b'I0000 port.cc:153] oneDNN custom operations are on.\\nE0000 out of memory\\n')\n"
        "        os.write(2, b'UserWarning: deprecated\\nOP_REQUIRES failed: Invalid\\n')\n"
        "        raise RuntimeError('no devices')\n"
        "sys.modules['tensorflow'] = Loud('tensorflow')\n"
        "from recbandits.notebook import quiet_tensorflow\n"
        "try:\n"
        "    quiet_tensorflow()\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "no devices\n"
    assert done.stderr == "E0000 out of memory\nUserWarning: deprecated\nOP_REQUIRES failed: Invalid\n"


def test_this_machine_runs_the_tests_so_it_passes(tmp_path):
    checks = {check.name: check for check in check_machine(tmp_path)}
    assert list(checks) == ["Python", "CPU cores", "memory", "free disk", "GPU", "TF_USE_LEGACY_KERAS"]
    assert checks["Python"].required == "<3.14,>=3.11"
    assert checks["Python"].passed
    assert checks["TF_USE_LEGACY_KERAS"] == Check("TF_USE_LEGACY_KERAS", "1", "1", True)


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    """Python 3.9, no disk left, and the Keras switch forgotten."""
    monkeypatch.setattr("platform.python_version", lambda: "3.9.18")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10**6}))
    monkeypatch.delenv("TF_USE_LEGACY_KERAS")
    failed = {check.name: check.actual for check in check_machine(tmp_path) if not check.passed}
    assert failed == {"Python": "3.9.18", "free disk": "too little", "TF_USE_LEGACY_KERAS": "unset"}


def test_without_tensorflow_a_check_fails_and_the_others_are_made(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # its import then raises ModuleNotFoundError
    checks = check_machine(tmp_path)
    assert [check for check in checks if not check.passed] == [Check("TensorFlow", "missing", "installed", False)]
    assert len(checks) == 6


def test_every_direct_dependency_is_installed_as_declared():
    checks = check_packages()
    assert len(checks) > 10
    assert [check for check in checks if not check.passed] == []


@pytest.mark.parametrize(
    ("requirements", "actual"),
    [
        (["never-published-package>=1"], "missing"),
        (["numpy<2"], None),
        (["numpy>=2", "numpy<2; extra == 'lab'", "pandas==0.1; extra == 'gpu'"], None),
    ],
)
def test_a_missing_or_wrong_package_fails(requirements, actual):
    """Requirements of the extra `lab` count as well; those of other extras alone do not."""
    (check,) = check_packages(requirements)
    assert not check.passed
    assert actual is None or check.actual == actual


def test_a_resource_is_shown_as_yaml_with_the_names_of_the_rest_api(capsys):
    """Of Vertex AI's SDK, without credentials, without a request."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    machine = {"machine_spec": {"machine_type": "n2-standard-8"}, "replica_count": 1}
    pool = machine | {"container_spec": {"image_uri": "train", "args": ["fit", "--seeds=0"]}}
    project = {"project": "movie-lab-42", "location": "us-central1", "staging_bucket": "gs://bucket"}
    options = {"credentials": AnonymousCredentials(), "labels": {"b": "2", "a": "1"}}
    job = aiplatform.CustomJob("fit-a", [pool], **project, **options)
    show(job, "labels", "displayName")
    assert capsys.readouterr().out == "labels:\n  a: '1'\n  b: '2'\ndisplayName: fit-a\n"
    show(job)
    written = capsys.readouterr().out
    assert yaml.safe_load(written) == job.to_dict()
    assert "      machineType: n2-standard-8\n" in written
