"""Endpoints of Vertex AI: versions of a policy, and the traffic between them."""

import json
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from google.api_core.exceptions import NotFound

from recbandits.checks import require_each
from recbandits.config import Config
from recbandits.platforms.endpoints import Endpoint, in_context, with_version
from recbandits.platforms.functions import TOPIC_OR_NONE
from recbandits.platforms.gcp.cloud import Service, bucket_of, explained, have, location, upload, vertex
from recbandits.platforms.gcp.messages import GcpMessages
from recbandits.platforms.gcp.models import MACHINE, have_model, predict_batch
from recbandits.platforms.jobs import check_name
from recbandits.platforms.protocol import PlatformError
from recbandits.serving import versions
from recbandits.serving.manifest import local_directory
from recbandits.serving.policy import load
from recbandits.serving.predictor import Answered
from recbandits.serving.sinks import TOPIC_VARIABLE
from recbandits.serving.versions import TrafficSplit

_PREVIOUS = "previous-"  # labels in which an endpoint remembers the shares before the last change
_STICKY = {"split": "users"}  # label of an endpoint whose server splits users


class GcpEndpoints(Service):
    """See `platforms.endpoints.Endpoints`."""

    def create(self, name: str | None = None, topic: str | None = None, sticky: bool = False) -> "GcpEndpoint":
        """See `Endpoints.create`; decisions of what is deployed from here are logged, and the account may publish them.

        An endpoint that is there stays as it is: where it is not sticky, Vertex AI draws a version for each request.
        Only one without a version becomes sticky. ValueError for a name that Vertex AI would refuse, or a topic without
        its full name; PlatformError if the endpoint splits requests, or Vertex AI refuses.
        """
        require_each(TOPIC_OR_NONE, topic=topic)
        name, config = self._name(name), self._config
        kind, labels = vertex(config).Endpoint, config.labels | (_STICKY if sticky else {})
        with explained(f"endpoint {name}"):
            endpoint = have(
                lambda: _looked_at(kind(f"{location(config)}/endpoints/{name}")),
                lambda: kind.create(display_name=name, endpoint_id=name, labels=labels),
            )
            splits_users = _STICKY.items() <= dict(endpoint.labels).items()
            if sticky and not splits_users:
                if endpoint.gca_resource.deployed_models:
                    raise PlatformError(f"endpoint {name} must split users, it splits requests: delete it first")
                endpoint.update(labels=labels)  # it was made by a reader, who need not say
                splits_users = True
        if topic:
            GcpMessages(config).let_publish(topic, config.account("serve"))
        return (StickyEndpoint if splits_users else GcpEndpoint)(config, name, topic)

    def delete(self, name: str | None = None) -> None:
        """See `Endpoints.delete`; versions of the model, and policies in the bucket, stay."""
        StickyEndpoint(self._config, self._name(name), None).delete()  # of another endpoint there is no release

    def _name(self, name):
        return check_name(self._config.endpoint if name is None else name)


class GcpEndpoint(Endpoint):
    """See `platforms.endpoints.Endpoint`; each version is a model, and Vertex AI draws one for each request."""

    def __init__(self, config: Config, name: str, topic: str | None):
        self.name, self.resource_name = name, f"{location(config)}/endpoints/{name}"
        self._config, self._topic = config, topic

    @in_context
    def deploy(self, policy: str | Path, traffic_percentage: int = 100) -> str:
        """See `Endpoint.deploy`, also for the gs:// URI of a policy; a new version has its share once it answers."""
        with local_directory(policy) as directory:
            version, (present, state) = load(directory).version, self._read()
            release = with_version(present, version, traffic_percentage)
            if present and version in present.shares:
                self._write(release, state)
            else:
                self._add(version, policy, release, state)
        return version

    @in_context
    def raw_predict(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """See `Endpoint.raw_predict`."""
        answer = self._connection.raw_predict(body, headers)
        return answer.status_code, answer.content

    def health(self) -> dict:
        """Dict: alive, ready, and the reason why not."""
        try:
            ready = bool(self.traffic_split)
        except PlatformError as error:
            return {"alive": False, "ready": False, "reason": str(error)}
        return {"alive": True, "ready": ready, "reason": "" if ready else "no policy is deployed yet"}

    @in_context
    def batch_predict(self, policy: str | Path, source: str | Path, destination: str | Path) -> Answered:
        """See `Endpoint.batch_predict`; a batch prediction job of Vertex AI. Returns `serving.predictor.Answered`."""
        with local_directory(policy) as directory:
            if (served := versions.find(directory)) is None:
                raise ValueError(f"there is no policy in {policy}")
            model = self._upload(next(iter(served.policies)), policy, {})
        return predict_batch(self._config, model, served.num_items, source, destination)

    @in_context
    def delete(self) -> None:
        """See `Endpoint.delete`; versions of the model stay."""
        with suppress(NotFound):
            self._look().delete(force=True)

    def _context(self):
        return explained(f"endpoint {self.name}")

    @cached_property
    def _connection(self):
        return self._look()

    def _look(self):
        """Return the `aiplatform.Endpoint` as it is now, with an etag that Vertex AI refuses once it has changed."""
        return _looked_at(vertex(self._config).Endpoint(self.resource_name))

    @in_context
    def _read(self):
        """Return the `TrafficSplit`, None before the first policy, and the endpoint from which it was read."""
        endpoint = self._look()
        deployed, labels = endpoint.gca_resource, endpoint.labels
        if not deployed.deployed_models:
            return None, endpoint
        shares = {version: deployed.traffic_split.get(number, 0) for version, number in _numbers(endpoint).items()}
        previous = {key.removeprefix(_PREVIOUS): int(labels[key]) for key in labels if key.startswith(_PREVIOUS)}
        return TrafficSplit(shares, previous or None), endpoint

    def _write(self, release, endpoint):
        numbers = _numbers(endpoint)
        traffic = {numbers[version]: share for version, share in release.shares.items()}
        endpoint.update(traffic_split=traffic, labels=_labels(endpoint, release))

    def _add(self, version, policy, release, endpoint):
        model, numbers = self._upload(version, policy, self._log(endpoint)), _numbers(endpoint)
        traffic = {numbers.get(each, "0"): share for each, share in release.shares.items()}  # "0" is the new one
        if numbers:  # first: a process that is killed in between has changed no share
            endpoint.update(labels=_labels(endpoint, release))
        self._start(endpoint, model, version, traffic_split=traffic)

    def _remove(self, version, release, endpoint):
        if release:
            self._write(release, endpoint)
        endpoint.undeploy(_numbers(endpoint)[version])

    def _start(self, endpoint, model, name, **traffic):
        """Have Vertex AI start a server of a model under a name, beside what is deployed."""
        account = self._config.account("serve")
        endpoint.deploy(model, deployed_model_display_name=name, service_account=account, **traffic, **MACHINE)

    def _log(self, endpoint):
        """Return the variable with the topic of decisions: the one that was given, or that of the last deployment."""
        if self._topic:
            return {TOPIC_VARIABLE: self._topic}
        for deployed in endpoint.gca_resource.deployed_models[-1:]:
            model = vertex(self._config).Model(deployed.model.partition("@")[0], version=deployed.model_version_id)
            variables = model.gca_resource.container_spec.env
            return {each.name: each.value for each in variables if each.name == TOPIC_VARIABLE}
        return {}

    def _upload(self, version, policy, variables):
        in_cloud = str(policy).startswith("gs://")
        uri = str(policy) if in_cloud else f"gs://{self._config.bucket}/policies/{version}"
        return have_model(self._config, f"policy-{version}", uri, variables, None if in_cloud else policy)


class StickyEndpoint(GcpEndpoint):
    """See `platforms.endpoints.Endpoint`; one model, whose server splits users between the versions of a release.

    The release is a directory in the bucket, `releases/<name>/`, with `release.json` and `policies/<version>/`. The
    server looks at `release.json` again and again, so that another split, or another version, needs no new deployment.
    """

    @in_context
    def deploy(self, policy: str | Path, traffic_percentage: int = 100) -> str:
        """See `Endpoint.deploy`; where no server of the present image runs yet, one is deployed."""
        version, uri = super().deploy(policy, traffic_percentage), f"gs://{self._config.bucket}/{self._folder}"
        endpoint = self._look()
        model = have_model(self._config, "release", uri, {versions.VARIABLE: uri} | self._log(endpoint))
        name, numbers = f"release-{model.version_id}", _numbers(endpoint)
        if name not in numbers:
            self._start(endpoint, model, name, traffic_percentage=100)
            for number in numbers.values():
                endpoint.undeploy(number)
        return version

    @in_context
    def delete(self) -> None:
        """See `Endpoint.delete`; policies stay in the bucket."""
        super().delete()
        if blob := bucket_of(self._config).get_blob(f"{self._folder}/{versions.FILE}"):
            blob.delete()

    @property
    def _folder(self):
        return f"releases/{self.name}"

    @in_context
    def _read(self):
        """Return the `TrafficSplit`, and the object with the generation that was read.

        It is None before the first policy, and where no server follows it: who wrote it was refused one, or killed.
        """
        bucket, name = bucket_of(self._config), f"{self._folder}/{versions.FILE}"
        if (blob := bucket.get_blob(name)) is None:
            return None, (bucket.blob(name), 0)
        generation = blob.generation  # which reading may forget
        release = TrafficSplit.of(json.loads(blob.download_as_bytes()))
        return release if _numbers(self._look()) else None, (blob, generation)

    def _write(self, release, state):
        blob, generation = state
        blob.upload_from_string(json.dumps(vars(release)), if_generation_match=generation)

    def _add(self, version, policy, release, state):
        with local_directory(policy) as directory:
            upload(self._config, directory, f"{self._folder}/{versions.POLICIES}/{version}")
        self._write(release, state)

    def _remove(self, version, release, state):
        if release:
            self._write(release, state)
        else:
            blob, generation = state
            self._look().undeploy_all()
            blob.delete(if_generation_match=generation)


def _looked_at(endpoint):
    """Return an endpoint of the SDK after its first request, which the constructor does not send."""
    return endpoint if endpoint.gca_resource else None


def _numbers(endpoint):
    """Return dict from version to the number that Vertex AI gave to its deployment."""
    return {model.display_name: model.id for model in endpoint.gca_resource.deployed_models}


def _labels(endpoint, release):
    """Return the labels of an endpoint, with the shares that a `TrafficSplit` remembers."""
    labels = {key: text for key, text in endpoint.labels.items() if not key.startswith(_PREVIOUS)}
    return labels | {f"{_PREVIOUS}{version}": str(share) for version, share in (release.previous or {}).items()}
