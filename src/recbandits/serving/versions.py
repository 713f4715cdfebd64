"""The versions of a policy behind one server: the split of users between them, and the directory where they are.

A canary answers a share of the users, always the same ones. Users are split by weighted rendezvous hashing
(Schindelhauer and Schomaker 2005): each version draws an exponential variable with its share as the rate, from a hash
of the user's key and its own name, and the smallest wins. The probability to win is the share; when one share grows at
the cost of others, no user leaves the version that grows.
"""

import json
import math
import re
import uuid
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recbandits.checks import reason, require, whole
from recbandits.serving import policy
from recbandits.serving.decisions import Recommendation
from recbandits.serving.manifest import local_directory, read_bytes
from recbandits.serving.served import ServedPolicy

if TYPE_CHECKING:  # needs the extra `serve`
    from recbandits.serving.schemas import Instance, Parameters

FILE, POLICIES = "release.json", "policies"
VARIABLE = "RECBANDITS_RELEASE"  # URI of a release that a server follows, instead of AIP_STORAGE_URI, which is a copy


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
                named = isinstance(version, str) and version != ""
                require(named, "version of shares", "text that is not empty", version)
                _check_share(version, share)
            if sum(shares.values()) != 100:
                raise ValueError(f"shares must add up to 100, got {' + '.join(map(str, shares.values()))}")

    @classmethod
    def of(cls, document: Any) -> "TrafficSplit":
        """Read a release from a parsed JSON document, as `vars` gives one; anything else is a ValueError."""
        known = isinstance(document, dict) and {"shares"} <= document.keys() <= {"shares", "previous"}
        require(known, "a release", "an object with 'shares', and perhaps 'previous'", document)
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


class Served(NamedTuple):
    """A release and its policies, by version."""

    release: TrafficSplit
    policies: dict[str, ServedPolicy]

    @property
    def num_items(self) -> int:
        """Return the number of items, at most, that an instance without candidates chooses from."""
        return max(0 if policy.candidates is None else len(policy.candidates) for policy in self.policies.values())

    def recommend(self, instance: "Instance", defaults: "Parameters") -> Recommendation:
        """Answer an `Instance` by the version of its user, or by the shares; ValueError where the policy refuses."""
        key = instance.user_id
        if key is None:
            key = uuid.uuid4().hex if instance.seed is None else f"seed {instance.seed}"
        try:
            return self.policies[self.release.version(key)].recommend(
                instance.context,
                instance.candidates or defaults.candidates,
                instance.k or defaults.k,
                instance.seed,
                instance.user_id,
                instance.candidate_features,
                instance.new_items,
            )
        except KeyError as error:
            raise ValueError(error.args[0]) from None


def find(uri: str | Path | None) -> Served | None:
    """Load what AIP_STORAGE_URI names, a directory or gs://...; ValueError for what is missing, damaged or another one.

    It holds either an exported policy, which then answers all users, or a release: `release.json` and
    `policies/<version>/` for every version in it. No URI, an empty directory, and policies without a release, are
    nothing to be served yet: None.
    """
    if not uri:
        return None
    if (release := read(uri)) is not None:
        return serve(uri, release, {})
    with _directory(uri) as directory:
        names = [path.name for path in directory.iterdir() if not path.name.startswith(".")]  # but for drafts
        if names in ([], [POLICIES]):  # nothing, or what was undeployed
            return None
        loaded = policy.load(directory)
        return Served(TrafficSplit({loaded.version: 100}), {loaded.version: loaded})


def read(uri: str | Path) -> TrafficSplit | None:
    """Read the release of a directory or a gs:// URI; None where it has none, ValueError for something else."""
    try:
        content = read_bytes(f"{uri}/{FILE}")
        return None if content is None else TrafficSplit.of(json.loads(content))
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{uri}/{FILE} cannot be read: {reason(error)}") from error


def serve(uri: str | Path, release: TrafficSplit, loaded: Mapping[str, ServedPolicy]) -> Served:
    """Complete a release with its policies below a URI, but for those that are loaded; ValueError for a wrong one."""
    return Served(release, {version: loaded.get(version) or _load(uri, version) for version in release.shares})


@contextmanager
def _directory(uri):
    """Yield a directory as `local_directory` does; ValueError where there is none, or it is not read."""
    try:
        with local_directory(uri) as directory:
            if not directory.is_dir():
                raise ValueError(f"there is nothing at {uri}")
            yield directory
    except OSError as error:
        raise ValueError(f"{uri} cannot be read: {reason(error)}") from error


def _load(uri, version):
    require(re.fullmatch("[0-9a-f]{16}", version) is not None, "version", "16 hexadecimal digits", version)
    with _directory(f"{uri}/{POLICIES}/{version}") as directory:
        loaded = policy.load(directory)
    require(loaded.version == version, f"version of {POLICIES}/{version}", version, loaded.version)
    return loaded
