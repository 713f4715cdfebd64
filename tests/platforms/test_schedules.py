"""Cron strings as Unix reads them."""

from datetime import UTC, datetime

import pytest

from recbandits.platforms.functions import next_time

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def times(cron, n, after=MONDAY):
    """The next n times of a cron string, as texts."""
    times = [after]
    for _ in range(n):
        times.append(next_time(cron, times[-1]))
    return [f"{time:%a %d.%m. %H:%M}" for time in times[1:]]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("*/20 * * * *", ["Mon 23.11. 00:20", "Mon 23.11. 00:40", "Mon 23.11. 01:00"]),
        ("5-59/30 3,4 * * 0", ["Sun 29.11. 03:05", "Sun 29.11. 03:35", "Sun 29.11. 04:05"]),
        ("0 3 * * 7", ["Sun 29.11. 03:00", "Sun 06.12. 03:00"]),
        ("0 0 13 * 5", ["Fri 27.11. 00:00", "Fri 04.12. 00:00", "Fri 11.12. 00:00", "Sun 13.12. 00:00"]),
        ("0 3 29 2 *", ["Tue 29.02. 03:00"]),
    ],
)
def test_cron_strings_mean_what_they_mean_to_unix(cron, expected):
    """Sunday is 0 and 7; the thirteenth or any Friday, where both are restricted; ranges, lists and steps."""
    assert times(cron, len(expected)) == expected


@pytest.mark.parametrize(
    ("cron", "sentence"),
    [
        (None, "cron must be five fields"),
        ("* * * jan *", "cron must be five fields"),
        ("60 * * * *", "got '60 \\* \\* \\* \\*': Bad minute"),
        ("0 0 31 2 *", "Bad day-of-month"),
    ],
)
def test_what_is_no_cron_string_is_refused_by_the_name_of_the_field(cron, sentence):
    with pytest.raises(ValueError, match=sentence):
        next_time(cron, MONDAY)
