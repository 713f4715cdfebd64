"""Helpers of all services: the SDK set up, labels, files in the bucket, retries in a new project, one kind of error.

Files are read by `recbandits.serving.manifest`, where no object's path leaves the folder.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import google.auth
from google.api_core import exceptions
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from requests.exceptions import RequestException

from recbandits.config import Config
from recbandits.platforms.protocol import PlatformError

if TYPE_CHECKING:
    from google.cloud.storage import Bucket

T = TypeVar("T")
_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
# The project's words for the states of Vertex AI; in any other state something still runs.
STATES = {"SUCCEEDED": "succeeded", "PARTIALLY_SUCCEEDED": "succeeded", "COMPLETE": "succeeded", "FAILED": "failed"}
STATES |= {"EXPIRED": "failed", "INFEASIBLE": "failed", "CANCELLED": "stopped", "STOPPING": "stopped"}
_POLL = 30.0  # seconds between two looks at a job that is waited for
# What Google says while a project, a service or an account is minutes old.
_SETTLING = re.compile(
    "Eventarc Service Agent|are being provisioned|or it is disabled|service account .*does not exist|"
    "concurrent policy changes",
    re.IGNORECASE | re.DOTALL,
)


class Service:
    """A service of Google Cloud under the names and labels of a `Config`."""

    def __init__(self, config: Config):
        self._config = config


def client(module: str, name: str) -> Any:
    """Return a property that makes a client, a class of a module of `google.cloud`, when it is first read."""
    return cached_property(lambda self: getattr(import_module(f"google.cloud.{module}"), name)())


def vertex(config: Config, **settings: Any) -> Any:
    """Set up `google.cloud.aiplatform` from a `Config`, and more arguments of `aiplatform.init`; return the module.

    On this machine no credentials are needed: jobs can be constructed and shown by `to_dict()`, not started.
    """
    from google.cloud import aiplatform

    is_local = config.platform == "local"
    config = replace(config, project=config.project or "your-project")
    aiplatform.init(
        project=config.project,  # without it 2.x of the SDK turns to its REST preview
        location=config.region,
        staging_bucket=f"gs://{config.bucket}",
        service_account=config.account("train"),
        credentials=AnonymousCredentials() if is_local else google.auth.default(_SCOPES)[0],  # the SDK keeps the last
        **settings,
    )
    return aiplatform


def location(config: Config) -> str:
    """Return `projects/<project>/locations/<region>`."""
    return f"projects/{config.project}/locations/{config.region}"


def project_number(config: Config) -> str:
    """Return the number of the project, which is part of the names of Google's own accounts and buckets."""
    from google.cloud.resourcemanager_v3 import ProjectsClient

    name = f"projects/{config.project}"
    return patiently(lambda: ProjectsClient().get_project(name=name)).name.rpartition("/")[2]


def labelled(config: Config, **terms: str) -> str:
    """Return the filter of Vertex AI for resources with our labels and, for example, a `display_name`."""
    terms |= {f"labels.{key}": text for key, text in config.labels.items()}
    return " AND ".join(f'{key}="{text}"' for key, text in terms.items())


def has_labels(config: Config, resource: Any) -> bool:
    """Return whether something with `labels` bears ours."""
    return all(resource.labels.get(key) == text for key, text in config.labels.items())


def mark(config: Config) -> str:
    """Return the description of what is ours where a service has no labels."""
    return f"RecBandits {config.base}"


def patiently(call: Callable[[], T]) -> T:
    """Call a function, again and again while the project still settles."""

    def settles(error):
        refused = isinstance(error, exceptions.GoogleAPICallError)
        return refused and (isinstance(error, exceptions.Aborted) or _SETTLING.search(str(error)) is not None)

    return Retry(predicate=settles, initial=5, timeout=300)(call)()


def have(find: Callable[[], T], make: Callable[[], T]) -> T:
    """Return what `find` returns, or, where Google says NotFound, what `make` does; another process may be faster."""
    try:
        return find()
    except exceptions.NotFound:
        try:
            return patiently(make)
        except exceptions.Conflict as conflict:  # AlreadyExists of gRPC is one
            try:
                return find()
            except exceptions.NotFound:
                raise conflict from None


def state_of(resource: Any) -> str:
    """Return the project's word for the state of a job, a study, a trial or a pipeline run."""
    return STATES.get(resource.state.name.removeprefix("JOB_STATE_").removeprefix("PIPELINE_STATE_"), "running")


def wait(job: Any) -> None:
    """Wait for a job of any process.

    The SDK's own `wait` is for jobs that this process started, and its `done` does not know that a job has ended which
    expired or succeeded in part.
    """
    while state_of(job) == "running":
        time.sleep(_POLL)


def rest(method: str, address: str, body: Any = None, query: dict | None = None) -> dict:
    """Send one request to a service that has no client library here, and return the answer as a dict."""
    session = AuthorizedSession(google.auth.default(_SCOPES)[0])
    answer = session.request(method, address, json=body, params=query)
    if not answer.ok:
        raise exceptions.from_http_response(answer)
    return answer.json()


@contextmanager
def explained(subject: str) -> Iterator[None]:
    """Turn what Google's libraries raise in a `with` block into a `PlatformError` of one sentence about the subject."""
    try:
        yield
    except PlatformError:
        raise
    except DefaultCredentialsError as error:
        advice = "no credentials were found; run `gcloud auth application-default login`"
        raise PlatformError(f"{subject}: {advice}") from error
    except (exceptions.GoogleAPIError, GoogleAuthError, RequestException, RuntimeError, TimeoutError) as error:
        raise PlatformError(f"{subject}: {' '.join(str(error).split())}") from error  # a failed job is a RuntimeError


def bucket_of(config: Config) -> "Bucket":
    """Return the `google.cloud.storage.Bucket` of a configuration."""
    from google.cloud import storage

    return storage.Client(config.project).bucket(config.bucket)


def upload(config: Config, directory: str | Path, prefix: str) -> str:
    """Copy the files of a directory into the bucket, several at a time, and return their gs:// URI."""
    from google.cloud.storage import transfer_manager

    paths = sorted(path for path in Path(directory).rglob("*") if path.is_file())
    transfer_manager.upload_many_from_filenames(
        bucket_of(config),
        [path.relative_to(directory).as_posix() for path in paths],
        source_directory=str(directory),
        blob_name_prefix=f"{prefix}/",
        raise_exception=True,
        worker_type=transfer_manager.THREAD,  # processes would not pay for small files
    )
    return f"gs://{config.bucket}/{prefix}"


def keep(config: Config, content: bytes, folder: str, suffix: str) -> dict[str, str]:
    """Keep bytes in the bucket under their digest, where the same ones are sent once.

    The dict that is returned has the shape of the `StorageSource` of Cloud Build and Cloud Functions.
    """
    name = f"{folder}/{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    blob = bucket_of(config).blob(name)
    if not blob.exists():
        blob.upload_from_string(content)
    return {"bucket": config.bucket, "object": name}
