"""Record what Google's client libraries send, and answer as Google Cloud would.

`with Recorder() as cloud:` replaces the two ways by which every client reaches Google: gRPC channels and HTTP. The code
under test needs no endpoint, no transport and no credentials. Messages are the libraries' own protos, so a field that
does not exist raises in the client.
"""

import itertools
import json
import os
import re
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from io import BytesIO
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit

import google.auth
import proto
import requests
import urllib3
from google.api_core import exceptions, grpc_helpers
from google.auth.credentials import AnonymousCredentials
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from google.protobuf.json_format import MessageToDict

PROJECT_NUMBER = "123456789"
DIGEST = f"sha256:{64 * 'a'}"  # of images
_COLLECTIONS = {"tensorboard_experiment": "experiments", "tensorboard_run": "runs", "repository": "repositories"}
_COLLECTIONS |= {"tensorboard_time_series": "timeSeries"}
# Else the client of Cloud Storage asks for a bucket in a thread, which may outlive the test that started it.
_NO_THREADS = {"DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA": "true"}


class Recorder:
    """A Google Cloud project in memory.

    Attributes:
      calls: list of (method, request): of gRPC ("CreateCustomJob", message), of HTTP ("GET https://host/path", dict
        with `query` and `body`).
      resources: dict from full name to message, of what gRPC created.
      documents: dict from path to dict, of what HTTP created.
      objects: dict from gs:// URI to bytes.
      answers: dict from gRPC method, or regular expression of an HTTP method and address, to an answer: a dict, a
        message, an exception to raise, or a function that gives one of these from the request.
    """

    def __init__(self, project="movie-lab-42"):
        self.calls, self.resources, self.documents, self.objects = [], {}, {}, {}
        self.answers = {"GetProject": {"name": f"projects/{PROJECT_NUMBER}", "project_id": project}}
        self._members, self._deployments = {}, itertools.count(1000)
        self._sign_in = mock.Mock(return_value=(AnonymousCredentials(), project))

    def __enter__(self):
        send = requests.adapters.HTTPAdapter.send

        def answer(adapter, request, **options):
            on_this_machine = urlsplit(request.url).hostname in ("127.0.0.1", "localhost")
            return send(adapter, request, **options) if on_this_machine else self._http(adapter, request)

        self._patches = ExitStack()
        for target, name, value in (
            (google.auth, "default", self._sign_in),
            (grpc_helpers, "create_channel", lambda *_, **__: self),
            (requests.adapters.HTTPAdapter, "send", answer),
        ):
            self._patches.enter_context(mock.patch.object(target, name, value))
        self._patches.enter_context(mock.patch.dict(os.environ, _NO_THREADS))
        return self

    def __exit__(self, *_):
        self._patches.close()

    def requests(self, method):
        """List the requests of a gRPC method, or of HTTP methods and addresses that match, as dicts."""
        matching = [request for name, request in self.calls if name == method or _matches(method, name)]
        return [request if isinstance(request, dict) else plain(request) for request in matching]

    def methods(self, *verbs):
        """List the names of the methods that were called, of all or of those that begin with one of the verbs."""
        return [name for name, _ in self.calls if not verbs or name.startswith(verbs)]

    # gRPC: this object is the channel.

    def unary_unary(self, path, request_serializer=None, response_deserializer=None, *_, **__):
        method, kind = path.rpartition("/")[2], response_deserializer.__self__

        def call(request, *_, **__):
            self.calls.append((method, request))
            if (answer := self._canned(self.answers.get(method), request)) is not None:
                return kind(**answer) if isinstance(answer, dict) else answer
            return self._grpc(method, request, kind)

        call.with_call = lambda *arguments, **options: (call(*arguments, **options), None)
        return call

    def unary_stream(self, *_, **__):
        return lambda *_, **__: iter(())

    stream_unary = stream_stream = unary_stream

    def close(self, *_, **__):
        """Close nothing: no connection is open."""

    subscribe = unsubscribe = close

    def _canned(self, answer, *request):
        answer = answer(*request) if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _grpc(self, method, request, kind):
        verb, noun = re.match(r"([A-Z][a-z]+)(.*)", method).groups()
        field = re.sub(r"(?<!^)(?=[A-Z])", "_", noun).lower()
        handler = getattr(self, f"_{verb.lower()}", None)
        result = handler(field, request, method) if handler else None
        if kind is not operations_pb2.Operation:
            return kind() if result is None else result
        if result is None:
            response = getattr(sys.modules[type(request).__module__], f"{method}Response", None)
            result = response() if response else empty_pb2.Empty()
        operation = operations_pb2.Operation(name=f"operations/{len(self.calls)}", done=True)
        operation.response.Pack(pb(result))
        return operation

    def _create(self, field, request, _):
        resource = getattr(request, field, request)  # of Pub/Sub the request is the resource
        if resource is not request:
            resource = type(resource).deserialize(type(resource).serialize(resource))
        if not resource.name:
            words = field.split("_")
            collection = _COLLECTIONS.get(field) or words[0] + "".join(word.title() for word in words[1:]) + "s"
            number = getattr(request, f"{field}_id", "") or str(100 + len(self.resources))
            resource.name = f"{request.parent}/{collection}/{number}"
        if resource.name in self.resources:
            raise exceptions.AlreadyExists(f"{resource.name} exists already")
        self.resources[resource.name] = _succeeded(resource)
        if field == "pipeline_job":
            self._add_context(resource, request.parent)
        return resource

    def _add_context(self, job, parent):
        """Give a pipeline job its context in the metadata store, by which it joins an experiment."""
        name = job.name.rpartition("/")[2]
        context = {"name": f"{parent}/metadataStores/default/contexts/{name}", "display_name": name}
        job.job_detail.pipeline_run_context = context | {"schema_title": "system.PipelineRun"}
        self.resources[context["name"]] = job.job_detail.pipeline_run_context

    def _get(self, field, request, _):
        if field == "iam_policy":
            return self.resources.get(f"{request.resource}:policy")
        if (name := _name(request)) not in self.resources:
            raise exceptions.NotFound(f"{name} was not found")
        return self.resources[name]

    def _set(self, field, request, _):
        if field != "iam_policy":
            return None
        self.resources[f"{request.resource}:policy"] = request.policy
        return request.policy

    def _list(self, _, request, method):
        kind = getattr(sys.modules[type(request).__module__], f"{method}Response")
        field = next(name for name, each in fields(kind()).items() if each.message_type)
        wanted = kind.meta.fields[field].message
        parent = request.parent if "parent" in fields(request) else getattr(request, "project", "")
        listed = [each for name, each in self.resources.items() if name.startswith(parent) and "@" not in name]
        condition = getattr(request, "filter", "")
        matching = [each for each in listed if isinstance(each, wanted) and self._matches_filter(each, condition)]
        if "desc" in getattr(request, "order_by", ""):
            matching.reverse()
        return kind({field: matching})

    def _matches_filter(self, message, condition):
        """Evaluate `a.b="text"` and the like, joined by AND, and OR in parentheses."""
        for term in condition.split(" AND ") if condition else ():
            alternatives = term.strip("()").split(" OR ") if " OR " in term else [term]
            if not any(self._matches_term(message, each) for each in alternatives):
                return False
        return True

    def _matches_term(self, message, term):
        if match := re.fullmatch(r'in_context\("(.+)"\)', term):
            return message.name in self._members.get(match[1], ())
        if not (match := re.fullmatch(r'([\w.]+)([=:])"?([^"]*)"?', term)):
            return True
        path, operator, text = match.groups()
        value = message
        for part in path.split("."):
            value = value.get(part, "") if hasattr(value, "get") else getattr(value, part, "")
        value = getattr(value, "name", str(value))
        return text.strip("*") in value if operator == ":" else text == value

    def _update(self, field, request, _):
        change = getattr(request, field)
        resource = self.resources.setdefault(change.name, change)
        paths = [path for path in request.update_mask.paths if path in fields(change)]
        for path in paths or [name for name in fields(change) if name in change and name != "name"]:
            if isinstance(getattr(change, path), proto.Message):  # what the service has added stays
                getattr(resource, path)._pb.MergeFrom(getattr(change, path)._pb)
            else:
                setattr(resource, path, getattr(change, path))
        return resource

    def _delete(self, _, request, __):
        name = _name(request)
        if self.resources.pop(name, None) is None:
            raise exceptions.NotFound(f"{name} was not found")
        for path in [path for path in self.resources if path.startswith((f"{name}@", f"{name}/"))]:
            del self.resources[path]

    def _cancel(self, _, request, __):
        states = type(self.resources[request.name].state)
        self.resources[request.name].state = next(each for each in states if each.name.endswith("CANCELLED"))

    def _enable(self, _, request, __):
        self.documents |= {f"{request.parent}/services/{name}": {} for name in getattr(request, "service_ids", ())}

    _batch = _enable

    def _upload(self, _, request, __):
        from google.cloud.aiplatform_v1 import UploadModelResponse

        name = request.parent_model or f"{request.parent}/models/{request.model_id or 100 + len(self.resources)}"
        version = 1 + int(self.resources[name].version_id) if name in self.resources else 1
        deployable = {"supported_deployment_resources_types": ["DEDICATED_RESOURCES"]}  # else the SDK does not deploy
        model = _succeeded(type(request.model)(request.model, name=name, version_id=str(version), **deployable))
        suffixes = ("", f"@{version}", *(f"@{alias}" for alias in model.version_aliases))
        self.resources |= {f"{name}{suffix}": model for suffix in suffixes}
        return UploadModelResponse(model=name, model_version_id=str(version))

    def _deploy(self, _, request, __):
        endpoint, deployed = self.resources[request.endpoint], request.deployed_model
        number, version = str(next(self._deployments)), self.resources[deployed.model].version_id
        endpoint.deployed_models.append(type(deployed)(deployed, id=number, model_version_id=version))
        if request.traffic_split:
            shares = request.traffic_split.items()
            endpoint.traffic_split = {number if key == "0" else key: share for key, share in shares}

    def _undeploy(self, _, request, __):
        endpoint, number = self.resources[request.endpoint], request.deployed_model_id
        endpoint.deployed_models = [each for each in endpoint.deployed_models if each.id != number]
        shares = {key: share for key, share in endpoint.traffic_split.items() if key != number}
        endpoint.traffic_split = dict(request.traffic_split) or shares

    def _add(self, _, request, __):
        """Experiments: a run is a child of its experiment, and has artifacts and executions."""
        for child in getattr(request, "child_contexts", ()):
            self.resources[child].parent_contexts.append(request.context)
        members = [*getattr(request, "artifacts", ()), *getattr(request, "executions", ())]
        self._members.setdefault(getattr(request, "context", ""), []).extend(members)

    # HTTP: Cloud Storage has objects; of every other service POST creates a document, GET and DELETE find it.

    def _http(self, adapter, request):
        url, body = urlsplit(request.url), request.body or b""
        body = body if isinstance(body, bytes) else body.read() if hasattr(body, "read") else body.encode()
        method = f"{request.method} https://{url.hostname}{unquote(url.path)}"
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        record = {"query": query, "body": body if "/upload/" in method else _loads(body)}
        self.calls.append((method, record))
        try:
            answer = next((answer for pattern, answer in self.answers.items() if _matches(pattern, method)), None)
            status, answer = 200, self._canned(answer, record)
            if answer is None:
                status, answer = self._rest(request.method, unquote(url.path), query, body)
        except exceptions.GoogleAPICallError as error:
            status, answer = error.code, {"error": {"code": error.code, "message": error.message}}
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        headers = {"Content-Length": str(len(content)), "Content-Type": "application/json", "Location": request.url}
        raw = urllib3.HTTPResponse(BytesIO(content), headers, status, preload_content=False)
        return adapter.build_response(request, raw)

    def _rest(self, verb, path, query, body):
        if re.match(r"(/upload|/download)?/storage/v1/b/[^/]+/o(/|$)", path):
            return self._objects(verb, path, query, body)
        if path.startswith("/upload/bigquery/"):  # its start is answered by an address, its content by the job
            return 200, {"jobReference": {"jobId": "load"}, "status": {"state": "DONE"}, "configuration": {"load": {}}}
        if (path.endswith("/iam") and verb == "PUT") or path.endswith(":setIamPolicy"):
            policy = _loads(body)
            self.documents[path.replace(":set", ":get")] = policy.get("policy", policy)
            return 200, policy.get("policy", policy)
        if path.endswith(("/iam", ":getIamPolicy")):
            return 200, self.documents.get(path, {})
        if verb == "POST":
            return (200, {}) if ":" in path.rpartition("/")[2] else self._post(path, _loads(body))
        if verb == "GET" and path not in self.documents and re.search(r"/(b|datasets|serviceAccounts)$", path):
            kind = {"b": "items"}.get(path.rpartition("/")[2], path.rpartition("/")[2])
            return 200, {kind: [each for name, each in self.documents.items() if name.rpartition("/")[0] == path]}
        if path not in self.documents:
            raise exceptions.NotFound(f"{path} was not found")
        if verb == "DELETE":
            for name in [name for name in self.documents if f"{name}/".startswith(f"{path}/")]:
                del self.documents[name]
            return 200, {}
        if verb in ("PATCH", "PUT"):
            self.documents[path] |= _loads(body)
        return 200, self.documents[path]

    def _post(self, path, document):
        """Create a document in a collection under the id that it gives itself."""
        reference = next((document[key] for key in document if key.endswith("Reference")), {})
        ids = [document.get(key) for key in ("accountId", "name")]
        ids += [reference.get(key) for key in ("jobId", "tableId", "datasetId")]
        name = f"{path}/{next((each for each in ids if each), len(self.calls))}".rstrip("/")
        if path.endswith("/serviceAccounts"):
            name += f"@{path.split('/')[3]}.iam.gserviceaccount.com"
            document = document["serviceAccount"]
        if path.endswith("/tables") and path.removesuffix("/tables") not in self.documents:
            raise exceptions.NotFound(f"{path.removesuffix('/tables')} was not found")
        if name in self.documents:
            raise exceptions.Conflict(f"{name} exists already")
        extra = {"projectNumber": PROJECT_NUMBER} if path.endswith("/b") else {}
        self.documents[name] = document | extra
        return 200, self.documents[name]

    def _objects(self, verb, path, query, body):
        if match := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path):
            parts = body.split(b"--" + body[2:].split(b"\r\n")[0])[1:3]
            metadata, content = (part.partition(b"\r\n\r\n")[2][:-2] for part in parts)
            name = json.loads(metadata)["name"]
            self.objects[f"gs://{match[1]}/{name}"] = content
            return 200, _blob(match[1], name, content)
        bucket, name = re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)/o(?:/(.+))?", path).groups()
        prefix = f"gs://{bucket}/"
        if not name:
            listed = [uri for uri in sorted(self.objects) if uri.startswith(prefix + query.get("prefix", ""))]
            blobs = [_blob(bucket, uri.removeprefix(prefix), self.objects[uri]) for uri in listed]
            return 200, {"items": blobs}
        if (content := self.objects.get(prefix + name)) is None:
            raise exceptions.NotFound(f"{prefix}{name} was not found")
        if verb == "DELETE":
            del self.objects[prefix + name]
            return 204, b""
        return 200, content if query.get("alt") == "media" else _blob(bucket, name, content)


def answer_build(request):
    """Answer that Cloud Build has made the images that it was asked for."""
    results = {"images": [{"name": name, "digest": DIGEST} for name in request.build.images]}
    operation = operations_pb2.Operation(name="operations/build", done=True)
    operation.response.Pack(pb(type(request.build)(results=results)))
    return operation


def plain(message):
    """Return a message as a dict in the shape of the REST API."""
    return MessageToDict(pb(message))


def pb(message):
    """Return the protobuf message in one of proto-plus."""
    return type(message).pb(message) if hasattr(type(message), "pb") else message


def fields(message):
    """Return the descriptors of a message's fields by name."""
    return pb(message).DESCRIPTOR.fields_by_name


def _matches(pattern, method):
    return " " in method and re.fullmatch(pattern, method) is not None


def _blob(bucket, name, content):
    return {"name": name, "bucket": bucket, "size": str(len(content)), "generation": "1"}


def _loads(body):
    try:
        return json.loads(body or b"{}")
    except ValueError:
        return body


def _name(request):
    return next(getattr(request, key) for key in ("name", "topic", "subscription") if key in fields(request))


def _succeeded(resource):
    """Set the successful state of a resource, and its time of creation, for which the SDK polls."""
    if "state" in fields(resource) and fields(resource)["state"].enum_type:
        good = [state for state in type(resource.state) if state.name.endswith(("SUCCEEDED", "ACTIVE"))]
        resource.state = good[0] if good else resource.state
    if "create_time" in fields(resource):
        resource.create_time = datetime.now(UTC)
    return resource
