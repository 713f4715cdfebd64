"""From messages to the warehouse: what makes a record is written, what makes none is quarantined with the reason."""

import base64
from datetime import datetime

from recbandits.records import Quarantined


def log_event(kind, data, warehouse):
    """Write what a CloudEvent of Pub/Sub says; that it comes again has no effect.

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
        warehouse.quarantine([Quarantined(message["messageId"], time, topic, reason, content)])
        return "quarantined"
    warehouse.write([record])
    return "written"
