"""Cloud Functions of the second generation, called by topic or by HTTP, and the cron strings that call them.

The source of a function is a zip in the bucket, which Cloud Build builds: `main.py`, the package as a folder, and
pinned requirements. The project's wheel would bring TensorFlow with it, which no function needs: gigabytes, and half a
minute before the first answer. So the requirements are what the function's own `requirements.txt` names.
"""

import io
import json
import re
import sys
import zipfile
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path

from google.api_core.exceptions import NotFound

from recbandits.checks import require
from recbandits.config import SETTINGS
from recbandits.platforms.functions import EVENT, TOPIC, Function, next_time
from recbandits.platforms.gcp.cloud import Service, client, explained, have, keep, location, mark, patiently, rest
from recbandits.platforms.gcp.messages import GcpMessages
from recbandits.platforms.gcp.project import by_rest, grant
from recbandits.platforms.jobs import check_name
from recbandits.platforms.protocol import PlatformError

_TIMEOUT = 1200  # seconds until a function must be there
_CONCURRENCY = 200  # calls that an instance takes at once: while one batch is merged, the next one gathers
_SETTINGS = {"RECBANDITS_ARTIFACTS": "/tmp/recbandits", "THREADS": str(_CONCURRENCY)}  # it may write to /tmp alone
_DATE = (2020, 1, 1, 0, 0, 0)  # of every file in a zip, so that the same files are the same bytes


class GcpFunctions(Service):
    """See `platforms.functions.Functions`; a function's id is its name after those of the configuration."""

    _client = client("functions_v2", "FunctionServiceClient")

    def deploy(self, function: Function) -> None:
        """See `Functions.deploy`; its account may call it, and what its topic cannot deliver goes to the dead letters.

        Cloud Functions copies the source into a bucket of its own, gcf-v2-sources-<project number>-<region>, which
        serves all functions of the region, and which clean-up leaves.
        """
        created = []

        def create():
            name = document["name"].rpartition("/")[2]
            request = {"parent": location(self._config), "function_id": name, "function": document}
            created.append(self._client.create_function(request=request).result(timeout=_TIMEOUT))
            return created[0]

        with explained(f"function {function.name}"):
            document = self._document(function)
            deployed = have(partial(self._client.get_function, name=document["name"]), create)
            if deployed.event_trigger.pubsub_topic != (function.topic or ""):
                raise PlatformError(f"function {function.name} listens to another topic: delete it first")
            if not created:
                request = {"function": document, "update_mask": {"paths": ["build_config", "service_config"]}}
                deployed = patiently(lambda: self._client.update_function(request=request).result(timeout=_TIMEOUT))
            service = f"https://run.googleapis.com/v2/{deployed.service_config.service}"
            # As this account Eventarc and Cloud Scheduler sign in.
            grant(by_rest(service, "GET"), [("roles/run.invoker", self._config.account("function"))])
            if function.topic:
                trigger = rest("GET", f"https://eventarc.googleapis.com/v1/{deployed.event_trigger.trigger}")
                subscription = trigger["transport"]["pubsub"]["subscription"]
                GcpMessages(self._config).add_dead_letters(subscription, function.topic)

    def delete(self, name: str) -> None:
        """See `Functions.delete`; its trigger, the subscription of this, and its service of Cloud Run go with it."""
        with explained(f"function {name}"), suppress(NotFound):
            self._client.delete_function(name=self._name(name)).result(timeout=_TIMEOUT)

    def health(self, name: str) -> dict:
        """See `Functions.health`."""
        with explained(f"function {name}"):
            try:
                deployed = self._client.get_function(name=self._name(name))
            except NotFound:
                return {"alive": False, "ready": False, "reason": f"there is no function {name}", "address": ""}
        ready = deployed.state.name == "ACTIVE"
        messages = "; ".join(message.message for message in deployed.state_messages)
        reason = "" if ready else messages or f"it is {deployed.state.name.lower()}"
        return {"alive": True, "ready": ready, "reason": reason, "address": deployed.service_config.uri}

    def _name(self, name):
        return f"{location(self._config)}/functions/{self._config.base}-{check_name(name)}"

    def _document(self, function):
        """Keep the packed source in the bucket under its digest, and make the request's `functions_v2.Function`.

        Its image is kept in the project's own repository, which clean-up removes; left alone it goes to one that stays.
        """
        config, account, builder = self._config, self._config.account("function"), self._config.account("build")
        settings = {f"RECBANDITS_{name.upper()}": getattr(config, name) for name in SETTINGS}
        document = {
            "name": self._name(function.name),
            "environment": "GEN_2",
            "build_config": {
                "runtime": f"python3{sys.version_info.minor}",
                "entry_point": function.target,
                "source": {"storage_source": keep(config, pack(function.source), "functions", ".zip")},
                "docker_repository": f"{location(config)}/repositories/{config.registry}",
                "service_account": f"projects/{config.project}/serviceAccounts/{builder}",
            },
            "service_config": {
                "available_cpu": "1",
                "available_memory": "1Gi",
                "max_instance_count": 3,  # BigQuery merges into a table twice at a time, and lets a few more wait
                "max_instance_request_concurrency": _CONCURRENCY,
                "timeout_seconds": 60 if function.topic else 540,
                "ingress_settings": "ALLOW_INTERNAL_ONLY" if function.topic else "ALLOW_ALL",
                "service_account_email": account,
                "environment_variables": settings | _SETTINGS | function.environment,
            },
            "labels": config.labels,
        }
        if function.topic:
            trigger = {"trigger_region": config.region, "event_type": EVENT, "pubsub_topic": function.topic}
            trigger |= {"retry_policy": "RETRY_POLICY_RETRY", "service_account_email": account}
            document["event_trigger"] = trigger
        return document


class GcpSchedules(Service):
    """Jobs of Cloud Scheduler: at the times of a cron string, a message to a topic or a request to a function.

    They have no labels: the description says whose they are. What goes wrong is a `PlatformError` of one sentence.
    """

    _client = client("scheduler_v1", "CloudSchedulerClient")

    def create(self, name: str, cron: str, target: str, payload: dict | None = None) -> None:
        """Make a schedule, or change the one of this name, which is not paused any more.

        Args:
          name: at most 63 lower-case letters, digits and single hyphens.
          cron: when, in UTC; see `platforms.functions.next_time`.
          target: full name of a topic as `platform.messages.topic` gives it, or the address of an HTTP function, which
            gets a POST as its own account.
          payload: dict that JSON can say: the data of each message, or the body.

        Raises:
          ValueError: an argument is not as said here.
        """
        next_time(cron, datetime.now(UTC))
        known = isinstance(target, str) and re.fullmatch(rf"{TOPIC}|https?://[^/]+(/.*)?", target) is not None
        require(known, "target", "'projects/<project>/topics/<topic>' or a web address", target)
        require(isinstance(payload or {}, dict), "payload", "a dict", payload)
        job = self._job(check_name(name), cron, target, json.dumps(payload or {}).encode())
        request = {"parent": location(self._config), "job": job}
        with explained(f"schedule {name}"):
            find = partial(self._client.get_job, name=job["name"])
            present = have(find, partial(self._client.create_job, request=request))
            paused = present.state.name == "PAUSED"
            if paused or _facts(present) != _facts(type(present)(job)):
                mask = {"paths": sorted(job.keys() - {"name"})}
                self._client.update_job(request={"job": job, "update_mask": mask})
            if paused:  # to resume a job that is not paused is refused
                self._client.resume_job(name=job["name"])

    def delete(self, name: str) -> None:
        """Remove a schedule; one that is gone already is no error."""
        with explained(f"schedule {name}"), suppress(NotFound):
            self._client.delete_job(name=self._name(check_name(name)))

    def _name(self, name):
        return f"{location(self._config)}/jobs/{self._config.base}-{name}"

    def _job(self, name, cron, target, data):
        """Return a dict in the shape of `google.cloud.scheduler_v1.Job`."""
        job = {"name": self._name(name), "description": mark(self._config), "schedule": cron, "time_zone": "Etc/UTC"}
        if target.startswith("projects/"):
            return job | {"pubsub_target": {"topic_name": target, "data": data}}
        token = {"service_account_email": self._config.account("function"), "audience": target}
        request = {"uri": target, "http_method": "POST", "body": data, "oidc_token": token}
        return job | {"http_target": request | {"headers": {"Content-Type": "application/json"}}}


def pack(source: Path) -> bytes:
    """Pack a directory with `main.py`, and `requirements.txt` that names a distribution on each line, without version.

    The bytes of the zip depend on the files' names and contents and on the installed versions alone. PlatformError if
    there are no requirements, or one of them is not installed here.
    """
    package = Path(__file__).parents[2]
    roots = {source: source, package: package.parent}
    paths = {path.relative_to(base): path for root, base in roots.items() for path in root.rglob("*") if _belongs(path)}
    files = {path: file.read_bytes() for path, file in paths.items()}
    files[Path("requirements.txt")] = _requirements(source / "requirements.txt").encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path.as_posix(), _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[path], zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _requirements(file):
    """Return the text of a file of requirements, each pinned to the version that is installed here."""
    if not file.is_file():
        raise PlatformError(f"function source {file.parent} has no {file.name}: name what it needs, one on each line")
    names = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    try:
        return "".join(f"{name}=={metadata.version(name)}\n" for name in names if name)
    except metadata.PackageNotFoundError as error:
        raise PlatformError(f"{file} names {error.name}, which is not installed here") from error


def _belongs(path):
    """Return whether a file goes to the cloud: no tests, nothing compiled here, nothing hidden."""
    return path.is_file() and path.suffix != ".pyc" and not path.name.startswith(("test_", "conftest", "."))


def _facts(job):
    """Return what a job of Cloud Scheduler does when; the service adds headers of its own."""
    topic, request = job.pubsub_target, job.http_target
    return job.schedule, topic.topic_name, topic.data, request.uri, request.body
