"""Files of another user: the platform names the path, says what is wrong with it and what is expected."""

import contextlib
import os
import re
import shutil
import subprocess
import sys

import pytest

from recbandits.checks import EXPECTED
from recbandits.config import Config
from recbandits.platforms.functions import Function
from recbandits.platforms.jobs import Float, Job, Study
from recbandits.platforms.local import LocalPlatform
from recbandits.platforms.local.jobs import LocalJobs
from recbandits.platforms.protocol import PlatformError
from tests.forks import OTHER_USER, run_unprivileged
from tools.lock import ROOT

# Files that are used like others, or by nothing here.
ALIKE = r"policies|data|metrics|messages|warehouse|trials/[12]|\.recbandits"

# What a user does who is not root, and may only read the checkout.
PROGRAM = """
import sys
from recbandits.config import Config
from recbandits.loop.core import FUNCTIONS
from recbandits.platforms import choose
from recbandits.platforms.functions import Function
from recbandits.platforms.jobs import Job
from recbandits.platforms.local.jobs import LocalJobs

platform = choose(Config.load())
platform.create()
try:
    assert LocalJobs(platform.config, module="this").run(Job("print")).state == "succeeded"
    platform.functions.deploy(Function("log", FUNCTIONS / "logger", "log_reward", platform.messages.topic("rewards")))
    endpoint = platform.endpoints.create()
    endpoint.deploy(sys.argv[1])
    with platform.experiments.run("try", "first") as run:
        run.log_metrics({"items": len(endpoint.predict([{"user_id": "7"}]))})
    platform.warehouse.create()
    print(*platform.experiments.table("try")["metric.items"])
finally:
    platform.clean_up(dry_run=False)
"""


@pytest.fixture
def artifacts(open_folder, exported):
    """All that the platform stores, of processes that have ended."""
    (open_folder / "main.py").write_text("def ignore(event): pass")
    platform = LocalPlatform(Config(artifacts=str(open_folder / "artifacts")))
    platform.create()
    jobs = LocalJobs(platform.config, module="this")  # of the standard library: it prints a text
    assert jobs.run(Job("print")).state == "succeeded"
    with contextlib.suppress(PlatformError):  # its trials report nothing
        jobs.tune(Study(Job("search"), {"alpha": Float(0.1, 1.0)}, trials=1))
    with platform.experiments.run("try", "first") as run:
        run.log_metrics({"regret": 1.0})
    platform.functions.deploy(Function("ignore", open_folder, "ignore", platform.messages.topic("rewards")))
    platform.functions.stop("ignore")
    endpoint = platform.endpoints.create("shop")
    endpoint.deploy(exported[0])
    endpoint.unit.stop()
    platform.warehouse.create()
    unit = platform.pipelines._unit("count")
    unit.start(["true"], request={"pipeline": "count"})
    unit.wait()
    (endpoint.directory / "http.sock").unlink(missing_ok=True)  # sockets cannot be copied
    return platform.config.artifacts_dir


def answers(artifacts):
    """Dict from what a user asks for to the answer: an error, or the text of what is returned."""
    platform = LocalPlatform(Config(artifacts=str(artifacts)))
    jobs = LocalJobs(platform.config)
    questions = {
        "list": jobs.list,
        "record": lambda: jobs.record("print"),
        "logs": lambda: jobs.logs("print"),
        "log": lambda: jobs.unit("print").log(),
        "trials": lambda: jobs.trials("search"),
        "stop a job": lambda: jobs.stop("print"),
        "stop a study": lambda: jobs.stop("search"),
        "experiment": lambda: platform.experiments.table("try"),
        "logs of a function": lambda: platform.functions.logs("ignore"),
        "health of a function": lambda: platform.functions.health("ignore"),
        "stop a function": lambda: platform.functions.stop("ignore"),
        "logs of an endpoint": lambda: platform.endpoints._endpoint("shop").logs(),
        "health of an endpoint": lambda: platform.endpoints._endpoint("shop").health(),
        "traffic split": lambda: platform.endpoints._endpoint("shop").traffic_split,
        "runs of a pipeline": lambda: platform.pipelines.running("count"),
        "status of a pipeline": lambda: platform.pipelines.status("count"),
        "logs of a pipeline": lambda: platform.pipelines.logs("count"),
        "stop a pipeline": lambda: platform.pipelines.stop("count"),
        "backlog": lambda: platform.messages.backlog("rewards"),
        "query": lambda: platform.warehouse.query("SELECT 1"),
        "create": platform.create,
        "delete a function": lambda: platform.functions.delete("ignore"),
        "delete an endpoint": lambda: platform.endpoints.delete("shop"),
        "dry run": platform.clean_up,
        "clean up": lambda: platform.clean_up(dry_run=False),
    }
    given = {}
    for question, ask in questions.items():
        try:
            given[question] = str(ask())
        except Exception as error:
            given[question] = f"{type(error).__name__}: {error}"
    return given


def test_every_answer_about_a_file_of_another_user_is_one_sentence_that_names_it(artifacts, open_folder):
    """Of a copy of everything, one file or folder after the other belongs to another user, or has no mode."""
    original, copy, given = artifacts.rename(open_folder / "original"), artifacts, {}
    shutil.copytree(original, copy)
    assert [answer for answer in answers(copy).values() if "Error: " in answer] == []
    names = [str(path.relative_to(original)) for path in original.rglob("*")]
    for name in ("", *(name for name in names if not re.search(ALIKE, name))):
        shutil.copytree(original, copy, dirs_exist_ok=True)
        path = copy / name
        if os.geteuid() == 0:
            for each in {copy, *copy.rglob("*")} - {path}:
                os.chown(each, OTHER_USER, OTHER_USER)
            path.chmod(0o700 if path.is_dir() else 0o600)
        else:
            path.chmod(0)
        given |= {(path, question): answer for question, answer in run_unprivileged(lambda: answers(copy)).items()}
        with contextlib.suppress(FileNotFoundError):
            path.chmod(0o700)
        shutil.rmtree(copy, ignore_errors=True)
    refused = {key: answer for key, answer in given.items() if "Error: " in answer or "denied" in answer}
    for (path, question), answer in refused.items():
        named = str(path) in answer or (f": {path.name}: " in answer and str(copy) in answer)  # by parts, or as a whole
        assert (named, EXPECTED in answer, "\n" in answer) == (True, True, False), (path, question, answer)
    folder, denied = copy / "runs" / "jobs" / "print", f"Permission denied: it {EXPECTED}"
    assert given[folder, "list"] == "['print', 'search']", "its name is taken"
    assert given[folder, "logs"] == f"PlatformError: {folder}/run.json cannot be read: {denied}"
    log, function = folder / "log.txt", copy / "functions" / "ignore"
    assert given[log, "log"] == f"PlatformError: job print could not be read: {log}: {denied}"
    answer = given[function.parent, "delete a function"]
    assert answer == f"PlatformError: directory {function} could not be removed: {function}: {denied}"


def test_an_unprivileged_user_works_from_a_read_only_checkout_under_umask_077_behind_a_proxy(exported, tmp_path):
    """Artifacts have their own place, of spaces and other letters; those below the checkout are refused by name."""
    checkout = shutil.copytree(ROOT / "src", tmp_path / "checkout", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*checkout.rglob("*"), checkout):
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-c", PROGRAM, str(exported[0])]
    if os.geteuid() == 0:  # a user namespace, in which our files are those of a user without the rights of root
        command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", *command]
        if subprocess.run([*command[:4], "true"], capture_output=True).returncode:
            pytest.skip("needs a user who is not root, or user namespaces")
    environment = os.environ | {"PYTHONPATH": str(checkout), "http_proxy": "http://127.0.0.1:9"}
    environment |= {"HTTP_PROXY": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
    options = {"cwd": checkout, "umask": 0o077, "capture_output": True, "text": True}
    done = subprocess.run(command, env=environment, **options)
    refused = f"directory data could not be created: {checkout}/artifacts: Permission denied: it {EXPECTED}"
    assert done.stderr.splitlines()[-1] == f"recbandits.platforms.protocol.PlatformError: {refused}"
    environment["RECBANDITS_ARTIFACTS"] = str(tmp_path / "with spaces, ä and 日本")
    done = subprocess.run(command, env=environment, **options)
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
