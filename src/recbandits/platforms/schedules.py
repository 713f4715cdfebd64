"""Cron strings: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday), in UTC.

Where both the day of the month and that of the week are restricted, either is enough.
"""

import re
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

_CRON = r"([\d*,/-]+ ){4}[\d*,/-]+"


def next_time(cron: str, after: datetime) -> datetime:
    """Return the first time of a cron string after an aware datetime, in UTC.

    Raises:
      ValueError: it is not a cron string, or has no time in the next 50 years.
    """
    if not isinstance(cron, str) or not re.fullmatch(_CRON, cron):
        raise ValueError(
            f"cron must have five fields of numbers, *, commas, - and /, such as '*/10 * * * *', got {cron!r}"
        )
    try:
        return next(CronSim(cron, after.astimezone(UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(f"cron must be as Unix reads it, got {cron!r}: {error or 'there is no such day'}") from None
