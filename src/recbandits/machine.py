"""Whether this machine can run the notebooks, said before the first of them starts."""

import os
import platform
import shutil
from importlib import metadata
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from recbandits.report import quiet_tensorflow

GIB = 2**30


class Check(NamedTuple):
    """One fact, what the notebooks want, and whether that is met."""

    what: str
    found: str
    wanted: str
    passed: bool


def check_machine(folder):
    """Check Python, cores, memory, free disk, accelerators and the switch that selects Keras 2.

    Args:
      folder: an existing directory on the disk that will hold the artifacts.

    Returns:
      list of `Check`. No GPU is fine: everything runs without.
    """
    python, wanted = platform.python_version(), metadata.metadata("recbandits")["Requires-Python"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    roomy = shutil.disk_usage(folder).free >= 2 * GIB
    gpus = len(quiet_tensorflow().config.list_physical_devices("GPU"))
    keras = os.environ.get("TF_USE_LEGACY_KERAS", "unset")
    return [
        Check("Python", python, wanted, SpecifierSet(wanted).contains(python)),
        Check("CPU cores", str(cores), "2 or more", cores >= 2),
        Check("memory", f"{memory:.0f} GiB", "4 GiB or more", memory >= 3.5),
        Check("free disk", "enough" if roomy else "too little", "2 GiB or more", roomy),
        Check("GPU", str(gpus or "none"), "not needed", True),
        Check("TF_USE_LEGACY_KERAS", keras, "1", keras == "1"),
    ]


def check_packages(requirements=None):
    """Check every package that the project depends on directly.

    Args:
      requirements: list of requirements, such as "numpy>=2.1,<2.4"; None takes those of the installed project.

    Returns:
      list of `Check`, sorted by name.
    """
    lines = metadata.requires("recbandits") if requirements is None else requirements
    return [_check_package(Requirement(line)) for line in sorted(lines)]


def _check_package(requirement):
    wanted = str(requirement.specifier) or "any"
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Check(requirement.name, "missing", wanted, False)
    return Check(requirement.name, found, wanted, requirement.specifier.contains(found))
