"""Two CloudEvent functions: one writes decisions to the warehouse, the other one rewards.

All other messages are quarantined with the reason.
"""

import base64
import functools
from datetime import datetime

import functions_framework
from cloudevents.http import CloudEvent

from recbandits.config import Config
from recbandits.platforms import choose
from recbandits.platforms.warehouse import Warehouse
from recbandits.records import Interaction, Quarantined, Reward


@functions_framework.cloud_event  # type: ignore[arg-type]  # it ignores the result
def log_interaction(event: CloudEvent) -> str:
    """Write the decision in a message of the topic "interactions"."""
    return log_event(Interaction, event.data, _warehouse())


@functions_framework.cloud_event  # type: ignore[arg-type]  # it ignores the result
def log_reward(event: CloudEvent) -> str:
    """Write the reward in a message of the topic "rewards"."""
    return log_event(Reward, event.data, _warehouse())


def log_event(kind: type[Interaction | Reward], data: dict, warehouse: Warehouse) -> str:
    """Write the record in a CloudEvent of Pub/Sub and return "written", else "quarantined"; a duplicate has no effect.

    The data of the event have `message`, with `messageId`, `publishTime` and, in base64, `data`. PlatformError says
    that the warehouse does not answer: the message must come again.
    """
    message = data["message"]
    content = base64.b64decode(message.get("data", ""))
    try:
        record = kind.from_json(content.decode())
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        reason, text = str(error).encode(errors="backslashreplace").decode(), content.decode(errors="backslashreplace")
        time, topic = datetime.fromisoformat(message["publishTime"]), f"{kind.__name__.lower()}s"
        warehouse.write([Quarantined(message["messageId"], time, topic, reason, text)])
        return "quarantined"
    warehouse.write([record])
    return "written"


@functools.cache
def _warehouse():
    return choose(Config.load()).warehouse
