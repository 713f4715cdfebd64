"""The protocol of pipelines: a compiled template is run under a name, once.

A template is a file that KFP's compiler has written; the same file runs on every platform.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

from recbandits.platforms.protocol import PlatformError

IMAGE = "recbandits-train"  # of every step in a template; Google Cloud is given the configuration's own instead
ALARM = "RECBANDITS ALARM"  # begins the log line of a monitor's alarm, before the base name and the sentence
SNAPSHOT = "snapshot"  # input that names the data to be read; a run without it may use no cache


class Run(NamedTuple):
    """The status of a run of a pipeline."""

    name: str
    state: str  # "running", "succeeded", "failed" or "stopped"
    outputs: dict  # of the pipeline, by name: a value, or where an artifact is; empty until it has succeeded
    error: str  # one sentence, or empty


class Pipelines(Protocol):
    """The pipelines of one platform; what goes wrong is a `PlatformError` of one sentence."""

    def run(self, template: str | Path, name: str, parameters: dict | None = None) -> Run:
        """Start a run, unless one of this name runs or has succeeded; the same name is always the same run.

        One that failed, was stopped or was killed is run again. No two runs of one pipeline go on at once. A run goes
        on without this process.

        Args:
          template: path of the compiled pipeline.
          name: at most 63 lower-case letters, digits and single hyphens.
          parameters: dict from input of the pipeline to value.

        Raises:
          PlatformError: another run of this pipeline goes on; or the name belongs to a run with another template or
            other parameters.
        """

    def status(self, name: str) -> Run:
        """The `Run` of this name as it is now."""

    def wait(self, name: str) -> Run:
        """Wait for the end of a run; gives the `Run`."""

    def stop(self, name: str) -> None:
        """Stop a run; one that runs no more is no error."""

    def running(self, pipeline: str) -> str | None:
        """Name of the run of a pipeline that goes on, or None."""


def read_template(file: str | Path) -> tuple[str, dict, str]:
    """Return the text of a compiled pipeline, its content, and the pipeline's name; PlatformError for another file."""
    import yaml

    try:
        text = Path(file).read_text(encoding="utf-8")
        spec = next(yaml.safe_load_all(text))
        name, _ = spec["pipelineInfo"]["name"], spec["deploymentSpec"]["executors"]
        return text, spec, name
    except (OSError, UnicodeDecodeError, yaml.YAMLError, StopIteration, LookupError, TypeError) as error:
        raise PlatformError(f"template must be a compiled pipeline, got {file}: {error}") from error
