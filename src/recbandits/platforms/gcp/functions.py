"""Cloud Functions of the second generation: source in the bucket, built by Cloud Build, called by topic or by HTTP."""

import hashlib
import sys

from recbandits.config import SETTINGS
from recbandits.platforms.functions import EVENT
from recbandits.platforms.gcp.assets import have
from recbandits.platforms.gcp.errors import explained, finish
from recbandits.platforms.gcp.messages import GcpMessages
from recbandits.platforms.gcp.packages import pack
from recbandits.platforms.gcp.resources import remove
from recbandits.platforms.protocol import PlatformError, Resource

_BUILD = 1200  # seconds until a function must be there
_ARTIFACTS = "/tmp/recbandits"  # the only place where a function may write
_TOGETHER = 200  # calls that an instance takes at once: while one batch is merged, the next one gathers
_CALL = 60  # seconds that an event's call gets
_REQUEST = 540  # seconds that a request's call gets


class GcpFunctions:
    """See `platforms.functions.Functions`; a function's id is its name after those of the configuration.

    Args:
      config: Config
      clients: `Clients`
    """

    def __init__(self, config, clients):
        self._config, self._clients = config, clients
        self._messages = GcpMessages(config, clients)

    def deploy(self, function):
        """See `Functions.deploy`; it also gives the subscription of its topic dead letters.

        Cloud Functions copies the source into a bucket that it makes itself once for each region of a project,
        gcf-v2-sources-<project number>-<region>: it serves all functions there, and clean-up leaves it.

        Args:
          function: `Function`

        Raises:
          PlatformError: it cannot be packed, Google Cloud refused, or there is one of this name on another topic.
        """
        client, resource = self._clients.functions, self._resource(function.name)
        parent, _, number = resource.name.partition("/functions/")
        document = self._document(function, self._upload(function, pack(function.source)))
        request = {"parent": parent, "function_id": number, "function": document}
        made = have(
            self._config,
            resource,
            lambda: client.get_function(name=resource.name),
            lambda: finish(client.create_function(request=request, retry=None), _BUILD),
        )
        with explained(resource, "deployed"):
            found = client.get_function(name=resource.name)
            if found.event_trigger.pubsub_topic != (function.topic or ""):
                raise PlatformError(f"function {function.name} listens to another topic: delete it first")
            if not made:
                request = {"function": document, "update_mask": {"paths": ["build_config", "service_config"]}}
                finish(client.update_function(request=request), _BUILD)
            if function.topic:
                trigger = self._clients.rest("eventarc", "GET", f"v1/{found.event_trigger.trigger}")
                self._messages.bury(trigger["transport"]["pubsub"]["subscription"], function.topic)

    def delete(self, name):
        """See `Functions.delete`; its dead letters stay until clean-up.

        Raises:
          PlatformError: Google Cloud refused.
        """
        resource = self._resource(name)
        with explained(resource, "removed"):
            remove(self._clients, resource)

    def logs(self, name):
        """The command that reads what a function has written, for Cloud Logging keeps it."""
        return (
            f"gcloud functions logs read {self._config.base}-{name} --gen2 "
            f"--region={self._config.region} --project={self._config.project} --limit=100"
        )

    def health(self, name):
        """See `Functions.health`."""
        from google.api_core.exceptions import NotFound
        from google.cloud.functions_v2 import Function

        resource = self._resource(name)
        with explained(resource, "looked at"):
            try:
                found = self._clients.functions.get_function(name=resource.name)
            except NotFound:
                return {"alive": False, "ready": False, "reason": f"there is no function {name}", "address": ""}
        ready = found.state == Function.State.ACTIVE
        said = "; ".join(message.message for message in found.state_messages)
        reason = "" if ready else said or f"it is {Function.State(found.state).name.lower()}"
        return {"alive": True, "ready": ready, "reason": reason, "address": found.service_config.uri}

    @property
    def _parent(self):
        return f"projects/{self._config.project}/locations/{self._config.region}"

    def _resource(self, name):
        return Resource("function", f"{self._parent}/functions/{self._config.base}-{name}")

    def _upload(self, function, packed):
        """Keep a source in the bucket under its digest; the same one is sent once."""
        digest = hashlib.sha256(packed).hexdigest()[:16]
        source = {"bucket": self._config.bucket, "object": f"functions/{function.name}-{digest}.zip"}
        blob = self._clients.storage.bucket(source["bucket"]).blob(source["object"])
        with explained(self._resource(function.name), "sent to the bucket"):
            if not blob.exists():
                blob.upload_from_string(packed, content_type="application/zip")
        return source

    def _document(self, function, source):
        """What Cloud Functions is asked for; dict in the shape of `google.cloud.functions_v2.Function`.

        Its image is kept in the project's own repository, which clean-up removes; left alone it goes to one that stays.
        """
        account = self._config.account("function")
        settings = {f"RECBANDITS_{name.upper()}": getattr(self._config, name) for name in SETTINGS}
        settings |= {"RECBANDITS_ARTIFACTS": _ARTIFACTS, "THREADS": str(_TOGETHER)}
        document = {
            "name": self._resource(function.name).name,
            "environment": "GEN_2",
            "build_config": {
                "runtime": f"python3{sys.version_info.minor}",
                "entry_point": function.target,
                "source": {"storage_source": source},
                "docker_repository": f"{self._parent}/repositories/{self._config.registry}",
                "service_account": f"projects/{self._config.project}/serviceAccounts/{account}",
            },
            "service_config": {
                "available_cpu": "1",
                "available_memory": "1Gi",
                "max_instance_count": 3,  # BigQuery merges into a table twice at a time, and lets a few more wait
                "max_instance_request_concurrency": _TOGETHER,
                "timeout_seconds": _CALL if function.topic else _REQUEST,
                "ingress_settings": "ALLOW_INTERNAL_ONLY" if function.topic else "ALLOW_ALL",
                "service_account_email": account,
                "environment_variables": settings | function.environment,
            },
            "labels": self._config.labels,
        }
        if function.topic:
            document["event_trigger"] = {
                "trigger_region": self._config.region,
                "event_type": EVENT,
                "pubsub_topic": function.topic,
                "retry_policy": "RETRY_POLICY_RETRY",
                "service_account_email": account,
            }
        return document
