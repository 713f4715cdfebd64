"""The contenders of the training benchmark learn the same decisions, and a row says what was measured."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import training
from recbandits.data import trajectories
from recbandits.data.simulated_logs import log_decisions, uniform
from tests.rating_tables import rating_features

DECISIONS = 300


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return rating_features(*(pd.DataFrame(rng.normal(size=(15, 3)), range(1, 16), list("abc")) for _ in range(2)))


@pytest.fixture(scope="module")
def files(features, tmp_path_factory):
    user, movie = (ids.ravel() for ids in np.meshgrid(range(1, 16), range(1, 16), indexing="ij"))
    ratings = pd.DataFrame({"user_id": user, "movie_id": movie, "rating": 1.0 + np.arange(len(user)) % 5})
    ratings["time"] = pd.Timestamp("2001-01-01", tz="UTC")
    log = log_decisions(ratings, uniform, training.CANDIDATES, DECISIONS).log.join_users(features.users)
    return trajectories.write_trajectories(
        log, features.features, tmp_path_factory.mktemp("records"), "train", shards=2
    )


def test_records_parsed_one_by_one_are_those_parsed_in_batches(files):
    def rows(dataset):
        parts = [[batch.policy_info.chosen_arm_features[:, 0], batch.reward] for batch, _ in dataset]
        table = np.concatenate([np.concatenate(part, axis=1) for part in parts])
        return table[np.lexsort(table.T)]

    table_per_example = rows(training.read_per_example(files, batch_size=32))
    assert table_per_example.shape == (DECISIONS, 4)
    np.testing.assert_array_equal(table_per_example, rows(trajectories.read_trajectories(files, batch_size=100)))


def test_a_row_has_a_speed_for_every_contender_and_their_ratio(files, features, monkeypatch):
    monkeypatch.setattr(training, "DECISIONS", DECISIONS)
    monkeypatch.setattr(training, "EPOCHS", 3)
    row = training.row(files, features, batch_size=128, rounds=1)
    speeds = [row[name] for name in list(row)[1:6]]
    assert float(row["share of the bound"].removesuffix(" %")) > 0
    assert all(float(speed.replace(",", "")) > 0 for speed in speeds)
    first, last = (float(speeds[number].replace(",", "")) for number in (0, 4))
    assert int(row["last to first"].split("x")[0]) == pytest.approx(last / first, abs=1)


def test_an_example_has_four_operations_for_each_weight(features):
    network = training.make_agent(training.AGENT, training.Specs(features.spec(training.CANDIDATES))).model.network
    matrices = [variable.numpy() for variable in network.trainable_variables if "kernel" in variable.name]
    assert len(matrices) > 2
    assert training.count_operations(features) == 4 * sum(matrix.size for matrix in matrices)
