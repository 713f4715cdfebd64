"""The checks of the machine: each can fail."""

import pytest

from recbandits.notebook import Check, check_machine, check_packages


def test_this_machine_runs_the_tests_so_it_passes(tmp_path):
    checks = {check.what: check for check in check_machine(tmp_path)}
    assert list(checks) == ["Python", "CPU cores", "memory", "free disk", "GPU", "TF_USE_LEGACY_KERAS"]
    assert checks["Python"].wanted == "<3.14,>=3.11"
    assert checks["Python"].passed
    assert checks["TF_USE_LEGACY_KERAS"] == Check("TF_USE_LEGACY_KERAS", "1", "1", True)


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    """Python 3.9, no disk left, and the Keras switch forgotten."""
    monkeypatch.setattr("platform.python_version", lambda: "3.9.18")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10**6}))
    monkeypatch.delenv("TF_USE_LEGACY_KERAS")
    failed = {check.what: check.found for check in check_machine(tmp_path) if not check.passed}
    assert failed == {"Python": "3.9.18", "free disk": "too little", "TF_USE_LEGACY_KERAS": "unset"}


def test_every_direct_dependency_is_installed_as_declared():
    checks = check_packages()
    assert len(checks) > 10
    assert [check for check in checks if not check.passed] == []


@pytest.mark.parametrize(
    ("requirements", "found"),
    [
        (["never-published-package>=1"], "missing"),
        (["numpy<2"], None),
        (["numpy>=2", "numpy<2; extra == 'lab'", "pandas==0.1; extra == 'gpu'"], None),
    ],
)
def test_a_missing_or_wrong_package_fails(requirements, found):
    """What the extra `lab` requires counts as well; what other extras alone require does not."""
    (check,) = check_packages(requirements)
    assert not check.passed
    assert found is None or check.found == found
