"""Commands to copy run where their programs are installed, and send the same request as the SDK."""

import json
import os
import shlex
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest
from src.prediction.client import instances_of
from src.prediction.commands import curl, gcloud, sdk, vertex_address

from recbandits.config import Config
from tests import commands
from tests.recorder import Recorder

CONFIG = Config(platform="gcp", project="movie-lab-42")
PARENT = "projects/movie-lab-42/locations/us-central1"
INSTANCES = instances_of(pd.DataFrame({"bias": [0.5, -0.5]}, [6, 7]), k=2, seed=1)


def needs(program):
    """Mark a test to be skipped where a program is missing."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run(command, **variables):
    """Run a shell command and parse the JSON that it prints."""
    return json.loads(commands.run("sh", "-c", command, env=os.environ | variables, timeout=60))


@needs("curl")
def test_curl_gets_what_the_client_gets(endpoint, address):
    predictions = run(curl(address, INSTANCES), no_proxy="127.0.0.1")["predictions"]
    expected = endpoint.predict(INSTANCES)
    assert [each["item_ids"] for each in predictions] == [each["item_ids"] for each in expected]
    assert [each["propensity"] for each in predictions] == [each["propensity"] for each in expected]


@pytest.fixture
def vertex_ai():
    """Address of a server that echoes every instance, and the (path, body) of the requests that it got."""
    requests = []

    class Echo(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, body))
            answer = json.dumps({"predictions": body["instances"]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/", requests
        server.shutdown()


@needs("gcloud")
def test_gcloud_sends_the_body_as_it_is(vertex_ai, tmp_path):
    """To a server of this machine, without credentials."""
    address, requests = vertex_ai
    variables = {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": address,
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(tmp_path),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
    }
    answer = run(gcloud(CONFIG, CONFIG.endpoint, INSTANCES), **variables)
    ((path, _),) = requests
    assert path == f"/v1/{PARENT}/endpoints/{CONFIG.endpoint}:rawPredict"
    assert answer["predictions"] == INSTANCES


def test_all_ways_lead_to_the_same_address_with_the_same_body(capsys):
    """The reference is the request of the SDK's code."""
    with Recorder() as cloud:
        cloud.answers["GetEndpoint"] = {"name": f"{PARENT}/endpoints/{CONFIG.endpoint}"}
        cloud.answers["POST .*:rawPredict"] = {"predictions": ["Babe"]}
        exec(sdk(CONFIG, CONFIG.endpoint, INSTANCES), {})
    (method, request) = cloud.calls[-1]
    assert capsys.readouterr().out == "['Babe']\n"
    assert request["body"] == {"instances": INSTANCES}
    address = vertex_address(CONFIG, CONFIG.endpoint)
    assert method == f"POST {address}"
    words = shlex.split(curl(address, INSTANCES, signed_in=True))
    assert words[-1] == address
    assert json.loads(words[words.index("--data") + 1]) == request["body"]
    assert "Authorization: Bearer $(gcloud auth print-access-token)" in words
    body = next(word for word in shlex.split(gcloud(CONFIG, CONFIG.endpoint, INSTANCES)) if "--request=" in word)
    assert json.loads(body.removeprefix("--request=")) == request["body"]
