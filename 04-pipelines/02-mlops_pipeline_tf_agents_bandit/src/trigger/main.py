"""When to train again, and what users think of what serves: the function that Cloud Scheduler's messages call.

A message {"do": "train"} starts the re-training pipeline if enough is new, {"do": "train", "least_new": 1} if anything
is, and {"do": "guard"} has the guardrail look. Beside the configuration (RECBANDITS_PLATFORM, RECBANDITS_PROJECT and so
on) the environment has RECBANDITS_FEATURES (gs:// URI of the policies' features), RECBANDITS_EVENT_TOPIC (where the
endpoint logs) and RECBANDITS_SETTINGS (`loop.settings.Settings` as JSON; `join`, the rule for rewards, must be there).
"""

import base64
import functools
import json
import os
from pathlib import Path

import functions_framework

from recbandits.config import Config
from recbandits.loop.steps import settings_from
from recbandits.loop.trigger import Trigger
from recbandits.platforms import choose

TEMPLATE = Path(__file__).with_name("re_training.yaml")  # the one beside the pipelines, which is packed with this file


@functions_framework.cloud_event
def look(event):
    """Do what a message asks for; gives what was started or decided, as text."""
    asked = json.loads(base64.b64decode(event.data["message"]["data"]))
    calls = {"train": _trigger().look, "guard": _trigger().guard}
    do = asked.pop("do", None)
    if do not in calls:
        raise ValueError(f"do must be train or guard, got {do!r}")
    found = calls[do](**asked)
    print(f"{do}: {found or 'nothing to do'}", flush=True)
    return str(found or "")


@functools.cache
def _trigger():
    environment = os.environ
    settings = settings_from(json.loads(environment["RECBANDITS_SETTINGS"]))
    place = {"features": environment["RECBANDITS_FEATURES"], "topic": environment.get("RECBANDITS_EVENT_TOPIC", "")}
    return Trigger(choose(Config.load()), TEMPLATE, settings, **place)
