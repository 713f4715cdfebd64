"""The prediction server: python -m recbandits.serving.server, or `create` as a factory for uvicorn.

It reads AIP_STORAGE_URI and, with `DEFAULTS`, the variables that Vertex AI sets for servers. The server of the SDK,
`CprModelServer`, runs the same handler and predictor, but has no other routes. On Vertex AI, only the health and
prediction routes are reachable; elsewhere, the routes that change the release need the token in RECBANDITS_ADMIN_TOKEN,
and are closed where there is none. Where RECBANDITS_RELEASE names a release, in a directory or a bucket, the server
follows that one instead.
"""

import argparse
import asyncio
import ctypes
import hmac
import json
import os
import re
import socket
import sys
from asyncio import Transport
from collections.abc import Callable
from inspect import isawaitable
from pathlib import Path

import uvicorn
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.responses import Response as HttpResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from recbandits.checks import require
from recbandits.serving.handler import BanditHandler, problem, read_body
from recbandits.serving.schemas import RefusalError, ReleaseDocument, openapi
from recbandits.serving.versions import TrafficSplit

DEFAULTS = {"AIP_HTTP_PORT": "8080", "AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/predict"}
TOKEN_VARIABLE = "RECBANDITS_ADMIN_TOKEN"
_SWITCH_INTERVAL = 0.0005  # seconds until a waiting thread runs: the event log must not delay answers by 5 ms
_SHUTDOWN_TIMEOUT = 2  # seconds for requests in progress when the process has to end; the event log is delivered next
_TRIM_INTERVAL = 2  # seconds between two returns of free memory, each of which takes less than a millisecond
_HOSTS = ("127.0.0.1", "localhost", "[::1]")
CLIENT_TIMEOUT = 10.0  # for the answer to be taken and the next head to come, and as long again for the body
MAX_CONNECTIONS = 128
MAX_PIPELINED = 8  # requests that wait behind another one of their connection
MAX_HEAD_BYTES = 65_536  # bytes of a request but its body: the head, and the frames and trailers of chunks


class BoundedProtocol(HttpToolsProtocol):
    """A connection by uvicorn's protocol, which would wait for its client without end, with limits.

    A client that exceeds `CLIENT_TIMEOUT` is disconnected. Over `MAX_CONNECTIONS` the client that has kept the server
    waiting longest is disconnected, so that a request that is sent at once, such as a health check, is always answered.
    """

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for the client, in place of another one where there are too many."""
        super().connection_made(transport)
        self._waiting_since: float | None = self.loop.time()  # None while it is the server's turn
        self._head = 0  # bytes of the present request, but for its body
        self._timer = self.loop.call_later(CLIENT_TIMEOUT, self._check_deadline)
        if len(self.connections) > MAX_CONNECTIONS:
            self._disconnect_slowest()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the waiting."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, but no head that is too large, and no trailers, which would be kept like it."""
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD_BYTES:
            self.send_400_response(f"a request must have at most {MAX_HEAD_BYTES:,} bytes but for its body")

    def on_headers_complete(self) -> None:
        """Wait for the body; the parser refuses what comes after an exception."""
        if len(self.pipeline) == MAX_PIPELINED:  # uvicorn reads on after every answer, so that more and more would wait
            raise ValueError("a client must read its answers before it sends more requests")
        super().on_headers_complete()
        self._waiting_since = self.loop.time()

    def on_body(self, body: bytes) -> None:
        """Take the body out of the count."""
        super().on_body(body)
        self._head -= len(body)

    def on_message_complete(self) -> None:
        """Answer; unless that was done before the body was read."""
        super().on_message_complete()
        self._head = 0  # of the next request, what came in the same read is not counted
        if not self.cycle.response_complete and not self.flow.write_paused:
            self._waiting_since = None

    def on_response_complete(self) -> None:
        """Wait until the answer is taken and the next request comes."""
        super().on_response_complete()
        if self.cycle.response_complete:  # no request was sent behind this one
            self._waiting_since = self.loop.time()

    def pause_writing(self) -> None:
        """Wait until the answer is taken, before which no later request of the connection can be answered."""
        super().pause_writing()
        self._waiting_since = self.loop.time()

    def resume_writing(self) -> None:
        """Answer on, if a request has been read."""
        super().resume_writing()
        if not self.cycle.response_complete and not self.cycle.more_body:
            self._waiting_since = None

    def _check_deadline(self) -> None:
        """Close the connection if its client has used up its time, else look again when it will have."""
        left = CLIENT_TIMEOUT
        if self._waiting_since is not None:
            left += self._waiting_since - self.loop.time()
        if left <= 0:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(left, self._check_deadline)

    def _disconnect_slowest(self) -> None:
        others = (each for each in self.connections if isinstance(each, BoundedProtocol) and each is not self)
        waiting = {each: each._waiting_since for each in others if each._waiting_since is not None}
        longest = min(waiting, key=waiting.__getitem__, default=self)
        self.connections.discard(longest)
        longest.transport.abort()


class Application:
    """The ASGI application around a handler; its settings are the environment, with the defaults of this module."""

    def __init__(self, handler: BanditHandler, settings: dict):
        self._handler, self._token = handler, settings.get(TOKEN_VARIABLE, "")
        self._semaphore = asyncio.Semaphore(1)
        health, predict = settings["AIP_HEALTH_ROUTE"], settings["AIP_PREDICT_ROUTE"]
        for name in ("AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE"):
            require(settings[name].startswith("/"), name, "a path that begins with '/'", settings[name])
        document = openapi(health, predict)
        self._routes: dict[str, dict[str, Callable]] = {
            predict: {"POST": handler.handle},
            health: {"GET": self._health},
            "/live": {"GET": lambda _: JSONResponse({})},
            "/metrics": {"GET": lambda _: HttpResponse(handler.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)},
            "/openapi.json": {"GET": lambda _: JSONResponse(document)},
            "/release": {"GET": self._show_release, "PUT": self._put_release, "DELETE": self._delete_release},
        }
        names, others = "AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE", "/live, /metrics, /openapi.json and /release"
        require(len(self._routes) == 6, names, f"two paths, and none of {others}", (health, predict))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan of the server."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        else:
            response = await self._respond(HttpRequest(scope, receive))
            await response(scope, receive, send)

    async def _run_lifespan(self, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        trimming = asyncio.create_task(_trim_memory())
        await receive()
        trimming.cancel()
        await asyncio.to_thread(self._handler.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, request):
        path, method = request.scope["path"], request.scope["method"].replace("HEAD", "GET")
        methods = self._routes.get(path)
        try:
            if methods is None:
                raise RefusalError(404, f"path must be one of {', '.join(self._routes)}, got {path[:100]!r}")
            if method not in methods:
                raise RefusalError(405, f"method must be {' or '.join(methods)}, got {method[:20]!r}")
            if path == "/release":
                self._authorise(request)
            answer = methods[method](request)
            return await answer if isawaitable(answer) else answer
        except RefusalError as refusal:
            return problem(refusal)

    def _authorise(self, request):
        """Refuse clients without the token, and web pages that reach this machine under a name of their own."""
        _, port = request.scope["server"]  # None on a UNIX socket
        allowed = [f"{name}:{port}" for name in _HOSTS] if port else ["localhost"]
        if (host := request.headers.get("host", "")) not in allowed:
            raise RefusalError(403, f"host must be {' or '.join(allowed)} for the release, got {host[:100]!r}")
        if not self._token:
            raise RefusalError(403, f"the release is closed, because the server was started without {TOKEN_VARIABLE}")
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {self._token}".encode()):
            raise RefusalError(403, f"authorization must be 'Bearer' and the token in {TOKEN_VARIABLE}")

    def _health(self, _):
        if self._handler.predictor.release is None:
            raise RefusalError(503, "no policy is deployed yet")
        return JSONResponse({})

    def _show_release(self, _):
        release = self._handler.predictor.release
        return JSONResponse(ReleaseDocument(**vars(release) if release else {"shares": {}}).model_dump())

    async def _put_release(self, request):
        document, predictor = ReleaseDocument.parse(await read_body(request, self._semaphore)), self._handler.predictor
        present = predictor.release
        previous = document.previous if "previous" in document.model_fields_set else present and present.shares
        try:
            await asyncio.to_thread(predictor.replace, TrafficSplit(document.shares, previous))
        except ValueError as error:
            raise RefusalError(422, str(error)) from None
        return self._show_release(request)

    def _delete_release(self, request):
        self._handler.predictor.withdraw()
        return self._show_release(request)


async def _trim_memory():
    """Return free memory to the system at intervals, which the C library of Linux does on request."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    while hasattr(library, "malloc_trim"):
        await asyncio.sleep(_TRIM_INTERVAL)
        library.malloc_trim(0)


def create() -> Application:
    """Build the ASGI application and load the policy at AIP_STORAGE_URI.

    A ValueError says why it cannot be served, or which variable is wrong.
    """
    settings = DEFAULTS | os.environ
    sys.setswitchinterval(_SWITCH_INTERVAL)
    return Application(BanditHandler(settings.get("AIP_STORAGE_URI")), settings)


def main() -> None:
    """Start the prediction server, or print its OpenAPI document."""
    parser = argparse.ArgumentParser(prog="python -m recbandits.serving.server", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--uds", help="UNIX socket to listen on instead, which is made for this user alone")
    parser.add_argument("--openapi", action="store_true", help="print the OpenAPI document instead")
    arguments = parser.parse_args()
    if arguments.openapi:
        print(json.dumps(openapi(DEFAULTS["AIP_HEALTH_ROUTE"], DEFAULTS["AIP_PREDICT_ROUTE"]), indent=2))
        return
    try:
        config = uvicorn.Config(
            f"{__spec__.name}:create",
            factory=True,
            host=arguments.host,
            port=_read_port((DEFAULTS | os.environ)["AIP_HTTP_PORT"]),
            http=BoundedProtocol,
            ws="none",
            access_log=False,
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT,
        )
        sockets = [_bind(arguments.uds)] if arguments.uds else None
        config.load()  # which calls `create`
    except (ValueError, OSError) as error:
        sys.exit(f"the server could not start: {error}")
    uvicorn.Server(config).run(sockets)


def _read_port(text):
    known = re.fullmatch("[0-9]{1,5}", text) is not None and 1 <= int(text) <= 65_535
    require(known, "AIP_HTTP_PORT", "a whole number from 1 to 65535", text)
    return int(text)


def _bind(path):
    """Return a socket at a path, in place of one that a server left there; a ValueError says why there is none."""
    listener, mask = socket.socket(socket.AF_UNIX), os.umask(0o177)
    try:
        if Path(path).is_socket():
            os.unlink(path)
        listener.bind(path)
        listener.listen()
    except OSError as error:
        raise ValueError(f"uds must be a path at which a socket can be made, got {path!r}: {error}") from error
    finally:
        os.umask(mask)
    return listener


if __name__ == "__main__":
    main()
