"""Actions drawn inside a graph: their frequency; streams of seeds: their state."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from recbandits.agents.agent import SeedStream, draw


@pytest.mark.parametrize("p", [[0.1, 0.0, 0.8, 0.1], [0.0, 1.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
def test_draws_have_the_frequency_of_the_probabilities(p):
    actions = draw(tf.constant([p] * 100_000, tf.float32), tf.constant([1, 2], tf.int64)).numpy()
    counts, expected = np.bincount(actions, minlength=4), 100_000 * np.array(p)
    assert (counts[expected == 0] == 0).all()
    possible = expected > 0
    if possible.sum() > 1:
        assert stats.chisquare(counts[possible], expected[possible]).pvalue > 1e-3


def test_rounding_never_points_past_the_last_arm():
    actions = draw(tf.constant([[0.3, 0.699]] * 100_000), tf.constant([1, 2], tf.int64)).numpy()
    assert set(actions) == {0, 1}


def test_streams_of_one_seed_do_not_overlap():
    first, second = ({tuple(draws.next().numpy()) for _ in range(5)} for draws in (SeedStream(7, 0), SeedStream(7, 1)))
    assert not first & second


def test_a_stream_of_seeds_continues_at_the_position_of_its_variable():
    first = SeedStream(7)
    seeds = [tuple(first.next().numpy()) for _ in range(3)]
    assert len(set(seeds)) == 3
    second = SeedStream(0)
    second.variables[0].assign([7, 1])
    assert tuple(second.next().numpy()) == seeds[1]
