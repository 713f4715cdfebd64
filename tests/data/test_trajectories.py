"""Records of a log are what TF-Agents' per-arm agents train on, and equal the trajectories made in memory."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tf_agents.bandits.agents import lin_ucb_agent, neural_epsilon_greedy_agent
from tf_agents.bandits.networks import global_and_arm_feature_network
from tf_agents.policies.utils import PerArmPolicyInfo
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

from recbandits.data.examples import make_examples
from recbandits.data.trajectories import read_examples, read_trajectories, write_trajectories
from tests.rating_tables import log_of_ids, rating_features

USERS, MOVIES, K = 5, 9, 4


@pytest.fixture(scope="module")
def known():
    """Features of users and movies."""
    rng = np.random.default_rng(0)
    columns = ["bias", "factor_0", "factor_1"]
    tables = (pd.DataFrame(rng.normal(size=(n, 3)), range(1, n + 1), columns, "float32") for n in (USERS, MOVIES))
    return rating_features(*tables)


@pytest.fixture(scope="module")
def features(known):
    return known.features


@pytest.fixture(scope="module")
def decided():
    """Users [n], movies [n, k] and mask [n, k] of a thousand decisions among 2 to 4 movies."""
    rng, n = np.random.default_rng(1), 1000
    movies = rng.permuted(np.tile(np.arange(1, MOVIES + 1), (n, 1)), axis=1)[:, :K]
    mask = np.arange(K) < rng.integers(2, K, n, endpoint=True)[:, None]
    return rng.integers(1, USERS, n, endpoint=True), movies, mask


@pytest.fixture(scope="module")
def log(known, decided):
    rng, mask = np.random.default_rng(2), decided[2]
    columns = {"action": rng.integers(0, mask.sum(axis=1)), "reward": rng.normal(size=len(mask))}
    return log_of_ids(*decided[:2], known, mask, **columns, pass_prob=np.full(len(mask), 0.5))


@pytest.fixture(scope="module")
def files(log, features, tmp_path_factory):
    return write_trajectories(log, features, tmp_path_factory.mktemp("records"), "train", shards=3)


def test_a_record_holds_the_fields_of_its_decision(files, log, features, known, decided):
    """Features of padding are 0; hashes of events are negative numbers, too."""
    made, observation = make_examples(log, features), known.observation(*decided)
    assert (made.event < 0).any()
    expected = {"global": made.context, "per_arm": observation["per_arm"], "chosen_arm_features": made.arm}
    expected |= {name: getattr(made, name) for name in ("reward", "propensity", "pass_prob", "event")}
    expected |= {"action": log.action}
    records = list(tf.data.TFRecordDataset([str(file) for file in files]).as_numpy_iterator())
    assert len(records) == len(log)
    for row, record in enumerate(records):
        fields = tf.train.Example.FromString(record).features.feature
        assert set(fields) == set(expected)
        for name, values in expected.items():
            kind = "int64_list" if name in ("event", "action") else "float_list"
            np.testing.assert_array_equal(getattr(fields[name], kind).value, np.ravel(values[row]), err_msg=name)


def test_the_same_log_gives_the_same_bytes(files, log, features, tmp_path):
    again = write_trajectories(log, features, tmp_path, "train", shards=3)
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files]


def test_examples_have_the_features_of_the_user_and_of_the_chosen_movie(log, features, known, decided):
    made = make_examples(log, features)
    assert [value.dtype for value in made] == [np.float32] * 5 + [np.int64]
    observation = known.observation(*decided)
    np.testing.assert_array_equal(made.context, observation["global"])
    np.testing.assert_array_equal(made.arm, observation["per_arm"][np.arange(1000), log.action])
    np.testing.assert_allclose(made.reward, log.reward, rtol=1e-6)
    np.testing.assert_allclose(made.propensity, log.propensity, rtol=1e-6)
    assert set(made.pass_prob) == {0.5}


def test_events_are_known_by_the_same_number_in_every_process(log, features):
    """Python's own hash of text differs from process to process; that of pandas has a fixed key."""
    events = make_examples(log, features).event
    np.testing.assert_array_equal(events, pd.util.hash_array(log.event_id).view(np.int64))
    assert len(set(events)) == 1000


def test_examples_read_are_those_made_in_memory(log, features, files):
    for read, made in zip(read_examples(files), make_examples(log, features), strict=True):
        np.testing.assert_array_equal(read, made)
        assert read.dtype == made.dtype


def test_a_trajectory_holds_the_decision_of_its_row(log, known, decided, files):
    batches = list(read_trajectories(files, batch_size=300))
    assert [len(propensity) for _, propensity in batches] == [300, 300, 300, 100]
    experience, propensity = batches[1]
    rows = slice(300, 600)
    observation = known.observation(*(part[rows] for part in decided))
    np.testing.assert_array_equal(experience.observation["global"][:, 0], observation["global"])
    np.testing.assert_array_equal(experience.observation["per_arm"][:, 0], observation["per_arm"])
    np.testing.assert_array_equal(experience.action[:, 0], log.action[rows])
    np.testing.assert_allclose(experience.reward[:, 0], log.reward[rows], rtol=1e-6)
    np.testing.assert_allclose(propensity, log.propensity[rows], rtol=1e-6)
    chosen = tf.gather(experience.observation["per_arm"], experience.action, axis=2, batch_dims=2)
    np.testing.assert_array_equal(experience.policy_info.chosen_arm_features, chosen)


def test_a_trajectory_is_the_one_that_tf_agents_makes(files):
    """Made by TF-Agents from a time step, an action and the time step after it: equal in structure, type and value."""
    experience, _ = next(iter(read_trajectories(files, batch_size=8)))
    step = tf.nest.map_structure(lambda value: value[:, 0], experience)
    first = ts.restart(step.observation, batch_size=8)
    decision = policy_step.PolicyStep(step.action, (), step.policy_info)
    last = ts.termination(step.observation, step.reward)
    theirs = tf.nest.map_structure(lambda value: value[:, None], trajectory.from_transition(first, decision, last))
    tf.nest.assert_same_structure(experience, theirs, expand_composites=True)
    for ours, other in zip(tf.nest.flatten(experience), tf.nest.flatten(theirs), strict=True):
        assert ours.dtype == other.dtype
        np.testing.assert_array_equal(ours, other)


def agents(features):
    """TF-Agents' own agents for arms with features, none of ours."""
    spec = {name: tensor_spec.TensorSpec(shape, tf.float32) for name, shape in features.spec(K).items()}
    specs = ts.time_step_spec(spec), tensor_spec.BoundedTensorSpec([], tf.int32, 0, K - 1)

    def network():
        return {
            "reward_network": global_and_arm_feature_network.create_feed_forward_common_tower_network(
                spec, (16,), (16,), (16,)
            ),
            "optimizer": tf.keras.optimizers.legacy.Adam(0.01),
            "accepts_per_arm_features": True,
        }

    yield neural_epsilon_greedy_agent.NeuralEpsilonGreedyAgent(*specs, **network(), epsilon=0.1)
    yield lin_ucb_agent.LinearUCBAgent(*specs, accepts_per_arm_features=True, dtype=tf.float32)


@pytest.mark.parametrize("candidates", [True, False])
@pytest.mark.parametrize("number", range(2), ids=["epsilon-greedy", "LinUCB"])
def test_tf_agents_own_agents_train_on_what_is_read(features, files, number, candidates):
    tf.random.set_seed(0)  # of the initial weights
    agent = list(agents(features))[number]
    losses = []
    for _ in range(6 if number == 0 else 1):
        for experience, _ in read_trajectories(files, batch_size=250, seed=0, candidates=candidates):
            losses.append(float(agent.train(experience).loss))
    assert np.isfinite(losses).all()
    if number == 0:
        assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_tf_agents_weighs_decisions_by_what_is_read(features, files):
    """A weight of 0 for all but one decision leaves a loss of its error alone, over the size of the batch."""
    agent = next(agents(features))
    experience, propensity = next(iter(read_trajectories(files, batch_size=10, candidates=False)))
    one = tf.nest.map_structure(lambda value: value[3:4], experience)
    weights = tf.one_hot(3, 10) / propensity
    expected = agent.loss(one).loss / propensity[3] / 10
    np.testing.assert_allclose(agent.loss(experience, weights=weights).loss, expected, rtol=1e-5)


def test_with_a_seed_every_epoch_brings_all_records_in_a_new_order(log, files):
    dataset = read_trajectories(files, batch_size=128, seed=5)
    epochs = [np.concatenate([batch.reward[:, 0] for batch, _ in dataset]) for _ in range(2)]
    again = np.concatenate([batch.reward[:, 0] for batch, _ in read_trajectories(files, batch_size=128, seed=5)])
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.sort(log.reward.astype("float32")))
    assert (epochs[0] != epochs[1]).mean() > 0.9
    np.testing.assert_array_equal(again, epochs[0])
    place = pd.Series(np.arange(1000), log.reward.astype("float32"))[epochs[0]].to_numpy()
    assert abs(np.corrcoef(place, np.arange(1000))[0, 1]) < 0.1, "records must come from anywhere, not from nearby"


def test_without_the_candidates_an_observation_is_the_context(files):
    experience, _ = next(iter(read_trajectories(files, candidates=False)))
    assert set(experience.observation) == {"global"}
    assert isinstance(experience.policy_info, PerArmPolicyInfo)


def test_files_without_a_record_are_refused(log, features, tmp_path):
    empty = write_trajectories(log.take([]), features, tmp_path, "empty", shards=1)
    for read in (read_examples, read_trajectories):
        with pytest.raises(ValueError, match="files must hold at least one record, got none in"):
            read(empty)
