"""Versions of the one model of a configuration on Vertex AI: a policy, or a release, in the serving container."""

import hashlib
import json
from pathlib import Path
from typing import Any

from recbandits.config import Config
from recbandits.platforms.gcp import storage
from recbandits.platforms.gcp.cloud import have, location, vertex
from recbandits.platforms.gcp.images import GcpImages

MACHINE = {"machine_type": "n2-standard-2", "min_replica_count": 1, "max_replica_count": 2}
_SERVER = {
    "HANDLER_MODULE": "recbandits.serving.predictor",
    "HANDLER_CLASS": "BanditHandler",
    "PREDICTOR_MODULE": "recbandits.serving.predictor",
    "PREDICTOR_CLASS": "BanditPredictor",
}


def have_model(
    config: Config, name: str, uri: str, variables: dict[str, str], directory: str | Path | None = None
) -> Any:
    """Return the version of the one model for what is at a gs:// URI, in the container with these variables.

    Where there is none it is made, after a local directory, if given, was sent to the URI. The image is named by its
    digest, for a tag may name another one when a server starts.
    """
    from google.api_core.exceptions import NotFound

    kind, full = vertex(config).Model, f"{location(config)}/models/{config.base}"
    image = GcpImages(config).pinned("serve")
    alias = f"{name}-{hashlib.sha256(json.dumps([image, uri, variables]).encode()).hexdigest()[:8]}"
    settings = {
        "display_name": config.base,
        "artifact_uri": uri,
        "serving_container_image_uri": image,
        "serving_container_predict_route": "/predict",
        "serving_container_health_route": "/health",
        "serving_container_ports": [8080],
        "serving_container_environment_variables": _SERVER | variables,
        "version_aliases": [alias],
        "version_description": name.replace("-", " "),
        "labels": config.labels,
    }

    def upload():
        if directory is not None:
            storage.upload(config, directory, uri.removeprefix(f"gs://{config.bucket}/"))
        try:
            identity = {"parent_model": kind(full).resource_name}
        except NotFound:
            identity = {"model_id": config.base}
        return kind.upload(**settings, **identity)

    return have(lambda: kind(f"{full}@{alias}"), upload)
