"""Set up a project: services and their agents, accounts, bucket, dataset, image repository, roles.

Each account gets what it needs and, where a service allows that, on the one resource that it needs. A policy of roles
is read and written by two functions of a dict as REST has it, the access to it. What others have set in it is kept, and
so are conditions: its version is 3, because a lower one would lose them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from recbandits.config import ROLES, Config
from recbandits.platforms.gcp.alerts import create_alerts
from recbandits.platforms.gcp.cloud import bucket_of, explained, have, location, mark, patiently, project_number, rest
from recbandits.platforms.protocol import Outcome, PlatformError

Access = tuple[Callable[[], dict[str, Any]], Callable[[dict[str, Any]], Any]]
SERVICES: tuple[str, ...] = ("iam", "cloudresourcemanager", "storage", "bigquery", "artifactregistry", "cloudbuild")
SERVICES += ("aiplatform", "pubsub", "run", "eventarc", "cloudfunctions", "cloudscheduler", "monitoring")
ALERT_SERVICES = ("cloudbilling", "billingbudgets")  # where alerts have an address
AGENTS = ("aiplatform", "eventarc", "pubsub", "cloudfunctions", "run")  # Google makes their accounts when asked to
_TRAINING = ("roles/aiplatform.user", "roles/bigquery.jobUser", "roles/logging.logWriter")
PROJECT_ROLES = {
    "train": _TRAINING,
    "serve": ("roles/logging.logWriter",),
    "function": (*_TRAINING, "roles/eventarc.eventReceiver"),
    "build": ("roles/logging.logWriter",),
}
BUCKET_ROLES = {
    "train": ("roles/storage.admin",),  # TensorBoard needs more than the objects
    "serve": ("roles/storage.objectViewer",),
    # The guardrail writes the release of an endpoint, and `PipelineJob` looks at the bucket.
    "function": ("roles/storage.objectUser", "roles/storage.legacyBucketReader"),
    "build": ("roles/storage.objectViewer",),
}
DATASET_ROLES = {"train": "WRITER", "function": "WRITER"}
REPOSITORY_ROLES = {
    "train": ("roles/artifactregistry.reader",),
    "function": ("roles/artifactregistry.reader",),
    "build": ("roles/artifactregistry.writer",),
}
ACTORS = {"train": ("train", "function"), "serve": ("train",)}  # who starts what runs as an account


def set_up(config: Config) -> list[Outcome]:
    """Make what a project lacks; a second call finds everything in place.

    PlatformError if Google Cloud refuses, or the bucket belongs to another project.
    """
    from google.cloud.resourcemanager_v3 import ProjectsClient
    from google.cloud.service_usage_v1 import ServiceUsageClient

    project = f"projects/{config.project}"
    services = [f"{name}.googleapis.com" for name in SERVICES + (ALERT_SERVICES if config.alert_email else ())]
    with explained(f"services of {project}"):
        request = {"parent": project, "service_ids": services}
        ServiceUsageClient().batch_enable_services(request=request).result(timeout=600)
        for name in AGENTS:
            address = f"https://serviceusage.googleapis.com/v1beta1/{project}/services/{name}.googleapis.com"
            patiently(partial(rest, "POST", f"{address}:generateServiceIdentity"))
        number = project_number(config)
    outcomes = [Outcome("service", name, "enabled") for name in services]
    outcomes += [_account(config, role) for role in ROLES]
    for role, actors in ACTORS.items():
        with explained(f"roles on service account {config.account(role)}"):
            roles = [("roles/iam.serviceAccountUser", config.account(actor)) for actor in actors]
            if role == "serve":  # else Vertex AI may not start servers as this account
                roles.append(("roles/iam.serviceAccountAdmin", service_agent("aiplatform", number)))
            grant(by_rest(account_address(config, role), "POST"), roles)
    outcomes += [_bucket(config, number), _dataset(config), _repository(config)]
    with explained(f"roles in {project}"):
        access = by_client(ProjectsClient(), project)
        eventarc = "roles/eventarc.serviceAgent", service_agent("eventarc", number)
        grant(access, [*_roles(config, PROJECT_ROLES), eventarc])
        # Cloud Functions builds from its own copy of a source, in a bucket that it makes with the first function.
        copies = f'resource.name.startsWith("projects/_/buckets/gcf-v2-sources-{number}-{config.region}")'
        condition = {"title": mark(config), "expression": copies}
        grant(access, [("roles/storage.objectViewer", config.account("build"))], condition)
    alerts = create_alerts(config, number) if config.alert_email else []
    return [*outcomes, *(Outcome(kind, name, "created") for kind, name in alerts)]


def service_agent(service: str, number: str) -> str:
    """Return the e-mail address of Google's own account for a service in a project."""
    return f"service-{number}@gcp-sa-{service}.iam.gserviceaccount.com"


def account_address(config: Config, role: str) -> str:
    """Return the address of an account in the REST API of IAM."""
    return f"https://iam.googleapis.com/v1/projects/{config.project}/serviceAccounts/{config.account(role)}"


def grant(access: Access, roles: Sequence[tuple[str, str]], condition: dict[str, str] | None = None) -> None:
    """Give roles, a list of (role, e-mail address of an account), on a resource.

    A condition, a dict with `title` and `expression`, limits where they hold.
    """
    pairs = [(role, f"serviceAccount:{mail}") for role, mail in roles]
    terms = {"condition": condition} if condition else {}

    def add(bindings):
        alike = [each for each in bindings if each.get("condition") == condition]
        current = {(each["role"], member) for each in alike for member in each["members"]}
        new = [(role, member) for role, member in pairs if (role, member) not in current]
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


def _change(access, edit):
    read, write = access

    def change():
        policy = read()
        bindings = policy.get("bindings", [])
        if (edited := edit(bindings)) != bindings:
            version = {"version": 3} if any("condition" in each for each in edited) else {}
            write(policy | {"bindings": edited} | version)

    patiently(change)


def _roles(config, table):
    """List (role, e-mail address of the account) of a table such as `PROJECT_ROLES`."""
    return [(role, config.account(key)) for key, roles in table.items() for role in roles]


def _ensure(kind, name, find, make):
    """Make a resource unless it is there, and return the `Outcome`."""
    made = []
    with explained(f"{kind} {name}"):
        # A service that was enabled a minute ago may still refuse to look.
        have(partial(patiently, find), lambda: made.append(make()))
    return Outcome(kind, name, "created" if made else "exists")


def _account(config, role):
    mail, address = config.account(role), account_address(config, role)
    account = {"displayName": f"RecBandits {config.base} {role}", "description": mark(config)}
    request = {"accountId": mail.partition("@")[0], "serviceAccount": account}
    make = partial(rest, "POST", address.rpartition("/")[0], request)
    return _ensure("service account", mail, partial(rest, "GET", address), make)


def _bucket(config, number):
    """Make the bucket in the region of the jobs; names are global, and ours can be guessed by others."""
    bucket, address = bucket_of(config), f"https://storage.googleapis.com/storage/v1/b/{config.bucket}/iam"

    def make():
        bucket.labels = config.labels
        bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        bucket.iam_configuration.public_access_prevention = "enforced"
        bucket.soft_delete_policy.retention_duration_seconds = 0  # what is removed is not kept, and billed, for a week
        bucket.create(location=config.region)

    outcome = _ensure("bucket", config.bucket, bucket.reload, make)
    with explained(f"bucket {config.bucket}"):
        bucket.reload()
        if str(bucket.project_number) != number:
            raise PlatformError(f"bucket {config.bucket} belongs to another project: choose another prefix or version")
        read = partial(rest, "GET", address, query={"optionsRequestedPolicyVersion": 3})
        grant((read, partial(rest, "PUT", address)), _roles(config, BUCKET_ROLES))
    return outcome


def _dataset(config):
    from google.cloud import bigquery

    client, name = bigquery.Client(config.project), f"{config.project}.{config.dataset}"

    def make():
        dataset = bigquery.Dataset(name)
        dataset.location, dataset.labels = config.region, config.labels
        client.create_dataset(dataset)

    def set_roles():
        dataset = client.get_dataset(name)
        roles = [bigquery.AccessEntry(role, "userByEmail", config.account(key)) for key, role in DATASET_ROLES.items()]
        if new := [entry for entry in roles if entry not in dataset.access_entries]:
            dataset.access_entries = [*dataset.access_entries, *new]
            client.update_dataset(dataset, ["access_entries"])

    outcome = _ensure("dataset", name, lambda: client.get_dataset(name), make)
    with explained(f"dataset {name}"):
        patiently(set_roles)
    return outcome


def _repository(config):
    from google.cloud.artifactregistry_v1 import ArtifactRegistryClient

    client, name = ArtifactRegistryClient(), f"{location(config)}/repositories/{config.registry}"
    document = {"format_": "DOCKER", "labels": config.labels}
    request = {"parent": location(config), "repository_id": config.registry, "repository": document}

    def make():
        client.create_repository(request=request).result(timeout=600)

    outcome = _ensure("repository", name, partial(client.get_repository, name=name), make)
    with explained(f"repository {name}"):
        grant(by_client(client, name), _roles(config, REPOSITORY_ROLES))
    return outcome
