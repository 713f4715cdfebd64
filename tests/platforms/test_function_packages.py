"""Functions and steps of pipelines find on Google Cloud what they import, in a zip with requirements or an image."""

import base64
import hashlib
import inspect
import io
import re
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from recbandits.loop import components
from recbandits.loop.core import FUNCTIONS
from recbandits.platforms.gcp.functions import pack
from tools.lock import ROOT
from tools.sbom import find_packages

RECORDER = Path(__file__).parents[1] / "recorder.py"
BEGIN = """
import sys
sys.path[:0] = [{folder!r}, {site!r}]
import main, functions_framework
from recbandits.config import Config
from recbandits.platforms.gcp import GcpPlatform
platform = GcpPlatform(Config.load())
"""
END = """
heavy = {{"tensorflow", "tf_agents", "jupyterlab", "duckdb"}} & set(sys.modules)
assert not heavy, heavy
assert main.__file__.startswith({folder!r}) and functions_framework.__file__.startswith({site!r})
print("done")
"""
RECORDED = """
sys.path.append({tests!r})
from recorder import Recorder
cloud = Recorder("movie-lab-42")
cloud.__enter__()
cloud.answers["GET .*/packages/train/tags/v1"] = {{"version": "packages/train/versions/sha256:0"}}
"""
WAREHOUSE = """
cloud.documents["/bigquery/v2/projects/movie-lab-42/datasets/recbandits_v1"] = {{}}
jobs, done = "POST https://[^/]+/bigquery/v2/projects/movie-lab-42/jobs", {{"status": {{"state": "DONE"}}}}
new = {{"schema": {{"fields": [{{"name": "digest", "type": "STRING"}}]}}, "rows": [{{"f": [{{"v": "0"}}]}}]}}
cloud.answers["GET .*/queries/.*"] = new | {{"jobComplete": True, "totalRows": "1", "jobReference": {{"jobId": "q"}}}}
cloud.answers[jobs] = lambda request: request["body"] | done
"""
LOG = """
import base64
from cloudevents.http import CloudEvent
main._warehouse = lambda: platform.warehouse
reward = base64.b64encode(b'{{"event_id": "a1", "time": "2026-01-01T12:00:00+00:00", "value": 4.0}}').decode()
message = {{"message": {{"messageId": "1", "publishTime": "2026-01-01T12:00:01Z", "data": reward}}}}
main.log_reward(CloudEvent({{"type": "google.cloud.pubsub.topic.v1.messagePublished", "source": "test"}}, message))
"""
MERGED = """
queries = [each["body"]["configuration"]["query"]["query"] for each in cloud.requests(jobs)]
assert queries[-1].strip().startswith("MERGE INTO rewards"), queries
"""
WRITE = """
from datetime import UTC, datetime
from recbandits.records import Reward
platform.warehouse.write([Reward("a1", datetime.now(UTC), 4.0)])
"""
ENDPOINT = """
assert platform.endpoints.create().traffic_split == {{}}
"""
ASK = """
assert callable(main.simulate)
platform.messages.publisher(platform.messages.topic("rewards")).send([])
assert "CreateTopic" in cloud.methods()
"""
TICK = """
assert callable(main.tick)
from recbandits.loop.core import TEMPLATES
assert platform.pipelines.run(TEMPLATES / "re_training.yaml", "first").state == "succeeded"
assert len(cloud.requests("CreatePipelineJob")) == 1
"""
STEP = """
import sys
sys.path[:0] = [{source!r}, {site!r}]
import kfp.dsl.executor_main
{imports}
platform = platform_of({{"platform": "gcp", "project": "movie-lab-42"}})
"""
VARIABLES = {"RECBANDITS_PLATFORM": "gcp", "RECBANDITS_PROJECT": "movie-lab-42", "PATH": "/usr/bin:/bin"}


def closure(requirements):
    """Names of the distributions that pip would install for some requirements here."""
    from packaging.requirements import Requirement

    distributions, queue = set(), [(Requirement(line), "") for line in requirements]
    while queue:
        requirement, extra = queue.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        for requested_extra in {"", *requirement.extras}:
            if (name, requested_extra) not in distributions:
                distributions.add((name, requested_extra))
                dependencies = metadata.distribution(name).requires or []
                queue += [(Requirement(dependency), requested_extra) for dependency in dependencies]
    return {name for name, _ in distributions}


def install(names, site):
    """Make a directory in which these distributions are importable and no others.

    Those of Google share a folder, so that theirs are linked file by file; one that is not as its distribution brought
    it was overwritten by another distribution, and is left empty. Their compiled files save half a minute.
    """
    site_packages = Path(sysconfig.get_path("purelib"))
    for file in (file for name in names for file in metadata.distribution(name).files or []):
        if file.parts[0] == "..":
            continue
        shared = file.parts[0] == "google"
        target = site / (file if shared else file.parts[0])
        if target.exists() or file.suffix == ".pyc":
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if shared and file.name == "__init__.py" and not is_original(site_packages / file, file.hash):
            target.touch()
            continue
        target.symlink_to(site_packages / target.relative_to(site))
        compiled = Path(cache_from_source(target))
        if shared and file.suffix == ".py" and (source := site_packages / compiled.relative_to(site)).exists():
            compiled.parent.mkdir(exist_ok=True)
            compiled.symlink_to(source)


def require_done(code, artifacts):
    """Run code in a Python without installed packages; it prints "done" at its end."""
    variables = VARIABLES | {"RECBANDITS_ARTIFACTS": str(artifacts)}
    command = [sys.executable, "-I", "-S", "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert process.stdout.endswith("done\n"), process.stderr


def is_original(path, file_hash):
    digest = hashlib.new(file_hash.mode, path.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=") == file_hash.value


@pytest.mark.parametrize(
    ("name", "code"),
    [("logger", WAREHOUSE + LOG + MERGED), ("simulator", ENDPOINT + ASK), ("trigger", TICK)],
)
def test_a_function_works_with_its_package_and_its_requirements_alone(tmp_path, name, code):
    """Its own work, or what of it goes to Google Cloud, in a Python that has nothing else."""
    with zipfile.ZipFile(io.BytesIO(pack(FUNCTIONS / name))) as zipped:
        zipped.extractall(tmp_path / "function")
        requirements = zipped.read("requirements.txt").decode().split()
    install(closure(requirements), tmp_path / "site")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "recorder.py").write_bytes(RECORDER.read_bytes())
    folders = {name: str(tmp_path / name) for name in ("tests", "site")} | {"folder": str(tmp_path / "function")}
    require_done((BEGIN + RECORDED + code + END).format(**folders), tmp_path / "artifacts")


def test_the_steps_of_pipelines_work_with_the_packages_of_their_image_alone(tmp_path):
    """All that the components import, and what they write to Google Cloud."""
    installed = {canonicalize_name(each.name) for each in metadata.distributions()}
    install(find_packages("train").keys() & installed, tmp_path / "site")
    imports = "\n".join(re.findall(r"^    (from recbandits.*)$", inspect.getsource(components), flags=re.M))
    assert imports.count("\n") > 20
    code = STEP + RECORDED + WAREHOUSE + WRITE + MERGED + ENDPOINT + "print('done')"
    folders = {"source": str(ROOT / "src"), "site": str(tmp_path / "site"), "tests": str(RECORDER.parent)}
    require_done(code.format(**folders, imports=imports), tmp_path / "artifacts")
