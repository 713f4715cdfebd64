"""The closed loop on Google Cloud: deployed by one call, removed by another."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from recbandits.config import Config
from recbandits.data.tables import MovieLens
from recbandits.loop.core import FUNCTIONS, LOGGERS, PIPELINE, START_UP, TEMPLATES, logger_of, start_up_parameters
from recbandits.loop.settings import Settings
from recbandits.loop.simulate import write_first_log
from recbandits.loop.simulated_users import SimulatedUsers
from recbandits.platforms import choose
from recbandits.platforms.functions import Function
from recbandits.platforms.protocol import PlatformError

TOPICS = (*LOGGERS, "ticks")
SCHEDULES = {  # name: (cron string, payload); of the first two, a message to the topic "ticks"
    "train": ("*/10 * * * *", {"do": "train"}),
    "guard": ("* * * * *", {"do": "guard"}),
    "simulate": ("* * * * *", {"seconds": 5.0}),  # of each minute, as every message is billed
}
_NAMES = (*LOGGERS.values(), "trigger", "simulator")  # of the functions
_IMAGES = ("train", "serve")
_SETTLING = 30.0  # seconds after a change of the split, which servers read from the bucket at intervals
_LINE = 30.0  # seconds between two status lines


def deploy_loop(config: Config, settings: Settings, data: MovieLens) -> str | None:
    """Deploy the loop: project, tables, images, topics, endpoint, functions, the first pipeline run, schedules.

    What is there is kept, so that a call that failed can be repeated. It returns the name of the run of the start-up
    pipeline, which may run already; None where a policy serves, and no run is started. PlatformError if the platform is
    not "gcp", or Google Cloud refuses.
    """
    platform = _platform(config)
    settling = max(settings.guardrail.settling, _SETTLING)
    settings = replace(settings, guardrail=replace(settings.guardrail, settling=settling))
    platform.create()
    platform.warehouse.create()
    for image in _IMAGES:
        try:
            platform.images.pinned(image)
        except PlatformError:
            platform.images.build(image)
    topics = {name: platform.messages.topic(name) for name in TOPICS}
    endpoint = platform.endpoints.create(topic=topics["interactions"], sticky=True)
    for role in ("roles/pubsub.viewer", "roles/pubsub.publisher"):  # the simulator finds the topic, and publishes
        platform.messages.allow(topics["rewards"], role, config.account("function"))
    users = SimulatedUsers.of(settings, data)
    with TemporaryDirectory() as folder:
        users_directory, log_directory = Path(folder, "users"), Path(folder, "log")
        users.save(users_directory)
        write_first_log(log_directory, users, settings, datetime.now(UTC))
        users_uri, log_uri = platform.share(users_directory), platform.share(log_directory)
    environment = {
        "RECBANDITS_SETTINGS": json.dumps(asdict(settings)),
        "RECBANDITS_FEATURES": users_uri,
        "RECBANDITS_USERS": users_uri,
        "RECBANDITS_EVENT_TOPIC": topics["interactions"],
    }
    functions = [
        *(logger_of(topic, topics[topic]) for topic in LOGGERS),
        Function("trigger", FUNCTIONS / "trigger", "tick", topics["ticks"], environment),
        Function("simulator", FUNCTIONS / "simulator", "simulate", None, environment),
    ]
    with ThreadPoolExecutor(len(functions)) as threads:  # each takes minutes to build
        list(threads.map(platform.functions.deploy, functions))
    run = platform.pipelines.running(START_UP)
    if not endpoint.traffic_split and run is None:
        run = f"{START_UP}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"  # after one that failed, or whose loop was removed
        parameters = start_up_parameters(config, settings, log_uri, users_uri, topics["interactions"])
        platform.pipelines.run(TEMPLATES / "start_up.yaml", run, parameters)
    simulator = platform.functions.health("simulator")["address"]
    for name, (cron, payload) in SCHEDULES.items():
        platform.schedules.create(name, cron, simulator if name == "simulate" else topics["ticks"], payload)
    return run


def remove_loop(config: Config) -> None:
    """Remove what runs or is billed by the hour: schedules, functions, pipeline runs, topics and the endpoint.

    Data stay: the warehouse, the models, the bucket. `platform.clean_up` removes them as well.
    """
    platform = _platform(config)
    for name in SCHEDULES:
        platform.schedules.delete(name)
    for name in _NAMES:
        platform.functions.delete(name)
    for pipeline in (START_UP, PIPELINE):
        if run := platform.pipelines.running(pipeline):
            platform.pipelines.stop(run)
            platform.pipelines.wait(run)  # its last step would make the endpoint again
    for name in TOPICS:
        platform.messages.delete(name)
        platform.messages.delete(f"{name}-dead")
    platform.endpoints.delete()


def follow_loop(config: Config, stop: threading.Event, start_up: str | None = None, show: Callable = print) -> None:
    """Show lines of text about a deployed loop until a `threading.Event` is set; the loop itself goes on.

    `start_up` is what `deploy_loop` has returned. PlatformError says that this run failed.
    """
    platform, shown = _platform(config), 0
    endpoint = platform.endpoints.create()
    while not stop.is_set():
        run = platform.pipelines.status(start_up) if start_up else None
        if run and run.state in ("failed", "stopped"):
            raise PlatformError(run.error or "the start-up pipeline was stopped")
        verdicts, state = platform.warehouse.verdicts(), platform.warehouse.state()
        show_verdicts(verdicts, shown, show)
        shown = len(verdicts)
        parts = [f"start-up {run.state}"] if run and run.state != "succeeded" else []
        parts += [f"{state[name]['rows']:,} {name}" for name in LOGGERS]
        show(status_line(parts, endpoint))
        stop.wait(_LINE)


def show_verdicts(verdicts: pd.DataFrame, shown: int, show: Callable) -> None:
    """Show a line for each verdict after the first ones, which have been shown."""
    for verdict in verdicts.iloc[shown:].itertuples():
        show(f"       {verdict.kind} {verdict.version[:8]}: {verdict.why}")


def status_line(parts: list[str], endpoint: Any) -> str:
    """Join the parts of a line that says where a loop stands, and the shares of the versions, the largest first."""
    shares = sorted(endpoint.traffic_split.items(), key=lambda item: -item[1])
    return " · ".join([*parts, *(f"{version[:8]} {share} %" for version, share in shares if share)])


def _platform(config):
    if config.platform != "gcp":
        raise PlatformError("platform must be 'gcp' to deploy the loop; on this machine, `make loop` runs it")
    return choose(config)
