"""Answer prediction requests: instances in, recommendations out.

The two classes have the methods of the SDK's `Predictor` and `PredictionHandler` and do not import the SDK. Its model
server, `CprModelServer`, runs them as a custom prediction routine; so does `recbandits.serving.server`.
"""

import os
import threading
import time
from datetime import UTC, datetime
from functools import partial

from fastapi import HTTPException
from fastapi import Response as HttpResponse
from starlette.requests import ClientDisconnect

from recbandits.serving import versions
from recbandits.serving.metrics import Metrics
from recbandits.serving.outbox import Outbox, PubSubSink
from recbandits.serving.schemas import Parameters, Prediction, RefusalError, Request, Response

LARGEST_BODY = 1_500_000  # bytes, as on Vertex AI
TOPIC_VARIABLE = "RECBANDITS_EVENT_TOPIC"  # "projects/<project>/topics/<topic>"; without it nothing is logged
_LONGEST_SENTENCE = 1000  # letters


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
      outbox: `Outbox`, or None where $RECBANDITS_EVENT_TOPIC names no topic.
    """

    def __init__(self, artifacts_uri, predictor=None):
        topic = os.environ.get(TOPIC_VARIABLE)
        self.predictor, self.metrics = (predictor or BanditPredictor)(), Metrics()
        self.predictor.load(artifacts_uri)
        self.outbox = Outbox(partial(PubSubSink, topic)) if topic else None

    async def handle(self, request):
        """Answer one request.

        Raises:
          HTTPException: 4xx with a sentence for what is refused, 503 before a policy is there.
        """
        start, status = time.perf_counter(), 500
        try:
            _check_type(request.headers)
            answer = self._answer(await _body(request))
            status = 200
            return HttpResponse(answer, media_type="application/json")
        except RefusalError as refusal:
            status = refusal.status
            raise HTTPException(status, str(refusal)) from None
        finally:
            self.metrics.count(status, time.perf_counter() - start)

    def close(self):
        """Deliver what waits in the outbox."""
        if self.outbox:
            self.outbox.close()

    def _answer(self, body):
        request = self.predictor.preprocess(body)
        recommendations = [
            # Whoever gives the seed knows what is drawn: that is no exploration, whatever its propensity.
            each._replace(logged=self.outbox is not None and instance.seed is None)
            for each, instance in zip(self.predictor.predict(request), request.instances, strict=True)
        ]
        answer = self.predictor.postprocess(recommendations)
        now = datetime.now(UTC)
        for each in recommendations:
            self.metrics.versions[each.policy_version] += 1
            if each.logged:
                self.outbox.put(each, now)
        return answer


def _check_type(headers):
    kind = headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise RefusalError(415, f"content-type must be application/json, got {kind[:100]!r}")


async def _body(request):
    """The body, of which no more than is allowed is kept."""
    too_large = RefusalError(413, f"the body must have at most {LARGEST_BODY:,} bytes")
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 12 or int(length) > LARGEST_BODY):
        raise too_large
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > LARGEST_BODY:
                raise too_large
            parts.append(part)
    except ClientDisconnect:
        raise RefusalError(400, "the connection ended before the body") from None
    return b"".join(parts)
