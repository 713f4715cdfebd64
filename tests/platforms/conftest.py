"""Helpers of the tests of platforms: contracts with readable assertions, and a project in memory."""

from unittest import mock

import pytest

pytest.register_assert_rewrite(
    "platform_contract",
    "tests.platforms.platform_contract",
    "endpoints_contract",
    "jobs_contract",
    "messages_contract",
    "warehouse_contract",
)


@pytest.fixture
def cloud(monkeypatch):
    """A Google Cloud project in memory that records every request; no emulator is used."""
    from tests.recorder import Recorder

    for name in ("PUBSUB_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    with Recorder() as cloud:
        yield cloud


@pytest.fixture
def unit(tmp_path):
    from recbandits.platforms.local.units import Unit

    unit = Unit(tmp_path / "units" / "with spaces, ä and 日本", "unit a")
    yield unit
    unit.kill()


@pytest.fixture
def no_pauses():
    """Remove the pauses before retries."""
    with mock.patch("time.sleep"):
        yield
