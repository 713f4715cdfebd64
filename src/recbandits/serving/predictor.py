"""Answer prediction requests: instances in, recommendations out.

The two classes have the methods of the SDK's `Predictor` and `PredictionHandler` and do not import the SDK. Its model
server, `CprModelServer`, runs them as a custom prediction routine; so does `recbandits.serving.server`.
"""

import asyncio
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pkgutil import resolve_name
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.responses import Response as HttpResponse

from recbandits.serving import versions
from recbandits.serving.decisions import Recommendation
from recbandits.serving.metrics import Metrics
from recbandits.serving.outbox import DirectLog, Outbox
from recbandits.serving.schemas import Parameters, Prediction, Refusal, RefusalError, Request, Response
from recbandits.serving.sinks import SINK_VARIABLE, TOPIC_VARIABLE, PubSubSink, open_spool
from recbandits.serving.versions import TrafficSplit

MAX_BODY_BYTES = MAX_RESPONSE_BYTES = 1_500_000  # bytes, as on Vertex AI
MAX_CONCURRENT_PREDICTIONS = 32  # predictions at a time
MAX_CONCURRENT_LARGE_BODIES = 16  # that are read at a time
RELEASE_INTERVAL = 10.0  # seconds between two looks at it
_MAX_MESSAGE_LENGTH = 1000  # letters
_SMALL_BODY_BYTES, _FEW_CANDIDATES = 16_384, 5_000  # are answered in about a millisecond


class BanditPredictor:
    """Recommends with the policies of a release, which can be replaced while it answers."""

    def __init__(self):
        self._uri, self._served, self._lock = None, None, threading.Lock()

    @property
    def release(self) -> TrafficSplit | None:
        """The `TrafficSplit` that is served; None before there is one."""
        served = self._served
        return served and served.release

    def load(self, artifacts_uri: str | None, **_: Any) -> None:
        """Load a policy or a release, and follow the release that $RECBANDITS_RELEASE names; see `versions.find`."""
        followed = os.environ.get(versions.VARIABLE)
        self._uri = followed or artifacts_uri
        self._served = versions.find(self._uri)
        if followed:
            threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self):
        while True:
            time.sleep(RELEASE_INTERVAL)
            self.refresh()

    def refresh(self) -> None:
        """Serve the release that its URI has now; one that cannot be read or served leaves the present one."""
        try:
            release = versions.read(self._uri)
            if release is not None and release != self.release:
                self.replace(release)
        except Exception as error:  # of the bucket's client, too: the next look may succeed
            logging.warning("the release at %s cannot be served: %s", self._uri, error)

    def replace(self, release: TrafficSplit) -> None:
        """Load and verify the policies of another release, then serve it; after a ValueError the present one stays."""
        with self._lock:
            self._served = versions.serve(self._uri, release, self._served.policies if self._served else {})

    def withdraw(self) -> None:
        """Serve nothing, as before the first policy."""
        with self._lock:
            self._served = None

    def preprocess(self, prediction_input: bytes) -> Request:
        """Read a `Request` from bytes of JSON; raises `RefusalError`."""
        return Request.parse(prediction_input)

    def count_candidates(self, instances: Request) -> int:
        """Return the number of candidates to be scored; RefusalError for too many, or where nothing is served yet."""
        return instances.count_candidates(self._require_served().num_items)

    def predict(self, instances: Request) -> list[Recommendation | Refusal]:
        """Recommend for each instance of a `Request`.

        Raises:
          RefusalError: nothing is served yet, or the policy refuses an instance and the parameters do not ask for
            a `Refusal` in its place.
        """
        served, defaults = self._require_served(), instances.parameters or Parameters()
        results: list[Recommendation | Refusal] = []
        for number, instance in enumerate(instances.instances):
            try:
                results.append(served.recommend(instance, defaults))
            except ValueError as error:
                if not defaults.answer_refusals:
                    raise RefusalError(422, f"instances[{number}]: {error}"[:_MAX_MESSAGE_LENGTH]) from None
                results.append(Refusal(error=str(error)[:_MAX_MESSAGE_LENGTH]))
        return results

    def postprocess(self, prediction_results: Sequence[Recommendation | Refusal]) -> bytes:
        """Write results of `predict` as bytes of JSON, as `Response` says."""
        predictions = [
            each if isinstance(each, Refusal) else Prediction.model_validate(each) for each in prediction_results
        ]
        return Response.model_construct(predictions=predictions).model_dump_json().encode()

    def _require_served(self):
        served = self._served
        if served is None:
            raise RefusalError(503, "no policy is deployed yet")
        return served


class BanditHandler:
    """Handles HTTP requests with a predictor: limits, refusals with a message, the event log, metrics.

    Attributes:
      predictor: `BanditPredictor`
      metrics: `Metrics`
      outbox: the event log; None where $RECBANDITS_EVENT_TOPIC names no topic. It is an `Outbox` for Pub/Sub, with a
        spool as `open_spool` says. Where $RECBANDITS_EVENT_SINK is the "module:function" that opens a sink of that
        topic on this machine, it is a `DirectLog`: decisions are then kept before they are answered.
    """

    def __init__(self, artifacts_uri: str | None, predictor: Callable[[], BanditPredictor] | None = None):
        self.predictor = (predictor or BanditPredictor)()
        self.predictor.load(artifacts_uri)
        self.outbox = _open_log(os.environ.get(TOPIC_VARIABLE), os.environ.get(SINK_VARIABLE))
        self.metrics = Metrics(self.outbox)
        self._worker, self._writer = ThreadPoolExecutor(1, "scoring"), ThreadPoolExecutor(1, "log")
        self._active, self._writing = 0, None
        self._waiting: list[tuple[list[Recommendation], asyncio.Future]] = []
        self._large = asyncio.Semaphore(MAX_CONCURRENT_LARGE_BODIES)

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Answer one request, or refuse it with a status and a sentence."""
        start, status = time.perf_counter(), 500
        try:
            kind = request.headers.get("content-type", "")
            if kind.partition(";")[0].strip().lower() != "application/json":
                raise RefusalError(415, f"content-type must be application/json, got {kind[:100]!r}")
            answer = await self._answer(await read_body(request, self._large))
            status = 200
            return HttpResponse(answer, media_type="application/json")
        except RefusalError as refusal:
            status = refusal.status
            return problem(refusal)
        except Exception as error:  # its text may hold what the client must not see
            logging.exception("a prediction failed")
            return problem(RefusalError(500, f"internal error, {type(error).__name__}"))
        finally:
            self.metrics.count_request(status, time.perf_counter() - start)

    def close(self) -> None:
        """Deliver what waits in the outbox."""
        for thread in (self._worker, self._writer):
            thread.shutdown()
        if self.outbox:
            self.outbox.close()

    async def _answer(self, body):
        if self._active >= MAX_CONCURRENT_PREDICTIONS:
            raise RefusalError(503, f"{MAX_CONCURRENT_PREDICTIONS} predictions are under way already, try again later")
        self._active += 1
        try:
            # What is quick is answered at once; the rest in the worker thread, so that other connections are served.
            quick = self._predict(body, _FEW_CANDIDATES) if len(body) <= _SMALL_BODY_BYTES else None
            work = partial(asyncio.get_running_loop().run_in_executor, self._worker)
            results, decisions, answer = quick or await work(self._predict, body)
            self.metrics.count_predictions(getattr(each, "policy_version", "refused") for each in results)
            if not decisions or await self._record(decisions):
                return answer
            return self.predictor.postprocess(results)
        finally:
            self._active -= 1

    def _predict(self, body, most=math.inf):
        """Return the results, those to be logged, and the answer; None where more than `most` candidates are scored.

        Large bodies are parsed here, too, so that the worker has one request at a time in memory.
        """
        request = self.predictor.preprocess(body)
        if self.predictor.count_candidates(request) > most:
            return None
        results = self.predictor.predict(request)
        # A client that gives the seed decides what is drawn: its propensity is that of no exploration.
        marked = [
            each
            if self.outbox is None or instance.seed is not None or isinstance(each, Refusal)
            else each._replace(logged=True)
            for each, instance in zip(results, request.instances, strict=True)
        ]
        answer = self.predictor.postprocess(marked)
        if len(answer) > MAX_RESPONSE_BYTES:
            raise RefusalError(422, f"the answer must have at most {MAX_RESPONSE_BYTES:,} bytes, got {len(answer):,}")
        return results, [each for each in marked if isinstance(each, Recommendation) and each.logged], answer

    async def _record(self, decisions):
        """Log decisions, and return whether they are kept; a direct log writes those of waiting requests together."""
        if isinstance(self.outbox, Outbox):
            now = datetime.now(UTC)
            for decision in decisions:
                self.outbox.put(decision, now)
            return True
        kept = asyncio.get_running_loop().create_future()
        self._waiting.append((decisions, kept))
        if not self._writing:
            self._writing = asyncio.create_task(self._write())
        return await kept

    async def _write(self):
        write = partial(asyncio.get_running_loop().run_in_executor, self._writer, self.outbox.record)
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            results = await write([decisions for decisions, _ in waiting], datetime.now(UTC))
            for (_, kept), result in zip(waiting, results, strict=True):
                kept.set_result(result)
        self._writing = None


def _open_log(topic, sink):
    if not topic:
        return None
    if not sink:
        return Outbox(partial(PubSubSink, topic), open_spool=partial(open_spool, topic))
    return DirectLog(resolve_name(sink)(topic))


def problem(refusal: RefusalError) -> JSONResponse:
    """Return the response that refuses a request with a message."""
    return JSONResponse({"detail": str(refusal)}, refusal.status)


async def read_body(request: HttpRequest, semaphore: asyncio.Semaphore) -> bytes:
    """Read a body of at most `MAX_BODY_BYTES`; the semaphore bounds the number of large ones that are in memory."""
    too_large = RefusalError(413, f"the body must have at most {MAX_BODY_BYTES:,} bytes")
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 12 or int(length) > MAX_BODY_BYTES):
        raise too_large
    parts, size = [], 0
    async with AsyncExitStack() as stack:
        try:
            async for part in request.stream():
                if size <= _SMALL_BODY_BYTES < size + len(part):
                    await stack.enter_async_context(semaphore)
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise too_large
                parts.append(part)
        except ClientDisconnect:
            raise RefusalError(400, "the connection ended before the body") from None
    return b"".join(parts)
