"""Google Cloud as a platform; its client libraries are imported when a resource is made, not before."""

from contextlib import contextmanager
from functools import cached_property

from recbandits.platforms import NotMadeError, PlatformError
from recbandits.platforms.gcp import resources
from recbandits.platforms.gcp.clients import Clients


class GcpPlatform:
    """Services, bucket, dataset, image repository, service account and its roles in one Google Cloud project."""

    name = "gcp"
    lasting = frozenset({"service"})

    def __init__(self, config, endpoint=None):
        """Take a `Config` with a project; `endpoint` is the address of a `Rehearsal` instead of Google's."""
        self.config = config
        self._clients = Clients(config.project, endpoint, config.region)

    @cached_property
    def jobs(self):
        """`platforms.jobs.Jobs`: training and tuning jobs of Vertex AI."""
        from recbandits.platforms.gcp.jobs import GcpJobs

        return GcpJobs(self.config, self._clients)

    @cached_property
    def experiments(self):
        """`platforms.experiments.Experiments`: Vertex AI Experiments."""
        from recbandits.platforms.gcp.experiments import GcpExperiments

        return GcpExperiments(self.config, self._clients)

    @cached_property
    def endpoints(self):
        """`platforms.endpoints.Endpoints`: endpoints of Vertex AI."""
        from recbandits.platforms.gcp.endpoints import GcpEndpoints

        return GcpEndpoints(self.config, self._clients)

    @cached_property
    def images(self):
        """Container images, built by Cloud Build and kept in Artifact Registry."""
        from recbandits.platforms.gcp.images import GcpImages

        return GcpImages(self.config, self._clients)

    def plan(self):
        """Every resource of the project under its full name."""
        return resources.plan(self.config)

    def exists(self, resource):
        """Whether a resource is there; see `Platform.exists`."""
        with explained(resource, "looked for", PlatformError):
            return _patient(resources.exists)(self._clients, resource)

    def make(self, resource):
        """Make a resource; see `Platform.make`. A service is "enabled", and never disabled again."""
        with explained(resource, "made", NotMadeError):
            return _patient(resources.make)(self._clients, self.config, resource)

    def remove(self, resource):
        """Remove a resource; see `Platform.remove`."""
        with explained(resource, "removed", PlatformError):
            _patient(resources.remove)(self._clients, resource)


def _patient(call):
    """Repeat a call, for two minutes at most, while the cloud is still settling."""
    from google.api_core.retry import Retry

    return Retry(predicate=_settles, initial=1.0, maximum=10.0, timeout=120.0)(call)


def _settles(error):
    """Whether waiting helps: a policy edited meanwhile, or an account or a service that is a few seconds old."""
    from google.api_core.exceptions import Conflict

    text = str(error)
    new_account = "service account" in text.lower() and "does not exist" in text
    return isinstance(error, Conflict) or new_account or "or it is disabled" in text


@contextmanager
def explained(resource, done, refusal=PlatformError):
    """A context in which what Google's clients raise becomes one sentence.

    Args:
      resource: `Resource` that the sentence is about.
      done: what was to happen to it, such as "made".
      refusal: class of the error where the request was refused; a `PlatformError` where nobody knows.
    """
    from google.api_core.exceptions import BadRequest, Forbidden, GoogleAPIError, NotFound, Unauthorized
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from requests.exceptions import RequestException

    begin = f"{resource.kind} {resource.name} could not be {done}"
    try:
        yield
    except DefaultCredentialsError as error:
        raise refusal(f"{begin}: nobody is signed in; run `gcloud auth application-default login`") from error
    except (BadRequest, Unauthorized, Forbidden, NotFound) as error:
        raise refusal(f"{begin}: {_line(error)}") from error
    except (GoogleAPIError, GoogleAuthError, RequestException, TimeoutError) as error:
        raise PlatformError(f"{begin}: {_line(error)}") from error


def _line(error):
    return " ".join(str(error).split())
