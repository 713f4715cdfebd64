"""The steps of each Dockerfile, carried out without Docker: install, entry point, health check.

Proven: the build context is enough; pip, with the arguments of the Dockerfile, finds every pin met by the running
environment (which the lock's other tests hold to the lock) and downloads nothing; the wheel holds the whole
package and is what runs, outside the checkout; entry point, arguments, variables, ports and health check work together.
Not proven: the base image, the download, that the sets are complete, and that the numeric user may write where it
has to.
"""

import contextlib
import functools
import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import recbandits
from recbandits.config import Config
from recbandits.platforms.images import dockerfile, instructions
from recbandits.platforms.local.images import LocalImages
from recbandits.platforms.local.rehearsal import free_port, rehearse
from recbandits.platforms.local.stages import Builder
from recbandits.platforms.protocol import PlatformError
from recbandits.serving.policy import load
from tools.lock import ROOT, blocks

PACKAGE = Path(recbandits.__file__).parent
NAMES = ["lab", "serve", "train"]
IN_THE_IMAGE = """
import importlib.metadata, json, os, pathlib, recbandits
package = pathlib.Path(recbandits.__file__).parent
origin = json.loads(importlib.metadata.distribution("recbandits").read_text("direct_url.json"))
modules = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
compiled = [path.stem for path in package.rglob("*.pyc")]
print(json.dumps([str(package), origin, modules, len(compiled), os.environ["TF_USE_LEGACY_KERAS"]]))
"""


@pytest.fixture(scope="module")
def image():
    """A function that gives an image by its name, each rehearsed once."""
    with contextlib.ExitStack() as stack:
        images = LocalImages(Config())
        yield functools.cache(lambda name: stack.enter_context(images.rehearse(name)))


def get(url, body=None, **headers):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, body, headers), timeout=30) as response:
        return json.load(response)


@pytest.mark.parametrize("name", NAMES)
def test_every_pin_is_met_and_the_wheel_is_what_runs(image, name):
    done = image(name).execute(IN_THE_IMAGE)
    package, origin, modules, compiled, keras = json.loads(done.stdout)
    assert image(name).python.parents[1] in Path(package).parents
    assert origin["url"].endswith(".whl")
    assert modules == sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
    assert (compiled, keras) == (len(modules), "1")
    said = image(name).log.read_text()
    satisfied = re.findall(r"^Requirement already satisfied: ([\w.-]+)", said, flags=re.M)
    files = re.findall(r"-r (\S+)", dockerfile(name, ROOT).read_text())
    pins = [Requirement(pin) for file in files for pin in blocks((ROOT / file).read_text(encoding="utf-8"))]
    assert len(set(satisfied)) == len({pin.name for pin in pins if pin.marker is None or pin.marker.evaluate()})
    assert "Downloading" not in said


def test_the_training_image_runs_the_training_task(image):
    done = image("train").run("simulate", "--dry-run", "--alpha=0.75", environment={"AIP_MODEL_DIR": "/gcs/b/model"})
    assert done.returncode == 0, done.stderr
    assert "alpha=0.75" in done.stdout
    assert "/gcs/b/model" in done.stdout
    assert image("train").run().stdout.startswith("usage: recbandits.training.task")
    wrong = image("train").run("simulate", "--alpha=much")
    assert (wrong.returncode, "alpha" in wrong.stderr) == (2, True)
    assert image("train").is_healthy()


def test_the_serving_image_answers_from_an_exported_policy(image, exported):
    serve, port = image("serve"), free_port()
    environment = {"AIP_HTTP_PORT": port, "AIP_STORAGE_URI": str(exported[0])}
    assert not serve.is_healthy(environment)
    with serve.start("--host=127.0.0.1", environment=environment) as process:
        body = json.dumps({"instances": [{"user_id": 7, "candidates": [101, 102, 103], "k": 2}]}).encode()
        answer = get(f"http://127.0.0.1:{port}/predict", body, **{"Content-Type": "application/json"})
        (prediction,) = answer["predictions"]
        assert set(prediction["item_ids"]) < {"101", "102", "103"}
        assert prediction["policy_version"] == load(exported[0]).version
        assert not get(f"http://127.0.0.1:{port}/metrics")["tensorflow"]
    assert process.returncode in (0, -signal.SIGTERM)
    assert not serve.is_healthy(environment)
    assert serve.stage.environment["AIP_HTTP_PORT"] == serve.stage.ports[0]


def test_the_lab_image_starts_jupyter_on_the_notebooks(image):
    lab, port = image("lab"), free_port()
    arguments = [*lab.stage.command, *(["--allow-root"] if os.geteuid() == 0 else [])]
    environment = {"JUPYTER_PORT": port, "JUPYTER_TOKEN": "for-the-test"}
    with lab.start(*arguments, environment=environment) as process:
        api, token = f"http://127.0.0.1:{port}/api", {"Authorization": "token for-the-test"}
        notebooks = {item["name"] for item in get(f"{api}/contents", **token)["content"]}
        assert {"00-env-setup.ipynb", "01-online-bandit-simulation", "learning", "docker"} <= notebooks
        assert "tests" not in notebooks
        assert "python3" in get(f"{api}/kernelspecs", **token)["kernelspecs"]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            get(f"{api}/contents")
    assert process.returncode in (0, -signal.SIGTERM)
    assert not lab.is_healthy(environment)


def test_an_image_that_does_not_start_says_why(image):
    start = image("lab").start("python", "-m", "fortune_telling", environment={"JUPYTER_PORT": free_port()})
    with pytest.raises(PlatformError, match=r"did not become healthy; the last it said: .*fortune_telling"), start:
        pass


@pytest.fixture
def builder(tmp_path):
    """A builder with a small build context, whose commands run in the environment of the tests."""
    (tmp_path / "context" / "src").mkdir(parents=True)
    (tmp_path / "context" / "lock.txt").write_text("lock")
    (tmp_path / "context" / "src" / "module.py").write_text("VALUE = 1")
    return Builder(tmp_path, Path(sys.executable))


def follow(builder, text):
    for keyword, value in instructions(text):
        getattr(builder, f"do_{keyword.lower()}")(value)
    tree = builder.stage.tree
    return {path.relative_to(tree).as_posix(): path.read_text() for path in tree.rglob("*") if path.is_file()}


def test_files_go_where_docker_puts_them(builder):
    """A directory's content, a file under its name or a new one; later stages see what earlier ones made."""
    files = follow(
        builder,
        """
        ARG PYTHON=3.11
        FROM python:${PYTHON}-slim AS first
        WORKDIR /opt/app
        COPY lock.txt ./
        COPY src src
        RUN python -c "import pathlib; pathlib.Path('made').write_text('$NAME')"
        FROM first
        ENV NAME=second PLACE=/srv
        RUN echo $NAME > said
        COPY --from=first --chown=1000 /opt/app/src $PLACE
        COPY lock.txt renamed
        """,
    )
    assert files == {
        "opt/app/lock.txt": "lock",
        "opt/app/src/module.py": "VALUE = 1",
        "opt/app/made": "",
        "opt/app/said": "second\n",
        "opt/app/renamed": "lock",
        "srv/module.py": "VALUE = 1",
    }
    assert builder.stage.base == "python:3.11-slim"


def test_the_variables_of_this_machine_do_not_get_in(builder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("RECBANDITS_PREFIX", "mine")
    files = follow(builder, "FROM a\nENV A=1\nRUN env > variables")
    names = {line.partition("=")[0] for line in files["variables"].splitlines()}
    assert names - {"LD_LIBRARY_PATH", "PWD", "OLDPWD", "SHLVL", "_"} == {"A", "PATH", "HOME"}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "COPY requirements/train.txt",
            "COPY recbandits.toml",
            r"step 14 of train.Dockerfile, COPY .* failed: .*recbandits.toml",
        ),
        ("WORKDIR /opt", "ADD https://example.com/a /a\nWORKDIR /opt", "step 4 of .*, ADD, cannot be carried out"),
        (
            "-r requirements/build.txt",
            "-r requirements/built.txt",
            r"step 8 of .*, RUN pip .* failed: exit code 1, .*built.txt",
        ),
        ('ENTRYPOINT ["python"', "ENTRYPOINT [python", "ENTRYPOINT .* failed"),
    ],
)
def test_a_step_that_is_wrong_is_named(tmp_path, old, new, sentence):
    text = (ROOT / "docker" / "train.Dockerfile").read_text()
    assert old in text
    file = tmp_path / "train.Dockerfile"
    file.write_text(text.replace(old, new))
    with pytest.raises(PlatformError, match=sentence):
        rehearse(file, ROOT, tmp_path / "folder")


def test_without_docker_one_sentence_says_what_works_instead(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError, match=r"no Docker daemon answers; `rehearse\('train'\)`"):
        LocalImages(Config()).build("train")


@pytest.mark.parametrize("code", [0, 1])
def test_docker_is_called_at_the_root_with_the_command_that_is_shown(monkeypatch, tmp_path, code):
    """A program that answers for Docker writes down where it was called, and with what."""
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$1" = version ] && exit 0\necho "$PWD" "$@" > {tmp_path}/said\nexit {code}\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.chdir(ROOT / "docker")
    images = LocalImages(Config(version="v7"))
    if code:
        with pytest.raises(PlatformError, match="image serve could not be built: docker ended with exit code 1"):
            images.build("serve")
    else:
        assert images.build("serve") == "recbandits/serve:v7"
    _, *arguments = images.command("serve")
    assert (tmp_path / "said").read_text().split() == [str(ROOT), *arguments]
    labels = ["--label", "app=recbandits", "--label", "prefix=recbandits", "--label", "version=v7"]
    expected = ["build", "--file", "docker/serve.Dockerfile", "--tag", "recbandits/serve:v7", *labels, "."]
    assert arguments == expected


def test_an_image_that_does_not_exist_is_refused():
    with pytest.raises(
        PlatformError, match="there is no image 'Serve': docker/ has the Dockerfiles of lab, serve, train"
    ):
        LocalImages(Config()).command("Serve")
