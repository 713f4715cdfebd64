"""Cloud Functions of the second generation: source in the bucket, built by Cloud Build, called by topic or by HTTP."""

import sys
from contextlib import suppress
from functools import cached_property

from recbandits.config import SETTINGS, Config
from recbandits.platforms.functions import EVENT, Function
from recbandits.platforms.gcp import storage
from recbandits.platforms.gcp.cloud import explained, have, location, patiently, rest
from recbandits.platforms.gcp.messages import GcpMessages
from recbandits.platforms.gcp.packages import pack
from recbandits.platforms.gcp.roles import by_rest, grant
from recbandits.platforms.jobs import check_name
from recbandits.platforms.protocol import PlatformError

_TIMEOUT = 1200  # seconds until a function must be there
_CONCURRENCY = 200  # calls that an instance takes at once: while one batch is merged, the next one gathers
_SETTINGS = {"RECBANDITS_ARTIFACTS": "/tmp/recbandits", "THREADS": str(_CONCURRENCY)}  # it may write to /tmp alone


class GcpFunctions:
    """See `platforms.functions.Functions`; a function's id is its name after those of the configuration."""

    def __init__(self, config: Config):
        self._config, self._messages = config, GcpMessages(config)
        self._parent = location(config)

    @cached_property
    def _client(self):
        from google.cloud.functions_v2 import FunctionServiceClient

        return FunctionServiceClient()

    def deploy(self, function: Function) -> None:
        """See `Functions.deploy`; its account may call it, and what its topic cannot deliver goes to the dead letters.

        Cloud Functions copies the source into a bucket of its own, gcf-v2-sources-<project number>-<region>, which
        serves all functions of the region, and which clean-up leaves.
        """
        client, created = self._client, []

        def create():
            name = document["name"].rpartition("/")[2]
            request = {"parent": self._parent, "function_id": name, "function": document}
            created.append(client.create_function(request=request).result(timeout=_TIMEOUT))
            return created[0]

        with explained(f"function {function.name}"):
            document = self._document(function, pack(function.source))
            deployed = have(lambda: client.get_function(name=document["name"]), create)
            if deployed.event_trigger.pubsub_topic != (function.topic or ""):
                raise PlatformError(f"function {function.name} listens to another topic: delete it first")
            if not created:
                request = {"function": document, "update_mask": {"paths": ["build_config", "service_config"]}}
                deployed = patiently(lambda: client.update_function(request=request).result(timeout=_TIMEOUT))
            service = f"https://run.googleapis.com/v2/{deployed.service_config.service}"
            # As this account Eventarc and Cloud Scheduler sign in.
            grant(by_rest(service, "GET"), [("roles/run.invoker", self._config.account("function"))])
            if function.topic:
                trigger = rest("GET", f"https://eventarc.googleapis.com/v1/{deployed.event_trigger.trigger}")
                self._messages.add_dead_letters(trigger["transport"]["pubsub"]["subscription"], function.topic)

    def delete(self, name: str) -> None:
        """See `Functions.delete`; its trigger, the subscription of this, and its service of Cloud Run go with it."""
        from google.api_core.exceptions import NotFound

        with explained(f"function {name}"), suppress(NotFound):
            self._client.delete_function(name=self._name(name)).result(timeout=_TIMEOUT)

    def logs(self, name: str) -> str:
        """Return the command that reads what a function has written, for Cloud Logging keeps it."""
        return (
            f"gcloud functions logs read {self._config.base}-{name} --gen2 "
            f"--region={self._config.region} --project={self._config.project} --limit=100"
        )

    def health(self, name: str) -> dict:
        """See `Functions.health`."""
        from google.api_core.exceptions import NotFound

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
        return f"{self._parent}/functions/{self._config.base}-{check_name(name)}"

    def _document(self, function, packed):
        """Keep a packed source in the bucket under its digest, and make the request's `functions_v2.Function`.

        Its image is kept in the project's own repository, which clean-up removes; left alone it goes to one that stays.
        """
        config, account, builder = self._config, self._config.account("function"), self._config.account("build")
        source = storage.keep(config, packed, "functions", ".zip")
        settings = {f"RECBANDITS_{name.upper()}": getattr(config, name) for name in SETTINGS}
        document = {
            "name": self._name(function.name),
            "environment": "GEN_2",
            "build_config": {
                "runtime": f"python3{sys.version_info.minor}",
                "entry_point": function.target,
                "source": {"storage_source": source},
                "docker_repository": f"{self._parent}/repositories/{config.registry}",
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
