"""What Google's clients raise: waited out where that helps, else put into one sentence."""

from contextlib import contextmanager

from recbandits.platforms.protocol import PlatformError


class BegunError(Exception):
    """Something was begun at Google Cloud and not seen to end well: it may be there, and nobody asks for it again."""


def patient(call):
    """Repeat a call, for two minutes at most, while the cloud is still settling."""
    from google.api_core.retry import Retry

    return Retry(predicate=_settles, initial=1.0, maximum=10.0, timeout=120.0)(call)


def finish(operation, timeout=None):
    """Wait for an operation that has begun. What goes wrong from here on is no refusal: it may have had its effect.

    Args:
      operation: `google.api_core.operation.Operation`.
      timeout: seconds; None for the library's own.

    Returns:
      Its result.

    Raises:
      BegunError: it failed, or nobody knows.
    """
    from google.api_core.exceptions import GoogleAPICallError

    try:
        return operation.result(**({"timeout": timeout} if timeout else {}))
    except (GoogleAPICallError, TimeoutError) as error:
        raise BegunError(f"it was begun, but not seen to end: {error}") from error


def _settles(error):
    """Whether waiting helps: a policy edited meanwhile, or an account or a service that is a few seconds old."""
    from google.api_core.exceptions import Conflict

    if isinstance(error, BegunError):  # its text may tell of an account or a service, too
        return False
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
    except (BegunError, GoogleAPIError, GoogleAuthError, RequestException, TimeoutError) as error:
        raise PlatformError(f"{begin}: {_line(error)}") from error


def _line(error):
    return " ".join(str(error).split())
