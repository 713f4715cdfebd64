"""Set up a project: services and their agents, accounts, bucket, dataset, image repository, roles.

Each account gets what it needs and, where a service allows that, on the one resource that it needs.
"""

from functools import partial

from recbandits.config import ROLES
from recbandits.platforms.gcp import storage
from recbandits.platforms.gcp.alerts import create_alerts
from recbandits.platforms.gcp.cloud import explained, have, location, mark, patiently, rest
from recbandits.platforms.protocol import Outcome, PlatformError

SERVICES = ("iam", "cloudresourcemanager", "storage", "bigquery", "artifactregistry", "cloudbuild", "aiplatform")
SERVICES += ("pubsub", "run", "eventarc", "cloudfunctions", "cloudscheduler", "monitoring")
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
    "train": "roles/artifactregistry.reader",
    "function": "roles/artifactregistry.reader",
    "build": "roles/artifactregistry.writer",
}
ACTORS = {"train": ("train", "function"), "serve": ("train",)}  # who starts what runs as an account


def set_up(config):
    """Make what a project lacks; a second call finds everything in place.

    Returns:
      list of `Outcome`.

    Raises:
      PlatformError: Google Cloud refused, or the bucket belongs to another project.
    """
    from google.cloud.resourcemanager_v3 import ProjectsClient

    project = f"projects/{config.project}"
    with explained(f"services of {project}"):
        _enable(config)
        projects = ProjectsClient()
        number = patiently(lambda: projects.get_project(name=project)).name.partition("/")[2]
    outcomes = [Outcome("service", name, "enabled") for name in _services(config)]
    outcomes += [_account(config, role) for role in ROLES]
    for role, actors in ACTORS.items():
        _let_act(config, role, actors)
    outcomes += [_bucket(config, number), _dataset(config), _repository(config)]
    agent = f"service-{number}@gcp-sa-eventarc.iam.gserviceaccount.com"
    roles = [(name, config.account(role)) for role, names in PROJECT_ROLES.items() for name in names]
    with explained(f"roles in {project}"):
        grant(projects, project, [*roles, ("roles/eventarc.serviceAgent", agent)])
    alerts = create_alerts(config, number) if config.alert_email else []
    return [*outcomes, *(Outcome(kind, name, "made") for kind, name in alerts)]


def grant(client, resource, roles):
    """Give roles on a project or on one resource; what others have set is kept.

    Args:
      client: of the service, with `get_iam_policy` and `set_iam_policy`.
      resource: full name.
      roles: list of (role, e-mail address of an account).
    """

    def change():
        # Version 3, because a lower one would lose the conditions of others.
        options = {"requested_policy_version": 3}
        policy = client.get_iam_policy(request={"resource": resource, "options": options})
        plain = [binding for binding in policy.bindings if not binding.condition.expression]
        current = {(binding.role, member) for binding in plain for member in binding.members}
        pairs = [(role, f"serviceAccount:{mail}") for role, mail in roles]
        new = [pair for pair in pairs if pair not in current]
        for role, member in new:
            policy.bindings.add(role=role, members=[member])
        if new:
            client.set_iam_policy(request={"resource": resource, "policy": policy})

    patiently(change)


def revoke(client, resource, member):
    """Take all roles on a project from a member; `client` and `resource` are as of `grant`."""

    def change():
        policy = client.get_iam_policy(request={"resource": resource, "options": {"requested_policy_version": 3}})
        bindings = [binding for binding in policy.bindings if member in binding.members]
        for binding in bindings:
            binding.members.remove(member)
            if not binding.members:
                policy.bindings.remove(binding)
        if bindings:
            client.set_iam_policy(request={"resource": resource, "policy": policy})

    patiently(change)


def account_address(config, role):
    """Return the address of an account in the REST API of IAM."""
    return f"{_accounts_address(config)}/{config.account(role)}"


def _services(config):
    names = SERVICES + (ALERT_SERVICES if config.alert_email else ())
    return [f"{name}.googleapis.com" for name in names]


def _enable(config):
    from google.cloud.service_usage_v1 import ServiceUsageClient

    parent = f"projects/{config.project}"
    request = {"parent": parent, "service_ids": _services(config)}
    ServiceUsageClient().batch_enable_services(request=request).result(timeout=600)
    for name in AGENTS:
        address = f"https://serviceusage.googleapis.com/v1beta1/{parent}/services/{name}.googleapis.com"
        patiently(partial(rest, "POST", f"{address}:generateServiceIdentity"))


def _ensure(kind, name, find, make):
    """Make a resource unless it is there, and return the `Outcome`."""
    outcome = "found"

    def make_it():
        nonlocal outcome
        make()
        outcome = "made"

    with explained(f"{kind} {name}"):
        have(find, make_it)
    return Outcome(kind, name, outcome)


def _accounts_address(config):
    return f"https://iam.googleapis.com/v1/projects/{config.project}/serviceAccounts"


def _account(config, role):
    mail = config.account(role)
    account = {"displayName": f"RecBandits {config.base} {role}", "description": mark(config)}
    request = {"accountId": mail.partition("@")[0], "serviceAccount": account}
    make = partial(rest, "POST", _accounts_address(config), request)
    return _ensure("service account", mail, partial(rest, "GET", account_address(config, role)), make)


def _let_act(config, role, actors):
    """Let the accounts of some roles start what runs as the account of another."""
    address, act = account_address(config, role), "roles/iam.serviceAccountUser"
    members = [f"serviceAccount:{config.account(actor)}" for actor in actors]

    def change():
        policy = rest("POST", f"{address}:getIamPolicy")
        bindings = policy.get("bindings", [])
        current = {member for binding in bindings if binding["role"] == act for member in binding["members"]}
        if new := [member for member in members if member not in current]:
            policy["bindings"] = [*bindings, {"role": act, "members": new}]
            rest("POST", f"{address}:setIamPolicy", {"policy": policy})

    with explained(f"roles on service account {config.account(role)}"):
        patiently(change)


def _bucket(config, number):
    """Make the bucket in the region of the jobs; names are global, and ours can be guessed by others."""
    bucket = storage.bucket(config)

    def make():
        bucket.labels = config.labels
        bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        bucket.iam_configuration.public_access_prevention = "enforced"
        bucket.create(location=config.region)

    def set_roles():
        policy = bucket.get_iam_policy(requested_policy_version=3)
        roles = [(role, f"serviceAccount:{config.account(key)}") for key in BUCKET_ROLES for role in BUCKET_ROLES[key]]
        current = {(binding["role"], member) for binding in policy.bindings for member in binding["members"]}
        if new := [pair for pair in roles if pair not in current]:
            policy.bindings += [{"role": role, "members": {member}} for role, member in new]
            bucket.set_iam_policy(policy)

    outcome = _ensure("bucket", config.bucket, bucket.reload, make)
    with explained(f"bucket {config.bucket}"):
        bucket.reload()
        if str(bucket.project_number) != number:
            raise PlatformError(f"bucket {config.bucket} belongs to another project: choose another prefix or version")
        patiently(set_roles)
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

    outcome = _ensure("repository", name, lambda: client.get_repository(name=name), make)
    with explained(f"repository {name}"):
        grant(client, name, [(role, config.account(key)) for key, role in REPOSITORY_ROLES.items()])
    return outcome
