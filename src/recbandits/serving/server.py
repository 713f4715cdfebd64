"""The prediction server: python -m recbandits.serving.server, or `create` as a factory for uvicorn.

It reads the environment variables that Vertex AI sets: AIP_HTTP_PORT, AIP_HEALTH_ROUTE, AIP_PREDICT_ROUTE and
AIP_STORAGE_URI, and those of its custom prediction routines: HANDLER_MODULE, HANDLER_CLASS, PREDICTOR_MODULE and
PREDICTOR_CLASS, which have defaults here. The SDK's own server, `CprModelServer`, runs the same handler and predictor,
but has no other routes. On Vertex AI, only the health and prediction routes are reachable; elsewhere, the routes that
change the release answer callers on the same machine only.
"""

import argparse
import importlib
import json
import os
import sys
from contextlib import asynccontextmanager

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic.json_schema import models_json_schema
from starlette.routing import Route

from recbandits.serving.schemas import Problem, ReleaseDocument, Request, Response, sentence
from recbandits.serving.traffic_split import TrafficSplit

DEFAULTS = {
    "AIP_HTTP_PORT": "8080",
    "AIP_HEALTH_ROUTE": "/health",
    "AIP_PREDICT_ROUTE": "/predict",
    "HANDLER_MODULE": "recbandits.serving.predictor",
    "HANDLER_CLASS": "BanditHandler",
    "PREDICTOR_MODULE": "recbandits.serving.predictor",
    "PREDICTOR_CLASS": "BanditPredictor",
}
_TURN = 0.0005  # seconds until a thread that waits gets its turn: the event log must not hold up answers for 5 ms
_LAST_REQUESTS = 2  # seconds for requests under way when the process is told to end; the event log is delivered next
_REFUSALS = {
    400: "the body is not JSON",
    413: "the body is too large",
    415: "the content type is another one",
    422: "the body is JSON, but no request that the policy can answer",
    503: "no policy is deployed yet",
}


def create() -> FastAPI:
    """Build the ASGI application and load the policy at AIP_STORAGE_URI.

    Returns:
      the application, with the health and prediction routes, /ready, /metrics and /release.

    Raises:
      ValueError: the policy cannot be served.
    """
    settings = DEFAULTS | os.environ
    sys.setswitchinterval(_TURN)
    handler = _load_class(settings, "HANDLER")(settings.get("AIP_STORAGE_URI"), _load_class(settings, "PREDICTOR"))

    @asynccontextmanager
    async def lifespan(_):
        yield
        handler.close()

    async def predict(request):
        return await handler.handle(request)

    app = FastAPI(title="RecBandits", version="2", lifespan=lifespan)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(Exception, _fail)
    # A route of Starlette's: the body goes to the handler as it is, without FastAPI's search for parameters.
    app.router.routes.append(Route(settings["AIP_PREDICT_ROUTE"], predict, methods=["POST"]))
    _add_routes(app, handler, settings["AIP_HEALTH_ROUTE"])
    app.openapi = lambda: _document(app, settings["AIP_PREDICT_ROUTE"])
    return app


def _load_class(settings, kind):
    return getattr(importlib.import_module(settings[f"{kind}_MODULE"]), settings[f"{kind}_CLASS"])


def _add_routes(app, handler, health_route):
    # In our words: those of HTTP differ between versions of Python.
    reasons = {403: "the caller is on another machine", 422: "the release cannot be served"}
    refusals = {status: {"model": Problem, "description": why} for status, why in reasons.items()}
    for_us = {"dependencies": [Depends(_refuse_strangers)], "responses": refusals}

    @app.get(health_route)
    async def health() -> dict:
        """Answer while the process runs; `ready` also says that a policy is loaded."""
        return {}

    @app.get("/ready", responses={503: {"model": Problem, "description": _REFUSALS[503]}})
    def ready() -> dict[str, bool]:
        """Answer once a policy is loaded."""
        if handler.predictor.release is None:
            raise HTTPException(503, "no policy is deployed yet")
        return {"ready": True}

    @app.get("/metrics")
    def metrics() -> dict:
        """What was counted since the start."""
        counted = handler.metrics.snapshot() | {"outbox": handler.outbox and handler.outbox.counters}
        return counted | {"process": os.getpid(), "tensorflow": "tensorflow" in sys.modules}

    @app.get("/release", **for_us)
    def get_release() -> ReleaseDocument:
        """Which versions answer, and the shares before the last change."""
        return _shown(handler.predictor.release)

    @app.put("/release", **for_us)
    def put_release(document: ReleaseDocument) -> ReleaseDocument:
        """Serve another release: its new versions are loaded and verified before anybody meets them."""
        present = handler.predictor.release
        previous = document.previous if "previous" in document.model_fields_set else present and present.shares
        try:
            handler.predictor.replace(TrafficSplit(document.shares, previous))
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return _shown(handler.predictor.release)

    @app.delete("/release", **for_us)
    def delete_release() -> ReleaseDocument:
        """Serve nothing any more, until the next release."""
        handler.predictor.withdraw()
        return _shown(None)


def _shown(release):
    return ReleaseDocument(**vars(release)) if release else ReleaseDocument(shares={})


def _refuse_strangers(request: HttpRequest):
    if request.client is None or request.client.host not in ("127.0.0.1", "::1"):
        raise HTTPException(403, "the release can be seen and changed from the same machine only")


async def _refuse(_, error):
    """The same form for the other routes as for predictions: one sentence."""
    errors = [each | {"loc": each["loc"][1:]} for each in error.errors()]  # without "body"
    return JSONResponse({"detail": sentence(errors, ReleaseDocument)}, status_code=422)


async def _fail(_, error):
    """Hide an unexpected error, which the server logs with its traceback."""
    return JSONResponse({"detail": f"internal error, {type(error).__name__}"}, status_code=500)


def _document(app, predict_route):
    """The OpenAPI document: what FastAPI knows, and what the predict route takes and gives."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    form = "#/components/schemas/{model}"
    modes = [(Request, "validation"), (Response, "serialization"), (Problem, "serialization")]
    document["components"]["schemas"] |= models_json_schema(modes, ref_template=form)[1]["$defs"]

    def content(model):
        return {"content": {"application/json": {"schema": {"$ref": form.format(model=model.__name__)}}}}

    responses = {"200": {"description": "Successful Response"} | content(Response)}
    responses |= {str(status): {"description": why} | content(Problem) for status, why in _REFUSALS.items()}
    description = {"summary": "Predict", "description": "Recommend actions, one prediction for each instance."}
    body = {"operationId": "predict", "requestBody": content(Request) | {"required": True}, "responses": responses}
    document["paths"][predict_route] = {"post": description | body}
    return document


def main():
    """Start the prediction server, or print its OpenAPI document."""
    parser = argparse.ArgumentParser(prog="python -m recbandits.serving.server", description=main.__doc__)
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all)")
    parser.add_argument("--openapi", action="store_true", help="print the OpenAPI document instead")
    arguments = parser.parse_args()
    if arguments.openapi:
        os.environ |= DEFAULTS | {"AIP_STORAGE_URI": ""}
        print(json.dumps(create().openapi(), indent=2))
        return
    port = int(os.environ.get("AIP_HTTP_PORT", DEFAULTS["AIP_HTTP_PORT"]))
    uvicorn.run(
        f"{__spec__.name}:create",
        factory=True,
        host=arguments.host,
        port=port,
        workers=1,
        access_log=False,
        timeout_graceful_shutdown=_LAST_REQUESTS,
    )


if __name__ == "__main__":
    main()
