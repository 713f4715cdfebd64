"""Fixtures of all tests."""

import contextlib
import gc
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

import recbandits  # noqa: F401  # before TensorFlow, which a test may import first: it selects Keras 2
from tests.browser import browser  # noqa: F401

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Each worker has a processor of its own: threads that wait for each other in loops take a third of the time of ALS.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
gc.disable()  # until all test files are imported, see `pytest_collection_finish`

_FIRST = "test_notebook_execution.py"  # takes longest, in processes of its own that use both processors
# Meanwhile those that wait most of the time.
_SECOND = ("test_loop_chaos.py", "test_run_notebooks.py", "test_server_limits.py")
_LAST = ("evaluation", "exploration", "records")  # directories of short files


def pytest_collection_modifyitems(items):
    """Move long files to the front and short ones to the end, so that both workers are busy and end together."""

    def rank(path):
        return 0 if path.name == _FIRST else 1 if path.name in _SECOND else 3 if path.parent.name in _LAST else 2

    items.sort(key=lambda item: rank(item.path))


def pytest_collection_finish():
    """Spare the garbage collector the million objects of imported modules, at which it would look during every test."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure():
    """Let go of these objects: libraries say at the end of the process what is left of theirs."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def shared_forkserver():
    """Keep a forkserver from test to test: the name of the test, which pytest puts into the environment, is per job."""
    from recbandits.platforms.local import forkserver

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(forkserver, "_PER_JOB", (*forkserver._PER_JOB, "PYTEST_CURRENT_TEST"))
        yield


@pytest.fixture(scope="session")
def movielens(tmp_path_factory):
    """MovieLens 100K when RECBANDITS_MOVIELENS names it, else the synthetic set; never a download."""
    from recbandits.data import movielens as data

    return data.load(cache=tmp_path_factory.mktemp("movielens-cache"), offline=True)


@pytest.fixture(scope="session")
def real_movielens(movielens):
    """MovieLens 100K itself; the test is skipped where it is not at hand."""
    if not movielens.is_real:
        pytest.skip("needs MovieLens 100K: set RECBANDITS_MOVIELENS to its directory")
    return movielens


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Directories of three small exported policies for 40 items, ids "101" to "140"; the context is the age.

    They score about 100, 200 and 300, so that a score tells which one has decided; they explore, 30 %.
    """
    import numpy as np
    import pandas as pd

    from recbandits.agents.factory import make_agent
    from recbandits.data import Features
    from recbandits.exploration import Exploration
    from recbandits.serving import export
    from recbandits.training.offline import Specs

    rng = np.random.default_rng(0)
    context = pd.DataFrame({"age": rng.normal(size=30)})
    items = pd.DataFrame(rng.normal(size=(40, 2)), range(101, 141), ["year", "popularity"])
    features = Features.fit(items, context, [("age", "year")])
    exploration, titles = Exploration("epsilon_greedy", 0.3), {item: f"title {item}" for item in items.index}
    folder, directories = tmp_path_factory.mktemp("exported"), []
    for level in (100, 200, 300):
        agent = make_agent("linucb", Specs(features.spec(10)))
        agent.model.theta.assign([[level, 0.5, 0.4, 0.3, 0.6]])  # constant, age, year, popularity, age times year
        options = {"exploration": exploration, "titles": titles}
        directories.append(export(agent.policy, folder / str(level), features, **options))
    return directories


@pytest.fixture
def open_folder():
    """A folder that every user can write to; those above a `tmp_path` are for its user alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.fixture
def kill_when():
    """Function that kills a process as soon as a condition holds, and fails if it ended before."""

    def kill(process, condition, seconds=600):
        deadline = time.monotonic() + seconds
        while not condition():
            assert process.poll() is None, "the process ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    return kill


@pytest.fixture
def project():
    """See `recorded_project`."""
    with recorded_project() as project:
        yield project


@contextlib.contextmanager
def recorded_project():
    """A `Recorder` in which images are built, and a function that was made has its trigger and its service."""
    from tests.recorder import DIGEST, Recorder, answer_build

    with pytest.MonkeyPatch.context() as monkeypatch, Recorder("movie-lab-42") as project:
        for name in ("PUBSUB_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"):
            monkeypatch.delenv(name, raising=False)
        image = {"version": f"versions/{DIGEST}"}
        project.answers["GET https://artifactregistry.googleapis.com/v1/.*"] = image
        project.answers["GET https://run.googleapis.com/v2/.*:getIamPolicy"] = {}
        subscription = {"transport": {"pubsub": {"subscription": "projects/movie-lab-42/subscriptions/eventarc"}}}
        project.answers["GET https://eventarc.googleapis.com/v1/.*"] = subscription
        project.answers["CreateBuild"] = answer_build
        create = project._create

        def complete(field, request, method):
            resource = create(field, request, method)
            if field == "function":
                resource.service_config.service = resource.name.replace("/functions/", "/services/")
                resource.service_config.uri = f"https://{resource.name.rpartition('/')[2]}.run.app"
                if resource.event_trigger.pubsub_topic:
                    resource.event_trigger.trigger = resource.name.replace("/functions/", "/triggers/")
            return resource

        project._create = complete
        yield project
