"""Cron strings as Unix reads them, and schedules of this machine on a clock of the test's own."""

import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from recbandits.config import Config
from recbandits.platforms.local import LocalPlatform
from recbandits.platforms.local.schedules import fired, run, send
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.schedules import Schedule, fields_of, trigger_of

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
TOPIC = "projects/local/topics/ticks"


def times(cron, n, after=MONDAY):
    """The next n times of a cron string, as texts."""
    trigger, found = trigger_of(cron), [after]
    for _ in range(n):
        found.append(trigger.get_next_fire_time(found[-1], found[-1]))
    return [f"{time:%a %d.%m. %H:%M}" for time in found[1:]]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("*/20 * * * *", ["Mon 23.11. 00:20", "Mon 23.11. 00:40", "Mon 23.11. 01:00"]),
        ("5-59/30 3,4 * * *", ["Mon 23.11. 03:05", "Mon 23.11. 03:35", "Mon 23.11. 04:05"]),
        ("0 3 * * 0", ["Sun 29.11. 03:00", "Sun 06.12. 03:00", "Sun 13.12. 03:00"]),
        ("0 3 * * 7", ["Sun 29.11. 03:00", "Sun 06.12. 03:00", "Sun 13.12. 03:00"]),
        ("0 3 * * 1-5", ["Mon 23.11. 03:00", "Tue 24.11. 03:00", "Wed 25.11. 03:00"]),
        ("0 0 13 * 5", ["Fri 27.11. 00:00", "Fri 04.12. 00:00", "Fri 11.12. 00:00", "Sun 13.12. 00:00"]),
        ("0 0 31 1 *", ["Sun 31.01. 00:00", "Mon 31.01. 00:00"]),
    ],
)
def test_cron_strings_mean_what_they_mean_to_unix(cron, expected):
    """Sunday is 0 and 7; the thirteenth or any Friday, where both are restricted; ranges, lists and steps."""
    assert times(cron, len(expected)) == expected


@pytest.mark.parametrize(
    ("cron", "sentence"),
    [
        ("daily", "cron must have five fields"),
        ("* * * *", "cron must have five fields"),
        (None, "cron must have five fields"),
        ("60 * * * *", "minute must be within 0 to 59, got '60'"),
        ("* * 0 * *", "day must be within 1 to 31, got '0'"),
        ("5-3 * * * *", "minute must be within 0 to 59, got '5-3'"),
        ("* * * jan *", "month must be \\*, numbers, ranges or steps, got 'jan'"),
        ("*/0 * * * *", "minute must be"),
    ],
)
def test_what_is_no_cron_string_is_refused_by_the_name_of_the_field(cron, sentence):
    with pytest.raises(ValueError, match=sentence):
        fields_of(cron)


@pytest.mark.parametrize(
    ("field", "value"), [("name", "Nightly"), ("cron", "never"), ("target", "ticks"), ("payload", [1])]
)
def test_a_schedule_is_checked_where_it_is_made(field, value):
    good = {"name": "nightly", "cron": "0 3 * * *", "target": TOPIC, "payload": {}}
    with pytest.raises(ValueError, match=field):
        Schedule(**good | {field: value})


def test_a_time_belongs_to_one_look_at_the_clock():
    """Looked at 02:59:59.5, 03:00 and 03:00:00.5: due at the second look alone; a paused one never is."""
    nightly = Schedule("nightly", "0 3 * * *", TOPIC)
    three, half = MONDAY + timedelta(hours=3), timedelta(seconds=0.5)
    assert fired([nightly], three - half, three) == [nightly]
    assert fired([nightly], three, three + half) == []
    assert fired([nightly], three - half - half, three - half) == []
    assert fired([Schedule("nightly", "0 3 * * *", TOPIC, paused=True)], three - half, three) == []
    assert fired([nightly], three - timedelta(days=9), three) == [nightly], "what was missed is said once"


class Looks:
    """A stop event that lets the clock be looked at so many times."""

    def __init__(self, looks):
        self.looks = looks

    def wait(self, seconds):
        self.looks -= 1
        return self.looks < 0


@pytest.fixture
def platform(tmp_path, monkeypatch):
    """What runs is ended."""
    monkeypatch.setenv("RECBANDITS_ARTIFACTS", str(tmp_path))
    platform = LocalPlatform(Config(artifacts=str(tmp_path)))
    yield platform
    platform.schedules.stop()


def test_schedules_are_kept_by_name_and_said_when_they_are_due(platform):
    """An hour in steps of 10 minutes: at 20, 40 and 60 minutes, but not while paused; one that fails harms no other."""
    schedules, said = platform.schedules, []
    address = "http://127.0.0.1:9/nobody"
    schedules.create("often", "*/20 * * * *", address, {"least": 5})
    schedules.create("broken", "*/20 * * * *", address)
    schedules.create("silent", "*/20 * * * *", address)
    schedules.pause("silent")
    process = schedules.service.process
    assert process, "the process runs from the first one on"
    assert [(schedule.name, schedule.paused) for schedule in schedules.list()] == [
        ("broken", False),
        ("often", False),
        ("silent", True),
    ]
    minutes = iter(range(0, 70, 10))

    def say(schedule):
        if schedule.name == "broken":
            raise OSError("nobody is there")
        said.append((schedule.name, schedule.payload))

    run(schedules.service.directory, Looks(6), say, lambda: MONDAY + timedelta(minutes=next(minutes)))
    assert said == [("often", {"least": 5})] * 3
    schedules.create("silent", "0 3 * * *", address)
    assert not schedules.list()[2].paused
    assert schedules.service.process == process
    with pytest.raises(PlatformError, match="there is no schedule nothing"):
        schedules.pause("nothing")
    for name in ("often", "broken", "silent", "silent"):
        schedules.delete(name)
    assert not schedules.service.running


def test_a_schedule_publishes_its_payload_or_posts_it(platform):
    topic = platform.messages.topic("ticks")
    subscription = platform.messages.subscription("reader", topic)
    send(Schedule("nightly", "0 3 * * *", topic, {"do": "train"}))
    (message,) = platform.messages.take(subscription, 10)
    assert message.data == b'{"do": "train"}'

    bodies = []

    class Function(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Function) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        send(Schedule("burst", "* * * * *", f"http://127.0.0.1:{server.server_port}/", {"seconds": 1}))
        answering.join()
    assert bodies == [b'{"seconds": 1}']
