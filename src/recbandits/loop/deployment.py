"""The closed loop on Google Cloud: deployed by one call, removed by another."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from recbandits.config import Config
from recbandits.data.tables import MovieLens
from recbandits.loop.importing import write_first_log
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS, SimulatedUsers
from recbandits.loop.steps import FUNCTIONS, LOGGERS, START_UP, TEMPLATES, logger_name, logger_of, start_up_parameters
from recbandits.loop.trigger import PIPELINE
from recbandits.platforms import choose
from recbandits.platforms.functions import Function
from recbandits.platforms.protocol import PlatformError

TOPICS = (*LOGGERS, "ticks")
SCHEDULES = {  # name: (cron string, payload); of the first two, a message to the topic "ticks"
    "train": ("*/10 * * * *", {"do": "train"}),
    "guard": ("* * * * *", {"do": "guard"}),
    "simulate": ("* * * * *", {"seconds": 30.0}),
}
_NAMES = (*map(logger_name, LOGGERS), "trigger", "simulator")  # of the functions
_IMAGES = ("train", "serve")
_SETTLING = 30.0  # seconds
_LINE = 30.0  # seconds between two status lines


def deploy_loop(config: Config, settings: Settings | None = None, data: MovieLens | None = None) -> None:
    """Deploy the loop: project, tables, images, topics, endpoint, functions, the first pipeline run, schedules.

    What is there is kept, so that a call that failed can be repeated. Where a policy serves, no pipeline is run.

    Args:
      config: Config with the platform "gcp".
      settings: `Settings`; None for the defaults on stars.
      data: `MovieLens`, from which the simulated users are made; None for what `movielens.load` gives.

    Raises:
      PlatformError: the platform is another one, or Google Cloud refused.
    """
    platform = _platform(config)
    settings = _settled(settings or Settings(STARS))
    platform.create()
    platform.warehouse.create()
    for image in _IMAGES:
        _have_image(platform.images, image)
    topics = {name: platform.messages.topic(name) for name in TOPICS}
    endpoint = platform.endpoints.create(topic=topics["interactions"], sticky=True)
    for role in ("roles/pubsub.viewer", "roles/pubsub.publisher"):  # the simulator finds the topic, and publishes
        platform.messages.allow(topics["rewards"], role, config.account("function"))
    users_uri, log_uri = _share_users(platform, settings, data)
    functions = _functions(settings, topics, users_uri)
    with ThreadPoolExecutor(len(functions)) as threads:  # each takes minutes to build
        list(threads.map(platform.functions.deploy, functions))
    if not endpoint.traffic_split:
        parameters = start_up_parameters(config, settings, log_uri, users_uri, topics["interactions"])
        platform.pipelines.run(TEMPLATES / "start_up.yaml", START_UP, parameters)
    simulator = platform.functions.health("simulator")["address"]
    for name, (cron, payload) in SCHEDULES.items():
        platform.schedules.create(name, cron, simulator if name == "simulate" else topics["ticks"], payload)


def remove_loop(config: Config) -> None:
    """Remove what runs or is billed by the hour: schedules, pipeline runs, functions, topics and the endpoint.

    Data stay: the warehouse, the models, the bucket. `platform.clean_up` removes them as well.

    Raises:
      PlatformError: the platform is another one, or Google Cloud refused.
    """
    platform = _platform(config)
    for name in SCHEDULES:
        platform.schedules.delete(name)
    for pipeline in (START_UP, PIPELINE):
        if run := platform.pipelines.running(pipeline):
            platform.pipelines.stop(run)
    for name in _NAMES:
        platform.functions.delete(name)
    for name in TOPICS:
        platform.messages.delete(name)
        platform.messages.delete(f"{name}-dead")
    platform.endpoints.delete()


def follow_loop(config: Config, stop: threading.Event, show: Callable = print) -> None:
    """Print the progress of a deployed loop until an event is set; the loop itself goes on.

    Args:
      config: Config with the platform "gcp".
      stop: `threading.Event`
      show: function of a line of text.

    Raises:
      PlatformError: the platform is another one, Google Cloud refused, or the start-up pipeline failed.
    """
    platform, shown = _platform(config), 0
    while not stop.is_set():
        run = platform.pipelines.status(START_UP)
        if run.state in ("failed", "stopped"):
            raise PlatformError(run.error or "the start-up pipeline was stopped")
        verdicts = platform.warehouse.verdicts()
        for verdict in verdicts.iloc[shown:].itertuples():
            show(f"       {verdict.kind} {verdict.version[:8]}: {verdict.why}")
        shown = len(verdicts)
        show(_status_line(platform, run))
        stop.wait(_LINE)


def _status_line(platform, run):
    rows = platform.warehouse.state()
    shares = platform.endpoints.create().traffic_split
    parts = [f"start-up {run.state}"] if run.state != "succeeded" else []
    parts += [f"{rows[name]['rows']:,} {name}" for name in ("interactions", "rewards")]
    parts += [f"{version[:8]} {share} %" for version, share in shares.items() if share]
    return " · ".join(parts)


def _platform(config):
    if config.platform != "gcp":
        raise PlatformError("platform must be 'gcp' to deploy the loop; on this machine, `make loop` runs it")
    return choose(config)


def _settled(settings):
    """Leave out decisions just after a change of the split, which servers read from the bucket at intervals."""
    guardrail = settings.guardrail
    return replace(settings, guardrail=replace(guardrail, settling=max(guardrail.settling, _SETTLING)))


def _have_image(images, name):
    """Build an image unless it has been built."""
    try:
        images.pinned(name)
    except PlatformError:
        images.build(name)


def _share_users(platform, settings, data):
    """Return the gs:// URIs of the simulated users, with their features, and of the first log."""
    if data is None:
        from recbandits.data import movielens

        data = movielens.load()
    users = SimulatedUsers.of(settings, data)
    with TemporaryDirectory() as folder:
        users_directory, log_directory = Path(folder, "users"), Path(folder, "log")
        users.save(users_directory)
        write_first_log(log_directory, users, settings, datetime.now(UTC))
        return platform.share(users_directory), platform.share(log_directory)


def _functions(settings, topics, users_uri):
    environment = {
        "RECBANDITS_SETTINGS": json.dumps(asdict(settings)),
        "RECBANDITS_FEATURES": users_uri,
        "RECBANDITS_USERS": users_uri,
        "RECBANDITS_EVENT_TOPIC": topics["interactions"],
    }
    return [
        *(logger_of(topic, topics[topic]) for topic in LOGGERS),
        Function("trigger", FUNCTIONS / "trigger", "tick", topics["ticks"], environment),
        Function("simulator", FUNCTIONS / "simulator", "simulate", None, environment),
    ]
