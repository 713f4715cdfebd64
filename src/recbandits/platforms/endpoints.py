"""What the project asks of an endpoint, under the names of Vertex AI's."""

from typing import Protocol

from recbandits.platforms.protocol import PlatformError


def expect_shares(name, shares, expected):
    """See to it that shares are those on which a change of them was decided.

    Args:
      name: of the endpoint.
      shares: dict from version to percentage, that it has.
      expected: such a dict; None for whatever it has.

    Raises:
      PlatformError: somebody has changed them.
    """
    if expected is not None and shares != expected:
        raise PlatformError(
            f"endpoint {name} must have the shares {expected} still, on which their change was decided, got {shares}"
        )


def expect_deployed(name, deployed, wanted):
    """See to it that shares go to versions that are there.

    Args:
      name: of the endpoint.
      deployed: its versions, a collection with set operations.
      wanted: versions that are to get a share, likewise.

    Raises:
      PlatformError: one of them is not deployed.
    """
    if unknown := wanted - deployed:
        raise PlatformError(f"endpoint {name} cannot use version {', '.join(sorted(unknown))}: deploy it first")


class Endpoint(Protocol):
    """One address behind which one or more versions of a policy answer.

    Attributes:
      name: of the endpoint.
      traffic_split: dict from the version of a deployed policy to its percentage; they add up to 100.
    """

    name: str
    traffic_split: dict

    def deploy(self, policy, traffic_percentage=100):
        """Deploy an exported policy.

        Args:
          policy: its directory.
          traffic_percentage: its share; what is deployed already shares the rest as before.

        Returns:
          The version of the policy.
        """

    def split(self, traffic_split, expected=None):
        """Set the share of every deployed version.

        Args:
          traffic_split: dict from version to percentage.
          expected: the `traffic_split` that was found when this one was decided: nothing is changed if it is another by
            now. None changes it all the same.

        Raises:
          PlatformError: it is another one; look at it again.
        """

    def rollback(self):
        """Return to the traffic split before the last change."""

    def undeploy(self, version):
        """Take a version away; it must not have traffic, unless it is the only one."""

    def predict(self, instances, parameters=None):
        """List of predictions, one for each instance (dicts as `recbandits.serving.schemas` says)."""

    def raw_predict(self, body, headers):
        """(status, bytes) that a body gets as it is."""

    def health(self):
        """Whether it is alive and ready: dict."""

    def logs(self):
        """What the server has written, text."""

    def batch_predict(self, policy, source, destination):
        """Answer every line of JSON in the file `source` with a line in `destination`, by an exported policy."""

    def delete(self):
        """Undeploy everything, then remove the endpoint."""


class Endpoints(Protocol):
    """The endpoints of one platform."""

    def create(self, name=None, topic=None, sticky=False):
        """Create an `Endpoint`, or return the one that has this name.

        Args:
          name: None is the name in the configuration.
          topic: full name of the topic where decisions are logged; None for where they are.
          sticky: whether a user always gets the same version.
        """

    def delete(self, name=None):
        """Delete the `Endpoint` of a name, None for that in the configuration; one that is gone already is no error."""
