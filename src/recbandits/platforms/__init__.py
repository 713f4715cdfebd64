"""Platforms: this machine and Google Cloud behind the same protocols, chosen by the configuration."""

from recbandits.config import Config
from recbandits.platforms.protocol import Platform


def choose(config: Config) -> Platform:
    """Return the platform that a `Config` names."""
    if config.platform == "gcp":
        from recbandits.platforms.gcp import GcpPlatform

        return GcpPlatform(config)
    from recbandits.platforms.local import LocalPlatform

    return LocalPlatform(config)
