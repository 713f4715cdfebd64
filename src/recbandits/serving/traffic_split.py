"""The split of users between versions of a policy: a canary answers a share of the users, always the same ones.

Users are split by weighted rendezvous hashing (Schindelhauer and Schomaker 2005): each version draws an exponential
variable with its share as the rate, from a hash of the user's key and its own name, and the smallest wins. The
probability to win is the share; when one share grows at the cost of others, no user leaves the version that grows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from recbandits.checks import require, whole


@dataclass(frozen=True)
class TrafficSplit:
    """Shares of the traffic of the deployed versions of a policy.

    Attributes:
      shares: dict from version to percentage, whole numbers from 0 to 100 that add up to 100.
      previous: the shares before the last change, for `rolled_back`; None where there were none.

    Raises:
      ValueError: shares that are not as above.
    """

    shares: dict
    previous: dict | None = None

    def __post_init__(self):
        for shares in (self.shares, *([] if self.previous is None else [self.previous])):
            require(isinstance(shares, dict) and bool(shares), "shares", "a dict from version to percentage", shares)
            for version, share in shares.items():
                require(isinstance(version, str) and version != "", "version of shares", "text", version)
                _check_share(version, share)
            require(sum(shares.values()) == 100, "sum of shares", "100", " + ".join(map(str, shares.values())))

    @classmethod
    def of(cls, document: Any) -> "TrafficSplit":
        """Read a release from a parsed JSON document, as `vars` gives one; anything else is a ValueError."""
        known = isinstance(document, dict) and {"shares"} <= document.keys() <= {"shares", "previous"}
        require(known, "a release", "a dict with 'shares', and perhaps 'previous'", document)
        return cls(**document)

    def version(self, key: Any) -> str:
        """Return the version that answers a user, by a key such as the id, of which the `str` counts."""
        shares = {version: share for version, share in self.shares.items() if share}
        if len(shares) == 1:
            return next(iter(shares))
        return min(shares, key=lambda version: -math.log(_uniform(f"{version}/{key}")) / shares[version])

    def then(self, shares: Mapping[str, int]) -> "TrafficSplit":
        """Return the next release, which remembers the shares of this one."""
        return TrafficSplit(dict(shares), previous=self.shares)

    def rolled_back(self) -> "TrafficSplit":
        """Return the shares before the last change, 0 for what was deployed since; a second roll back undoes it."""
        if self.previous is None:
            raise ValueError("there is no earlier release to return to")
        return self.then(dict.fromkeys(self.shares, 0) | self.previous)

    def with_version(self, version: str, share: int) -> "TrafficSplit":
        """Return the next release, in which a version has `share` percent and the others split the rest as before."""
        _check_share(version, share)
        return self.then(_scaled(_remove(self.shares, version), 100 - share) | {version: share})

    def without(self, version: str) -> "TrafficSplit":
        """Return the next release without a version that has no traffic."""
        if version not in self.shares:
            raise ValueError(f"version {version!r} is not deployed, there is {', '.join(self.shares)}")
        if self.shares[version]:
            raise ValueError(f"version {version!r} still has {self.shares[version]} % of the traffic: split it first")
        needed = self.previous is not None and self.previous.get(version, 0) > 0
        return TrafficSplit(_remove(self.shares, version), None if needed else _remove(self.previous, version))


def _check_share(version, share):
    valid = isinstance(share, int) and whole(0).accepts(share) and share <= 100
    require(valid, f"share of {version!r:.100}", "a whole number from 0 to 100", share)


def _uniform(text):
    """Return a number in (0, 1), the same for the same text in every process."""
    return (int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) + 0.5) / 2**64


def _scaled(shares, total):
    """Return whole numbers in proportion to `shares` that add up to `total`: the largest remainders are rounded up."""
    whole = sum(shares.values())
    if not whole:
        require(not total, "share", "100 where no other version has traffic", 100 - total)
        return shares
    exact = {version: share * total / whole for version, share in shares.items()}
    floor = {version: math.floor(value) for version, value in exact.items()}
    by_remainder = sorted(exact, key=lambda version: floor[version] - exact[version])
    for version in by_remainder[: total - sum(floor.values())]:
        floor[version] += 1
    return floor


def _remove(shares, version):
    return shares and {other: share for other, share in shares.items() if other != version}
