"""Messages into the warehouse: records are written, all other messages are quarantined with the reason."""

import base64
from datetime import datetime

from recbandits.platforms.warehouse import Warehouse
from recbandits.records import Interaction, Quarantined, Reward


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
