"""Platforms: this machine and Google Cloud behind the same protocols, chosen by the configuration."""

import pkgutil

from recbandits.config import PLATFORMS, Config
from recbandits.platforms.protocol import Platform


def choose(config: Config) -> Platform:
    """Return the platform that a `Config` names, an entry of `config.PLATFORMS`."""
    return pkgutil.resolve_name(PLATFORMS[config.platform])(config)
