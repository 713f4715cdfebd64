"""Bills of materials of the container images, as CycloneDX: base image, locked packages, this package."""

import re

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement

import recbandits
from recbandits.platforms.images import DOCKERFILE, image_steps
from tools.lock import ROOT, blocks

BUILD = "requirements/build.txt"  # of a stage whose packages stay out of the images


def find_packages(image):
    """Return dict from the name of each locked package of an image to its entry in the locks.

    Markers are evaluated as by pip in the image: the Python that the Dockerfile names, on Linux.
    """
    (version,) = re.findall(r"^# Python (3\.\d+\.\d+) ", (ROOT / DOCKERFILE).read_text(encoding="utf-8"), flags=re.M)
    environment = {"python_version": version.rpartition(".")[0], "python_full_version": version}
    environment |= {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux"}
    runs = [value for keyword, value in image_steps(image, ROOT) if keyword == "RUN"]
    files = [file for run in runs for file in re.findall(r" -r (\S+)", run) if file != BUILD]
    packages = {}
    for file in files:
        for pin, entry in blocks((ROOT / file).read_text(encoding="utf-8")).items():
            requirement = Requirement(pin)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                packages[requirement.name] = entry
    return packages


def make_sbom(image, base=None):
    """Return the bill of materials of an image, text of CycloneDX 1.6 in JSON.

    The hashes of a package are those that pip accepts: one for each file of its release.

    Args:
      image: name, such as "serve".
      base: image to begin with; None for the one in the Dockerfile.
    """
    (default,) = [value.removeprefix("BASE=") for keyword, value in image_steps(image, ROOT) if keyword == "ARG"]
    bom = Bom()
    bom.metadata.component = Component(name=f"recbandits/{image}", type=ComponentType.CONTAINER, bom_ref="image")
    bom.components.add(Component(name=base or default, type=ComponentType.CONTAINER, bom_ref="base"))
    bom.components.add(_package("recbandits", recbandits.__version__, []))
    for name, entry in find_packages(image).items():
        (specifier,) = Requirement(entry.splitlines()[0].rstrip(" \\")).specifier
        bom.components.add(_package(name, specifier.version, re.findall(r"sha256:(\w+)", entry)))
    bom.register_dependency(bom.metadata.component, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=2)


def _package(name, version, digests):
    purl = PackageURL("pypi", name=name, version=version)
    component = Component(name=name, version=version, purl=purl, type=ComponentType.LIBRARY, bom_ref=str(purl))
    if digests:
        hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in digests]
        reference = {"type": ExternalReferenceType.DISTRIBUTION, "url": XsUri(str(purl)), "hashes": hashes}
        component.external_references.add(ExternalReference(**reference))
    return component
