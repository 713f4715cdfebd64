"""Predictions through HTTP: an exported policy with its event log, and what PolicySaver writes, in the same server.

Both run in Vertex AI's own model server, one worker, no access log. Ours is asked by raw columns of the user, encodes
them, explores, and logs every decision to a Pub/Sub server in a process of its own. TF-Agents' LinearUCBAgent, with the
same statistics, is asked with observations ready made and logs nothing. Clients are coroutines of one other process on
keep-alive connections. Every round asks both, one after the other; a ratio is formed within a round.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil

from benchmarks.serving import contenders
from benchmarks.simulation import ratio
from recbandits.agents.parameters import LinUCB
from recbandits.config import Config
from recbandits.environments.factorization import als
from recbandits.platforms.local.endpoints import LocalEndpoints, socket_of
from recbandits.platforms.local.messages import LocalMessages

ARMS, CLIENTS, ROUNDS, SECONDS = 20, (1, 8, 32), 5, 2.0
USERS = 100  # asked for in turn
OURS, THEIRS = "raw columns, explored and logged", "TF-Agents' LinUCB, PolicySaver"
TOPIC = "projects/bench/topics/events"


def measure(data):
    """Measure both servers with 1, 8 and 32 clients.

    Args:
      data: MovieLens

    Returns:
      dict from title to DataFrame of text.
    """
    factorization = als(data.ratings)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = Path(folder)
        contenders(factorization, LinUCB(), ARMS, 1, folder)
        features, users = factorization.features(), factorization.user_ids[:USERS]
        requests = [{"user_id": str(user), "context": features.context_of(user)} for user in users]
        observations = features.features.context(features.encode_users(users)).tolist()
        servers = {
            OURS: stack.enter_context(ours(folder, requests)),
            THEIRS: stack.enter_context(theirs(folder, observations)),
        }
        rows = [row for clients in CLIENTS for row in compared(servers, clients)]
    return {f"{ARMS} arms through HTTP, {ROUNDS} rounds of {SECONDS:g} s": pd.DataFrame(rows)}


def compared(servers, clients, rounds=ROUNDS, seconds=SECONDS):
    """Rows of the table for a number of clients; the first of `servers` is compared with the others."""
    for server in servers.values():
        load(server, clients, seconds / 4)
    taken = [{name: load(server, clients, seconds) for name, server in servers.items()} for _ in range(rounds)]
    for name, server in servers.items():
        together = 1000 * np.concatenate([part[name] for part in taken])
        speed = np.array([len(part[name]) / seconds for part in taken])
        others = [np.array([len(part[other]) / seconds for part in taken]) for other in servers if other != name]
        yield {
            "clients": clients,
            "answered by": name,
            "p50": f"{np.quantile(together, 0.5):.2f} ms",
            "p99": f"{np.quantile(together, 0.99):.2f} ms",
            "requests": f"{np.median(speed):,.0f}/s",
            "ratio": ratio(speed / others[0]) if name == OURS else "",
            "memory": f"{psutil.Process(server.process).memory_info().rss / 2**20:,.0f} MB",
            "not logged": server.lost(),
        }


def load(server, clients, seconds):
    """Seconds of each request that was answered in that time, by a client process."""
    command = [sys.executable, "-m", "benchmarks.serving_http_client", server.address, str(clients), str(seconds)]
    asked = json.dumps([{"instances": [instance]} for instance in server.instances])
    done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


@contextlib.contextmanager
def ours(folder, instances):
    """A local endpoint that logs each decision before it answers."""
    config = Config(artifacts=str(folder))
    LocalMessages(config).subscription("events", TOPIC)
    endpoint = LocalEndpoints(config).create(topic=TOPIC)
    try:
        endpoint.deploy(folder / "ours")

        def lost():
            counters = endpoint.metrics()["outbox"]
            return f"{counters['failed']:,} of {counters['put']:,}"

        address, process = str(socket_of(endpoint.directory)), endpoint.metrics()["process"]
        yield SimpleNamespace(instances=instances, lost=lost, address=address, process=process)
    finally:
        endpoint.delete()


@contextlib.contextmanager
def theirs(folder, instances):
    """The server as Vertex AI starts it, around the SavedModel."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    variables = {
        "AIP_HTTP_PORT": port,
        "AIP_HEALTH_ROUTE": "/health",
        "AIP_PREDICT_ROUTE": "/predict",
        "AIP_STORAGE_URI": str(folder / "theirs"),
        "HANDLER_MODULE": "google.cloud.aiplatform.prediction.handler",
        "HANDLER_CLASS": "PredictionHandler",
        "PREDICTOR_MODULE": "benchmarks.serving_http_predictor",
        "PREDICTOR_CLASS": "SavedModelPredictor",
    }
    factory = "google.cloud.aiplatform.prediction.model_server:CprModelServer"
    command = [sys.executable, "-m", "uvicorn", "--factory", factory, "--host", "127.0.0.1", "--port", port]
    log = folder / "theirs.log"
    with log.open("wb") as written:
        options = {"env": os.environ | variables, "stdout": written, "stderr": written}
        process = subprocess.Popen([*command, "--no-access-log"], **options)
    try:
        while "running on" not in log.read_text():
            if process.poll() is not None:
                raise RuntimeError(f"the server around the SavedModel did not start:\n{log.read_text()[-2000:]}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        yield SimpleNamespace(instances=instances, lost=lambda: "", address=port, process=process.pid)
    finally:
        process.terminate()
        process.wait()
