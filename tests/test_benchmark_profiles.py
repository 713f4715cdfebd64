"""The quick profile measures less and publishes nothing."""

import json
import os
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest

from benchmarks import off_policy, profiles
from tools.lock import ROOT


def test_quick_is_smaller_and_another_word_is_refused(monkeypatch):
    for profile, decisions in (("quick", 200_000), ("full", 1_000_000)):
        monkeypatch.setattr(profiles, "PROFILE", profile)
        assert runpy.run_path(off_policy.__file__)["DECISIONS"] == decisions
    for profile in ("quick", "full"):
        monkeypatch.setenv("BENCH_PROFILE", profile)
        assert runpy.run_path(profiles.__file__)["PROFILE"] == profile
    monkeypatch.setenv("BENCH_PROFILE", "fast")
    with pytest.raises(ValueError, match="PROFILE must be 'quick' or 'full', got 'fast'"):
        runpy.run_path(profiles.__file__)


def test_make_passes_the_profile_on():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    for arguments, profile in ((["bench"], "quick"), (["bench", "PROFILE=full"], "full")):
        command = ["make", "-n", *arguments]
        output = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
        assert f"BENCH_PROFILE='{profile}'" in output


@pytest.mark.parametrize(("profile", "is_real"), [("quick", True), ("full", False), ("full", True)])
def test_only_the_full_profile_on_real_data_is_published(profile, is_real, monkeypatch, tmp_path):
    from benchmarks import run

    written = []
    data = SimpleNamespace(is_real=is_real, source="MovieLens 100K (directory)")
    monkeypatch.setattr(sys, "argv", ["run", "gate", "accelerator"])
    monkeypatch.setattr(profiles, "PROFILE", profile)
    monkeypatch.setattr(run.movielens, "load", lambda: data)
    monkeypatch.setattr("benchmarks.gate.measure", lambda _: {"a table": pd.DataFrame({"speed": ["3/s"]})})
    monkeypatch.setattr("benchmarks.accelerator.measure", lambda _: {})
    monkeypatch.setattr(run, "OUTPUT", tmp_path / "build")
    monkeypatch.setattr(run.pages, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(run.pages, "write", lambda: written.append(True))
    run.main()
    published = profile == "full" and is_real
    (record,) = tmp_path.glob("*/*.json")
    assert record == tmp_path / ("results" if published else "build") / "gate.json"
    assert written == [True] * published
    content = json.loads(record.read_text())
    assert content["tables"] == {"a table": [{"speed": "3/s"}]}
    assert content["data"] == "MovieLens 100K"
    assert {"date", "profile", "python", "tensorflow", "tf-agents", "numpy", "machine", "cores", "load"} < set(content)
