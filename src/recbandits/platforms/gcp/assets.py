"""What the project makes on Google Cloud while it runs: how each kind is looked for and removed under its full name.

`resources` has what is planned. These come one by one, from the adapter of each service, which makes them by `have`, so
that they are on the manifest before they are there.
"""

import time

from recbandits.platforms.gcp.errors import explained, finish, patient
from recbandits.platforms.protocol import FOUND, MADE, NotMadeError, Resource
from recbandits.platforms.provisioning import enter, expect

_PATIENCE = 1800  # seconds until a removal must have ended
_POLL = 5  # seconds between two looks at what is ending
_ENDED = {"SUCCEEDED", "FAILED", "CANCELLED"}


def have(config, resource, find, make):
    """Make something unless it is there, listed on the manifest from before it is made.

    Args:
      config: Config
      resource: `Resource`
      find: function without arguments that raises Google's NotFound where there is none.
      make: function without arguments; must not repeat its request by itself.

    Returns:
      Whether it was made by this call.

    Raises:
      PlatformError: it could not be looked for or made.
    """
    from google.api_core.exceptions import NotFound

    with explained(resource, "looked for"):
        try:
            patient(find)()
            return False
        except NotFound:
            pass

    def attempt():
        with explained(resource, "made", NotMadeError):
            return patient(made)(find, make)

    return enter(config, resource, attempt) == MADE


def made(find, make):
    """Make something that was not there a moment ago.

    Args:
      find: as of `have`.
      make: likewise.

    Returns:
      MADE, or FOUND where somebody else was faster.

    Raises:
      google.api_core.exceptions.Conflict: the service is busy, which over REST is 409 as "exists already" is.
    """
    from google.api_core.exceptions import Conflict, NotFound

    try:
        make()
    except Conflict as conflict:
        try:
            find()
        except NotFound:
            raise conflict from None
        return FOUND
    return MADE


def expect_release(config, clients):
    """List the model and the endpoint that another machine is about to make, and the runs, unless they are there.

    Clean-up removes what is newer first: the runs, which would deploy again what is gone; the endpoint, with what is
    deployed there; the model.

    Raises:
      PlatformError: it cannot be said whether they are there.
    """
    from google.api_core.exceptions import NotFound

    def exists(resource):
        with explained(resource, "looked for"):
            try:
                FINDERS[resource.kind](clients, resource.name)
            except NotFound:
                return False
            return True

    parent = f"projects/{config.project}/locations/{config.region}"
    expect(config, Resource("model", f"{parent}/models/{config.base}"), exists)
    expect(config, Resource("endpoint", f"{parent}/endpoints/{config.endpoint}"), exists)
    labels = "&".join(f"{key}={text}" for key, text in config.labels.items())
    expect(config, Resource("pipeline runs", f"{parent}/pipelineJobs?{labels}"), exists)


def labelled(labels):
    """The filter of Vertex AI for what has all these labels, a dict."""
    return " AND ".join(f'labels.{key}="{text}"' for key, text in labels.items())


def _region(clients, name):
    """The clients of the region in which something is, whatever the configuration says by now."""
    return clients.at(name.split("/locations/")[1].split("/")[0])


def _find_topic(clients, name):
    clients.publisher.get_topic(topic=name)


def _remove_topic(clients, name):
    clients.publisher.delete_topic(topic=name)


def _find_subscription(clients, name):
    clients.subscriber.get_subscription(subscription=name)


def _remove_subscription(clients, name):
    clients.subscriber.delete_subscription(subscription=name)


def _find_function(clients, name):
    clients.functions.get_function(name=name)


def _remove_function(clients, name):
    """Its trigger, the subscription of this, and its service of Cloud Run go with it."""
    finish(clients.functions.delete_function(name=name), _PATIENCE)


def _find_schedule(clients, name):
    clients.scheduler.get_job(name=name)


def _remove_schedule(clients, name):
    clients.scheduler.delete_job(name=name)


def _find_endpoint(clients, name):
    _region(clients, name).vertex("Endpoint").get_endpoint(name=name)


def remove_endpoint(clients, name):
    """Undeploy everything and remove the endpoint; the busiest version goes last, for it takes over all traffic."""
    client = _region(clients, name).vertex("Endpoint")
    found = client.get_endpoint(name=name)
    shares = {model.id: found.traffic_split.get(model.id, 0) for model in found.deployed_models}
    if sum(share > 0 for share in shares.values()) > 1:
        document = {"name": name, "traffic_split": {max(shares, key=shares.get): 100}}
        client.update_endpoint(request={"endpoint": document, "update_mask": {"paths": ["traffic_split"]}})
    for number in sorted(shares, key=shares.get):
        request = {"endpoint": name, "deployed_model_id": number}
        finish(client.undeploy_model(request=request, timeout=60), _PATIENCE)
    finish(client.delete_endpoint(name=name, timeout=60), _PATIENCE)


def _find_model(clients, name):
    _region(clients, name).vertex("Model").get_model(name=name)


def _remove_model(clients, name):
    """All its versions; Vertex AI refuses while one is deployed."""
    finish(_region(clients, name).vertex("Model").delete_model(name=name, timeout=60), _PATIENCE)


def _find_table(clients, name):
    clients.bigquery.get_table(name)


def _remove_table(clients, name):
    clients.bigquery.delete_table(name)


def _of_display_name(clients, name, service, kind):
    """What bears a display name, for Vertex AI chooses the id of a few kinds itself: (client, full names).

    Args:
      clients: `Clients`
      name: "projects/<project>/locations/<region>/<kind>/<display name>".
      service: of `Clients.vertex`.
      kind: such as "schedules".
    """
    from google.api_core.exceptions import NotFound

    parent, _, display_name = name.partition(f"/{kind}/")
    client = _region(clients, name).vertex(service)
    request = {"parent": parent, "filter": f'display_name="{display_name}"'}
    found = [each.name for each in getattr(client, f"list_{kind}")(request=request)]
    if not found:
        raise NotFound(f"{name} was not found")
    return client, found


def _find_runs(clients, name):
    """The runs of pipelines that have the labels in a name: (client, list of them)."""
    from google.api_core.exceptions import NotFound

    parent, _, labels = name.partition("/pipelineJobs?")
    client = _region(clients, name).vertex("Pipeline")
    condition = labelled(dict(label.split("=") for label in labels.split("&")))
    found = list(client.list_pipeline_jobs(request={"parent": parent, "filter": condition}))
    if not found:
        raise NotFound(f"{name} were not found")
    return client, found


def _remove_runs(clients, name):
    """Stop those that go on, wait until no step of them does, and remove all."""
    client, found = _find_runs(clients, name)
    going = [job.name for job in found if not _has_ended(job)]
    for job in going:
        client.cancel_pipeline_job(name=job)
    deadline = time.monotonic() + _PATIENCE
    while not all(_has_ended(client.get_pipeline_job(name=job)) for job in going):
        if time.monotonic() > deadline:
            raise TimeoutError(f"they have not ended for {_PATIENCE} seconds")
        time.sleep(_POLL)
    for job in found:
        finish(client.delete_pipeline_job(name=job.name), _PATIENCE)


def _has_ended(job):
    return job.state.name.removeprefix("PIPELINE_STATE_") in _ENDED


def _find_pipeline_schedule(clients, name):
    _of_display_name(clients, name, "Schedule", "schedules")


def _remove_pipeline_schedule(clients, name):
    client, found = _of_display_name(clients, name, "Schedule", "schedules")
    for each in found:
        finish(client.delete_schedule(name=each), _PATIENCE)


def _find_tensorboard(clients, name):
    _of_display_name(clients, name, "Tensorboard", "tensorboards")


def _remove_tensorboard(clients, name):
    client, found = _of_display_name(clients, name, "Tensorboard", "tensorboards")
    for each in found:
        finish(client.delete_tensorboard(name=each), _PATIENCE)


FINDERS = {
    "topic": _find_topic,
    "subscription": _find_subscription,
    "function": _find_function,
    "schedule": _find_schedule,
    "endpoint": _find_endpoint,
    "model": _find_model,
    "table": _find_table,
    "pipeline runs": _find_runs,
    "pipeline schedule": _find_pipeline_schedule,
    "TensorBoard": _find_tensorboard,
}
REMOVERS = {
    "topic": _remove_topic,
    "subscription": _remove_subscription,
    "function": _remove_function,
    "schedule": _remove_schedule,
    "endpoint": remove_endpoint,
    "model": _remove_model,
    "table": _remove_table,
    "pipeline runs": _remove_runs,
    "pipeline schedule": _remove_pipeline_schedule,
    "TensorBoard": _remove_tensorboard,
}
