"""The training job on a data set of one's own."""

import json

import pytest

from recbandits.data import data_file
from recbandits.exploration import Exploration
from recbandits.serving import ServedPolicy, load
from recbandits.training import evaluate, target_probabilities, task, train
from tests.videos import write_tables

LEARN = ("learn", "--alpha=0.2", "--serve_epsilon=0.05", "--test_share=0.4")


@pytest.fixture
def data(tmp_path):
    write_tables(tmp_path, n=1500)
    return tmp_path / "data.toml"


def test_it_learns_the_earlier_decisions_and_is_evaluated_on_the_later_ones(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AIP_MODEL_DIR", str(tmp_path / "job" / "model"))
    assert task.main([*LEARN, f"--data={data}"]) == 0
    record = json.loads((tmp_path / "job" / "record.json").read_text())
    videos = data_file.load(data)
    earlier, later = videos.log.split(0.6)
    features = videos.fit_features(earlier)
    agent = train(earlier, features, "linucb", alpha=0.2)
    probabilities = target_probabilities(agent, later, features, Exploration("epsilon_greedy", 0.05))
    table = evaluate(later, {"agent": probabilities}, features, ["DR"])
    expected = table.loc["agent", "DR"]
    assert record["metrics"]["estimated_reward"] == pytest.approx(expected["value"])
    assert record["metrics"]["logged_reward"] == pytest.approx(table.loc["logging policy", "mean"]["value"])
    assert record["metrics"]["gain_low"] == pytest.approx(expected["gain_low"])
    assert record["data"] == "data.toml: 1,500 decisions, 12 items"
    policy = load(tmp_path / "job" / "model")
    assert isinstance(policy, ServedPolicy)
    answer = policy.recommend({"plan": "premium"}, k=1, rng=0)
    assert answer.policy_version == record["policy_version"]
    assert answer.titles[0].startswith("Video ")
    assert "estimated_reward" in capsys.readouterr().out


def test_a_network_learns_as_well_and_two_seeds_give_intervals(data, tmp_path, monkeypatch):
    monkeypatch.setenv("AIP_MODEL_DIR", str(tmp_path / "job" / "model"))
    flags = ("--agent=epsilon_greedy", "--layers=8", "--epochs=2", "--seeds=0,1", "--estimator=SNIPS")
    assert task.main(["learn", *flags, f"--data={data}"]) == 0
    mean, low, high = json.loads((tmp_path / "job" / "record.json").read_text())["metrics"]["estimated_reward"]
    assert low < mean < high


def test_the_file_is_asked_for_and_a_wrong_one_is_one_sentence(data, capsys):
    assert task.main([*LEARN]) == 1
    assert "--data must be the path of a TOML file" in capsys.readouterr().err
    data.write_text(data.read_text().replace('"shown"', '"watched"'))
    assert task.main([*LEARN, f"--data={data}"]) == 1
    assert capsys.readouterr().err.startswith("recbandits.training.task: decisions.csv: column must be one of")


@pytest.mark.parametrize("share", [0.0001, 0.9999])
def test_a_share_that_leaves_nothing_to_learn_or_to_evaluate_is_refused(data, capsys, share):
    assert task.main(["learn", f"--test_share={share}", f"--data={data}"]) == 1
    sentence = "test_share must be a share of the 1,500 decisions that leaves some to learn and some to evaluate"
    assert f"{sentence}, got {share}" in capsys.readouterr().err
