"""Training on several replicas gives what one gives; a training that was killed continues to the same end."""

import json

import numpy as np
import pytest

from recbandits.agents.factory import make_agent
from recbandits.data.examples import Examples
from recbandits.training.distribution import get_strategy
from recbandits.training.offline import Specs, fit
from tests.forks import ForkedPython
from tests.sockets import free_ports

LABELS = ["linucb", "epsilon_greedy", "neural_linucb"]
TRAINING = """
import sys
import numpy as np
import tensorflow as tf
from recbandits.training.distribution import get_strategy

name, replicas, checkpoints, output, *labels = sys.argv[1:]
cpu = tf.config.list_physical_devices("CPU")[0]
if name == "mirrored":
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
chosen = get_strategy(name)
assert chosen.num_replicas_in_sync == int(replicas)

from recbandits.agents.factory import make_agent
from recbandits.data.examples import Examples
from recbandits.training import epochs as saving
from recbandits.training.offline import Specs, fit

saving.INTERVAL = 0.0  # a checkpoint after each epoch
rng = np.random.default_rng(0)
context, arm = (rng.normal(size=(1001, 4)).astype(np.float32) for _ in range(2))
reward, propensity = (context * arm).sum(axis=1), rng.uniform(0.1, 1.0, 1001).astype(np.float32)
data = Examples(context, arm, reward, propensity, np.ones(1001, np.float32), np.arange(1001))
test = Examples(*(part[:200] for part in data))
results = {}
for label, values, epochs in (
    ("linucb", {}, 1),
    ("epsilon_greedy", {"layers": (16,), "network": "dot_product"}, 20),
    ("neural_linucb", {"layers": (16,), "encoding": 8}, 20),
):
    if label not in labels:
        continue
    with get_strategy(name).scope():  # the same one again
        agent = make_agent(label, Specs({"global": (4,), "per_arm": (2, 4)}), **values)
    options = {"validation": test, "patience": 15 if epochs > 1 else None, "weights": "ips", "batch_size": 100}
    where = f"{checkpoints}/{label}" if checkpoints else None
    history = fit(agent, data, epochs=epochs, checkpoints=where, **options)
    results[f"{label} history"] = history[["loss", "validation_mse"]].to_numpy()
    results[f"{label} scores"] = agent.policy.score_pairs(context, arm).numpy()
    for number, variable in enumerate(agent.variables):
        results[f"{label} {number}"] = variable.numpy()
if name == "mirrored":
    with chosen.scope():
        agent = make_agent("epsilon_greedy", Specs({"global": (4,), "per_arm": (2, 4)}))
    try:
        fit(agent, data, xla=True)
    except ValueError as error:
        results["refused"] = str(error)
np.savez(output, **results)
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Function that starts the training in a process of its own."""
    script = tmp_path_factory.mktemp("training") / "training.py"
    script.write_text(TRAINING)

    def run(name, replicas, output, checkpoints="", labels=LABELS, **environment):
        arguments = [name, replicas, checkpoints, output, *labels]
        return ForkedPython(script, arguments, output.with_suffix(".log"), environment)

    return run


def finish(process, output):
    """Wait until a training has succeeded, and return its results."""
    process.communicate()
    assert process.exitcode == 0, output.with_suffix(".log").read_text()[-2000:]
    return dict(np.load(output))


@pytest.fixture(scope="module")
def single_process_result(start, tmp_path_factory):
    """Results of one replica."""
    output = tmp_path_factory.mktemp("alone") / "result.npz"
    return finish(start("none", 1, output), output)


def assert_close(results, expected):
    assert results
    for name in results:
        if name.endswith(("history", "scores")):
            np.testing.assert_allclose(results[name], expected[name], rtol=1e-3, atol=1e-3, err_msg=name)


def test_two_workers_on_loopback_train_to_the_same_result_as_one(start, single_process_result, tmp_path):
    """Linear, dot-product and neural-linear agents; the last batch has one example for both."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes, outputs = [], [tmp_path / f"{index}.npz" for index in range(2)]
    for index, output in enumerate(outputs):
        cluster = json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})
        processes.append(start("multi_worker", 2, output, tmp_path / "checkpoints", TF_CONFIG=cluster))
    first, second = map(finish, processes, outputs)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert_close(first, single_process_result)


def test_two_mirrored_devices_train_to_the_same_result_as_one(start, single_process_result, tmp_path):
    output = tmp_path / "result.npz"
    results = finish(start("mirrored", 2, output), output)
    assert_close(results, single_process_result)
    assert results["refused"] == "xla must be False for an agent on several replicas, it has 2"


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="strategy must be one of none, mirrored, multi_worker, got 'tpu'"):
        get_strategy("tpu")


def test_a_killed_training_continues_to_the_same_end_bit_by_bit(start, single_process_result, kill_when, tmp_path):
    """SIGKILL in the middle of both networks; history, weights, optimiser, statistics and learnt events agree."""
    output = tmp_path / "result.npz"
    for label in ("epsilon_greedy", "neural_linucb"):
        process = start("none", 1, output, tmp_path / "killed", [label])
        checkpoint = tmp_path / "killed" / label / "checkpoint"
        kill_when(process, checkpoint.exists)
        assert '"ckpt-21"' not in checkpoint.read_text(), "the training was over when it was killed"
    result = finish(start("none", 1, output, tmp_path / "killed"), output)
    assert result.keys() == single_process_result.keys()
    for name in single_process_result:
        np.testing.assert_array_equal(result[name], single_process_result[name], err_msg=name)


def test_checkpoints_of_another_training_are_refused(tmp_path):
    ones = np.ones(4, np.float32)
    data = Examples(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), ones, ones, ones, np.arange(4))
    specs = Specs({"global": (4,), "per_arm": (2, 4)})
    fit(make_agent("linucb", specs), data, checkpoints=tmp_path / "run")
    losses = fit(make_agent("linucb", specs), data, checkpoints=tmp_path / "run")
    assert len(losses) == 1
    for agent, examples, options in (
        (make_agent("linucb", specs, alpha=2.0), data, {}),
        (make_agent("linucb", specs, seed=1), data, {}),
        (make_agent("linucb", specs), data._replace(reward=2 * ones), {}),
        (make_agent("linucb", specs), data, {"batch_size": 2}),
        (make_agent("linucb", specs), data, {"weights": "ips"}),
        (make_agent("linucb", specs), data, {"validation": data}),
    ):
        with pytest.raises(ValueError, match="checkpoints of 'run' belong to another training"):
            fit(agent, examples, checkpoints=tmp_path / "run", **options)
