"""Answer HTTP requests with a predictor: limits, refusals with a message, the event log, metrics.

`BanditHandler` has the methods of the SDK's `PredictionHandler`. The SDK's model server, `CprModelServer`, runs it as a
part of a custom prediction routine; so does `recbandits.serving.server`.
"""

import asyncio
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from pkgutil import resolve_name

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.responses import Response as HttpResponse

from recbandits.serving.decisions import Recommendation
from recbandits.serving.outbox import DirectLog, Outbox
from recbandits.serving.predictor import BanditPredictor
from recbandits.serving.schemas import Refusal, RefusalError
from recbandits.serving.sinks import SINK_VARIABLE, TOPIC_VARIABLE, PubSubSink, open_spool

MAX_BODY_BYTES = MAX_RESPONSE_BYTES = 1_500_000  # bytes, as on Vertex AI
MAX_CONCURRENT_PREDICTIONS = 32  # predictions at a time
MAX_CONCURRENT_LARGE_BODIES = 16  # that are read at a time
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # upper bounds in seconds
_SMALL_BODY_BYTES, _FEW_CANDIDATES = 16_384, 5_000  # are answered in about a millisecond


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
            self.metrics.requests.labels(str(status)).inc()
            self.metrics.seconds.observe(time.perf_counter() - start)

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
            for each in results:
                self.metrics.predictions.labels(getattr(each, "policy_version", "refused")).inc()
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
                if not kept.done():  # its request may have been cancelled, and others wait behind it
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
    if not size and "upgrade" in request.headers:  # the parser takes what follows for another protocol
        raise RefusalError(400, "the request must not ask for an upgrade: use HTTP/1.1")
    return b"".join(parts)


class Metrics:
    """Counts since the start of a server, in a registry of their own; those of its event log are among them.

    Attributes:
      requests: counter of prediction requests, with the label "status".
      predictions: counter of predictions, whose label "version" is that of the policy, or "refused".
      seconds: histogram of the seconds from the headers of a prediction request to its answer.
    """

    def __init__(self, event_log: Outbox | DirectLog | None = None):
        self._registry, self._event_log = (registry := CollectorRegistry()), event_log
        ProcessCollector(registry=registry)
        requests, predictions = "Prediction requests by HTTP status.", "Predictions by policy version."
        self.requests = Counter("recbandits_requests", requests, ["status"], registry=registry)
        self.predictions = Counter("recbandits_predictions", predictions, ["version"], registry=registry)
        seconds = "Seconds from the headers of a prediction request to its answer."
        self.seconds = Histogram("recbandits_request_seconds", seconds, registry=registry, buckets=_BUCKETS)
        self._outbox = Gauge("recbandits_outbox", "Counters of the event log.", ["counter"], registry=registry)
        server = "Process id, and whether TensorFlow is loaded."
        self._server = Info("recbandits_server", server, registry=registry)

    def text(self) -> bytes:
        """Return all metrics as bytes in the text format of Prometheus."""
        self._server.info({"process": str(os.getpid()), "tensorflow": str("tensorflow" in sys.modules)})
        for name, value in (self._event_log.counters if self._event_log else {}).items():
            self._outbox.labels(name).set(value)
        return generate_latest(self._registry)


def read_metrics(text: str) -> dict:
    """Read the metrics of a prediction server from the text that it answers.

    Returns:
      dict: "requests", their number; "statuses", "versions" and "outbox", dicts of counts by HTTP status, by policy
      version and by counter of the event log; "process", the id of the process; "tensorflow", whether it is loaded.
    """
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def by_label(name):
        return {next(iter(each.labels.values())): int(each.value) for each in samples if each.name == name}

    (server,) = (each.labels for each in samples if each.name == "recbandits_server_info")
    statuses = by_label("recbandits_requests_total")
    return {
        "requests": sum(statuses.values()),
        "statuses": statuses,
        "versions": by_label("recbandits_predictions_total"),
        "outbox": by_label("recbandits_outbox"),
        "process": int(server["process"]),
        "tensorflow": server["tensorflow"] == "True",
    }
