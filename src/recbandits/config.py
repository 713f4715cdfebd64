"""One configuration, chosen once, from which every resource name derives."""

import difflib
import os
import re
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import tomli_w

FILE_NAME = "recbandits.toml"
FILE_VARIABLE = "RECBANDITS_CONFIG"
PLATFORMS = ("local", "gcp")

_NAME = r"[a-z](?:-?[a-z0-9])*"
# The bounds are chosen so that the longest derived name fits: service accounts take 30 characters, buckets 63.
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
    "name": (rf"(?=.{{1,63}}$){_NAME}", "at most 63 lower-case letters, digits and single hyphens"),
}


def _check(name, value):
    """Refuse a value that is not a one-line text or breaks the rule of that name."""
    pattern, expected = _RULES[name]
    if not isinstance(value, str) or not value.isprintable() or not re.fullmatch(pattern, value):
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    if name in ("project", "prefix") and (value.startswith("goog") or re.search("google|g00gle", value)):
        raise ValueError(f"{name} must not resemble 'google', which Cloud Storage keeps for itself, got {value!r}")


@dataclass(frozen=True)
class Config:
    """The settings of a project, validated where they are made.

    Attributes:
      platform: "local" (the default, needs nothing else) or "gcp".
      project: Google Cloud project id; required on "gcp", may be empty on "local".
      region: Google Cloud region of every resource.
      prefix: first part of every resource name.
      version: second part; a new version gets resources of its own.
      artifacts: directory for everything a run makes; a relative one is taken from `folder`.
      folder: where the configuration file is; the working directory when there is none. Not a setting: it is neither
        written nor compared.

    Raises:
      ValueError: a setting that the cloud would refuse, in a sentence that names it.
    """

    platform: str = "local"
    project: str = ""
    region: str = "us-central1"
    prefix: str = "recbandits"
    version: str = "v1"
    artifacts: str = "artifacts"
    folder: Path | None = field(default=None, compare=False, repr=False)

    def __post_init__(self):
        if self.platform not in PLATFORMS:
            raise ValueError(f"platform must be 'local' or 'gcp', got {self.platform!r}")
        if self.platform == "gcp" and self.project == "":
            raise ValueError("project must be set when platform is 'gcp': give the id of a Google Cloud project")
        for name in ("region", "prefix", "version", "artifacts", *(["project"] if self.project != "" else [])):
            _check(name, getattr(self, name))

    @classmethod
    def load(cls, path=None):
        """Read the configuration.

        The file is, in this order: `path`; the one that $RECBANDITS_CONFIG names (which 00-env-setup may still have to
        write: until then the defaults hold; an empty name is none); recbandits.toml in the working directory or the
        nearest parent.
        Without a file the defaults hold. RECBANDITS_<SETTING>, such as RECBANDITS_PREFIX, overrides one setting.

        Args:
          path: a TOML file, or None to look for one.

        Returns:
          Config

        Raises:
          FileNotFoundError: `path` does not exist.
          ValueError: the file is a directory or not TOML, has an unknown key, or a value is refused.
        """
        file = Path(path) if path is not None else _find()
        settings = _read(file) if path is not None or file.exists() else {}
        overrides = {name: os.environ.get(f"RECBANDITS_{name.upper()}") for name in SETTINGS}
        settings |= {name: value for name, value in overrides.items() if value is not None}
        return cls(**settings, folder=file.absolute().parent)

    def write(self, path=None):
        """Write the settings as TOML, replacing the file at once.

        Args:
          path: the file; None is where `load` looks first: $RECBANDITS_CONFIG, else recbandits.toml in the working
            directory.

        Returns:
          pathlib.Path of the file.

        Raises:
          ValueError: there is a directory of that name.
        """
        file = Path(path or os.environ.get(FILE_VARIABLE) or FILE_NAME)
        _refuse_directory(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        settings = {name: value for name, value in asdict(self).items() if name in SETTINGS}
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.write_text("# RecBandits: read by every notebook.\n" + tomli_w.dumps(settings), encoding="utf-8")
        return draft.replace(file)

    @property
    def artifacts_dir(self):
        """Absolute `pathlib.Path` of the directory for everything a run makes (not created here)."""
        return Path(self.folder or Path.cwd(), Path(self.artifacts).expanduser()).resolve()

    @property
    def base(self):
        """`<prefix>-<version>`, which all names share."""
        return f"{self.prefix}-{self.version}"

    @property
    def bucket(self):
        """Cloud Storage bucket; bucket names are global, so it carries the project."""
        return f"{self._project_for('bucket')}-{self.base}"

    @property
    def dataset(self):
        """BigQuery dataset, which takes underscores instead of hyphens."""
        return self.base.replace("-", "_")

    @property
    def registry(self):
        """Artifact Registry repository."""
        return self.base

    @property
    def endpoint(self):
        """Vertex AI endpoint id."""
        return self.base

    @property
    def service_account_id(self):
        """The part of the service account's address before the @ (6 to 30 characters)."""
        return f"{self.base}-sa"

    @property
    def service_account(self):
        """The service account's e-mail address."""
        return f"{self.service_account_id}@{self._project_for('service_account')}.iam.gserviceaccount.com"

    @property
    def labels(self):
        """Labels of every resource: dict of lower-case keys and values, at most 63 characters each."""
        return {"app": "recbandits", "prefix": self.prefix, "version": self.version}

    def image(self, name):
        """URI of the container image `name` in the Artifact Registry repository."""
        _check("name", name)
        return f"{self.region}-docker.pkg.dev/{self._project_for('image')}/{self.registry}/{name}:{self.version}"

    def topic(self, name):
        """Pub/Sub topic id for `name`."""
        _check("name", name)
        return f"{self.base}-{name}"

    def _project_for(self, what):
        if not self.project:
            raise ValueError(f"{what} needs a project: set project to the id of a Google Cloud project")
        return self.project


SETTINGS = tuple(item.name for item in fields(Config) if item.compare)


def _find():
    """The configuration file of this process, whether it exists or not."""
    if named := os.environ.get(FILE_VARIABLE):
        return Path(named)
    here = Path.cwd()
    candidates = [folder / FILE_NAME for folder in (here, *here.parents)]
    return next((file for file in candidates if file.is_file()), candidates[0])


def _refuse_directory(file):
    if file.is_dir():
        raise ValueError(f"the configuration (path or {FILE_VARIABLE}) must be a TOML file, got the directory {file}")


def _read(file):
    """The settings in a TOML file, as a dict."""
    _refuse_directory(file)
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid TOML: {error}") from error
    for key in settings:
        if key not in SETTINGS:
            near = difflib.get_close_matches(key, SETTINGS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(SETTINGS)}"
            raise ValueError(f"{file} has an unknown key {key!r}: {hint}")
    return settings
