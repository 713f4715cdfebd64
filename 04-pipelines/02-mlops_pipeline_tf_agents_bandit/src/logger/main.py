"""Two functions that a message calls each: what was decided, and what came of it, is written to the warehouse."""

import functools

import functions_framework

from recbandits.config import Config
from recbandits.loop.logger import log_event
from recbandits.platforms import choose
from recbandits.records import Interaction, Reward


@functions_framework.cloud_event
def log_interaction(event):
    """Write the decision that a message of the topic "interactions" tells of."""
    return log_event(Interaction, event.data, _warehouse())


@functions_framework.cloud_event
def log_reward(event):
    """Write the reward that a message of the topic "rewards" tells of."""
    return log_event(Reward, event.data, _warehouse())


@functools.cache
def _warehouse():
    return choose(Config.load()).warehouse
