"""A rehearsal of Google Cloud: the real clients talk to this process and every request can be read.

It answers as the services do where the project depends on it (created, exists already, not found, long-running
operations that are done, policies with an etag) and knows nothing else. Documents live in a dict, under the path that
GET asks for.

A service is a module with `ROUTES`, and is named in `SERVICES`. A route is (method, pattern, answer): the first pattern
that matches the whole path is answered by `answer(documents, request, *groups)`, which gives (status, document); see
`answers` for what most of them need.
"""

import os
import re
import threading
from dataclasses import replace
from http.server import ThreadingHTTPServer
from tempfile import TemporaryDirectory

from recbandits.platforms.gcp.rehearsal import (
    bigquery,
    cloud_build,
    functions,
    metadata,
    project,
    pubsub,
    storage,
    vertex,
)
from recbandits.platforms.gcp.rehearsal.answers import Request, error
from recbandits.platforms.gcp.rehearsal.project import PROJECT_NUMBER
from recbandits.platforms.gcp.rehearsal.server import handler

__all__ = ["PROJECT_NUMBER", "SERVICES", "Rehearsal", "Request", "error", "rehearse"]
SERVICES = (project, bigquery, storage, cloud_build, vertex, metadata, pubsub, functions)


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
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self._receive))
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
        for service in SERVICES:
            for method, pattern, answer in service.ROUTES:
                if request.method == method and (found := re.fullmatch(pattern, request.path)):
                    return answer(self.documents, request, *found.groups())
        return error(404, f"{request.method} {request.path} is not rehearsed")

    def _receive(self, request):
        with self._turn:
            self.requests.append(request)
            try:
                return self.answer(request)
            except (LookupError, TypeError, ValueError, AttributeError) as problem:
                return error(400, f"{request.method} {request.path} is rehearsed, but not like this: {problem!r}")


def rehearse(config, call, everything=False):
    """Make a call to Google Cloud without Google Cloud, to see the requests.

    Args:
      config: Config of any platform; without a project it is given one that is named "rehearsal".
      call: gets a `GcpPlatform`.
      everything: whether to include the requests that only look.

    Returns:
      list of `Request`, in order.
    """
    from recbandits.platforms.gcp import GcpPlatform

    with Rehearsal() as cloud, TemporaryDirectory() as folder:  # for the manifest of what is made for nobody
        config = replace(config, platform="gcp", project=config.project or "rehearsal", artifacts=folder)
        call(GcpPlatform(config, cloud.endpoint))
        return [request for request in cloud.requests if everything or request.method != "GET"]
