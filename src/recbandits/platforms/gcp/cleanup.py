"""Find what is ours by labels, or, where a service has none, by its description or name, and remove it.

Every machine finds the same. Services, their agents, logs, and what bears other labels stay.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from google.api_core.exceptions import NotFound

from recbandits.config import ROLES, Config
from recbandits.platforms.gcp.alerts import delete_alert, find_alerts
from recbandits.platforms.gcp.cloud import (
    explained,
    has_labels,
    labelled,
    location,
    mark,
    rest,
    state_of,
    vertex,
    wait,
)
from recbandits.platforms.gcp.experiments import tensorboards
from recbandits.platforms.gcp.project import account_address, by_client, revoke
from recbandits.platforms.protocol import Outcome, PlatformError

_TIMEOUT = 1800  # seconds until a removal must have ended


def clean_up(config: Config, dry_run: bool = True) -> list[Outcome]:
    """Remove what is ours, or say what would be; what uses something else goes before it.

    PlatformError, after all else was removed, if something could not be listed or removed; the next call finds it.
    """
    outcomes: list[Outcome] = []
    errors: list[PlatformError] = []
    for list_resources in (_functions, _runs, _vertex_ai, _messages, _data, _accounts, _alerts):
        resources: list = []
        with _collected(errors), explained("clean-up"):
            resources += list_resources(config)
        for kind, name, remove in resources:
            with _collected(errors), explained(f"{kind} {name}"):
                if not dry_run:
                    with suppress(NotFound):  # another process may be faster
                        remove()
                outcomes.append(Outcome(kind, name, "would be removed" if dry_run else "removed"))
    if errors:
        raise errors[0]
    return outcomes


@contextmanager
def _collected(errors: list[PlatformError]) -> Iterator[None]:
    """Add a `PlatformError` to a list, so that what follows is removed all the same: it may be billed."""
    try:
        yield
    except PlatformError as error:
        errors.append(error)


def _alerts(config):
    """List alerts and the budget, for which a project needs billing: where no address is configured there are none."""
    for kind, name in find_alerts(config) if config.alert_email else ():
        yield kind, name, partial(delete_alert, name)


def _functions(config):
    """List schedules, then functions; trigger, subscription and service of Cloud Run go with each of these."""
    from google.cloud.functions_v2 import FunctionServiceClient
    from google.cloud.scheduler_v1 import CloudSchedulerClient

    scheduler, client = CloudSchedulerClient(), FunctionServiceClient()
    for job in scheduler.list_jobs(parent=location(config)):
        if job.description == mark(config):
            yield "schedule", job.name, partial(scheduler.delete_job, name=job.name)
    for schedule in vertex(config).PipelineJobSchedule.list(filter=f'display_name:"{config.base}-*"'):
        if has_labels(config, schedule.gca_resource.create_pipeline_job_request.pipeline_job):
            yield "pipeline schedule", schedule.resource_name, schedule.delete
    for function in client.list_functions(parent=location(config)):
        if has_labels(config, function):
            yield "function", function.name, partial(_finish, client.delete_function, name=function.name)


def _runs(config):
    """List the records of what ran; what still runs is cancelled first, for it may make what is listed next."""
    sdk = vertex(config)
    kinds = {"pipeline run": sdk.PipelineJob, "job": sdk.CustomJob, "study": sdk.HyperparameterTuningJob}
    for kind, each in {**kinds, "batch prediction": sdk.BatchPredictionJob}.items():
        for job in each.list(filter=labelled(config)):
            yield kind, job.resource_name, partial(_end_and_delete, job)


def _vertex_ai(config):
    """List endpoints, models, experiments, which have no labels of ours, then the TensorBoard that holds their runs."""
    sdk = vertex(config)
    for endpoint in sdk.Endpoint.list(filter=labelled(config)):
        yield "endpoint", endpoint.resource_name, partial(endpoint.delete, force=True)
    for model in sdk.Model.list(filter=labelled(config)):
        yield "model", model.resource_name, model.delete
    with suppress(NotFound):  # before the first experiment or pipeline run a project has no metadata store
        for experiment in sdk.Experiment.list():
            if experiment.name.startswith(f"{config.base}-"):
                remove = partial(experiment.delete, delete_backing_tensorboard_runs=True)
                yield "experiment", experiment.resource_name, remove
    for board in tensorboards(config):
        yield "TensorBoard", board.resource_name, board.delete


def _messages(config):
    from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

    publisher, subscriber, project = PublisherClient(), SubscriberClient(), f"projects/{config.project}"
    for each in subscriber.list_subscriptions(project=project):
        if has_labels(config, each):
            yield "subscription", each.name, partial(subscriber.delete_subscription, subscription=each.name)
    for topic in publisher.list_topics(project=project):
        if has_labels(config, topic):
            yield "topic", topic.name, partial(publisher.delete_topic, topic=topic.name)


def _data(config):
    from google.cloud import bigquery, storage
    from google.cloud.artifactregistry_v1 import ArtifactRegistryClient

    warehouse, repositories = bigquery.Client(config.project), ArtifactRegistryClient()
    condition = " ".join(f"labels.{key}:{text}" for key, text in config.labels.items())
    for dataset in warehouse.list_datasets(filter=condition):
        remove = partial(warehouse.delete_dataset, dataset.reference, delete_contents=True)
        yield "dataset", f"{config.project}.{dataset.dataset_id}", remove
    for repository in repositories.list_repositories(parent=location(config)):
        if has_labels(config, repository):
            remove = partial(_finish, repositories.delete_repository, name=repository.name)
            yield "repository", repository.name, remove
    for bucket in storage.Client(config.project).list_buckets(prefix=config.bucket):
        if has_labels(config, bucket):
            yield "bucket", bucket.name, partial(_empty_and_delete, bucket)


def _accounts(config):
    """List our service accounts, which have no labels but a description."""
    for role in ROLES:
        with suppress(NotFound):
            if rest("GET", account_address(config, role)).get("description") == mark(config):
                yield "service account", config.account(role), partial(_delete_account, config, role)


def _finish(call, **request):
    call(**request).result(timeout=_TIMEOUT)


def _end_and_delete(job):
    """Delete a job, which must have ended."""
    if state_of(job) == "running":
        job.cancel()
        wait(job)
    job.delete()


def _empty_and_delete(bucket):
    """Delete a bucket after its objects; `bucket.delete(force=True)` refuses more than 256 of them."""
    for blob in bucket.list_blobs(versions=True):
        blob.delete()
    bucket.delete()


def _delete_account(config, role):
    """Delete an account after its roles in the project, which would stay in the policy."""
    from google.cloud.resourcemanager_v3 import ProjectsClient

    revoke(by_client(ProjectsClient(), f"projects/{config.project}"), f"serviceAccount:{config.account(role)}")
    rest("DELETE", account_address(config, role))
