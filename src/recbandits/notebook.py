"""Functions for notebooks: recorded metrics, cloud resources as YAML, a quiet import of TensorFlow, checks."""

import importlib
import json
import os
import platform
import re
import shutil
import tempfile
from importlib import metadata
from numbers import Integral
from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from recbandits import checks
from recbandits.config import Config, count_cores

PROFILES = ("quick", "full")
GIB = 2**30
TF_AGENTS = ("tf-agents==0.19.0", "gym==0.23.0")  # no extra can require them: see pyproject.toml

# Lines that TensorFlow's C++ code writes at start-up on every machine; none requires an action.
_START_LINES = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|oneDNN custom operations are on"
    rb"|Could not find cuda drivers on your machine, GPU will not be used"
    rb"|This TensorFlow binary is optimized to use available CPU instructions"
    rb"|To enable the following instructions: .*, in other operations, rebuild TensorFlow"
    rb"|Unable to register cu(FFT|DNN|BLAS) factory"
    rb"|computation placer already registered"
    rb"|failed call to cuInit: .*NO_DEVICE|failed call to cuInit: .*UNKNOWN ERROR \(303\)"
)


def check_profile(profile: str) -> None:
    """Raise ValueError unless the profile is "quick" (minutes, the committed outputs) or "full" (published numbers)."""
    checks.require(profile in PROFILES, "PROFILE", "'quick' or 'full'", profile)


def record_metrics(notebook: str, data: str, *, profile: str, **metrics: float) -> pd.DataFrame:
    """Write a notebook's results to `<artifacts_dir>/metrics/<notebook>.json`, and return them as a table.

    The name of the data is `MovieLens.source`, or "none". An unknown profile, no metric, or one that is not a finite
    number raises ValueError.
    """
    check_profile(profile)
    checks.require(bool(metrics), f"metrics of {notebook}", "at least one keyword argument", metrics)
    for name, value in metrics.items():
        checks.require(checks.FINITE.accepts(value), f"metric {name!r}", "a finite number", value)
    numbers = {name: int(value) if isinstance(value, Integral) else float(value) for name, value in metrics.items()}
    record = {"notebook": notebook, "data": data, "profile": profile, "metrics": numbers}
    file = Config.load().artifacts_dir / "metrics" / f"{notebook}.json"
    checks.write_text(file, json.dumps(record, indent=2) + "\n")
    return pd.DataFrame({"value": pd.Series(numbers, dtype=object).rename_axis("metric")})


def show(resource: Any, *fields: str) -> None:
    """Print a resource of Vertex AI's SDK that was not created yet as YAML, with the names of the REST API.

    The resource has `to_dict()`, as `aiplatform.CustomJob`; `fields` are its parts to print, none for all. Names within
    a part are sorted, because labels and parameters come in another order each time.
    """
    import yaml

    parts = resource.to_dict()
    print("".join(yaml.safe_dump({name: parts[name]}, width=110) for name in fields or parts), end="")


def quiet_tensorflow() -> ModuleType:
    """Import TensorFlow without the lines that its C++ code writes to stderr at start-up, and initialise its devices.

    Only known lines are removed; all others are written when the import ends.
    """
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            tensorflow = importlib.import_module("tensorflow")
            tensorflow.config.list_physical_devices()
            return tensorflow
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            os.write(2, b"".join(line for line in written if not _START_LINES.search(line)))


class Check(NamedTuple):
    """A property of the machine, the condition on it, and whether it is met."""

    name: str
    actual: str
    required: str
    passed: bool


def check_machine(folder: str | os.PathLike) -> list[Check]:
    """Check Python, cores, memory, free disk, accelerators and the switch that selects Keras 2.

    The folder is a directory on the disk that will hold the artifacts. A GPU is not required. Where TensorFlow is not
    installed, a check that failed says so.
    """
    python, required = platform.python_version(), metadata.metadata("recbandits")["Requires-Python"]
    cores = count_cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    has_space = shutil.disk_usage(folder).free >= 2 * GIB
    try:
        gpus = len(quiet_tensorflow().config.list_physical_devices("GPU"))
        accelerator = Check("GPU", str(gpus or "none"), "not needed", True)
    except ModuleNotFoundError:
        accelerator = Check("TensorFlow", "missing", "installed", False)
    keras = os.environ.get("TF_USE_LEGACY_KERAS", "unset")
    return [
        Check("Python", python, required, SpecifierSet(required).contains(python)),
        Check("CPU cores", str(cores), "2 or more", cores >= 2),
        Check("memory", f"{memory:.0f} GiB", "4 GiB or more", memory >= 3.5),
        Check("free disk", "enough" if has_space else "too little", "2 GiB or more", has_space),
        accelerator,
        Check("TF_USE_LEGACY_KERAS", keras, "1", keras == "1"),
    ]


def check_packages(requirements: list[str] | None = None) -> list[Check]:
    """Check each package that the notebooks need, by name: the requirements of the project and its extra `lab`.

    Another list of requirements, such as ["numpy>=2.1,<2.4"], can take the place of those, to which TF-Agents belongs.
    """
    lines = [*(metadata.requires("recbandits") or ()), *TF_AGENTS] if requirements is None else requirements
    specifiers: dict[str, SpecifierSet] = {}
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": "lab"}):
            specifiers[requirement.name] = specifiers.get(requirement.name, SpecifierSet()) & requirement.specifier
    checked = []
    for name, specifier in sorted(specifiers.items()):
        package = next(iter(metadata.distributions(name=name)), None)
        version = "missing" if package is None else package.version
        fits = package is not None and specifier.contains(version)
        checked.append(Check(name, version, str(specifier) or "any", fits))
    return checked
