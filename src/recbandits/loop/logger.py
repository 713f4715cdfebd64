"""From a message to the warehouse: what makes a record is written, what makes none is kept aside with the reason."""

import base64
from datetime import datetime

from recbandits.records import Quarantined


def log_event(kind, said, warehouse):
    """Write what a CloudEvent of Pub/Sub says; see `log_message`.

    Args:
      kind: as there.
      said: the event's data: dict with `message`, which has `messageId`, `publishTime` and, in base64, `data`.
      warehouse: as there.
    """
    message = said["message"]
    data = base64.b64decode(message.get("data", ""))
    time = datetime.fromisoformat(message["publishTime"])
    return log_message(kind, data, message["messageId"], time, warehouse)


def log_message(kind, data, message_id, time, warehouse):
    """Write what a message says; that it comes again has no effect.

    Args:
      kind: `Interaction` or `Reward`.
      data: bytes, the JSON of a record.
      message_id: text that names the message.
      time: aware datetime at which it was sent.
      warehouse: `Warehouse`

    Returns:
      "written" or "quarantined".

    Raises:
      PlatformError: the warehouse does not answer; the message must come again.
    """
    try:
        record = kind.from_json(data.decode())
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = str(error).encode(errors="backslashreplace").decode()
        warehouse.quarantine([Quarantined(message_id, time, f"{kind.__name__.lower()}s", reason, data)])
        return "quarantined"
    warehouse.write([record])
    return "written"
