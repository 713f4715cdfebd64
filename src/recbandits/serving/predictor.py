"""Answer prediction requests: instances in, recommendations out.

The two classes have the methods of the SDK's `Predictor` and `PredictionHandler` and do not import the SDK. Its model
server, `CprModelServer`, runs them as a custom prediction routine; so does `recbandits.serving.server`.
"""

import asyncio
import importlib
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.responses import Response as HttpResponse

from recbandits.serving import versions
from recbandits.serving.metrics import Metrics
from recbandits.serving.outbox import DirectLog, Outbox
from recbandits.serving.schemas import Parameters, Prediction, RefusalError, Request, Response
from recbandits.serving.sinks import PubSubSink, open_spool

LARGEST_BODY = LARGEST_ANSWER = 1_500_000  # bytes, as on Vertex AI
MOST_UNDER_WAY = 32  # predictions at a time
MOST_LARGE_BODIES = 16  # that are read at a time
TOPIC_VARIABLE = "RECBANDITS_EVENT_TOPIC"  # "projects/<project>/topics/<topic>"; without it nothing is logged
SINK_VARIABLE = "RECBANDITS_EVENT_SINK"
_LONGEST_SENTENCE = 1000  # letters
SHORT_BODY, _SHORT_WORK = 16_384, 5_000  # bytes and candidates that are answered in about a millisecond


class BanditPredictor:
    """Answers with the policies of a release, which can be replaced while it does."""

    def __init__(self):
        self._uri, self._served, self._turn = None, None, threading.Lock()

    @property
    def release(self):
        """The `TrafficSplit` that is served; None before there is one."""
        served = self._served
        return served and served.release

    def load(self, artifacts_uri, **_):
        """Load a policy or a release; see `versions.find`."""
        self._uri, self._served = artifacts_uri, versions.find(artifacts_uri)

    def replace(self, release):
        """Serve another `TrafficSplit`: the next request after it was loaded and verified is the first that it answers.

        Raises:
          ValueError: it cannot be served; the present one goes on.
        """
        with self._turn:
            self._served = versions.serve(self._uri, release, self._served.policies if self._served else {})

    def withdraw(self):
        """Serve nothing, as before the first policy."""
        with self._turn:
            self._served = None

    def preprocess(self, prediction_input):
        """A `Request` from bytes of JSON; a `RefusalError` if they are none."""
        return Request.parse(prediction_input)

    def weigh(self, instances):
        """Number of candidates that a `Request` has scored.

        Raises:
          RefusalError: nothing is served yet, or all instances together ask for too much.
        """
        if self._served is None:
            raise RefusalError(503, "no policy is deployed yet")
        return instances.weigh(self._served.known)

    def predict(self, instances):
        """List of `Recommendation`, one for each instance of a `Request`.

        Raises:
          RefusalError: nothing is served yet, or the policy refuses an instance.
        """
        served, defaults = self._served, instances.parameters or Parameters()
        if served is None:
            raise RefusalError(503, "no policy is deployed yet")
        recommendations = []
        for number, instance in enumerate(instances.instances):
            try:
                recommendations.append(served.recommend(instance, defaults))
            except ValueError as error:
                raise RefusalError(422, f"instances[{number}]: {error}"[:_LONGEST_SENTENCE]) from None
        return recommendations

    def postprocess(self, prediction_results):
        """Bytes of JSON, as `Response` says."""
        predictions = [Prediction.model_validate(each) for each in prediction_results]
        return Response.model_construct(predictions=predictions).model_dump_json().encode()


class BanditHandler:
    """What stands between HTTP and the predictor: limits, refusals with a sentence, the event log, metrics.

    Attributes:
      predictor: `BanditPredictor`
      metrics: `Metrics`
      outbox: the event log; None where $RECBANDITS_EVENT_TOPIC names no topic. It is an `Outbox` for Pub/Sub, with a
        spool as `open_spool` says. Where $RECBANDITS_EVENT_SINK is the "module:function" that opens a sink of that
        topic on this machine, it is a `DirectLog`: decisions are then kept before they are answered.
    """

    def __init__(self, artifacts_uri, predictor=None):
        topic = os.environ.get(TOPIC_VARIABLE)
        self.predictor = (predictor or BanditPredictor)()
        self.predictor.load(artifacts_uri)
        self.outbox = _open_log(topic, os.environ.get(SINK_VARIABLE)) if topic else None
        self.metrics = Metrics(self.outbox)
        self._worker, self._writer = ThreadPoolExecutor(1, "scoring"), ThreadPoolExecutor(1, "log")
        self._under_way, self._waiting, self._writing = 0, [], None
        self._large = asyncio.Semaphore(MOST_LARGE_BODIES)

    async def handle(self, request):
        """Answer one request: 200, or what is wrong by a status and a sentence."""
        start, status = time.perf_counter(), 500
        try:
            _check_type(request.headers)
            answer = await self._answer_in_turn(await read_body(request, self._large))
            status = 200
            return HttpResponse(answer, media_type="application/json")
        except RefusalError as refusal:
            status = refusal.status
            return problem(status, str(refusal))
        except Exception as error:  # its text may tell what is nobody's business
            logging.exception("a prediction failed")
            return problem(500, f"internal error, {type(error).__name__}")
        finally:
            self.metrics.count_request(status, time.perf_counter() - start)

    def close(self):
        """Deliver what waits in the outbox."""
        for thread in (self._worker, self._writer):
            thread.shutdown()
        if self.outbox:
            self.outbox.close()

    async def _answer_in_turn(self, body):
        if self._under_way >= MOST_UNDER_WAY:
            raise RefusalError(503, f"{MOST_UNDER_WAY} predictions are under way already, try again later")
        self._under_way += 1
        try:
            recommendations, answer = await self._recommend(body)
            self.metrics.count_predictions(recommendations)
            decisions = [each for each in recommendations if each.logged]
            if not decisions or await self._record(decisions):
                return answer
            return self.predictor.postprocess([each._replace(logged=False) for each in recommendations])
        finally:
            self._under_way -= 1

    async def _recommend(self, body):
        """Recommend at once where that is short, else in the worker thread, so that other connections are served."""
        work = partial(asyncio.get_running_loop().run_in_executor, self._worker)
        if len(body) > SHORT_BODY:
            return await work(self._recommend_long, body)
        request = self.predictor.preprocess(body)
        short = self.predictor.weigh(request) <= _SHORT_WORK
        return self._recommend_to(request) if short else await work(self._recommend_to, request)

    def _recommend_long(self, body):
        request = self.predictor.preprocess(body)
        self.predictor.weigh(request)
        return self._recommend_to(request)

    def _recommend_to(self, request):
        """Return recommendations and the answer, not yet logged."""
        recommendations = [
            # Whoever gives the seed knows what is drawn: that is no exploration, whatever its propensity.
            each._replace(logged=self.outbox is not None and instance.seed is None)
            for each, instance in zip(self.predictor.predict(request), request.instances, strict=True)
        ]
        answer = self.predictor.postprocess(recommendations)
        if len(answer) > LARGEST_ANSWER:
            raise RefusalError(422, f"the answer must have at most {LARGEST_ANSWER:,} bytes, got {len(answer):,}")
        return recommendations, answer

    async def _record(self, decisions):
        """Log decisions and return whether they are kept; a direct log writes those of waiting requests together."""
        if self.outbox.background:
            return self.outbox.record([decisions], datetime.now(UTC))[0]
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
    if not sink:
        return Outbox(partial(PubSubSink, topic), spool=open_spool(topic))
    module, _, name = sink.partition(":")
    return DirectLog(getattr(importlib.import_module(module), name)(topic))


def problem(status, sentence):
    """Return the response that says what is wrong."""
    return JSONResponse({"detail": sentence}, status)


def _check_type(headers):
    kind = headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise RefusalError(415, f"content-type must be application/json, got {kind[:100]!r}")


async def read_body(request, turns):
    """Read the body, of which no more than is allowed is kept.

    Args:
      request: `starlette.requests.Request`
      turns: `asyncio.Semaphore` for bodies that are not short; a client whose turn has not come cannot send more.

    Raises:
      RefusalError: it is larger, or the connection ended before it did.
    """
    too_large = RefusalError(413, f"the body must have at most {LARGEST_BODY:,} bytes")
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 12 or int(length) > LARGEST_BODY):
        raise too_large
    parts, size = [], 0
    async with AsyncExitStack() as turn:
        try:
            async for part in request.stream():
                if size <= SHORT_BODY < size + len(part):
                    await turn.enter_async_context(turns)
                size += len(part)
                if size > LARGEST_BODY:
                    raise too_large
                parts.append(part)
        except ClientDisconnect:
            raise RefusalError(400, "the connection ended before the body") from None
    return b"".join(parts)
