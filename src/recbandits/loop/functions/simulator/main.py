"""An HTTP function that simulates users for a while at each call of Cloud Scheduler.

They are what `SimulatedUsers.save` wrote to RECBANDITS_USERS, a directory or a gs:// URI; RECBANDITS_SETTINGS is that
of the trigger.
"""

import functools
import json
import os
import threading
from typing import Any

import functions_framework

from recbandits import checks
from recbandits.config import Config
from recbandits.loop.settings import settings_from
from recbandits.loop.simulate import Simulator
from recbandits.loop.simulated_users import SimulatedUsers
from recbandits.platforms import choose
from recbandits.serving.manifest import local_directory

DEFAULTS = {"seconds": 5.0, "instances": 5}  # the rate is that of the loop
PATIENCE = 30.0  # seconds that the last reports get


@functions_framework.http
def simulate(request: Any) -> dict | tuple[dict, int]:
    """Make `rate` visits per second, `instances` in a request, for `seconds`; wait for their reports, and count."""
    values = DEFAULTS | (request.get_json(silent=True) or {})
    rules = {"seconds": checks.POSITIVE, "rate": checks.POSITIVE, "instances": checks.whole()}
    if refused := [name for name, value in values.items() if name not in rules or not rules[name].accepts(value)]:
        expected = f"one of {', '.join(rules)} and a positive number, of instances a whole one"
        return {"error": f"{refused[0]} must be {expected}"}, 400
    config, settings = Config.load(), settings_from(json.loads(os.environ["RECBANDITS_SETTINGS"]))
    platform = choose(config)
    publisher = platform.messages.publisher(platform.messages.topic("rewards"))
    rate = values.get("rate", settings.rate)
    options = {"seed": None, "instances": values["instances"], "candidates": settings.candidates}
    simulator = Simulator(_users(), platform.endpoints.create(config.endpoint), publisher, rate, **options)
    stop = threading.Event()
    threading.Timer(values["seconds"], stop.set).start()
    simulator.run(stop)
    simulator.drain(PATIENCE)
    return simulator.counts | {"waiting": simulator.waiting}


@functools.cache
def _users():
    with local_directory(os.environ["RECBANDITS_USERS"]) as directory:
        return SimulatedUsers.load(directory)
