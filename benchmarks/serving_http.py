"""Predictions through HTTP: an exported policy with its event log, and what PolicySaver writes, in the same server.

Both run in Vertex AI's own model server, one worker, no access log. Ours receives raw columns of the user, encodes
them, explores, and logs every decision to a Pub/Sub server in a process of its own. TF-Agents' LinearUCBAgent, with the
same statistics, receives observations ready made and logs nothing. Clients are coroutines of one other process on
keep-alive connections. Every round measures both, one after the other; a ratio is formed within a round.
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

from benchmarks.serving import make_contenders
from benchmarks.simulation import ratio
from recbandits.agents.parameters import LinUCB
from recbandits.config import Config
from recbandits.environments.factorization import als
from recbandits.platforms.local.endpoints import LocalEndpoints, socket_of
from recbandits.platforms.local.messages import LocalMessages

ARMS, CLIENTS, ROUNDS, SECONDS = 20, (1, 8, 32), 5, 2.0
USERS = 100  # requested in turn
OWN_SERVER, PEER_SERVER = "raw columns, explored and logged", "TF-Agents' LinUCB, PolicySaver"
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
        make_contenders(factorization, LinUCB(), ARMS, 1, folder)
        features, users = factorization.features(), factorization.user_ids[:USERS]
        requests = [{"user_id": str(user), "context": features.context_of(user)} for user in users]
        observations = features.features.context(features.encode_users(users)).tolist()
        servers = {
            OWN_SERVER: stack.enter_context(serve_endpoint(folder, requests)),
            PEER_SERVER: stack.enter_context(serve_saved_model(folder, observations)),
        }
        rows = [row for clients in CLIENTS for row in compare_servers(servers, clients)]
    return {f"{ARMS} arms through HTTP, {ROUNDS} rounds of {SECONDS:g} s": pd.DataFrame(rows)}


def compare_servers(servers, clients, rounds=ROUNDS, seconds=SECONDS):
    """Rows of the table for a number of clients; the first of `servers` is compared with the others."""
    for server in servers.values():
        load(server, clients, seconds / 4)
    latencies = [{name: load(server, clients, seconds) for name, server in servers.items()} for _ in range(rounds)]
    for name, server in servers.items():
        milliseconds = 1000 * np.concatenate([part[name] for part in latencies])
        speed = np.array([len(part[name]) / seconds for part in latencies])
        peer_speeds = [np.array([len(part[peer]) / seconds for part in latencies]) for peer in servers if peer != name]
        yield {
            "clients": clients,
            "answered by": name,
            "p50": f"{np.quantile(milliseconds, 0.5):.2f} ms",
            "p99": f"{np.quantile(milliseconds, 0.99):.2f} ms",
            "requests": f"{np.median(speed):,.0f}/s",
            "ratio": ratio(speed / peer_speeds[0]) if name == OWN_SERVER else "",
            "memory": f"{psutil.Process(server.process).memory_info().rss / 2**20:,.0f} MB",
            "not logged": server.count_lost(),
        }


def load(server, clients, seconds):
    """Seconds of each request that was answered in that time, by a client process."""
    command = [sys.executable, "-m", "benchmarks.serving_http_client", server.address, str(clients), str(seconds)]
    bodies = json.dumps([{"instances": [instance]} for instance in server.instances])
    process = subprocess.run(command, input=bodies, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return json.loads(process.stdout)


@contextlib.contextmanager
def serve_endpoint(folder, instances):
    """A local endpoint that logs each decision before it answers."""
    config = Config(artifacts=str(folder))
    LocalMessages(config).subscription("events", TOPIC)
    endpoint = LocalEndpoints(config).create(topic=TOPIC)
    try:
        endpoint.deploy(folder / "ours")

        def count_lost():
            counters = endpoint.metrics()["outbox"]
            return f"{counters['failed']:,} of {counters['put']:,}"

        address, process = str(socket_of(endpoint.directory)), endpoint.metrics()["process"]
        yield SimpleNamespace(instances=instances, count_lost=count_lost, address=address, process=process)
    finally:
        endpoint.delete()


@contextlib.contextmanager
def serve_saved_model(folder, instances):
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
    log_path = folder / "theirs.log"
    with log_path.open("wb") as log_file:
        options = {"env": os.environ | variables, "stdout": log_file, "stderr": log_file}
        process = subprocess.Popen([*command, "--no-access-log"], **options)
    try:
        while "running on" not in log_path.read_text():
            if process.poll() is not None:
                raise RuntimeError(f"the server around the SavedModel did not start:\n{log_path.read_text()[-2000:]}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        yield SimpleNamespace(instances=instances, count_lost=lambda: "", address=port, process=process.pid)
    finally:
        process.terminate()
        process.wait()
