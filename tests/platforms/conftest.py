"""What the tests of platforms share: contracts whose assertions explain themselves, and a rehearsal of Google Cloud."""

import pytest

pytest.register_assert_rewrite(
    "platform_contract", "endpoints_contract", "jobs_contract", "messages_contract", "warehouse_contract"
)


@pytest.fixture
def recorder():
    """A Google Cloud project in memory that records every request."""
    from recorder import Recorder

    with Recorder() as recorder:
        yield recorder


@pytest.fixture
def cloud():
    """A rehearsal of Google Cloud."""
    from recbandits.platforms.gcp.rehearsal import Rehearsal

    with Rehearsal() as cloud:
        yield cloud


@pytest.fixture
def gcp(tmp_path, cloud):
    """A platform that talks to the rehearsal, with a manifest of its own."""
    from recbandits.config import Config
    from recbandits.platforms.gcp import GcpPlatform

    config = Config(platform="gcp", project="movie-lab-42", artifacts=str(tmp_path / "artifacts"))
    return GcpPlatform(config, cloud.endpoint)
