"""Messages into the warehouse: records are written, all other messages are quarantined with the reason."""

import base64
from datetime import datetime

from recbandits.platforms.warehouse import Warehouse
from recbandits.records import Interaction, Quarantined, Reward


def log_event(kind: type[Interaction | Reward], data: dict, warehouse: Warehouse) -> str:
    """Write the record in a CloudEvent of Pub/Sub; a duplicate has no effect.

    Args:
      kind: `Interaction` or `Reward`.
      data: of the event: dict with `message`, which has `messageId`, `publishTime` and, in base64, `data`.
      warehouse: `Warehouse`

    Returns:
      "written" or "quarantined".

    Raises:
      PlatformError: the warehouse does not answer; the message must come again.
    """
    message = data["message"]
    content = base64.b64decode(message.get("data", ""))
    try:
        record = kind.from_json(content.decode())
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = str(error).encode(errors="backslashreplace").decode()
        time, topic = (datetime.fromisoformat(message["publishTime"]), f"{kind.__name__.lower()}s")
        warehouse.quarantine(
            [Quarantined(message["messageId"], time, topic, reason, content.decode(errors="backslashreplace"))]
        )
        return "quarantined"
    warehouse.write([record])
    return "written"
