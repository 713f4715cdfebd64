"""Two CloudEvent functions: one writes decisions to the warehouse, the other one rewards."""

import functools

import functions_framework
from cloudevents.http import CloudEvent

from recbandits.config import Config
from recbandits.loop.logger import log_event
from recbandits.platforms import choose
from recbandits.records import Interaction, Reward


@functions_framework.cloud_event  # type: ignore[arg-type]  # it ignores the result
def log_interaction(event: CloudEvent) -> str:
    """Write the decision in a message of the topic "interactions"."""
    return log_event(Interaction, event.data, _warehouse())


@functions_framework.cloud_event  # type: ignore[arg-type]  # it ignores the result
def log_reward(event: CloudEvent) -> str:
    """Write the reward in a message of the topic "rewards"."""
    return log_event(Reward, event.data, _warehouse())


@functools.cache
def _warehouse():
    return choose(Config.load()).warehouse
