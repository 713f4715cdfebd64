"""The bill of materials of an image is valid CycloneDX, and lists what its Dockerfile installs from the locks."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

import recbandits
from recbandits.platforms.images import targets
from tools.lock import ROOT, blocks
from tools.sbom import find_packages, make_sbom


@pytest.fixture(scope="module", params=targets(ROOT))
def image(request):
    return request.param, json.loads(make_sbom(request.param))


def versions(bom):
    return {each["name"]: each["version"] for each in bom["components"] if each["type"] == "library"}


def pins(file):
    """Return the versions that a file of the locks has without a marker."""
    return dict(re.findall(r"^([\w.-]+)==(\S+) \\$", (ROOT / file).read_text(encoding="utf-8"), flags=re.M))


def test_it_is_valid_and_refuses_what_is_not(image):
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(image[1])) is None
    assert validator.validate_str(json.dumps(image[1] | {"components": [{"name": "a"}]})) is not None


def test_it_begins_with_the_base_image_of_the_dockerfile_and_has_this_package(image):
    name, bom = image
    (base,) = [each["name"] for each in bom["components"] if each["type"] == "container"]
    assert f"ARG BASE={base}\n" in (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert versions(bom)["recbandits"] == recbandits.__version__
    assert bom["metadata"]["component"]["name"] == f"recbandits/{name}"
    assert '"localhost/python"' in make_sbom(name, base="localhost/python")


def test_serve_lists_what_an_installer_installs_from_its_requirements(tmp_path):
    """The installer, uv, evaluates the markers by itself, for the Python and the platform of the image."""
    command = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--target", tmp_path, "--python-version", "3.11", "--python-platform", "linux"]
    subprocess.run([*command, "-r", ROOT / "requirements" / "serve.txt"], check=True)
    installed = {canonicalize_name(each.name): each.version for each in metadata.distributions(path=[str(tmp_path)])}
    assert versions(json.loads(make_sbom("serve"))) == installed | {"recbandits": recbandits.__version__}
    assert len(installed) > 40


def test_each_locked_package_has_the_hashes_of_its_requirements():
    bom = json.loads(make_sbom("serve"))
    entries = blocks((ROOT / "requirements" / "serve.txt").read_text(encoding="utf-8"))
    expected = {pin.partition(" ;")[0]: set(re.findall(r"sha256:(\w{64})", entry)) for pin, entry in entries.items()}
    for each in bom["components"]:
        if each["type"] == "library" and each["name"] != "recbandits":
            (reference,) = each["externalReferences"]
            hashes = {digest["content"] for digest in reference["hashes"]}
            assert hashes == expected[f"{each['name']}=={each['version']}"] != set()


def test_packages_for_other_platforms_and_pythons_are_left_out_of_the_lab():
    """Python 3.11 on Linux: one SciPy, no package of Windows or macOS."""
    packages = find_packages("lab")
    assert not {"appnope", "colorama", "pywin32", "pywinpty", "nvidia-nccl-cu12"} & packages.keys()
    assert packages["scipy"].startswith("scipy==1.17")
    assert {"tensorflow", "jupyterlab", "overrides"} <= packages.keys()
    assert not {"sphinx", "playwright"} & packages.keys()


def test_the_image_for_gpus_adds_the_libraries_of_cuda_to_the_training_image():
    added = find_packages("train-gpu").keys() - find_packages("train").keys()
    assert added == pins("requirements/gpu.txt").keys()
    assert find_packages("train").keys() <= find_packages("train-gpu").keys()
    assert "hatchling" not in find_packages("train")
