import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recbandits.agents.parameters import LinUCB
from recbandits.data.examples import Examples, make_examples
from recbandits.exploration import Exploration
from recbandits.loop.ingest import decisions_of, import_log, ingest
from recbandits.loop.models import read_model
from recbandits.loop.simulate import simulate_log
from recbandits.loop.simulated_users import STARS
from recbandits.loop.train import learn, learner, train
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.records import Reward
from recbandits.serving.policy import describe, load
from tests.forks import ForkedPython

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(seconds=60)
AGENT, SOFTMAX = LinUCB(alpha=0.0, tikhonov=10.0), Exploration("softmax", 0.25)

TRAINING = """
import sys
from recbandits.exploration import Exploration
from recbandits.agents.parameters import LinUCB
from recbandits.loop.train import train
train(sys.argv[1], sys.argv[2], LinUCB(alpha=0.0, tikhonov=10.0), Exploration("softmax", 0.25), sys.argv[3])
"""


def titles(users):
    return dict(zip(users.item_ids, users.titles, strict=True))


@pytest.fixture(scope="module")
def datasets(users, tmp_path_factory):
    """Directories of the datasets of two minutes of 600 decisions each, and of both minutes together."""
    warehouse, folder = LocalWarehouse(), tmp_path_factory.mktemp("datasets")
    for minute in (0, 1):
        import_log(warehouse, *simulate_log(users, 600, START + minute * MINUTE, seed=minute))
    spans = {"first": (0, 1), "second": (1, 2), "both": (0, 2)}
    for name, (start, end) in spans.items():
        span = START + start * MINUTE, START + end * MINUTE
        ingest(warehouse, *span, STARS, users.features, folder / name, titles=titles(users))
    return {name: folder / name for name in spans}


@pytest.fixture(scope="module")
def models(datasets, tmp_path_factory):
    """Directories of a model of the first minute, and of one that went on from it with the second."""
    folder = tmp_path_factory.mktemp("models")
    first = train(datasets["first"], folder / "first", AGENT, SOFTMAX)
    second = train(datasets["second"], folder / "second", AGENT, SOFTMAX, serving=folder / "first")
    assert (first["parent"], second["parent"]) == (None, first["version"])
    assert second["learnt"] == first["new"] + second["new"]
    return {"first": folder / "first", "second": folder / "second"}


def examples_of(dataset, users):
    return make_examples(decisions_of(dataset, held_out=False), users.features)


def ridge(parts, penalty=10.0, gamma=1.0):
    """Fit a ridge regression in float64; before each further part the sums of the earlier ones are scaled by gamma."""
    covariance, response = 0.0, 0.0
    for part in parts:
        x = np.concatenate([part.context, part.arm], axis=1).astype(float)
        covariance, response = gamma * covariance + x.T @ x, gamma * response + x.T @ part.reward.astype(float)
    return np.linalg.solve(covariance + penalty * np.eye(len(response)), response)


def theta(policy_directory):
    """Compute the coefficients of an exported policy, its scores of unit contexts and arms."""
    policy = load(policy_directory)
    sizes = [shape[-1] for shape in policy.features.spec(1).values()]
    unit = np.eye(sum(sizes), dtype=np.float32)
    return policy.score_pairs(unit[:, : sizes[0]], unit[:, sizes[0] :])


def test_learning_round_by_round_is_learning_all_at_once(datasets, models, users, tmp_path):
    """Without forgetting the incremental model, the one of all data, and NumPy's ridge regression are the same."""
    at_once = train(datasets["both"], tmp_path / "model", AGENT, SOFTMAX)
    assert at_once["learnt"] == read_model(models["second"]).learnt
    expected = ridge([examples_of(datasets["both"], users)])
    np.testing.assert_allclose(theta(tmp_path / "model" / "policy"), expected, atol=1e-5)
    np.testing.assert_allclose(theta(models["second"] / "policy"), expected, atol=1e-5)


def test_forgetting_weights_earlier_events_by_gamma(datasets, models, users, tmp_path):
    """With gamma 0.5: A = 0.5 A_1 + A_2 and b likewise; a model without forgetting differs."""
    forgetting = LinUCB(alpha=0.0, tikhonov=10.0, gamma=0.5)
    train(datasets["second"], tmp_path / "model", forgetting, SOFTMAX, serving=models["first"])
    parts = [examples_of(datasets[name], users) for name in ("first", "second")]
    coefficients = theta(tmp_path / "model" / "policy")
    np.testing.assert_allclose(coefficients, ridge(parts, gamma=0.5), atol=1e-5)
    assert np.abs(coefficients - ridge(parts)).max() > 0.01


def test_a_model_has_its_number_of_events_and_the_end_of_its_data(datasets, models, users):
    for name, until in (("first", START + MINUTE), ("second", START + 2 * MINUTE)):
        model = read_model(models[name])
        assert model.learnt == len(examples_of(datasets["first" if name == "first" else "both"], users).event)
        assert model.until == until
        assert (model.parameters, model.exploration) == (AGENT, SOFTMAX)
        policy = load(model.policy)
        assert (policy.version, policy.exploration) == (model.version, SOFTMAX)
        assert f"{model.learnt:,} logged decisions" in describe(model.policy)["data"]
    recommendation = load(models["first"] / "policy").recommend(users.requests([0], [[0]])[0]["context"], rng=0)
    assert set(recommendation.titles) <= set(users.titles)


def test_each_trained_policy_is_better_than_the_one_before(models, users):
    """A policy of one minute is better than chance; with another minute it is better still; 4,000 common visits."""
    visits = users.visits(4000, np.random.default_rng(5))
    chance = users.uniform_value(visits)
    first, second = (users.value(load(models[name] / "policy"), visits) for name in ("first", "second"))
    for better, worse in ((first, chance), (second, first)):
        gain = better - worse
        assert gain.mean() > 4 * gain.std() / np.sqrt(len(gain))


def test_events_that_are_doubled_and_in_another_order_give_the_identical_policy(datasets, users):
    whole = examples_of(datasets["first"], users)
    rows = np.arange(len(whole.event))
    order = np.random.default_rng(0).permutation(np.repeat(rows, 2))
    agents = [learner(users.features, 10, AGENT) for _ in range(2)]
    for agent, selection in zip(agents, (rows, order), strict=True):
        assert learn(agent, Examples(*(column[selection] for column in whole))) == len(rows)
    first, second = ([variable.numpy() for variable in agent.variables] for agent in agents)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_new_events_the_model_stays_as_it_is(datasets, models, tmp_path):
    """The second model has learnt the first minute already: the version and the end of the data stay the same."""
    result = train(datasets["first"], tmp_path / "model", AGENT, SOFTMAX, serving=models["second"])
    before, after = read_model(models["second"]), read_model(tmp_path / "model")
    assert result == {"version": before.version, "parent": before.parent, "new": 0, "learnt": before.learnt}
    assert after._replace(directory=None) == before._replace(directory=None)
    assert load(after.policy).version == before.version


def test_only_new_events_of_an_overlapping_window_are_learnt(datasets, models, users, tmp_path):
    result = train(datasets["both"], tmp_path / "model", AGENT, SOFTMAX, serving=models["first"])
    assert result["new"] == len(examples_of(datasets["second"], users).event)
    np.testing.assert_allclose(theta(tmp_path / "model" / "policy"), theta(models["second"] / "policy"), atol=1e-5)


def test_a_parent_with_other_features_is_refused(models, users, tmp_path):
    warehouse = LocalWarehouse()
    import_log(warehouse, *simulate_log(users, 50, START))
    features = replace(users.features, items=2 * users.features.items)
    ingest(warehouse, START, START + MINUTE, STARS, features, tmp_path / "data")
    with pytest.raises(
        ValueError, match=r"the features of the dataset must be those of [0-9a-f]{16}, the model to go on"
    ):
        train(tmp_path / "data", tmp_path / "model", AGENT, SOFTMAX, serving=models["first"])


def test_a_dataset_without_training_events_is_refused(users, tmp_path):
    """One decision that is held out, as nearly every one is with a share of 0.999."""
    warehouse = LocalWarehouse()
    import_log(warehouse, *simulate_log(users, 1, START))
    ingest(warehouse, START, START + MINUTE, STARS, users.features, tmp_path / "data", holdout=0.999)
    with pytest.raises(ValueError, match="decisions must be at least one to learn from, the dataset has none"):
        train(tmp_path / "data", tmp_path / "model", AGENT, SOFTMAX)
    assert not (tmp_path / "model").exists()


def test_a_training_killed_while_it_writes_leaves_no_model_and_gives_the_same_one_again(
    datasets, models, tmp_path, kill_when
):
    directory, program = tmp_path / "model", tmp_path / "training.py"
    program.write_text(TRAINING)
    training = ForkedPython(program, [datasets["second"], directory, models["first"]], "/dev/null")
    kill_when(training, (directory / "policy").exists)
    if (directory / "model.json").exists():  # the kill came too late: then the model is complete
        assert load(directory / "policy").version == read_model(directory).version
        shutil.rmtree(directory)
    else:
        with pytest.raises(ValueError, match=r"model must be the directory of a complete model, it has no model.json"):
            read_model(directory)
    result = train(datasets["second"], directory, AGENT, SOFTMAX, serving=models["first"])
    assert result["version"] == read_model(models["second"]).version


def test_a_late_reward_does_not_change_a_learnt_event(users, tmp_path):
    """A decision without a reward within its window is learnt with the default, once."""
    warehouse = LocalWarehouse()
    import_log(warehouse, *simulate_log(users, 100, START))
    features, span = users.features, (START, START + MINUTE)
    ingest(warehouse, *span, STARS, features, tmp_path / "before")
    train(tmp_path / "before", tmp_path / "one", AGENT, SOFTMAX)
    silent = pq.read_table(tmp_path / "before" / "decisions.parquet", filters=pc.field("reward_time").is_null())
    assert len(silent) > 3
    warehouse.write([Reward(row["event_id"], row["time"], 5.0) for row in silent.to_pylist()])
    manifest = ingest(warehouse, *span, STARS, features, tmp_path / "after")
    assert manifest["counts"]["defaulted"] == 0
    result = train(tmp_path / "after", tmp_path / "two", AGENT, SOFTMAX, serving=tmp_path / "one")
    assert result["new"] == 0
