"""Versions of the one model of a configuration on Vertex AI, in the serving container, and batch predictions by them.

A version has a policy, or a release. A batch prediction job keeps no order and writes no error for a single line. So
lines that are no `Instance` are not sent, the server answers each instance that it refuses with a message, and answers
are matched to the lines by their instances.
"""

import hashlib
import json
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.api_core.exceptions import NotFound

from recbandits.config import Config
from recbandits.platforms.gcp.cloud import bucket_of, have, location, state_of, upload, vertex, wait
from recbandits.platforms.gcp.images import GcpImages
from recbandits.serving.predictor import Answered, answer_lines, check_apart
from recbandits.serving.schemas import Instance, RefusalError, Request

MACHINE = {"machine_type": "n2-standard-2", "min_replica_count": 1, "max_replica_count": 2}


def have_model(config: Config, name: str, uri: str, variables: dict, directory: str | Path | None = None) -> Any:
    """Return the version of the one model for what is at a gs:// URI, in the container with these variables.

    Where there is none it is made, after a local directory, if given, was sent to the URI. The image is named by its
    digest, for a tag may name another one when a server starts.
    """
    kind, full = vertex(config).Model, f"{location(config)}/models/{config.base}"
    image = GcpImages(config).pinned("serve")
    alias = f"{name}-{hashlib.sha256(json.dumps([image, uri, variables]).encode()).hexdigest()[:8]}"

    def make():
        if directory is not None:
            upload(config, directory, uri.removeprefix(f"gs://{config.bucket}/"))
        try:
            identity = {"parent_model": kind(full).resource_name}
        except NotFound:
            identity = {"model_id": config.base}
        return kind.upload(
            **identity,
            display_name=config.base,
            artifact_uri=uri,
            serving_container_image_uri=image,
            serving_container_predict_route="/predict",
            serving_container_health_route="/health",
            serving_container_ports=[8080],
            serving_container_environment_variables=variables,
            version_aliases=[alias],
            version_description=name.replace("-", " "),
            labels=config.labels,
        )

    return have(lambda: kind(f"{full}@{alias}"), make)


def predict_batch(config: Config, model: Any, items: int, source: str | Path, destination: str | Path) -> Answered:
    """Answer every line of a file by an `aiplatform.Model` that knows so many items; see `predictor.answer_lines`."""
    check_apart(source, destination)
    with open(source, "rb") as file:
        lines = [line for line in file if _instance(line)]
    answers = _answers(config, model, lines, items) if lines else {}

    def answer(line):
        Instance.parse(line)  # raises what is written down for a line that was not sent
        if not (waiting := answers.get(_canonical(line))):
            raise ValueError("the batch prediction gave no answer")
        prediction = waiting.pop()
        if "error" in prediction:
            raise ValueError(prediction["error"])
        return prediction

    return answer_lines(source, destination, answer)


def _answers(config, model, lines, items):
    """Run a batch prediction job; return a dict from an instance's canonical text to the list of its predictions."""
    content = b"".join(line.strip() + b"\n" for line in lines)
    folder = f"batch/{model.version_id}-{hashlib.sha256(content).hexdigest()[:12]}"
    bucket, answers = bucket_of(config), defaultdict(list)
    bucket.blob(f"{folder}/source.jsonl").upload_from_string(content, "application/jsonl")
    job = vertex(config).BatchPredictionJob.submit(
        model_name=model.versioned_resource_name,
        job_display_name=folder.rpartition("/")[2],
        gcs_source=f"gs://{bucket.name}/{folder}/source.jsonl",
        gcs_destination_prefix=f"gs://{bucket.name}/{folder}",
        model_parameters={"answer_refusals": True},
        machine_type=MACHINE["machine_type"],
        starting_replica_count=MACHINE["min_replica_count"],
        max_replica_count=MACHINE["max_replica_count"],
        batch_size=_batch_size(lines, items),
        service_account=config.account("serve"),
        labels=config.labels,
    )
    wait(job)
    if state_of(job) != "succeeded":
        raise RuntimeError(f"batch prediction {job.display_name} {state_of(job)}: {job.error.message}")
    output = job.output_info.gcs_output_directory.partition(f"gs://{bucket.name}/")[2]
    for blob in bucket.list_blobs(prefix=f"{output}/prediction.results"):
        for result in map(json.loads, blob.download_as_bytes().splitlines()):
            answers[_canonical(json.dumps(result["instance"]))].append(result["prediction"])
    return answers


def _instance(line):
    """Return the `Instance` of a line, None for a line that is none."""
    with suppress(RefusalError):
        return Instance.parse(line)


def _canonical(text):
    """Return JSON as text in which 7.0, as Vertex AI writes 7, is 7."""

    def read(digits):
        return int(number) if (number := float(digits)).is_integer() else number

    return json.dumps(json.loads(text, parse_float=read), sort_keys=True)


def _batch_size(lines, items):
    """Return how many lines, of 64, 8 or 1, can be one request whichever they are."""
    for size in (64, 8):
        with suppress(RefusalError):
            for line in lines:
                request = Request.model_construct(instances=[_instance(line)] * size, parameters=None)
                request.count_candidates(items)
            return size
    return 1
