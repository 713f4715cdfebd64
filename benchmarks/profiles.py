"""The profile of a run: "full" measures the published tables, "quick" fewer and smaller cases of each."""

import os

from recbandits.notebook import check_profile

PROFILE = os.environ.get("BENCH_PROFILE", "full")  # `make bench` sets it
check_profile(PROFILE)


def choose(full, quick):
    """Return the value for the profile of this run."""
    return quick if PROFILE == "quick" else full


def is_published(data):
    """Return True if the results of this run go into the repository: full profile, real MovieLens."""
    return PROFILE == "full" and data.is_real
