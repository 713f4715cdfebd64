"""Examples per second of training from a log on disk, from parsing each record apart to whole epochs in one graph.

The same agent, a network that predicts rewards, learns the same 100,000 decisions. The first three contenders call a
`tf.function` around TF-Agents' `train` for every batch and differ in what feeds it; the last two are the epochs of
`training.offline.fit`. Every round runs all of them one after the other; a ratio is formed within a round. Graphs are
traced and compiled before the clock starts; how long the compiler takes is in a column of its own.
"""

import math
import statistics
import tempfile
import time

from recbandits.tf import tf

import numpy as np
import pandas as pd

from benchmarks.bound import as_share, measure_gemm
from benchmarks.profiles import choose
from benchmarks.simulation import ratio
from recbandits.agents.factory import make_agent
from recbandits.data import trajectories
from recbandits.data.rating_features import RatingFeatures
from recbandits.data.simulated_logs import log_decisions, uniform
from recbandits.environments.factorization import als
from recbandits.training.offline import Specs, fit

AGENT, DECISIONS, CANDIDATES = "epsilon_greedy", choose(100_000, 20_000), 10
SIZES, ROUNDS, EPOCHS = choose((128, 1024, 4096), (128, 1024)), choose(5, 2), 6


def measure(data):
    """Measure all batch sizes."""
    with tempfile.TemporaryDirectory() as folder:
        files, features = write_log(data, folder)
        rows = [row(files, features, batch_size) for batch_size in SIZES]
    return {f"Examples per second, {DECISIONS:,} decisions, median of {ROUNDS} rounds": pd.DataFrame(rows)}


def write_log(data, folder):
    """Write a log of ratings as trajectories; return their files and the `RatingFeatures` of users and movies."""
    features = fit_features(data, data.ratings)
    log = log_decisions(data.ratings, uniform, CANDIDATES, DECISIONS).log.join_users(features.users)
    return trajectories.write_trajectories(log, features.features, folder, "train"), features


def fit_features(data, ratings, factorization=None):
    """Features with factors, fitted on some of the ratings; by default also the factors."""
    factorization = als(ratings) if factorization is None else factorization
    factors = factorization.user_frame(), factorization.movie_frame()
    return RatingFeatures.fit(ratings, data.users, data.movies, *factors)


def count_operations(features):
    """Count the fewest floating-point operations of an example: 2 forward and 2 for the gradient of each weight."""
    network = make_agent(AGENT, Specs(features.spec(CANDIDATES))).model.network
    return 4 * sum(math.prod(weights.shape) for weights in network.trainable_variables if len(weights.shape) == 2)


def row(files, features, batch_size, rounds=ROUNDS):
    """Return the row of a batch size, a dict of text; features are those that the files were written with."""
    contenders = [
        train_by_batch(read_per_example(files, batch_size), features),
        train_by_batch(trajectories.read_trajectories(files, batch_size, candidates=False), features),
        train_by_batch(trajectories.read_trajectories(files, batch_size, seed=0, candidates=False), features),
        train_in_graph(files, features, batch_size, xla=False),
        train_in_graph(files, features, batch_size, xla=True),
    ]
    rates, measurements = [], []
    for _ in range(rounds):
        rates.append(measure_gemm())
        measurements.append([contender() for contender in contenders])
    measurements = np.array(measurements)
    speed, first_seconds = measurements[:, :, 0], np.median(measurements[:, :, 1], axis=0)
    names = "each record parsed", "batches parsed", "in memory, reshuffled", "one graph", "one graph, XLA"
    table = {name: f"{value:,.0f}" for name, value in zip(names, np.median(speed, axis=0), strict=True)}
    return {
        "batch": batch_size,
        **table,
        "last to first": ratio(speed[:, 4] / speed[:, 0]),
        "share of the bound": as_share(np.median(speed[:, 4] / rates) * count_operations(features)),
        "compiled in": f"{first_seconds[4]:.1f} s",
    }


def read_per_example(files, batch_size):
    """The pipeline of the predecessors: records parsed one by one, shuffled among 1024, then batched."""
    spec, auto = trajectories.feature_spec(files, candidates=False), tf.data.AUTOTUNE

    def read(file):
        records = tf.data.TFRecordDataset(file)
        return records.map(lambda record: tf.io.parse_single_example(record, spec), num_parallel_calls=auto)

    dataset = tf.data.Dataset.from_tensor_slices([str(file) for file in files])
    dataset = dataset.interleave(read, cycle_length=auto, block_length=16, num_parallel_calls=auto)
    return dataset.shuffle(1024).batch(batch_size).map(trajectories.as_trajectory, auto).prefetch(auto)


def train_by_batch(dataset, features):
    """Function that trains for one epoch, batch by batch: (examples per second, seconds of the first, traced epoch)."""
    agent = make_agent(AGENT, Specs(features.spec(CANDIDATES)))
    train = tf.function(agent.train, autograph=False)

    def epoch():
        start, count = time.perf_counter(), 0
        for experience, propensity in dataset:
            loss = train(experience).loss
            count += len(propensity)
        loss.numpy()
        assert count == DECISIONS
        return time.perf_counter() - start

    first_seconds = epoch()
    return lambda: (DECISIONS / epoch(), first_seconds)


def train_in_graph(files, features, batch_size, xla):
    """Function that trains for some epochs by `fit`: (examples per second, seconds by which the first was longer)."""
    examples = trajectories.read_examples(files)

    def run():
        agent = make_agent(AGENT, Specs(features.spec(CANDIDATES)))
        seconds = fit(agent, examples, epochs=EPOCHS, batch_size=batch_size, xla=xla)["seconds"]
        epoch_seconds = statistics.median(seconds[1:])
        return len(examples.event) / epoch_seconds, seconds[0] - epoch_seconds

    return run
