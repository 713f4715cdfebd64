"""A data set of one's own, from CSV files to a served policy."""

import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbandits.agents.parameters import EpsilonGreedy, LinUCB
from recbandits.data import Features, data_file, make_examples
from recbandits.evaluation.off_policy import estimates
from recbandits.evaluation.reward_model import cross_fit
from recbandits.exploration import Exploration
from recbandits.records import Log
from recbandits.serving import export, load
from recbandits.training import evaluate, score_log, target_probabilities, train
from tests.videos import make_tables, write_tables

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    write_tables(folder)
    return folder


@pytest.fixture(scope="module")
def videos(folder):
    return data_file.load(folder / "data.toml")


@pytest.fixture(scope="module")
def parts(videos):
    training_log, test_log = videos.log.split(0.7)
    return training_log, test_log, videos.fit_features(training_log)


def expected_rewards(log):
    """Expected reward of every candidate [n, k], 0 in padding, of the whole log in its order."""
    *_, expected = make_tables()
    values = np.zeros(log.mask.shape)
    values[log.mask] = np.concatenate(expected)
    return values


def example():
    """The example of the page on data that reads a team's own CSV files."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    return next(block for block in blocks if "Log.from_frame" in block)


def test_the_example_of_the_page_on_data_runs_on_csv_files_in_at_most_15_lines(folder, monkeypatch, capsys):
    """In the directory of the files: three lines of imports are not counted."""
    code = example()
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
    assert len(lines) <= 15
    monkeypatch.chdir(folder)
    exec(compile(code, PAGE, "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out
    assert "logging policy" in printed
    assert printed.count("'v-9000000000000000") == 3


def test_a_learned_policy_is_better_than_the_logging_policy_by_the_estimate_and_by_the_truth(videos, parts):
    training_log, test_log, features = parts
    agent = train(training_log, features, "linucb", alpha=0.1)
    probabilities = target_probabilities(agent, test_log, features, Exploration("epsilon_greedy", 0.1))
    table = evaluate(test_log, {"linucb": probabilities}, features)
    truth = (expected_rewards(videos.log)[len(training_log) :] * probabilities).sum(axis=1).mean()
    logged = test_log.reward.mean()
    for estimator in ("SNIPS", "DR"):
        row = table.loc["linucb", estimator]
        assert row["low"] < truth < row["high"]
        assert row["gain_low"] > 0.3 * logged
    assert table.loc["logging policy", "mean"]["value"] == pytest.approx(logged)


def test_gains_are_the_paired_differences_to_the_logging_policy(parts):
    """The logging policy as target policy: its IPS estimate is the mean of the log, and the gain is exactly 0."""
    _, test_log, _ = parts
    weight = np.where(
        test_log.mask, 1.0 + np.array([int(name[-2:]) for name in test_log.item_ids])[test_log.candidates] % 4, 0
    )
    logging = weight / weight.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(logging[np.arange(len(test_log)), test_log.action], test_log.propensity)
    row = evaluate(test_log, {"same": logging}, names=["IPS"]).loc["same", "IPS"]
    np.testing.assert_allclose(row[["gain", "gain_low", "gain_high"]].to_numpy(float), 0.0, atol=1e-9)
    assert row["value"] == pytest.approx(test_log.reward.mean())


def test_without_crosses_a_linear_agent_says_that_everybody_gets_the_same_order(videos, parts):
    training_log, test_log, features = parts
    with pytest.warns(UserWarning, match="orders the items alike for everybody"):
        agent = train(training_log, features.without_crosses(), LinUCB())
    contexts = test_log.take(slice(0, 50))
    all_items = Log.from_frame(
        pd.DataFrame({"item": test_log.item_ids[0], "reward": 0.0, "p": 0.5, "t": "2026-01-01"}, index=range(50)),
        test_log.item_ids, item="item", reward="reward", propensity="p", time="t",
    )  # fmt: skip
    rescored_log = replace(all_items, context=contexts.context)
    orders = score_log(agent, rescored_log, features.without_crosses()).argsort(axis=1)
    assert len(np.unique(orders, axis=0)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent_with_crosses = train(training_log, features, LinUCB())
        train(training_log, features.without_crosses(), EpsilonGreedy(layers=(8,)), batch_size=512)
    assert len(np.unique(score_log(agent_with_crosses, rescored_log, features).argsort(axis=1), axis=0)) > 1


def test_a_request_of_which_nothing_is_known_is_predicted_at_the_mean():
    """Rewards are 3 + 2 x, where x is a standardised number of the context: without a constant nothing says 3."""
    x = np.random.default_rng(0).normal(size=400)
    frame = pd.DataFrame({"shown": "a", "p": 0.5, "at": "2026-01-01", "x": x, "reward": 3 + 2 * x})
    columns = {"item": "shown", "reward": "reward", "propensity": "p", "time": "at", "context": ["x"]}
    log = Log.from_frame(frame, ["a", "b"], **columns)
    items = pd.DataFrame({"new": [0, 0]}, index=["a", "b"])
    empty_log = replace(log, context=pd.DataFrame(index=range(400)))
    for intercept, expected in ((True, log.reward.mean()), (False, 0.0)):
        features = replace(Features.fit(items, log), intercept=intercept)
        with warnings.catch_warnings(action="ignore"):
            agent = train(log, features, LinUCB(tikhonov=1e-3))
        np.testing.assert_allclose(score_log(agent, empty_log, features), expected, atol=0.01)


def test_examples_are_the_features_of_the_logged_candidates(parts):
    training_log, _, features = parts
    examples = make_examples(training_log, features)
    context, arm = map(np.concatenate, zip(*features.observe(training_log, training_log.mask), strict=True))
    decision, column = np.nonzero(training_log.mask)
    logged = column == training_log.action[decision]
    np.testing.assert_array_equal(examples.arm, arm[logged])
    np.testing.assert_array_equal(examples.context, context[logged])
    np.testing.assert_array_equal(examples.reward, training_log.reward.astype(np.float32))


def test_doubly_robust_values_use_predicted_rewards_without_products_of_columns(parts):
    _, test_log, features = parts
    uniform = test_log.mask / test_log.mask.sum(axis=1, keepdims=True)
    predicted = cross_fit(test_log, features.without_crosses())
    expected = estimates(test_log, uniform, predicted, names=["DR"])["DR"]
    row = evaluate(test_log, {"uniform": uniform}, features, ["DR"]).loc["uniform", "DR"]
    assert row["value"] == pytest.approx(expected.value)


def test_a_log_of_two_users_has_a_doubly_robust_value_and_one_of_a_single_user_has_none(parts):
    """With two users, the rewards of each are predicted by a model of the other's."""
    _, test_log, features = parts
    users = np.unique(test_log.user_id[test_log.user_id < len(test_log.user_ids)])
    for count in (2, 4):
        log = test_log.take(np.isin(test_log.user_id, users[:count]))
        uniform = log.mask / log.mask.sum(axis=1, keepdims=True)
        predicted = cross_fit(log, features.without_crosses(), folds=count)
        expected = estimates(log, uniform, predicted, names=["DR"])["DR"]
        row = evaluate(log, {"uniform": uniform}, features).loc["uniform", "DR"]
        assert row["value"] == pytest.approx(expected.value)
    log = test_log.take(test_log.user_id == users[0])
    uniform = log.mask / log.mask.sum(axis=1, keepdims=True)
    with pytest.raises(ValueError, match="number of users in the log must be 2 or more for the reward model"):
        evaluate(log, {"uniform": uniform}, features)
    assert evaluate(log, {"uniform": uniform}).loc["uniform", "SNIPS"]["value"] > 0


def test_a_policy_whose_probabilities_are_refused_is_named(parts):
    _, test_log, _ = parts
    uniform = test_log.mask / test_log.mask.sum(axis=1, keepdims=True)
    with pytest.raises(ValueError, match="policy 'greedy': row 0: probabilities must be 0 or more and sum to 1"):
        evaluate(test_log, {"uniform": uniform, "greedy": 2 * uniform})


def test_features_of_other_widths_than_those_of_the_agent_are_refused(parts):
    """The products of plan and genre are features of the agent: of 2 plans, or none, and 3 genres."""
    training_log, test_log, features = parts
    agent, other = train(training_log, features, LinUCB()), features.without_crosses()
    context, arm = features.spec(1).values()
    expected = f"{[*context, arm[-1]]}, as those that the model learnt from, got {[*context, arm[-1] - 6]}"
    for model in (agent, agent.policy):
        with pytest.raises(ValueError, match=re.escape(f"must be {expected}")):
            target_probabilities(model, test_log, other)


def test_what_is_exported_scores_as_in_memory_by_raw_columns_and_text_ids(parts, tmp_path):
    training_log, test_log, features = parts
    agent = train(training_log, features, "epsilon_greedy", layers=(16,), epsilon=0.0, epochs=2)
    export(agent.policy, tmp_path / "policy", features, titles={training_log.item_ids[0]: "First"})
    policy, scores = load(tmp_path / "policy"), score_log(agent, test_log, features)
    np.testing.assert_allclose(score_log(policy, test_log, features), scores, rtol=1e-5, atol=1e-4)
    for row in range(20):
        mask = test_log.mask[row]
        ids = test_log.item_ids[test_log.candidates[row][mask]].tolist()
        answer = policy.recommend(test_log.context.iloc[row].to_dict(), ids, k=len(ids))
        assert answer.item_ids == [ids[column] for column in np.argsort(-scores[row][mask], kind="stable")]
        np.testing.assert_allclose(answer.scores, np.sort(scores[row][mask])[::-1], rtol=1e-5, atol=1e-4)
