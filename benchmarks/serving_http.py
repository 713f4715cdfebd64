"""Predictions through HTTP: an exported policy with its event log, and what PolicySaver writes, beside a bare server.

All are uvicorn with one worker and no access log. Ours receives raw columns of the user, encodes them, explores, and
logs every decision to a local topic. TF-Agents' LinearUCBAgent, with the same statistics, runs in Vertex AI's own model
server, receives observations ready made and logs nothing. The bound returns the body of the request, on a UNIX socket
as ours. Clients share one other process and have keep-alive connections. Every round measures all servers, one after
the other; a ratio is formed within a round.
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

from benchmarks.bound import as_share
from benchmarks.profiles import choose
from benchmarks.serving import make_contenders
from benchmarks.simulation import ratio
from recbandits.agents.parameters import LinUCB
from recbandits.config import Config
from recbandits.environments.factorization import als
from recbandits.platforms.local.endpoints import LocalEndpoints, socket_of
from recbandits.platforms.local.messages import LocalMessages

ARMS, CLIENTS, ROUNDS, SECONDS = 20, (1, 8, 32), choose(5, 2), choose(2.0, 0.5)
USERS = 100  # requested in turn
OWN_SERVER, PEER_SERVER = "raw columns, explored and logged", "TF-Agents' LinUCB, PolicySaver"
BOUND = "the request itself, bare uvicorn"
TOPIC = "projects/bench/topics/events"


def measure(data):
    """Measure all servers with 1, 8 and 32 clients."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = Path(folder)
        requests, observations = prepare(data, folder)
        servers = {
            OWN_SERVER: stack.enter_context(serve_endpoint(folder, requests)),
            PEER_SERVER: stack.enter_context(serve_saved_model(folder, observations)),
            BOUND: stack.enter_context(serve_echo(folder, requests)),
        }
        rows = [row for clients in CLIENTS for row in compare_servers(servers, clients)]
    return {f"{ARMS} arms through HTTP, {ROUNDS} rounds of {SECONDS:g} s": pd.DataFrame(rows)}


def prepare(data, folder):
    """Write the policies into a folder; return the instances of requests to ours and to TF-Agents'."""
    factorization = als(data.ratings)
    make_contenders(factorization, LinUCB(), ARMS, 1, folder)
    features, users = factorization.features(), factorization.user_ids[:USERS]
    requests = [{"user_id": str(user), "context": features.context_of(user)} for user in users]
    return requests, features.features.context(features.encode_users(users)).tolist()


def compare_servers(servers, clients, rounds=ROUNDS, seconds=SECONDS):
    """Rows of the table for a number of clients; the ratio is that of our server's speed to the other's."""
    for server in servers.values():
        load(server, clients, seconds / 4)
    answers = [{name: load(server, clients, seconds) for name, server in servers.items()} for _ in range(rounds)]
    speeds = {name: np.array([len(part[name][0]) / part[name][1] for part in answers]) for name in servers}
    for name, server in servers.items():
        milliseconds = 1000 * np.concatenate([part[name][0] for part in answers])
        yield {
            "clients": clients,
            "answered by": name,
            "p50": f"{np.quantile(milliseconds, 0.5):.2f} ms",
            "p99": f"{np.quantile(milliseconds, 0.99):.2f} ms",
            "requests": f"{np.median(speeds[name]):,.0f}/s",
            "share of the bound": as_share(np.median(speeds[name] / speeds[BOUND])) if BOUND in servers else "",
            "ratio": "" if name in (OWN_SERVER, BOUND) else ratio(speeds[OWN_SERVER] / speeds[name]),
            "memory": f"{psutil.Process(server.process).memory_info().rss / 2**20:,.0f} MB",
            "not logged": server.count_lost(),
        }


def load(server, clients, seconds):
    """Seconds of each request, and seconds until the last answer, by a client process."""
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
    arguments = ["--factory", factory, "--host", "127.0.0.1", "--port", port]
    with run_uvicorn(arguments, variables, folder / "theirs.log") as process:
        yield SimpleNamespace(instances=instances, count_lost=lambda: "", address=port, process=process)


@contextlib.contextmanager
def serve_echo(folder, instances):
    """The bare server, on a UNIX socket."""
    address = str(folder / "echo.socket")
    arguments = ["benchmarks.serving_http_echo:app", "--uds", address, "--lifespan", "off", "--ws", "none"]
    with run_uvicorn(arguments, {}, folder / "echo.log") as process:
        yield SimpleNamespace(instances=instances, count_lost=lambda: "", address=address, process=process)


@contextlib.contextmanager
def run_uvicorn(arguments, variables, log_path):
    """Run a server until the context ends; yields its process id when it listens."""
    with log_path.open("wb") as log_file:
        options = {"env": os.environ | variables, "stdout": log_file, "stderr": log_file}
        process = subprocess.Popen([sys.executable, "-m", "uvicorn", *arguments, "--no-access-log"], **options)
    try:
        while "running on" not in log_path.read_text():
            if process.poll() is not None:
                raise RuntimeError(f"uvicorn did not start:\n{log_path.read_text()[-2000:]}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        yield process.pid
    finally:
        process.terminate()
        process.wait()
