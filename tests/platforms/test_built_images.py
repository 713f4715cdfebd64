"""Images built for real and run, where an engine is found: what is in them, that they answer, train and end.

Where the base image cannot be pulled, one like it is made of Debian's packages. The engine keeps the layers, so that
the next time only the wheel is installed anew.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from packaging.utils import canonicalize_name

from recbandits.config import Config
from recbandits.platforms.images import image_steps
from recbandits.platforms.local.images import LocalImages, find_engine
from recbandits.serving.handler import read_metrics
from recbandits.serving.policy import load
from tests.sockets import free_ports, get_json, get_text
from tools.lock import ROOT
from tools.sbom import find_packages

STAND_IN = "localhost/recbandits-base:3.11"
PACKAGES = "ca-certificates,netbase,tzdata,python3,python3-pip,python3-venv"
INSIDE = """
import importlib.metadata, json, os
print(json.dumps([[each.name.lower() for each in importlib.metadata.distributions()], os.getuid()]))
"""
TOOLS = {"jupyterlab", "pytest", "hatchling"}
ABSENT = {"serve": TOOLS | {"tensorflow", "tf-agents", "kfp", "google-cloud-aiplatform"}, "train": TOOLS}
LARGEST = {"serve": 1.0e9, "train": 3.3e9}  # bytes
PATIENCE = 1800  # seconds for a build


def execute(command, **options):
    """Run a command, and again where buildah has not started it: the copy of itself that it seals may be busy."""
    for _ in range(3):
        process = subprocess.run(command, capture_output=True, text=True, **options)
        if "sealing memfd copy" not in process.stderr:
            break
    return process


def run(*command, **options):
    """Run a command and return its output."""
    process = execute(command, **options)
    assert process.returncode == 0, f"{command}: {process.stdout[-2000:]} {process.stderr[-2000:]}"
    return process.stdout.strip()


class Image:
    """An image that has been built, and for Buildah a container of it."""

    def __init__(self, engine, uri):
        self.engine, self.uri, self.container = engine, uri, None
        if engine == "buildah":
            self.container = run("buildah", "from", "--pull-never", uri)
            description = json.loads(run("buildah", "inspect", "--type", "image", uri))["Docker"]
            self.config, self.size = description["config"], self._measure()
        else:
            (description,) = json.loads(run(engine, "image", "inspect", uri))
            self.config, self.size = description["Config"], description["Size"]

    def _measure(self):
        mount_point = run("buildah", "mount", self.container)
        size = int(run("du", "-sb", "--one-file-system", mount_point).split()[0])
        run("buildah", "umount", self.container)
        return size

    def command(self, *words, mounts=(), **variables):
        """Return the command that runs words in a container, on this machine's network."""
        options = [word for mount in mounts for word in ("--volume", mount)]
        options += [word for item in variables.items() for word in ("--env", "=".join(item))]
        if self.engine == "buildah":
            return ["buildah", "run", "--isolation", "chroot", *options, self.container, "--", *words]
        program, *arguments = words
        return [self.engine, "run", "--rm", "--network=host", *options, "--entrypoint", program, self.uri, *arguments]


@pytest.fixture(scope="module")
def engine():
    """Name of the engine of this machine; the tests are skipped where there is none."""
    return find_engine() or pytest.skip("needs docker, podman or buildah")


@pytest.fixture(scope="module")
def base(engine):
    """The image to begin with; None for the one in the Dockerfile."""
    (default,) = (value for keyword, value in image_steps("serve", ROOT) if keyword == "ARG")
    if subprocess.run([engine, "pull", default.partition("=")[2]], capture_output=True).returncode == 0:
        return None
    if engine != "buildah" or os.geteuid() or not shutil.which("debootstrap"):
        pytest.skip("the base image cannot be pulled, and only root with buildah and debootstrap can make one like it")
    if subprocess.run(["buildah", "inspect", "--type", "image", STAND_IN], capture_output=True).returncode:
        make_stand_in()
    return STAND_IN


def make_stand_in():
    """Make a base image of Debian's packages, with `python` and a pip that may install, as in the one it stands for."""
    container = run("buildah", "from", "scratch")
    root = run("buildah", "mount", container)
    run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root, *debian())
    run("find", f"{root}/usr/lib", "-name", "EXTERNALLY-MANAGED", "-delete")
    os.symlink("/usr/bin/python3", f"{root}/usr/local/bin/python")
    run("buildah", "umount", container)
    run("buildah", "config", "--env", "LANG=C.UTF-8", "--env", f"PATH={os.defpath}:/usr/local/bin:/usr/sbin", container)
    run("buildah", "commit", "--rm", container, STAND_IN)


def debian():
    """Return where this machine's apt finds Debian; nothing for debootstrap's own default."""
    mirrors = run("apt-get", "indextargets", "--format", "$(SITE)", "Codename: bookworm").split()
    return mirrors[:1]


@pytest.fixture(scope="module")
def image(engine, base, request):
    """The image that a test asks for, built."""
    images = LocalImages(Config(version="test"))
    command = images.command(request.param, engine, base)
    run(*command, cwd=ROOT, timeout=PATIENCE)
    container_image = Image(engine, images.uri(request.param))
    yield container_image
    if container_image.container:
        run("buildah", "rm", container_image.container)


def of(*names):
    return pytest.mark.parametrize("image", names, indirect=True)


@of("serve", "train")
def test_an_image_has_what_it_needs_and_no_more(image):
    name = image.uri.rpartition("/")[2].partition(":")[0]
    packages, user = json.loads(run(*image.command("python", "-c", INSIDE)))
    assert find_packages(name).keys() | {"recbandits"} <= set(map(canonicalize_name, packages)), "the bill of materials"
    assert ABSENT[name] & set(packages) == set()
    assert user == {"serve": 1000, "train": 0}[name]
    assert image.size < LARGEST[name]


@of("serve")
def test_the_serving_image_answers_and_ends(image, exported):
    (port,) = map(str, free_ports(1))
    for folder in (exported[0], exported[0].parent, exported[0].parents[1]):  # user 1000 may not read pytest's folders
        folder.chmod(0o755)
    variables = {"AIP_STORAGE_URI": "/policy", "AIP_HTTP_PORT": port}
    command = image.command(
        *image.config["Entrypoint"], "--host=127.0.0.1", mounts=[f"{exported[0]}:/policy:ro"], **variables
    )
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_healthy(server, port)
        run(*image.command(*image.config["Healthcheck"]["Test"][1:], **variables))
        body = {"instances": [{"user_id": "7", "candidates": ["101", "102", "103"], "k": 2}]}
        (prediction,) = get_json(f"http://127.0.0.1:{port}/predict", body)["predictions"]
        assert set(prediction["item_ids"]) < {"101", "102", "103"}
        assert prediction["policy_version"] == load(exported[0]).version
        if image.engine == "buildah":  # which would not pass the signal on
            os.kill(read_metrics(get_text(f"http://127.0.0.1:{port}/metrics"))["process"], signal.SIGTERM)
        else:
            server.terminate()
        assert "Application shutdown complete" in server.communicate(timeout=30)[0]
    finally:
        server.kill()
        server.wait()


def wait_healthy(server, port):
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            get_json(f"http://127.0.0.1:{port}/health")
            return
        time.sleep(0.1)
    server.kill()
    pytest.fail(f"the server did not become healthy: {server.communicate()[0][-2000:]}")


@of("train")
def test_the_training_image_runs_a_job_and_reports_to_a_tuning_service(image, tmp_path):
    """The service mounts a directory that only root may write."""
    (tmp_path / "hypertune").mkdir(mode=0o700)
    mounts = [f"{tmp_path}:/results", f"{tmp_path}/hypertune:/var/hypertune"]
    variables = {"AIP_MODEL_DIR": "/results/model", "CLOUD_ML_TRIAL_ID": "1"}
    variables["CLOUD_ML_HP_METRIC_FILE"] = "/var/hypertune/output.metrics"
    job = ["simulate", "--steps=20", "--seeds=0", "--per-arm"]
    printed = run(*image.command(*image.config["Entrypoint"], *job, mounts=mounts, **variables))
    mean_reward = float(printed.split("mean_reward ")[1].split()[0])
    records = [json.loads(line) for line in (tmp_path / "hypertune" / "output.metrics").read_text().splitlines()]
    (value,) = [float(each["mean_reward"]) for each in records if "mean_reward" in each]
    assert value == pytest.approx(mean_reward, abs=1e-4)
    assert load(tmp_path / "model").version


@of("train")
def test_a_job_that_asks_for_a_gpu_ends_with_a_sentence_where_there_is_none(image):
    command = image.command(*image.config["Entrypoint"], "simulate", "--steps=20", RECBANDITS_ACCELERATOR="GPU")
    process = execute(command)
    assert process.returncode == 1
    assert "asks for a GPU, and TensorFlow sees none" in process.stderr
