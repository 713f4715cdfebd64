"""Experiments of Vertex AI: runs in its metadata store, curves in a managed TensorBoard."""

import re
from contextlib import contextmanager
from numbers import Real

from recbandits.platforms.gcp.errors import explained
from recbandits.platforms.protocol import PlatformError, Resource
from recbandits.platforms.provisioning import expect

_ARTEFACT = "system.Artifact"
_STATES = {"RUNNING": "running", "COMPLETE": "succeeded", "FAILED": "failed", "CANCELLED": "stopped"}


class GcpExperiments:
    """See `platforms.experiments.Experiments`; the name of an experiment gets that of the configuration in front.

    Args:
      config: Config
      clients: `Clients`
    """

    def __init__(self, config, clients):
        self._config, self._clients = config, clients

    def run(self, experiment, run):
        """See `Experiments.run`.

        Raises:
          ValueError: a name that Vertex AI would refuse.
        """
        return GcpRun(self._name(experiment, run), run, self._config, self._clients)

    def table(self, experiment):
        """See `Experiments.table`; numbers are floats, as Vertex AI keeps them.

        Raises:
          PlatformError: there is no such experiment.
        """
        name = self._name(experiment)
        with self._clients.sdk() as sdk, explained(Resource("experiment", name), "read"):
            found = sdk.Experiment.get(name)
            if found is None:
                raise PlatformError(f"there is no experiment {name}")
            table = found.get_data_frame(include_time_series=False)
        if table.empty:
            return table
        table = table.rename(columns={"run_name": "run"}).set_index("run").sort_index()
        table["state"] = table["state"].map(_STATES).fillna("running")
        parts = (sorted(name for name in table if name.startswith(part)) for part in ("param.", "metric."))
        return table[["state", *(name for part in parts for name in part)]]

    def series(self, experiment, run):
        """Return the curves of a run: DataFrame indexed by step, a column for each number.

        Raises:
          PlatformError: there is no such run.
        """
        with self._clients.sdk() as sdk, explained(Resource("run", run), "read"):
            frame = self._find(sdk, experiment, run).get_time_series_data_frame()
        return frame if frame.empty else frame.drop(columns="wall_time").groupby("step").last()

    def artefacts(self, experiment, run):
        """Return the artefacts of a run: dict from name to URI.

        Raises:
          PlatformError: there is no such run.
        """
        with self._clients.sdk() as sdk, explained(Resource("run", run), "read"):
            kept = self._find(sdk, experiment, run).get_artifacts()
        return {each.display_name: each.uri for each in kept if each.schema_title == _ARTEFACT}

    def _find(self, sdk, experiment, run):
        found = sdk.ExperimentRun.get(run, experiment=self._name(experiment, run))
        if found is None:
            raise PlatformError(f"there is no run {run} in experiment {self._name(experiment)}")
        return found

    def _name(self, experiment, run=""):
        name = f"{self._config.base}-{experiment}"
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,127}", f"{name}-{run}" if run else name):
            raise ValueError(
                f"names of an experiment and a run must be lower-case letters, digits and hyphens, with "
                f"{self._config.base!r} at most 126 of them, got {experiment!r} and {run!r}"
            )
        return name


class GcpRun:
    """One run; see `platforms.experiments.Run`. It succeeded if its `with` block ends without an error."""

    def __init__(self, experiment, name, config, clients):
        self._experiment, self._name, self._config, self._clients = experiment, name, config, clients

    def __enter__(self):
        with self._set_up("begun") as sdk:
            experiment = sdk.Experiment.get_or_create(self._experiment)
            self._run = sdk.ExperimentRun.get(self._name, experiment=experiment)
            if self._run is None:
                board = self._tensorboard(sdk)
                self._run = sdk.ExperimentRun.create(self._name, experiment=experiment, tensorboard=board)
            else:
                self._run.update_state(sdk.gapic.Execution.State.RUNNING)
        return self

    def __exit__(self, kind, error, trace):
        with self._set_up("ended") as sdk:
            states = sdk.gapic.Execution.State
            self._run.update_state(states.COMPLETE if kind is None else states.FAILED)

    def log_parameters(self, parameters):
        """See `Run.log_parameters`; later values replace earlier ones of the same name."""
        with self._set_up("given parameters"):
            self._run.log_params(_plain("parameter", parameters, str | Real, "a text or a number"))

    def log_metrics(self, metrics):
        """See `Run.log_metrics`; later values replace earlier ones of the same name."""
        with self._set_up("given metrics"):
            self._run.log_metrics(_plain("metric", metrics, Real, "a number"))

    def log_series(self, metrics, step):
        """Add a point to the curve of each number; a later value of the same step replaces an earlier one."""
        with self._set_up("given a point"):
            self._run.log_time_series_metrics(_plain("metric", metrics, Real, "a number"), step=step)

    def log_artefact(self, name, uri):
        """See `Run.log_artefact`."""
        with self._set_up("given an artefact") as sdk:
            made = sdk.Artifact.create(schema_title=_ARTEFACT, uri=uri, display_name=name)
            metadata = self._clients.vertex("Metadata")
            request = {"context": self._run.resource_name, "artifacts": [made.resource_name]}
            metadata.add_context_artifacts_and_executions(request=request)

    @contextmanager
    def _set_up(self, done):
        with self._clients.sdk() as sdk, explained(Resource("run", self._name), done):
            yield sdk

    def _tensorboard(self, sdk):
        """The one TensorBoard of the configuration, created when it is first needed."""
        found = sdk.Tensorboard.list(filter=f'display_name="{self._config.base}"')
        if found:
            return found[0]
        parent = f"projects/{self._config.project}/locations/{self._config.region}"
        board = Resource("TensorBoard", f"{parent}/tensorboards/{self._config.base}")
        expect(self._config, board, lambda _: False)
        return sdk.Tensorboard.create(display_name=self._config.base, labels=self._config.labels)


def _plain(what, values, kinds, expected):
    """Texts, and numbers of Python, which alone the SDK takes."""
    for name, value in values.items():
        if not isinstance(value, kinds):
            raise ValueError(f"{what} {name!r} must be {expected}, got {value!r}")
    return {name: value if isinstance(value, str) else float(value) for name, value in values.items()}
