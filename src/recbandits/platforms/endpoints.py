"""The protocol of endpoints, under the names of Vertex AI's, and the changes of their traffic split."""

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

from recbandits.platforms.protocol import PlatformError
from recbandits.serving.predictor import Answered
from recbandits.serving.versions import TrafficSplit


def in_context(method: Callable) -> Callable:
    """Decorate a method of an `Endpoint` so that it runs within its `_context`."""

    @wraps(method)
    def call(self, *arguments, **options):
        with self._context():
            return method(self, *arguments, **options)

    return call


class Endpoint:
    """One address behind which one or more versions of a policy answer.

    Changes of the traffic split are made here, wherever a platform keeps it. A subclass has `_read()`, which returns
    the `TrafficSplit`, None before the first policy, and what else a change needs, its state; `_write(release, state)`;
    and `_remove(version, release, state)`, where None is left of the last version. They run within `_context()`.

    Attributes:
      name: of the endpoint.
    """

    name: str
    _read: Callable
    _write: Callable
    _remove: Callable
    _context: Callable = nullcontext

    @property
    def traffic_split(self) -> dict[str, int]:
        """Dict from the version of a deployed policy to its percentage; they add up to 100, or there is none yet."""
        release, _ = self._read()
        return dict(release.shares) if release else {}

    @in_context
    def split(self, traffic_split: dict[str, int], expected: Mapping[str, int] | None = None) -> None:
        """Set the share of every deployed version.

        Args:
          traffic_split: dict from version to percentage; a deployed version that is not named gets nothing.
          expected: the `traffic_split` that was found when this one was decided: nothing is changed if it is another by
            now. None changes it all the same.

        Raises:
          PlatformError: it is another one; look at it again.
        """
        release, state = self._deployed()
        if expected is not None and release.shares != expected:
            raise PlatformError(
                f"endpoint {self.name} must have the shares {expected} still, on which their change was decided, got "
                f"{release.shares}"
            )
        self._change(release, release.then(dict.fromkeys(release.shares, 0) | traffic_split), state)

    @in_context
    def rollback(self) -> None:
        """Return to the traffic split before the last change."""
        release, state = self._deployed()
        self._change(release, release.rolled_back(), state)

    @in_context
    def undeploy(self, version: str) -> None:
        """Take a version away; it must not have traffic, unless it is the only one."""
        release, state = self._deployed()
        self._remove(version, None if set(release.shares) == {version} else release.without(version), state)

    def deploy(self, policy: Any, traffic_percentage: int = 100) -> str:
        """Deploy an exported policy, by its directory, with a share of the traffic, and return its version.

        What is deployed already shares the rest as before.
        """
        raise NotImplementedError

    def predict(self, instances: list[dict], parameters: dict | None = None) -> list[dict]:
        """List of predictions, one for each instance (dicts as `recbandits.serving.schemas` says).

        A PlatformError has the words by which the server refuses.
        """
        body = {"instances": instances} | ({} if parameters is None else {"parameters": parameters})
        # raw, because in other predictions Vertex AI makes floats of all numbers
        status, answer = self.raw_predict(json.dumps(body).encode(), {"Content-Type": "application/json"})
        if status != 200:
            raise PlatformError(f"endpoint {self.name} answered {status}: {self._reason(answer)}")
        return json.loads(answer)["predictions"]

    def raw_predict(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """(status, bytes) that a body gets as it is."""
        raise NotImplementedError

    def health(self) -> dict:
        """Return whether it is alive and ready: dict."""
        raise NotImplementedError

    def batch_predict(self, policy: str | Path, source: str | Path, destination: str | Path) -> Answered:
        """Answer every line of JSON in the file `source` with a line in `destination`, by an exported policy."""
        raise NotImplementedError

    def delete(self) -> None:
        """Undeploy everything, then remove the endpoint."""
        raise NotImplementedError

    def _reason(self, answer):
        return " ".join(answer.decode(errors="replace").split())

    def _deployed(self):
        release, state = self._read()
        if release is None:
            raise PlatformError(f"endpoint {self.name} has no policy, deploy one first")
        return release, state

    def _change(self, present, release, state):
        if unknown := release.shares.keys() - present.shares.keys():
            raise PlatformError(
                f"endpoint {self.name} cannot use version {', '.join(sorted(unknown))}: deploy it first"
            )
        self._write(release, state)


class Endpoints(Protocol):
    """The endpoints of one platform."""

    def create(self, name: str | None = None, topic: str | None = None, sticky: bool = False) -> Endpoint:
        """Create an `Endpoint`, or return the one that has this name.

        Args:
          name: at most 63 lower-case letters, digits and single hyphens; None is the name in the configuration.
          topic: full name of the topic where decisions are logged; None for where they are.
          sticky: whether a user always gets the same version.
        """

    def delete(self, name: str | None = None) -> None:
        """Delete the `Endpoint` of a name, None for that in the configuration; one that is gone already is no error."""


def with_version(release: TrafficSplit | None, version: str, share: int) -> TrafficSplit:
    """Return the release in which a version has a share; before the first policy, `release` is None."""
    return release.with_version(version, share) if release else TrafficSplit({version: share})
