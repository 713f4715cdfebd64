"""A CloudEvent function that re-trains and guards, at the messages of Cloud Scheduler.

A message {"do": "train"} starts the re-training pipeline if enough is new, {"do": "train", "least_new": 1} if anything
is, and {"do": "guard"} applies the guardrail. Beside the configuration (RECBANDITS_PLATFORM, RECBANDITS_PROJECT and so
on) the environment has RECBANDITS_FEATURES (gs:// URI of the policies' features), RECBANDITS_EVENT_TOPIC (where the
endpoint logs) and RECBANDITS_SETTINGS (`loop.settings.Settings` as JSON; `join`, the rule for rewards, must be there).
"""

import base64
import functools
import json
import os
from datetime import UTC, datetime

import functions_framework
from cloudevents.http import CloudEvent

from recbandits.config import Config
from recbandits.loop.core import PipelineCore
from recbandits.loop.settings import settings_from
from recbandits.platforms import choose


@functions_framework.cloud_event  # type: ignore[arg-type]  # it ignores the result
def tick(event: CloudEvent) -> str:
    """Do what a message asks for; return what was started or decided, as text."""
    message = json.loads(base64.b64decode(event.data["message"]["data"]))
    core = _core()
    calls = {"train": core.retrain, "guard": core.guard}
    do = message.pop("do", None)
    if do not in calls:
        raise ValueError(f"do must be train or guard, got {do!r}")
    result = calls[do](datetime.now(UTC), **message)
    print(f"{do}: {result or 'nothing to do'}", flush=True)
    return str(result or "")


@functools.cache
def _core():
    settings = settings_from(json.loads(os.environ["RECBANDITS_SETTINGS"]))
    features, topic = os.environ["RECBANDITS_FEATURES"], os.environ.get("RECBANDITS_EVENT_TOPIC", "")
    platform = choose(Config.load())
    return PipelineCore(platform, platform.endpoints.create(), settings, features, topic)
