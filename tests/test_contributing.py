"""The examples of CONTRIBUTING.md are short, and satisfy the contracts of the package's own parts."""

import re
import shutil
import sys

import numpy as np
import pytest

from recbandits import config
from recbandits.agents import make_agent
from recbandits.data import Features
from recbandits.environments import StationaryLinearEnvironment
from recbandits.evaluation import estimates, tabulate
from recbandits.evaluation.regret import difference
from recbandits.platforms import choose
from recbandits.training import evaluate, simulate, target_probabilities, train
from tests.environments.test_environments import EnvironmentContract
from tests.notebooks import test_notebook_rules as rules
from tests.platforms.test_local import TestLocal as LocalContract
from tests.test_markdown import BLOCK, run_blocks
from tests.videos import SECONDS, make_tables, write_tables
from tools import badges
from tools.lock import ROOT
from tools.notebooks import markdown, read
from tools.refresh_notebooks import refresh

PAGE = ROOT / "CONTRIBUTING.md"
EXAMPLES = BLOCK.findall(PAGE.read_text(encoding="utf-8"))[1:]  # the first one has the imports
PARTS = ["An agent", "An environment", "An estimator", "A data set", "A platform", "A notebook"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with the tables of a video service, and with the page's notebook once `names` has run."""
    folder = tmp_path_factory.mktemp("contributing")
    write_tables(folder, n=3000)
    (folder / "README.md").write_text("# A repository\n")
    return folder


@pytest.fixture(scope="module")
def names(folder):
    """The names that the page defines."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        return run_blocks(PAGE)


def test_each_part_has_a_section_with_one_example_of_at_most_ten_lines():
    sections = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.M)[1:]
    assert [section.splitlines()[0] for section in sections] == PARTS
    assert [example for section in sections for example in BLOCK.findall(section)] == EXAMPLES
    assert max(sum(map(bool, example.splitlines())) for example in EXAMPLES) <= 10
    assert len(EXAMPLES) == len(PARTS)


@pytest.mark.parametrize("per_arm", [False, True])
def test_the_agent_runs_through_simulate_and_learns(names, per_arm):
    environment = StationaryLinearEnvironment(num_actions=4, per_arm=per_arm, reward_noise=0.1)
    agents = {"new": names["LinearSoftmax"](0.2), "uniform": "uniform"}
    runs = simulate(environment, agents, steps=100, seeds=range(4), points=1)
    assert difference(runs, "new", "uniform").high < 0


def test_the_agent_logs_the_probabilities_by_which_it_explores(names):
    """With theta = 0, all scores are equal, and softmax is uniform over the available arms."""
    environment = StationaryLinearEnvironment(num_actions=4, available=0.5)
    agent, batch = make_agent(names["LinearSoftmax"](), environment), environment.batch()
    mask = batch.mask.numpy()
    expected = mask / mask.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(agent.collect_policy.probabilities(batch.observation), expected, rtol=1e-6)


class TestEnvironment(EnvironmentContract):
    @pytest.fixture(autouse=True)
    def _names(self, names):
        self.environment = names["FavouriteGenre"]

    def make(self, **options):
        return self.environment(**options)


def test_linucb_finds_the_favourite_in_the_new_environment(names):
    runs = simulate(names["FavouriteGenre"](), "linucb", steps=100, points=2)
    assert runs["regret"].iloc[-1] < 0.01


@pytest.fixture(scope="module")
def videos(names, folder):
    return names["load_videos"](folder)


def test_the_estimator_has_an_interval_that_holds_the_true_value(names):
    """The target policy is uniform, so that its value is the mean of the expected rewards, averaged over decisions.

    The interval is of 99.9 %, as the data are drawn once.
    """
    decisions, items, _, expected = make_tables(n=4000, seed=1)
    decisions["candidates"] = decisions["candidates"].str.split("|")
    columns = {"item": "shown", "candidates": "candidates", "propensity": "p", "reward": "seconds", "time": "at"}
    log = names["Log"].from_frame(decisions, items["video"], context=["device"], default_reward=0.0, **columns)
    probabilities = log.mask / log.mask.sum(axis=1, keepdims=True)
    smoothed = names["smoothed_ips"](log, probabilities, 0.01)
    row = tabulate({"smoothed IPS": smoothed}, level=0.999).loc["smoothed IPS"]
    assert row["low"] < np.mean([mean.mean() for mean in expected]) < row["high"]
    assert row["largest_weight"] < 1 / 0.01
    exact = names["smoothed_ips"](log, probabilities, 0.0)
    ips = estimates(log, probabilities, names=["IPS"])["IPS"]
    assert exact.interval() == ips.interval()


def test_the_data_set_goes_through_splits_features_training_and_evaluation(videos):
    """The value of the agent is above the logging policy's, and below the largest expected reward of any video."""
    log, items = videos
    earlier, later = log.split(0.7)
    assert earlier.time.max() <= later.time.min()
    features = Features.fit(items, earlier, crosses=[("device", "genre")])
    agent = train(earlier, features, "linucb", alpha=0.1)
    table = evaluate(later, {"LinUCB": target_probabilities(agent, later, features)}, features)
    assert later.reward.mean() < table.loc[("LinUCB", "SNIPS"), "value"] < max(SECONDS.values())


class TestPlatform(LocalContract):
    @pytest.fixture
    def platform(self, tmp_path, monkeypatch):
        imports, example = (BLOCK.findall(PAGE.read_text(encoding="utf-8"))[0], EXAMPLES[PARTS.index("A platform")])
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "shared_disk.py").write_text(f"{imports}\n\n{example}")
        monkeypatch.syspath_prepend(tmp_path / "modules")
        (entry,) = re.findall(r'^The entry `"(\w+)": "([\w:]+)"`', PAGE.read_text(encoding="utf-8"), re.M)
        monkeypatch.setitem(config.PLATFORMS, *entry)
        monkeypatch.setenv("SHARED_DISK", str(tmp_path / "disk"))
        yield choose(config.Config(platform="shared", artifacts=str(tmp_path / "artifacts")))
        del sys.modules["shared_disk"]

    def test_the_factory_makes_it_and_steps_find_shared_files(self, platform, tmp_path):
        (tmp_path / "policy").mkdir()
        (tmp_path / "policy" / "weights").write_text("1")
        shared = platform.share(tmp_path / "policy")
        assert type(platform).__name__ == "SharedDisk"
        assert (tmp_path / "disk" / "policy" / "weights").read_text() == "1"
        assert shared == str(tmp_path / "disk" / "policy")


def test_the_notebook_runs_and_passes_the_rules(names, folder):
    notebook = folder / "02h-clicks.ipynb"
    shutil.copy(ROOT / "pyproject.toml", folder)  # has the address for the links
    badges.write(notebook, root=folder)
    refresh([notebook], folder / "build", root=folder)
    assert read(notebook).cells[3].outputs[0].text == "42\n"
    checks = [
        check for name, check in vars(rules).items() if name.startswith("test_") and name != "test_names_are_unique"
    ]
    assert len(checks) > 10
    for check in checks:
        check(notebook)
    assert markdown(read(notebook)).startswith("# 02h · Count clicks")
