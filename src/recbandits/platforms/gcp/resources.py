"""The resources of the project on Google Cloud: which there are, how each is looked for, made and removed.

A resource is made by asking for it once: the answer "409, exists already" closes the gap that looking first leaves. The
client libraries must not repeat the request by themselves, or they would take their own first try for somebody else's.
A 409 for what is not to be found says that the service is busy, and is waited out.
"""

from recbandits.platforms.gcp import assets
from recbandits.platforms.gcp.errors import finish
from recbandits.platforms.protocol import FOUND, MADE, NotMadeError, Resource

SERVICES = (
    "iam",
    "cloudresourcemanager",
    "storage",
    "bigquery",
    "artifactregistry",
    "cloudbuild",
    "aiplatform",
    "pubsub",
    "run",
    "eventarc",
    "cloudfunctions",
    "cloudscheduler",
    "monitoring",
)
ROLES = (
    "roles/aiplatform.user",
    "roles/artifactregistry.writer",
    "roles/bigquery.dataEditor",
    "roles/bigquery.jobUser",
    "roles/eventarc.eventReceiver",
    "roles/logging.logWriter",
    "roles/pubsub.editor",
    "roles/run.invoker",
    "roles/storage.objectAdmin",
)
ACTS = "roles/iam.serviceAccountUser"


def plan(config):
    """Every resource of a `Config` under its full name, in the order of making.

    The service account may act as itself and as nobody else, so that a function that runs as it can start a pipeline
    whose steps run as it too.
    """
    project = f"projects/{config.project}"
    account = f"{project}/serviceAccounts/{config.account('train')}"
    services = [Resource("service", f"{project}/services/{name}.googleapis.com") for name in SERVICES]
    roles = [Resource("role", f"{project} {role} serviceAccount:{config.account('train')}") for role in ROLES]
    return [
        *services,
        Resource("bucket", config.bucket),
        Resource("dataset", f"{config.project}.{config.dataset}"),
        Resource("repository", f"{project}/locations/{config.region}/repositories/{config.registry}"),
        Resource("service account", account),
        Resource("role", f"{account} {ACTS} serviceAccount:{config.account('train')}"),
        *roles,
    ]


def exists(clients, resource):
    """Whether a `Resource` is there; see `Platform.exists`."""
    from google.api_core.exceptions import NotFound

    try:
        if resource.kind == "role":
            return _is_granted(clients, *resource.name.split())
        _FINDERS[resource.kind](clients, resource.name)
    except NotFound:
        return False
    return True


def make(clients, config, resource):
    """Make a `Resource` of `plan(config)`; see `Platform.make`."""
    if resource.kind == "service":
        return _switch_on(clients, resource.name)
    if resource.kind == "role":
        return _grant(clients, *resource.name.split())
    find, make_it = _FINDERS[resource.kind], _MAKERS[resource.kind]
    return assets.made(lambda: find(clients, resource.name), lambda: make_it(clients, config, resource.name))


def remove(clients, resource):
    """Remove a `Resource`; see `Platform.remove`."""
    from google.api_core.exceptions import NotFound

    try:
        _REMOVERS[resource.kind](clients, resource.name)
    except NotFound:
        return


def _switch_on(clients, name):
    from google.cloud.service_usage_v1 import State

    if clients.service_usage.get_service(request={"name": name}).state == State.ENABLED:
        return FOUND
    finish(clients.service_usage.enable_service(request={"name": name}))
    return "enabled"


def _find_bucket(clients, name):
    """Bucket names are global and ours can be guessed: one that somebody else holds must not receive our data."""
    bucket = clients.storage.get_bucket(name)
    project = clients.projects.get_project(request={"name": f"projects/{clients.storage.project}"})
    if project.name != f"projects/{bucket.project_number}":
        raise NotMadeError(f"bucket {name} belongs to another project: choose another prefix or version")


def _make_bucket(clients, config, name):
    bucket = clients.storage.bucket(name)
    bucket.labels = config.labels
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.iam_configuration.public_access_prevention = "enforced"
    clients.storage.create_bucket(bucket, location=config.region, retry=None)


def _remove_bucket(clients, name):
    bucket = clients.storage.bucket(name)
    for blob in clients.storage.list_blobs(bucket, versions=True):
        blob.delete()
    bucket.delete()


def _find_dataset(clients, name):
    clients.bigquery.get_dataset(name)


def _make_dataset(clients, config, name):
    from google.cloud.bigquery import Dataset

    dataset = Dataset(name)
    dataset.location = config.region
    dataset.labels = config.labels
    clients.bigquery.create_dataset(dataset, retry=None)


def _remove_dataset(clients, name):
    clients.bigquery.delete_dataset(name, delete_contents=True)


def _find_repository(clients, name):
    clients.artifact_registry.get_repository(request={"name": name})


def _make_repository(clients, config, name):
    from google.cloud.artifactregistry_v1 import Repository

    parent, _, repository_id = name.partition("/repositories/")
    repository = Repository(format_=Repository.Format.DOCKER, labels=config.labels)
    request = {"parent": parent, "repository_id": repository_id, "repository": repository}
    finish(clients.artifact_registry.create_repository(request=request))


def _remove_repository(clients, name):
    finish(clients.artifact_registry.delete_repository(request={"name": name}))


def _find_service_account(clients, name):
    clients.iam("GET", name)


def _make_service_account(clients, config, name):
    body = {
        "accountId": config.account("train").partition("@")[0],
        "serviceAccount": {"displayName": f"RecBandits {config.base}"},
    }
    clients.iam("POST", name.rpartition("/")[0], body)


def _remove_service_account(clients, name):
    clients.iam("DELETE", name)


def _is_granted(clients, place, role, member):
    binding = _binding(_policy(clients, place), role)
    return binding is not None and member in binding.members


def _grant(clients, place, role, member):
    policy = _policy(clients, place)
    binding = _binding(policy, role)
    if binding and member in binding.members:
        return FOUND
    if binding:
        binding.members.append(member)
    else:
        policy.bindings.add(role=role, members=[member])
    _set_policy(clients, place, policy)
    return MADE


def _revoke(clients, name):
    place, role, member = name.split()
    policy = _policy(clients, place)
    binding = _binding(policy, role)
    if binding and member in binding.members:
        binding.members.remove(member)
        if not binding.members:
            policy.bindings.remove(binding)
        _set_policy(clients, place, policy)


def _policy(clients, place):
    """The policy of a project or a service account.

    Version 3, because a lower one would lose the conditions that others have set.
    """
    from google.iam.v1.policy_pb2 import Policy
    from google.protobuf.json_format import ParseDict

    if "/serviceAccounts/" in place:
        found = clients.rest("iam", "POST", f"v1/{place}:getIamPolicy", query={"options.requestedPolicyVersion": 3})
        return ParseDict(found, Policy(), ignore_unknown_fields=True)
    request = {"resource": place, "options": {"requested_policy_version": 3}}
    return clients.projects.get_iam_policy(request=request)


def _set_policy(clients, place, policy):
    from google.protobuf.json_format import MessageToDict

    if "/serviceAccounts/" in place:
        clients.iam("POST", f"{place}:setIamPolicy", {"policy": MessageToDict(policy)})
    else:
        clients.projects.set_iam_policy(request={"resource": place, "policy": policy})


def _binding(policy, role):
    """The unconditional binding of a role, or None."""
    found = (item for item in policy.bindings if item.role == role and not item.HasField("condition"))
    return next(found, None)


_FINDERS = {
    "bucket": _find_bucket,
    "dataset": _find_dataset,
    "repository": _find_repository,
    "service account": _find_service_account,
    **assets.FINDERS,
}
_MAKERS = {
    "bucket": _make_bucket,
    "dataset": _make_dataset,
    "repository": _make_repository,
    "service account": _make_service_account,
}
_REMOVERS = {
    "bucket": _remove_bucket,
    "dataset": _remove_dataset,
    "repository": _remove_repository,
    "service account": _remove_service_account,
    "role": _revoke,
    **assets.REMOVERS,
}
