"""Texts to copy do what they say: they are run where their programs are installed, and compared with what we send."""

import inspect
import json
import os
import shlex
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pandas as pd
import pytest
from src.prediction.client import instances_of
from src.prediction.commands import curl, gcloud, sdk, vertex_address

from recbandits.config import Config
from recbandits.platforms.gcp import GcpPlatform
from tests.recorder import Recorder

CONFIG = Config(platform="gcp", project="movie-lab-42")
INSTANCES = instances_of(pd.DataFrame({"bias": [0.5, -0.5]}, [6, 7]), k=2, seed=1)


def needs(program):
    """A test that is skipped where there is no such program."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run(command, **variables):
    """What a command line of a shell prints, as JSON."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=os.environ | variables, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs("curl")
def test_curl_gets_what_the_client_gets(endpoint, address):
    predictions = run(curl(address, INSTANCES), no_proxy="127.0.0.1")["predictions"]
    expected = endpoint.predict(INSTANCES)
    assert [each["item_ids"] for each in predictions] == [each["item_ids"] for each in expected]
    assert [each["propensity"] for each in predictions] == [each["propensity"] for each in expected]


class Echo(BaseHTTPRequestHandler):
    """Vertex AI as gcloud sees it: it keeps the paths and echoes every instance."""

    paths: ClassVar = []

    def do_POST(self):
        self.paths.append(self.path)
        instances = json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"]
        answer = json.dumps({"predictions": [{"echo": each} for each in instances]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@needs("gcloud")
def test_gcloud_sends_the_body_as_it_is(tmp_path):
    """To a server on this machine, without anybody signed in."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        variables = {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": f"http://127.0.0.1:{server.server_port}/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CONFIG": str(tmp_path),
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
        }
        answer = run(gcloud(CONFIG, CONFIG.endpoint, INSTANCES), **variables)
        server.shutdown()
    parent = "/v1/projects/movie-lab-42/locations/us-central1"
    assert [path.partition("?")[0] for path in Echo.paths] == [f"{parent}/endpoints/{CONFIG.endpoint}:rawPredict"]
    assert answer["predictions"] == [{"echo": instance} for instance in INSTANCES]


def test_all_ways_lead_to_the_same_address_with_the_same_body():
    """What the platform itself sends is the reference."""
    with Recorder() as cloud:
        cloud.answers["POST .*:rawPredict"] = {"predictions": []}
        GcpPlatform(CONFIG).endpoints.create().predict(INSTANCES)
        method, request = cloud.calls[-1]
    address = vertex_address(CONFIG, CONFIG.endpoint)
    assert method == f"POST {address}"
    words = shlex.split(curl(address, INSTANCES, signed_in=True))
    assert words[-1] == address
    assert json.loads(words[words.index("--data") + 1]) == request["body"]
    assert "Authorization: Bearer $(gcloud auth print-access-token)" in words
    body = next(word for word in shlex.split(gcloud(CONFIG, CONFIG.endpoint, INSTANCES)) if "--request=" in word)
    assert json.loads(body.removeprefix("--request=")) == request["body"]


def test_the_sdk_has_what_the_text_calls():
    from google.cloud import aiplatform

    called = []

    class Endpoint:
        def __init__(self, name):
            assert name == CONFIG.endpoint

        def raw_predict(self, *arguments):
            inspect.signature(aiplatform.Endpoint.raw_predict).bind(self, *arguments)
            called.append(arguments)
            return self

        def json(self):
            return {"predictions": called}

    lines = sdk(CONFIG, CONFIG.endpoint, INSTANCES).splitlines()
    assert lines[0] == "from google.cloud import aiplatform"
    inspect.signature(aiplatform.init).bind(project=CONFIG.project, location=CONFIG.region)
    names = {"aiplatform": type("sdk", (), {"Endpoint": Endpoint, "init": staticmethod(lambda **_: None)})}
    exec("\n".join(lines[1:]), names)
    ((body, headers),) = called
    assert json.loads(body) == {"instances": INSTANCES}
    assert headers == {"Content-Type": "application/json"}
