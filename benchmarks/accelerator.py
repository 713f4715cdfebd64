"""Simulation and training on a GPU and on the processors of the same machine; nothing where TensorFlow sees no GPU.

Each device has a process of its own in each round, one after the other. A ratio is formed within a round.
"""

import json
import os
import subprocess
import sys
import tempfile

from recbandits.tf import tf

import numpy as np
import pandas as pd

from benchmarks import training
from benchmarks.bound import as_share, count_linear_operations, measure_gemm
from benchmarks.profiles import choose
from benchmarks.simulation import RANK, own_loop, ratio
from recbandits.data import movielens
from recbandits.environments.synthetic import StationaryLinearEnvironment

SIMULATIONS = choose([(128, 100), (128, 1000), (1024, 1000)], [(128, 100)])  # batch, actions
BATCHES = choose((1024, 4096, 16384), (1024,))  # of training
STEPS, ROUNDS = choose(500, 50), choose(3, 1)
DEVICES = {"GPU": {}, "CPU": {"CUDA_VISIBLE_DEVICES": "-1"}}  # variables of the process of each


def measure(_data):
    """Measure both devices, if there is a GPU; each process loads the data again."""
    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return {}
    name = tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU")
    rounds = [{device: run(variables) for device, variables in DEVICES.items()} for _ in range(ROUNDS)]
    return {f"{name}, beside the processors of its machine": tabulate(rounds)}


def run(variables):
    """Measure one device in a process; returns a dict from case to its speed and its share of the bound."""
    command = [sys.executable, "-m", "benchmarks.accelerator"]
    process = subprocess.run(command, env=os.environ | variables, stdout=subprocess.PIPE, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def tabulate(rounds):
    """Make the table from what `run` returned in each round, by device."""
    rows = []
    for case in rounds[0]["GPU"]:
        gpu, cpu = (np.array([part[device][case] for part in rounds]).T for device in DEVICES)
        row = {"": case, "GPU": f"{np.median(gpu[0]):,.0f}/s", "CPU": f"{np.median(cpu[0]):,.0f}/s"}
        row |= {"ratio": ratio(gpu[0] / cpu[0]), "share of the GPU's bound": as_share(np.median(gpu[1]))}
        rows.append(row | {"share of the CPU's bound": as_share(np.median(cpu[1]))})
    return pd.DataFrame(rows)


def main():
    """Print the speeds on the device that this process sees, as JSON."""
    rate, results = measure_gemm(), {}
    for batch_size, actions in SIMULATIONS:
        environment = StationaryLinearEnvironment(actions, RANK - 1, batch_size)
        speed = own_loop(environment, STEPS)()
        share = speed * count_linear_operations(actions, RANK) / rate
        results[f"LinUCB, interactions; batch {batch_size:,}, {actions:,} actions"] = speed, share
    with tempfile.TemporaryDirectory() as folder:
        files, features = training.write_log(movielens.load(), folder)
        for batch_size in BATCHES:
            speed, _ = training.train_in_graph(files, features, batch_size, xla=True)()
            share = speed * training.count_operations(features) / rate
            results[f"reward network, examples; batch {batch_size:,}"] = speed, share
    print(json.dumps(results))


if __name__ == "__main__":
    main()
