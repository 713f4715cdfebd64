"""Parts that the services of Google Cloud share: set-up, labels, retries, errors and the bucket."""

from unittest import mock

import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials

from recbandits.config import Config
from recbandits.platforms.gcp.cloud import explained, have, patiently, vertex
from recbandits.platforms.protocol import PlatformError

CONFIG = Config(platform="gcp", project="movie-lab-42")
POOLS = [{"machine_spec": {"machine_type": "n2-standard-4"}, "replica_count": 1, "container_spec": {"image_uri": "i"}}]
EVENTARC = (
    "Invalid resource state: Permission denied while using the Eventarc Service Agent. If you recently started to use "
    "Eventarc, it may take a few minutes before all necessary permissions are propagated"
)


pytestmark = pytest.mark.usefixtures("no_pauses")


def test_on_this_machine_a_job_is_shown_without_sign_in_and_without_a_request(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    job = vertex(Config()).CustomJob("one", POOLS)
    assert job.to_dict()["jobSpec"]["workerPoolSpecs"][0]["machineSpec"] == {"machineType": "n2-standard-4"}
    assert job.to_dict()["jobSpec"]["baseOutputDirectory"]["outputUriPrefix"].startswith("gs://your-project-")


def test_after_a_job_was_shown_on_this_machine_the_next_one_is_signed_in(monkeypatch):
    """The SDK keeps the credentials of the last set-up."""
    vertex(Config())
    credentials = AnonymousCredentials()
    monkeypatch.setattr("google.auth.default", lambda scopes: (credentials, "movie-lab-42"))
    assert vertex(CONFIG).initializer.global_config.credentials is credentials


@pytest.mark.parametrize(
    "error",
    [
        exceptions.FailedPrecondition(EVENTARC),
        exceptions.BadRequest("Service agents are being provisioned (...). So please try again in a few minutes."),
        exceptions.Forbidden("BigQuery API has not been used in project 42 before or it is disabled."),
        exceptions.BadRequest("Service account a@b does not exist."),
        exceptions.Aborted("unable to queue the operation"),
        exceptions.Conflict("There were concurrent policy changes."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_project_that_settles_is_asked_again(cloud, error):
    call = mock.Mock(side_effect=[error, error, "made"])
    assert patiently(call) == "made"
    assert call.call_count == 3


def test_a_refusal_is_not_repeated():
    call = mock.Mock(side_effect=exceptions.Forbidden("The caller does not have permission"))
    with pytest.raises(exceptions.Forbidden):
        patiently(call)
    assert call.call_count == 1


@pytest.mark.parametrize("conflict", [exceptions.AlreadyExists, exceptions.Conflict])
def test_what_another_process_made_meanwhile_is_found(conflict):
    find = mock.Mock(side_effect=[exceptions.NotFound("no"), "theirs"])
    assert have(find, mock.Mock(side_effect=conflict("exists already"))) == "theirs"


def test_a_conflict_about_something_that_is_not_there_is_raised():
    with pytest.raises(exceptions.Conflict, match="busy"):
        have(mock.Mock(side_effect=exceptions.NotFound("no")), mock.Mock(side_effect=exceptions.Conflict("busy")))


def test_an_error_is_one_sentence_about_its_subject():
    with (
        pytest.raises(PlatformError, match=r"^job one: 403 The caller does not have permission$"),
        explained("job one"),
    ):
        raise exceptions.Forbidden("The caller does not\nhave permission")
    with pytest.raises(PlatformError, match=r"^mine$"), explained("job one"):
        raise PlatformError("mine")
