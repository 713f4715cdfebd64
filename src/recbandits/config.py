"""The configuration of a project, from which every resource name derives."""

import difflib
import os
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import tomli_w

from recbandits import checks

FILE_NAME = "recbandits.toml"
FILE_VARIABLE = "RECBANDITS_CONFIG"
PLATFORMS = {  # the class of each; another platform is another entry
    "local": "recbandits.platforms.local:LocalPlatform",
    "gcp": "recbandits.platforms.gcp:GcpPlatform",
}
ROLES = ("train", "serve", "function", "build")  # each has a service account on Google Cloud

_NAME = r"[a-z](?:-?[a-z0-9])*"
# The lengths are chosen so that the longest derived name is valid: service accounts have at most 30 characters, buckets
# 63. Cloud Storage keeps names that resemble "google" for itself.
_RULES = {
    "project": (
        r"[a-z][a-z0-9-]{4,28}[a-z0-9]",
        "a Google Cloud project id (6 to 30 lower-case letters, digits and hyphens, starting with a letter)",
    ),
    "region": (r"[a-z]+-[a-z]+[0-9]{1,2}", "a Google Cloud region such as 'us-central1' (not a zone)"),
    "prefix": (
        rf"(?=.{{1,18}}$){_NAME}",
        "1 to 18 lower-case letters, digits and single hyphens, starting with a letter",
    ),
    "version": (r"[a-z0-9]{1,8}", "1 to 8 lower-case letters and digits"),
    "artifacts": (r"(?!.*://).+", "a directory on this machine"),
    "alert_email": (r"[^@\s]+@[^@\s]+\.[^@\s]+", "an e-mail address, or empty for no alerts"),
    "name": (rf"(?=.{{1,63}}$){_NAME}", "at most 63 lower-case letters, digits and single hyphens"),
}


def _check(name: str, value: Any) -> None:
    """Raise ValueError unless the value is a line of text that obeys the rule of that name."""
    pattern, expected = _RULES[name]
    valid = isinstance(value, str) and value.isprintable() and re.fullmatch(pattern, value) is not None
    checks.require(valid, name, expected, value)
    if name in ("project", "prefix") and re.search("^goog|google|g00gle", value):
        raise ValueError(f"{name} must not resemble 'google', got {value!r}")


@dataclass(frozen=True)
class Config:
    """The settings of a project.

    Attributes:
      platform: "local" (the default, needs nothing else), "gcp", or another key of `PLATFORMS`.
      project: Google Cloud project id; required on "gcp", may be empty on "local".
      region: Google Cloud region of every resource.
      prefix: first part of every resource name.
      version: second part; a new version gets resources of its own.
      artifacts: directory for all files of a run; a relative one is in `folder`.
      alert_email: address to which Google Cloud sends alerts and warnings about the budget; empty for none.
      folder: directory of the configuration file, or the working directory without a file. It is not a setting: it is
        neither written nor compared.

    Raises:
      ValueError: the cloud would refuse a setting; the sentence names it.
    """

    platform: str = "local"
    project: str = ""
    region: str = "us-central1"
    prefix: str = "recbandits"
    version: str = "v1"
    artifacts: str = "artifacts"
    alert_email: str = ""
    folder: Path | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        checks.require(self.platform in tuple(PLATFORMS), "platform", " or ".join(map(repr, PLATFORMS)), self.platform)
        if self.platform == "gcp" and self.project == "":
            raise ValueError("project must be set when platform is 'gcp': give the id of a Google Cloud project")
        optional = [name for name in ("project", "alert_email") if getattr(self, name) != ""]
        for name in ("region", "prefix", "version", "artifacts", *optional):
            _check(name, getattr(self, name))
        known = not os.path.expanduser(self.artifacts).startswith("~")  # "~name" of no user
        checks.require(known, "artifacts", _RULES["artifacts"][1], self.artifacts)

    @classmethod
    def load(cls, path: str | os.PathLike | None = None) -> Self:
        """Read the configuration.

        The file is `path`, else $RECBANDITS_CONFIG unless that is empty, else recbandits.toml in the working directory
        or the nearest directory above it. Without a file, or before the file that $RECBANDITS_CONFIG names is written,
        the defaults hold. RECBANDITS_<SETTING>, such as RECBANDITS_PREFIX, overrides one setting.

        Raises:
          FileNotFoundError: `path` does not exist.
          ValueError: the file is a directory or not TOML, has an unknown key, or a value is refused.
        """
        file = Path(path) if path is not None else find_file()
        settings = _read(file) if path is not None or file.exists() else {}
        overrides = {name: os.environ.get(f"RECBANDITS_{name.upper()}") for name in SETTINGS}
        settings |= {name: value for name, value in overrides.items() if value is not None}
        return cls(**settings, folder=file.absolute().parent)

    def write(self, path: str | os.PathLike | None = None) -> Path:
        """Write the settings as a TOML file and return its path, which must be no directory.

        The file is `path`, else $RECBANDITS_CONFIG, else recbandits.toml in the working directory.
        """
        file = Path(path or os.environ.get(FILE_VARIABLE) or FILE_NAME)
        _refuse_directory(file)
        settings = {name: getattr(self, name) for name in SETTINGS}
        return checks.write_text(file, "# RecBandits: read by every notebook.\n" + tomli_w.dumps(settings))

    @property
    def artifacts_dir(self) -> Path:
        """Absolute path of the directory for all files of a run, which may not exist yet."""
        return Path(self.folder or Path.cwd(), Path(self.artifacts).expanduser()).resolve()

    @property
    def base(self) -> str:
        """`<prefix>-<version>`, the part that all names share."""
        return f"{self.prefix}-{self.version}"

    @property
    def bucket(self) -> str:
        """Cloud Storage bucket; bucket names are global, so it contains the project."""
        return f"{self._project_for('bucket')}-{self.base}"

    @property
    def dataset(self) -> str:
        """BigQuery dataset, with underscores instead of hyphens."""
        return self.base.replace("-", "_")

    registry = endpoint = base  # ids of the Artifact Registry repository and of the Vertex AI endpoint

    @property
    def labels(self) -> dict[str, str]:
        """Labels of every resource."""
        return {"app": "recbandits", "prefix": self.prefix, "version": self.version}

    def account(self, role: str) -> str:
        """Return the e-mail address of the service account of one of `ROLES`, whose first two letters end the id."""
        checks.require(role in ROLES, "role", f"one of {', '.join(ROLES)}", role)
        return f"{self.base}-{role[:2]}@{self._project_for('account')}.iam.gserviceaccount.com"

    def image(self, name: str) -> str:
        """Return the URI of the container image `name` in the Artifact Registry repository."""
        _check("name", name)
        return f"{self.region}-docker.pkg.dev/{self._project_for('image')}/{self.registry}/{name}:{self.version}"

    def topic(self, name: str) -> str:
        """Return the Pub/Sub topic id for `name`."""
        _check("name", name)
        return f"{self.base}-{name}"

    def _project_for(self, name: str) -> str:
        if not self.project:
            raise ValueError(f"{name} needs a project: set project to the id of a Google Cloud project")
        return self.project


SETTINGS = tuple(item.name for item in fields(Config) if item.compare)
_OF_OTHERS = (  # variables of other modules and of the images, without "RECBANDITS_"
    "CONFIG CACHE MOVIELENS OPEN_BANDIT ACCELERATOR START SETTINGS FEATURES USERS "
    "ADMIN_TOKEN RELEASE EVENT_TOPIC EVENT_SINK EVENT_SPOOL"
)
VARIABLES = tuple(f"RECBANDITS_{name.upper()}" for name in (*SETTINGS, *_OF_OTHERS.split()))


def count_cores() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_file() -> Path:
    """Return the path of the configuration file of this process, which may not exist yet."""
    if named := os.environ.get(FILE_VARIABLE):
        return Path(named)
    files = [folder / FILE_NAME for folder in (Path.cwd(), *Path.cwd().parents)]
    return next((file for file in files if file.is_file()), files[0])


def describe_file() -> str:
    """Return the path of the configuration file, or that the defaults hold because it is not there."""
    file = find_file()
    return str(file) if file.exists() else f"defaults, because there is no {os.environ.get(FILE_VARIABLE) or FILE_NAME}"


def describe_unknown_variables() -> list[str]:
    """List a sentence on each variable RECBANDITS_... of the environment that nothing reads."""
    unknown = sorted(name for name in os.environ if name.startswith("RECBANDITS_") and name not in VARIABLES)
    return [f"{name} is unknown: {_hint(name, VARIABLES, 'variables', 'RECBANDITS_')}" for name in unknown]


def _hint(name, known, kind, prefix=""):
    """Return the known name that is nearest to another one, but for the prefix of all of them, or all known ones."""
    ends = {each.removeprefix(prefix): each for each in known}
    near = difflib.get_close_matches(name.removeprefix(prefix), ends, n=1)
    return f"did you mean {ends[near[0]]!r}?" if near else f"known {kind} are {', '.join(known)}"


def _refuse_directory(file: Path) -> None:
    if file.is_dir():
        raise ValueError(f"the configuration (path or {FILE_VARIABLE}) must be a TOML file, got the directory {file}")


def _read(file: Path) -> dict[str, Any]:
    """Read the settings in a TOML file."""
    _refuse_directory(file)
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid TOML: {error}") from error
    for key in settings:
        if key not in SETTINGS:
            raise ValueError(f"{file} has an unknown key {key!r}: {_hint(key, SETTINGS, 'keys')}")
    return settings
