"""A profile tells a step that waits for its input from one that computes."""

import time

import numpy as np
import pytest
import tensorflow as tf

from recbandits.training.profiling import read_operations, trace, watch


@tf.function(autograph=False)
def multiply(batch):
    """Some milliseconds of matrix products."""
    return tf.reduce_sum(tf.matmul(batch, tf.matmul(batch, batch, transpose_b=True)))


def batches(seconds, number=20, size=400):
    """Random square matrices, each made in a time of sleep."""

    def wait():
        for seed in range(number):
            time.sleep(seconds)
            yield np.random.default_rng(seed).random((size, size), dtype=np.float32)

    return tf.data.Dataset.from_generator(wait, output_signature=tf.TensorSpec([size, size], tf.float32))


def test_a_step_that_waits_for_its_batch_is_input_bound(tmp_path):
    """5 steps, each waits 100 ms, less the time in which a generator works ahead while a step computes."""
    profile = trace(batches(0.1), multiply, tmp_path, steps=5)
    assert profile.steps.index.tolist() == [1, 2, 3, 4, 5]
    assert profile.steps["input"].sum() > 400
    parts = profile.steps[["input", "compute", "other"]].sum(axis=1)
    np.testing.assert_allclose(parts, profile.steps["total"], rtol=0.01)
    assert profile.input_share > 0.6
    assert "HIGHLY input-bound" in profile.conclusion
    assert profile.stages["ms"].max() > 400
    assert profile.stages["count"].max() >= 5


def test_a_step_that_computes_is_not(tmp_path):
    memory = tf.data.Dataset.from_tensors(tf.random.stateless_uniform([900, 900], [1, 2])).repeat(10).prefetch(10)
    profile = trace(memory, multiply, tmp_path, steps=5)
    assert profile.input_share < 0.4
    assert profile.steps["compute"].sum() > profile.steps["input"].sum()


def test_the_latest_trace_is_read(tmp_path):
    trace(batches(0.0), multiply, tmp_path, steps=2)
    time.sleep(1.1)  # the profiler names its folders by the second
    assert trace(batches(0.0), multiply, tmp_path, steps=10).steps.index.tolist() == list(range(1, 11))


def test_too_few_batches_are_refused_and_the_profiler_is_stopped(tmp_path):
    with pytest.raises(
        ValueError, match="batches must be enough for all steps and the warm-up before them, they ended"
    ):
        trace(batches(0.0, number=9), multiply, tmp_path, steps=5)
    assert len(trace(batches(0.0), multiply, tmp_path / "next", steps=2).steps) == 2


def test_a_second_profile_at_the_same_time_is_refused(tmp_path):
    tf.profiler.experimental.start(str(tmp_path / "first"))
    try:
        with pytest.raises(ValueError, match="only one profile can run at a time, stop the other one first"):
            trace(batches(0.0), multiply, tmp_path / "second", steps=2)
    finally:
        tf.profiler.experimental.stop()


def test_a_directory_without_a_trace_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold a trace of the profiler"):
        read_operations(tmp_path)


def test_operations_are_counted_and_the_one_that_computes_is_on_top(tmp_path):
    """4 times two products of matrices of 400 x 400."""
    batch = tf.ones([400, 400])
    multiply(batch)
    with watch(tmp_path, seconds=60):
        for _ in range(4):
            multiply(batch).numpy()
    table = read_operations(tmp_path)
    assert table.index[0] == "MatMul"
    assert table.loc["MatMul", "count"] == 8
    assert table.loc["MatMul", "ms"] > 0.5
    assert "IDLE" not in table.index


def test_a_watch_ends_in_time_though_the_work_goes_on(tmp_path):
    """Products go on until the trace is there, and one more after that; the profiler is free again."""
    multiply(tf.ones([400, 400]))
    with watch(tmp_path / "first", seconds=0.1):
        while not list((tmp_path / "first").rglob("*.xplane.pb")):
            multiply(tf.ones([400, 400])).numpy()
        multiply(tf.ones([400, 400])).numpy()
    with watch(tmp_path / "second", seconds=60):
        multiply(tf.ones([400, 400])).numpy()
    assert read_operations(tmp_path / "second").loc["MatMul", "count"] == 2
