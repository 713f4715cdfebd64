"""A rehearsal of Google Cloud: the real clients talk to this process and every request can be read.

It answers as the services do where the project depends on it (created, exists already, not found, long-running
operations that are done, policies with an etag) and knows nothing else. Documents live in a dict, under the path that
GET asks for.
"""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

PROJECT_NUMBER = "1234567890"


class Request(NamedTuple):
    """One request as it arrived."""

    method: str
    path: str
    query: dict
    body: dict


class Rehearsal:
    """A small in-memory cloud on a loopback port, for use in a `with` block.

    Attributes:
      requests: list of `Request`, in order of arrival.
      documents: dict from path to resource.
      endpoint: address to give to the clients.
    """

    def __init__(self):
        self.requests = []
        self.documents = {}
        self._turn = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._receive))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self):
        # Clients ask the environment for a proxy; the way to this process leads through none.
        self._no_proxy = os.environ.get("no_proxy")
        exceptions = [self._no_proxy, os.environ.get("NO_PROXY"), "127.0.0.1"]
        os.environ["no_proxy"] = ",".join(filter(None, exceptions))
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        if self._no_proxy is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = self._no_proxy

    def answer(self, request):
        """Give the status and the JSON document that a `Request` gets."""
        path, _, verb = request.path.partition(":")
        if verb:
            return _VERBS[verb](self.documents, path, request.body)
        return _METHODS[request.method](self.documents, request)

    def _receive(self, request):
        with self._turn:
            self.requests.append(request)
            return self.answer(request)


def error(status, message):
    """The answer of a service that refuses: (status, document)."""
    return status, {"error": {"code": status, "message": message}}


def _get(documents, request):
    if request.path in documents:
        return 200, documents[request.path]
    if request.path.startswith("/v3/projects/"):
        return 200, {"name": f"projects/{PROJECT_NUMBER}"}
    if "/services/" in request.path:
        return 200, {"name": request.path, "state": "DISABLED"}
    if request.path.endswith("/o"):
        return 200, {"items": [item for path, item in documents.items() if path.startswith(f"{request.path}/")]}
    return error(404, f"{request.path} was not found")


def _post(documents, request):
    path = f"{request.path}/{_new_id(request)}"
    if path in documents:
        return error(409, f"{path} exists already")
    documents[path] = request.body | {"projectNumber": PROJECT_NUMBER}
    return 200, _done("devtools.artifactregistry.v1.Repository") if "/locations/" in path else request.body


def _delete(documents, request):
    if documents.pop(request.path, None) is None:
        return error(404, f"{request.path} was not found")
    return 200, _done("protobuf.Empty") if "/locations/" in request.path else {}


def _new_id(request):
    """The id that the client chose, wherever its service wants it."""
    body, project = request.body, request.path.split("/")[-2]
    if "accountId" in body:
        return f"{body['accountId']}@{project}.iam.gserviceaccount.com"
    if "datasetReference" in body:
        return body["datasetReference"]["datasetId"]
    return request.query.get("repositoryId") or body["name"]


def _enable(documents, path, _):
    documents[path] = {"name": path, "state": "ENABLED"}
    return 200, _done("api.serviceusage.v1.EnableServiceResponse")


def _get_policy(documents, path, _):
    return 200, documents.setdefault(f"{path}:policy", {"version": 1, "etag": "MA=="})


def _set_policy(documents, path, body):
    stored = documents[f"{path}:policy"]
    if body["policy"].get("etag") != stored["etag"]:
        return error(409, "there were concurrent policy changes")
    documents[f"{path}:policy"] = body["policy"] | {"etag": "MA==" if stored["etag"] == "MQ==" else "MQ=="}
    return 200, documents[f"{path}:policy"]


def _done(kind):
    """A long-running operation that has ended with an answer of that kind."""
    return {"name": "operations/1", "done": True, "response": {"@type": f"type.googleapis.com/google.{kind}"}}


_METHODS = {"GET": _get, "POST": _post, "DELETE": _delete}
_VERBS = {"enable": _enable, "getIamPolicy": _get_policy, "setIamPolicy": _set_policy}


def _handler(receive):
    class Handler(BaseHTTPRequestHandler):
        def serve(self):
            url = urlsplit(self.path)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            status, document = receive(Request(self.command, unquote(url.path), dict(parse_qsl(url.query)), body))
            answer = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815

        def log_message(self, *_):
            """Stay silent: the requests are kept."""

    return Handler
