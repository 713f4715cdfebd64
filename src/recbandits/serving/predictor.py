"""Answer instances by the policies of a release: those of a request, or each line of a file.

`BanditPredictor` has the methods of the SDK's `Predictor` and does not import the SDK.
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbandits import checks
from recbandits.serving import versions
from recbandits.serving.decisions import Recommendation
from recbandits.serving.schemas import Instance, Parameters, Prediction, Refusal, RefusalError, Request, Response
from recbandits.serving.versions import TrafficSplit

RELEASE_INTERVAL = 10.0  # seconds between two looks at it
_MAX_MESSAGE_LENGTH = 1000  # letters


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


class Answered(NamedTuple):
    """Result of a batch prediction: two files of JSON lines, each with the number of its lines."""

    predictions: Path  # of the answers, each {"instance": ..., "prediction": ...}, in the order of the lines
    answered: int
    refusals: Path  # of the refused lines, each {"line": number from 1, "error": sentence}
    refused: int


def batch_predict(policy: str | Path, source: str | Path, destination: str | Path) -> Answered:
    """Answer every line of a file, each an `Instance`, by the policy in a directory; see `answer_lines`."""
    if (served := versions.find(policy)) is None:
        raise ValueError(f"there is no policy in {policy}")

    def answer(line):
        return Prediction.model_validate(served.recommend(Instance.parse(line), Parameters())).model_dump()

    return answer_lines(source, destination, answer)


def check_apart(source: str | Path, destination: str | Path) -> None:
    """Raise ValueError if answers or refusals would take the place of the file that is to be answered."""
    results = map(os.path.realpath, (destination, f"{destination}.errors"))
    apart = os.path.realpath(source) not in results
    checks.require(apart, "destination", f"another file than source, with .errors, too, {source}", str(destination))


def answer_lines(source: str | Path, destination: str | Path, answer: Callable[[bytes], dict]) -> Answered:
    """Answer every line of JSON in a file but empty ones, by a function that raises ValueError to refuse a line.

    The answers are in `destination`, replaced when it is complete, and refusals beside it in one with `.errors`.
    """
    check_apart(source, destination)
    good, bad, answered, refused = Path(destination), Path(f"{destination}.errors"), 0, 0
    with (
        checks.replacing(good) as good_draft,
        checks.replacing(bad) as bad_draft,
        open(source, "rb") as lines,
        good_draft.open("w") as answers,
        bad_draft.open("w") as errors,
    ):
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                prediction = answer(line)
            except ValueError as error:
                errors.write(json.dumps({"line": number, "error": str(error)}) + "\n")
                refused += 1
                continue
            answers.write(json.dumps({"instance": json.loads(line), "prediction": prediction}) + "\n")
            answered += 1
    return Answered(good, answered, bad, refused)
