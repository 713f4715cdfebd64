"""What the tests of platforms share: contracts whose assertions explain themselves, and a recorder of requests."""

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
def recorder():
    """A Google Cloud project in memory that records every request."""
    from tests.recorder import Recorder

    with Recorder() as recorder:
        yield recorder
