"""Roles on resources: what others have set is kept, and so are conditions.

A policy is read and written by two functions of a dict as REST has it, which `by_client`, `by_rest` and `of_bucket`
return for a resource. Its version is 3, because a lower one would lose conditions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from recbandits.platforms.gcp.cloud import patiently, rest

Access = tuple[Callable[[], dict[str, Any]], Callable[[dict[str, Any]], Any]]


def grant(access: Access, roles: Sequence[tuple[str, str]], condition: dict[str, str] | None = None) -> None:
    """Give roles on a resource.

    Args:
      access: to its policy.
      roles: list of (role, e-mail address of an account).
      condition: dict with `title` and `expression`, under which they hold; None for always.
    """
    pairs = [(role, f"serviceAccount:{mail}") for role, mail in roles]

    def add(bindings):
        alike = [each for each in bindings if each.get("condition") == condition]
        current = {(each["role"], member) for each in alike for member in each["members"]}
        new = [pair for pair in pairs if pair not in current]
        terms = {"condition": condition} if condition else {}
        return bindings + [{"role": role, "members": [member], **terms} for role, member in new]

    _change(access, add)


def revoke(access: Access, member: str) -> None:
    """Take all roles on a resource from a member."""

    def remove(bindings):
        left = [each | {"members": [other for other in each["members"] if other != member]} for each in bindings]
        return [each for each in left if each["members"]]

    _change(access, remove)


def by_client(client: Any, resource: str) -> Access:
    """Return the access to the policy of a resource, a full name, by the client of its service."""
    from google.iam.v1.policy_pb2 import Policy
    from google.protobuf.json_format import MessageToDict, ParseDict

    def read():
        options = {"requested_policy_version": 3}
        return MessageToDict(client.get_iam_policy(request={"resource": resource, "options": options}))

    def write(policy):
        client.set_iam_policy(request={"resource": resource, "policy": ParseDict(policy, Policy())})

    return read, write


def by_rest(address: str, verb: str) -> Access:
    """Return the access to the policy of the resource at an address, which is read by GET or by POST."""
    read = partial(rest, verb, f"{address}:getIamPolicy", query={"options.requestedPolicyVersion": 3})
    return read, lambda policy: rest("POST", f"{address}:setIamPolicy", {"policy": policy})


def of_bucket(name: str) -> Access:
    """Return the access to the policy of a bucket."""
    address = f"https://storage.googleapis.com/storage/v1/b/{name}/iam"
    return partial(rest, "GET", address, query={"optionsRequestedPolicyVersion": 3}), partial(rest, "PUT", address)


def _change(access, edit):
    read, write = access

    def change():
        policy = read()
        bindings = policy.get("bindings", [])
        if (edited := edit(bindings)) != bindings:
            version = {"version": 3} if any("condition" in each for each in edited) else {}
            write(policy | {"bindings": edited} | version)

    patiently(change)
