"""Simulated users for a while with each call: the HTTP function that Cloud Scheduler calls.

They are what `SimulatedUsers.save` wrote into $RECBANDITS_WORLD, or into `world` beside this file, packed with it.
"""

import os
import threading
from pathlib import Path

import functions_framework

from recbandits.config import Config
from recbandits.loop.asking import endpoint_of
from recbandits.loop.simulate import Simulator
from recbandits.loop.simulated_users import SimulatedUsers
from recbandits.platforms import choose

ASKED = {"seconds": 5.0, "rate": 10.0, "instances": 1}  # unless the body says otherwise
PATIENCE = 30.0  # seconds that the last reports get


@functions_framework.http
def simulate(request):
    """Let `rate` requests per second of `instances` visits come for `seconds`, wait for their reports, and count."""
    asked = ASKED | (request.get_json(silent=True) or {})
    if refused := [name for name, value in asked.items() if name not in ASKED or not fits(name, value)]:
        sentence = f"{refused[0]} must be one of {', '.join(ASKED)} and a positive number, of instances a whole one"
        return {"error": sentence}, 400
    config = Config.load()
    platform = choose(config)
    world = SimulatedUsers.load(os.environ.get("RECBANDITS_WORLD") or Path(__file__).with_name("world"))
    publisher = platform.messages.publisher(platform.messages.topic("rewards"))
    endpoint = endpoint_of(platform, config.endpoint)
    visitors = Simulator(world, endpoint, publisher, asked["rate"], seed=None, instances=asked["instances"])
    stop = threading.Event()
    threading.Timer(asked["seconds"], stop.set).start()
    visitors.run(stop)
    visitors.drain(PATIENCE)
    return visitors.counts | {"waiting": visitors.waiting}


def fits(name, value):
    """Whether a value of JSON is a positive number, and a whole one where it must be."""
    kind = int if name == "instances" else int | float
    return isinstance(value, kind) and not isinstance(value, bool) and value > 0
