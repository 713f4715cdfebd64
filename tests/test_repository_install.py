"""The wheel, installed by plain pip into empty environments: the core, and the prediction server."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import recbandits
from recbandits.serving import policy
from recbandits.serving.handler import read_metrics
from tests import commands
from tests.sockets import free_ports, get_json, get_text
from tests.waiting import until
from tools.lock import ROOT

PACKAGE = Path(recbandits.__file__).parent
CORE = ("__main__", "config", "checks", "notebook", "records", "data", "exploration", "evaluation", "serving")
NOT_CORE = {  # what of these layers belongs to the extras tf and serve
    *("data.tfrecords", "data.trajectories", "serving.saved_model"),
    *("serving.handler", "serving.predictor", "serving.schemas", "serving.server"),
}
BLOCKED = ("tensorflow", "tf_agents", "keras", "tf_keras", "matplotlib", "google", "grpc", "prometheus_client")
BLOCKED += ("pydantic", "starlette")

# What a user does with an exported policy and its log. Prints the answers, and an estimate of the policy's value.
USE = """
import json, sys
from datetime import UTC, datetime, timedelta
from recbandits.evaluation.off_policy import evaluate
from recbandits.records import Interaction, Log, Reward, to_table
from recbandits.serving.policy import load

policy, users = load(sys.argv[1]), list(range(1, 31))
answers = [policy.recommend({"age": user / 30}, rng=user, user_id=user) for user in users]
times = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=user) for user in users]
decisions = [answer.interaction(time) for answer, time in zip(answers, times, strict=True)]
rewards = [Reward(answer.event_id, time, answer.scores[0]) for answer, time in zip(answers, times, strict=True)]
log = Log.from_tables(to_table(decisions, Interaction), to_table(rewards, Reward))
decided = policy.decide(log.context, log.candidate_ids, log.mask)
value = evaluate(log, decided.probabilities).loc["SNIPS", "value"]
print(json.dumps([[answer.item_ids for answer in answers], value, log.reward.mean(), "tensorflow" in sys.modules]))
"""


def core_modules():
    names = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in sorted(PACKAGE.rglob("*.py"))]
    names = [name.removesuffix(".__init__") for name in names if name.split(".")[0] in CORE]
    return [f"recbandits.{name}" for name in names if name not in NOT_CORE]


def run(command, folder, **variables):
    """Run a command in a directory, without the paths of this process; returns what it printed."""
    dropped = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")  # the second would have every command compile all it imports
    environment = {name: value for name, value in os.environ.items() if name not in dropped} | variables
    return commands.run(*command, cwd=folder, env=environment)


@pytest.fixture(scope="module")
def install(tmp_path_factory):
    """A function that installs the wheel with an extra, into a new environment or a copy of one; returns its Python."""
    folder = tmp_path_factory.mktemp("install")
    run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)], ROOT)
    (wheel,) = folder.glob("*.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".pth")]

    def install(name, extra="", source=None):
        python = folder / name / "bin" / "python"
        if source:
            shutil.copytree(source, folder / name, symlinks=True)
        else:
            run([sys.executable, "-m", "venv", name], folder)
        run([python, "-m", "pip", "install", "--no-compile", "--progress-bar=off", f"{wheel}{extra}"], folder)
        return python

    return install


@pytest.fixture(scope="module")
def core(install):
    return install("core")


@pytest.fixture(scope="module")
def serve(install, core):
    return install("serve", "[serve]", core.parents[1])


@functools.cache
def installed(python):
    """Names of the packages that the environment of a Python has, after pip has checked their requirements."""
    assert run([python, "-m", "pip", "check"], "/").strip() == "No broken requirements found."
    packages = json.loads(run([python, "-m", "pip", "list", "--format=json"], "/"))
    return {package["name"] for package in packages}


def test_the_core_is_small(core):
    assert {"recbandits", "numpy", "pandas", "pyarrow", "scikit-learn"} <= installed(core)
    assert not installed(core) & {"tensorflow", "keras", "matplotlib", "pydantic", "google-auth", "grpcio"}
    assert len(installed(core)) < 25


def test_the_core_loads_a_policy_asks_it_and_evaluates_a_log(core, exported, tmp_path):
    """The answers are those of this environment; the SNIPS estimate of a policy on its own log is the mean reward."""
    answers, value, mean_reward, has_tensorflow = json.loads(run([core, "-c", USE, exported[0]], tmp_path))
    here = policy.load(exported[0])
    assert answers == [here.recommend({"age": user / 30}, rng=user).item_ids for user in range(1, 31)]
    assert value == pytest.approx(mean_reward)
    assert not has_tensorflow


def test_the_core_imports_every_module_of_its_layers(core, tmp_path):
    code = f"import importlib\nfor name in {core_modules()}: importlib.import_module(name)"
    run([core, "-c", code], tmp_path)


def report(python, folder, **variables):
    """Return the rows that `python -m recbandits` prints, as a dict from name to text."""
    variables = {"HOME": str(folder), "RECBANDITS_CONFIG": "", "RECBANDITS_MOVIELENS": ""} | variables
    return dict(
        re.split("  +", line, maxsplit=1)
        for line in run([python, "-m", "recbandits"], folder, **variables).splitlines()
    )


def test_the_core_reports_what_it_has_and_what_each_extra_lacks(core, tmp_path):
    """The extras are those of pyproject.toml; each command names its extra, and TF-Agents has commands of its own."""
    rows = report(core, tmp_path)
    assert rows["recbandits"] == recbandits.__version__
    assert rows["configuration"] == "defaults, because there is no recbandits.toml"
    assert rows["platform"] == f"local, files in {tmp_path}/artifacts"
    assert rows["MovieLens"].startswith("not found; set RECBANDITS_MOVIELENS")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {name.removeprefix("extra ") for name in rows if name.startswith("extra ")} == set(extras)
    assert rows["extra plots"] == 'missing matplotlib: pip install "recbandits[plots]"'
    assert all(rows[f"extra {extra}"].endswith(f'pip install "recbandits[{extra}]"') for extra in extras)
    assert rows["TF-Agents"].endswith("pip install --no-deps tf-agents==0.19.0 gym==0.23.0")
    assert rows["next"].startswith("help('recbandits.evaluation')")


def test_the_report_names_the_data_and_the_settings_that_it_finds(core, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "obp-0.4.1-py3-none-any.whl").touch()
    (tmp_path / "recbandits.toml").write_text('platform = "gcp"\nproject = "movie-lab-42"\n')
    rows = report(core, tmp_path, RECBANDITS_CACHE=str(tmp_path / "cache"), RECBANDITS_MOVIELENS=str(tmp_path))
    assert rows["MovieLens"] == f"{tmp_path}, from RECBANDITS_MOVIELENS"
    assert rows["Open Bandit"] == str(tmp_path / "cache" / "obp-0.4.1-py3-none-any.whl")
    assert rows["configuration"] == str(tmp_path / "recbandits.toml")
    assert rows["platform"].startswith("gcp, ")
    assert rows["project"] == "movie-lab-42 in us-central1"
    (tmp_path / "recbandits.toml").write_text('platfrom = "gcp"\n')
    rows = report(core, tmp_path, RECBANDITS_MOVIELENS=str(tmp_path / "nowhere"))
    assert rows["MovieLens"] == f"RECBANDITS_MOVIELENS names {tmp_path}/nowhere, which is no directory"
    assert rows["platform"].endswith("did you mean 'platform'?")


def test_the_environment_of_the_repository_has_every_extra_but_the_gpu(tmp_path):
    rows = report(sys.executable, tmp_path, PYTHONPATH=str(PACKAGE.parent))
    missing = {name for name, text in rows.items() if "missing" in text}
    assert missing <= {"extra gpu"}
    assert rows["extra lab"] == "installed"
    assert rows["next"].startswith(f"in {ROOT}: make run")


def test_the_report_takes_at_most_100_lines_and_no_tensorflow():
    assert len((PACKAGE / "__main__.py").read_text(encoding="utf-8").splitlines()) <= 100
    code = "import sys, recbandits.__main__ as m; m.main(); assert 'tensorflow' not in sys.modules"
    commands.run_python(code)


def test_a_module_that_needs_tensorflow_names_the_commands(core, tmp_path):
    code = "try: import recbandits.agents.factory\nexcept ImportError as error: print(error)"
    sentence = run([core, "-c", code], tmp_path)
    assert sentence.startswith("this module of recbandits needs tensorflow, which is not installed: run pip install")


def test_the_wheel_says_that_it_is_typed(core, tmp_path):
    code = "import pathlib, recbandits; print(pathlib.Path(recbandits.__file__).with_name('py.typed').is_file())"
    assert run([core, "-c", code], tmp_path) == "True\n"


def test_the_server_answers(serve, exported, tmp_path):
    (port,) = map(str, free_ports(1))
    variables = {"AIP_HTTP_PORT": port, "AIP_STORAGE_URI": str(exported[0]), "PYTHONPATH": ""}
    command = [serve, "-m", "recbandits.serving.server"]

    address, log_file = f"http://127.0.0.1:{port}", tmp_path / "log"
    with log_file.open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | variables, stdout=log, stderr=log)
    try:
        until(lambda: process.poll() is not None or "running on" in log_file.read_text(), seconds=60)
        assert process.poll() is None, log_file.read_text()
        assert get_text(f"{address}/health") == "{}"
        body = {"instances": [{"user_id": 7, "candidates": [101, 102], "k": 2}]}
        (prediction,) = get_json(f"{address}/predict", body)["predictions"]
        assert sorted(prediction["item_ids"]) == ["101", "102"]
        assert not read_metrics(get_text(f"{address}/metrics"))["tensorflow"]
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_the_server_needs_neither_tensorflow_nor_the_sdk(serve):
    assert {"recbandits", "starlette", "uvicorn", "google-cloud-pubsub", "google-cloud-storage"} <= installed(serve)
    assert not installed(serve) & {"tensorflow", "keras", "matplotlib", "google-cloud-aiplatform", "fastapi"}


def test_no_core_module_imports_a_package_of_an_extra():
    """Not inside `try` either, which an environment without the package would not show."""
    code = f"""
import importlib, importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise AssertionError(f"{{name}} is imported")
sys.meta_path.insert(0, Blocker())
for name in {core_modules()}:
    importlib.import_module(name)
"""
    commands.run_python(code)
