import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from recbandits.agents.parameters import LinUCB
from recbandits.exploration import Exploration
from recbandits.loop.models import Model, keep_model, read_model, write_model

UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
FACTS = "0123456789abcdef", None, 12, UNTIL, LinUCB(0.5, 2.0, 0.9), Exploration("softmax", 0.25)

ENDLESS_WRITER = """
import sys, time
from pathlib import Path
from recbandits.loop.models import read_model, write_model
draft, directory, template = map(Path, sys.argv[1:])
model = read_model(template)._replace(directory=directory)
while True:
    for version in ("aaaa", "bbbb"):
        start = time.monotonic()
        write_model(draft / version, model._replace(version=version))
        seconds = time.monotonic() - start
        print(seconds, flush=True)
        time.sleep(seconds)
"""


def make_draft(directory, text="x", files=1):
    for part in ("policy", "agent"):
        (directory / part / "deep").mkdir(parents=True)
        for number in range(files):
            (directory / part / "deep" / f"{number}").write_text(text)
    return directory


def contents(model):
    return {file.read_text() for part in ("policy", "agent") for file in (model.directory / part / "deep").iterdir()}


def test_a_model_is_read_as_it_was_written(tmp_path):
    model = write_model(make_draft(tmp_path / "draft"), Model(tmp_path / "model", *FACTS))
    assert model == read_model(tmp_path / "model") == (tmp_path / "model", *FACTS)
    assert model.policy.is_dir()
    assert (model.directory / "agent").is_dir()


def test_a_model_is_written_to_a_mounted_bucket_that_refuses_permissions_and_times(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("Operation not permitted")

    draft = make_draft(tmp_path / "draft", files=2)
    for name in ("chmod", "utime", "chown"):
        monkeypatch.setattr(os, name, refuse)
    model = write_model(draft, Model(tmp_path / "model", *FACTS))
    assert [path.name for path in sorted((model.policy / "deep").iterdir())] == ["0", "1"]
    assert (model.directory / "agent" / "deep" / "1").read_text() == "x"


def test_models_are_stored_by_version_and_storing_again_changes_nothing(tmp_path):
    models, expected = tmp_path / "models", Model(tmp_path / "models" / FACTS[0], *FACTS)
    for name in ("first", "second"):
        model = write_model(make_draft(tmp_path / name, name), Model(tmp_path / "model", *FACTS))
        assert keep_model(model, models) == read_model(expected.directory) == expected
        assert contents(expected) == {"first"}
    assert keep_model(expected, models) == expected


def test_an_incomplete_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere must be the directory of a complete model, it has no model.json"):
        read_model(tmp_path / "nowhere")
    model = write_model(make_draft(tmp_path / "draft"), Model(tmp_path / "model", *FACTS))
    for text in ("[]", "{}", '{"what": "something else"}', "no JSON"):
        (model.directory / "model.json").write_text(text)
        with pytest.raises(ValueError, match=r"model.json of model cannot be read: "):
            read_model(model.directory)


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"directory model .* without other files, got \['thesis.txt'\]"):
        write_model(make_draft(tmp_path / "draft"), Model(tmp_path / "model", *FACTS))
    assert (tmp_path / "model" / "thesis.txt").exists()


def test_a_writer_killed_at_any_moment_leaves_a_complete_model_or_none(tmp_path):
    """Ten kills while models of 200 files each are copied over each other, or more until both outcomes were seen.

    The writer rests after each model as long as it has copied, so that kills often leave a complete one.
    """
    for version in ("aaaa", "bbbb"):
        make_draft(tmp_path / version, version, files=100)
    rng, outcomes = random.Random(0), []
    write_model(tmp_path / "aaaa", Model(tmp_path / "template", *FACTS))
    while len(outcomes) < 10 or len(set(outcomes)) < 2:
        assert len(outcomes) < 100, f"every kill left {'a complete model' if outcomes[0] else 'none'}"
        command = [sys.executable, "-c", ENDLESS_WRITER, tmp_path, tmp_path / "model", tmp_path / "template"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            seconds = float(process.stdout.readline())  # it has started
            time.sleep(rng.uniform(0.0, 4 * seconds))
            os.kill(process.pid, signal.SIGKILL)
        outcomes.append((tmp_path / "model" / "model.json").exists())
        if not outcomes[-1]:
            with pytest.raises(ValueError, match="must be the directory of a complete model"):
                read_model(tmp_path / "model")
            continue
        model = read_model(tmp_path / "model")
        assert contents(model) == {model.version}
        assert sum(1 for _ in model.directory.rglob("deep/*")) == 200
