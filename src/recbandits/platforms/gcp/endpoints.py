"""Endpoints of Vertex AI: deployed versions of a policy, and traffic between them."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from recbandits.platforms.endpoints import expect_deployed, expect_shares
from recbandits.platforms.gcp.assets import have, remove_endpoint
from recbandits.platforms.gcp.errors import explained, finish
from recbandits.platforms.gcp.jobs import wait
from recbandits.platforms.gcp.models import Models
from recbandits.platforms.protocol import PlatformError, Resource
from recbandits.serving.traffic_split import TrafficSplit
from recbandits.serving.versions import Answered, check_exact

_MACHINE = {"machine_type": "n2-standard-2"}
_REPLICAS = {"min_replica_count": 1, "max_replica_count": 2}
_PATIENCE = 3600  # seconds until a version must be deployed
_PREVIOUS = "previous-"  # labels in which an endpoint remembers the shares before the last change


class GcpEndpoints:
    """See `platforms.endpoints.Endpoints`.

    Args:
      config: Config
      clients: `Clients`
      poll: seconds between two looks at a batch prediction that is waited for.
    """

    def __init__(self, config, clients, poll=30.0):
        self._config, self._clients, self._poll = config, clients, poll

    def create(self, name=None, topic=None):
        """Create an endpoint, or find the one there is.

        Args:
          name: its id; None is the name in the configuration.
          topic: "projects/<project>/topics/<topic>", where decisions of what is deployed from here are logged; None for
            no log.

        Returns:
          `GcpEndpoint`

        Raises:
          PlatformError: Vertex AI refused.
        """
        from google.api_core.exceptions import NotFound

        name = name or self._config.endpoint
        client = self._clients.vertex("Endpoint")
        parent = f"projects/{self._config.project}/locations/{self._config.region}"
        document = {"display_name": name, "labels": self._config.labels}
        request = {"parent": parent, "endpoint": document, "endpoint_id": name}

        resource = Resource("endpoint", f"{parent}/endpoints/{name}")

        def find():
            try:
                client.get_endpoint(name=resource.name)
            except NotFound:
                Models(self._config, self._clients).expect()  # first, for clean-up removes what is newer before it
                raise

        def make():
            finish(client.create_endpoint(request=request, timeout=60, retry=None), _PATIENCE)

        have(self._config, resource, find, make)
        return GcpEndpoint(name, self._config, self._clients, topic, self._poll)


class GcpEndpoint:
    """See `platforms.endpoints.Endpoint`.

    Attributes:
      name: id of the endpoint.
      resource_name: its full name.
    """

    def __init__(self, name, config, clients, topic, poll):
        self.name = name
        self.resource_name = f"projects/{config.project}/locations/{config.region}/endpoints/{name}"
        self._config, self._clients, self._topic, self._poll = config, clients, topic, poll
        self._models = Models(config, clients)

    @property
    def traffic_split(self):
        """Dict from version to percentage; empty before the first policy."""
        return _shares(self._get())

    def deploy(self, policy, traffic_percentage=100):
        """See `Endpoint.deploy`; a new version comes with its share, which it has once it answers.

        Shares that somebody changes while a new version starts are overwritten by those that came with it.

        Args:
          policy: its directory, or the gs:// URI of one.
          traffic_percentage: its share.

        Returns:
          The version of the policy.

        Raises:
          ValueError: no exported policy, or a percentage that is none.
          PlatformError: Vertex AI refused, as when somebody has changed the endpoint meanwhile; what was served before
            goes on.
        """
        version, found = self._models.version(policy), self._get()
        shares = _shares(found)
        release = _release(found).with_version(version, traffic_percentage) if shares else None
        release = release or TrafficSplit({version: traffic_percentage})
        if version in shares:
            self._route(found, release)
            return version
        model = self._models.upload(policy, self._topic)
        resources = {"machine_spec": _MACHINE, **_REPLICAS}
        account = {"service_account": self._config.account("serve")}
        deployed = {"model": model, "display_name": version, "dedicated_resources": resources, **account}
        numbers = _ids(found) | {version: "0"}  # which stands for the new one
        traffic = {numbers[each]: share for each, share in release.shares.items()}
        request = {"endpoint": self.resource_name, "deployed_model": deployed, "traffic_split": traffic}
        if shares:  # first: whoever is killed in between has changed no share
            self._update(found, labels=_labels(found, release))
        with self._explained("given another version"):
            self._client.deploy_model(request=request, timeout=60).result(timeout=_PATIENCE)
        return version

    def split(self, traffic_split, expected=None):
        """See `Endpoint.split`; a deployed version that is not named gets nothing."""
        found = self._deployed()
        shares = _shares(found)
        expect_shares(self.name, shares, expected)
        self._route(found, _release(found).then(dict.fromkeys(shares, 0) | traffic_split))

    def rollback(self):
        """See `Endpoint.rollback`."""
        found = self._deployed()
        self._route(found, _release(found).rolled_back())

    def undeploy(self, version):
        """See `Endpoint.undeploy`."""
        found = self._deployed()
        if set(_shares(found)) != {version}:
            self._route(found, _release(found).without(version), going=version)
        request = {"endpoint": self.resource_name, "deployed_model_id": _ids(found)[version]}
        with self._explained(f"rid of version {version}"):
            self._client.undeploy_model(request=request, timeout=60).result(timeout=_PATIENCE)

    def predict(self, instances, parameters=None):
        """See `Endpoint.predict`; a raw prediction, for in others Vertex AI makes floats of all numbers.

        Raises:
          PlatformError: they were refused, in the server's words.
        """
        body = {"instances": instances} | ({} if parameters is None else {"parameters": parameters})
        status, answer = self.raw_predict(json.dumps(body).encode(), {"Content-Type": "application/json"})
        if status != 200:
            said = " ".join(answer.decode(errors="replace").split())
            raise PlatformError(f"endpoint {self.name} answered {status}: {said}")
        return json.loads(answer)["predictions"]

    def raw_predict(self, body, headers):
        """See `Endpoint.raw_predict`."""
        with self._explained("asked"):
            return self._clients.raw_predict(self.resource_name, body, headers)

    def health(self):
        """Dict: alive, ready, and the reason why not."""
        try:
            ready = bool(self.traffic_split)
        except PlatformError as error:
            return {"alive": False, "ready": False, "reason": str(error)}
        return {"alive": True, "ready": ready, "reason": "" if ready else "no policy is deployed yet"}

    def logs(self):
        """The command that reads what the servers have written, for Cloud Logging keeps it."""
        condition = f'resource.type="aiplatform.googleapis.com/Endpoint" resource.labels.endpoint_id="{self.name}"'
        return f"gcloud logging read '{condition}' --project={self._config.project} --limit=100"

    def batch_predict(self, policy, source, destination):
        """See `Endpoint.batch_predict`; a batch prediction job of Vertex AI, which keeps no order.

        Args:
          policy: its directory, or the gs:// URI of one.
          source: file of JSON lines.
          destination: file for the answers; what was refused goes beside it, to the same name with `.errors`.

        Returns:
          `serving.versions.Answered`

        Raises:
          PlatformError: Vertex AI refused, or the job failed.
          ValueError: a number that Vertex AI would round, as `check_exact` says.
        """
        check_exact(content := Path(source).read_bytes())
        model = self._models.upload(policy)
        name = f"{self._models.version(policy)}-{hashlib.sha256(content).hexdigest()[:8]}"
        client, job = self._clients.vertex("Job"), Resource("batch prediction", name)
        bucket = self._clients.storage.bucket(self._config.bucket)
        with explained(job, "made"):
            bucket.blob(f"batch/{name}/source.jsonl").upload_from_string(content, "application/jsonl")
            document = self._batch(name, model)
            parent = self.resource_name.partition("/endpoints/")[0]
            made = client.create_batch_prediction_job(parent=parent, batch_prediction_job=document)
            state, ended = wait(lambda: client.get_batch_prediction_job(name=made.name), self._poll)
        if state != "succeeded":
            raise PlatformError(f"batch prediction {name} {state}: {' '.join(ended.error.message.split())}")
        folder = ended.output_info.gcs_output_directory.partition(f"gs://{bucket.name}/")[2]
        parts = ((destination, "results"), (f"{destination}.errors", "errors"))
        with explained(job, "read"):
            good, bad = (self._gather(bucket, f"{folder}/prediction.{kind}", path) for path, kind in parts)
        return Answered(*good, *bad)

    def delete(self):
        """See `Endpoint.delete`; versions of the model stay."""
        from google.api_core.exceptions import NotFound

        with self._explained("deleted"), suppress(NotFound):
            remove_endpoint(self._clients, self.resource_name)

    @property
    def _client(self):
        return self._clients.vertex("Endpoint")

    def _explained(self, done):
        return explained(Resource("endpoint", self.name), done)

    def _get(self):
        with self._explained("looked at"):
            return self._client.get_endpoint(name=self.resource_name)

    def _deployed(self):
        found = self._get()
        if not found.deployed_models:
            raise PlatformError(f"endpoint {self.name} has no policy, deploy one first")
        return found

    def _route(self, found, release, going=None):
        """Set shares, and remember those before in labels: at once, and for the next process.

        Args:
          found: the endpoint, as it was when this was decided.
          release: `TrafficSplit`
          going: a version without a share that it does not name any more.
        """
        ids = {version: number for version, number in _ids(found).items() if version != going}
        expect_deployed(self.name, ids.keys(), release.shares.keys())
        traffic = {ids[version]: share for version, share in release.shares.items()}
        self._update(found, traffic_split=traffic, labels=_labels(found, release))

    def _update(self, found, **fields):
        """Change an endpoint that is still as it was found: with its etag, for Vertex AI refuses an old one."""
        document = {"name": self.resource_name, "etag": found.etag, **fields}
        with self._explained("split"):
            self._client.update_endpoint(request={"endpoint": document, "update_mask": {"paths": list(fields)}})

    def _batch(self, name, model):
        place = f"gs://{self._config.bucket}/batch/{name}"
        return {
            "display_name": name,
            "model": model,
            "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": [f"{place}/source.jsonl"]}},
            "output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": place}},
            "dedicated_resources": {"machine_spec": _MACHINE, "starting_replica_count": 1, "max_replica_count": 2},
            "service_account": self._config.account("serve"),
            "labels": self._config.labels,
        }

    def _gather(self, bucket, prefix, destination):
        """Put what several workers wrote into one file; gives its path and the number of its lines."""
        blobs = sorted(self._clients.storage.list_blobs(bucket, prefix=prefix), key=lambda blob: blob.name)
        lines = [line for blob in blobs for line in blob.download_as_bytes().splitlines(keepends=True)]
        Path(destination).write_bytes(b"".join(lines))
        return Path(destination), len(lines)


def _ids(endpoint):
    """Dict from version to the number that Vertex AI gave to its deployment."""
    return {model.display_name: model.id for model in endpoint.deployed_models}


def _shares(endpoint):
    return {version: endpoint.traffic_split.get(number, 0) for version, number in _ids(endpoint).items()}


def _labels(endpoint, release):
    """The labels of an endpoint, with what a `TrafficSplit` remembers."""
    labels = {key: text for key, text in endpoint.labels.items() if not key.startswith(_PREVIOUS)}
    return labels | {f"{_PREVIOUS}{version}": str(share) for version, share in (release.previous or {}).items()}


def _release(endpoint):
    """The `TrafficSplit` that an endpoint serves, with what its labels remember."""
    remembered = {key: text for key, text in endpoint.labels.items() if key.startswith(_PREVIOUS)}
    previous = {key.removeprefix(_PREVIOUS): int(text) for key, text in remembered.items()}
    return TrafficSplit(_shares(endpoint), previous or None)
