"""The same prediction request as text to copy: Vertex AI's SDK, curl, gcloud."""

import json
import shlex

_JSON = "Content-Type: application/json"


def curl(address, instances, signed_in=False):
    """Return the curl command of a request over plain HTTP.

    Args:
      address: URL of a local server's /predict, or that of `vertex_address`.
      instances: list of dicts.
      signed_in: whether to send the token of the account that gcloud uses.

    Returns:
      Text for a shell.
    """
    words = ["curl", "--silent", "--show-error", "--header", _JSON, "--data", _body(instances), address]
    token = ' --header "Authorization: Bearer $(gcloud auth print-access-token)"' if signed_in else ""
    return shlex.join(words[:3]) + token + " " + shlex.join(words[3:])


def gcloud(config, endpoint, instances):
    """Return the gcloud command of a raw prediction, because others make floats of all numbers."""
    place = [f"--project={config.project}", f"--region={config.region}"]
    words = ["gcloud", "ai", "endpoints", "raw-predict", endpoint, *place]
    return shlex.join([*words, f"--http-headers={_JSON.replace(': ', '=')}", f"--request={_body(instances)}"])


def sdk(config, endpoint, instances):
    """Return Python code that uses Vertex AI's SDK and nothing of this repository."""
    return f"""\
from google.cloud import aiplatform

aiplatform.init(project={config.project!r}, location={config.region!r})
endpoint = aiplatform.Endpoint({endpoint!r})
answer = endpoint.raw_predict({_body(instances).encode()!r}, {{"Content-Type": "application/json"}})
print(answer.json()["predictions"])"""


def vertex_address(config, endpoint):
    """URL of a raw prediction on Vertex AI."""
    place = f"projects/{config.project}/locations/{config.region}/endpoints/{endpoint}"
    return f"https://{config.region}-aiplatform.googleapis.com/v1/{place}:rawPredict"


def _body(instances):
    return json.dumps({"instances": instances})
