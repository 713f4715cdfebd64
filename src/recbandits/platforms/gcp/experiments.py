"""Experiments of Vertex AI: `aiplatform.start_run` under the names of the configuration."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recbandits.config import Config
from recbandits.platforms.gcp.cloud import STATES, Service, explained, has_labels, vertex
from recbandits.platforms.protocol import PlatformError, plain_values

if TYPE_CHECKING:
    import pandas as pd


class GcpExperiments(Service):
    """See `platforms.protocol.Experiments`; the name of an experiment begins with that of the configuration."""

    def name(self, experiment: str, run: str = "") -> str:
        """Return the name of an experiment in the project; a ValueError where Vertex AI would refuse it, or a run."""
        name = f"{self._config.base}-{experiment}"
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,127}", f"{name}-{run}" if run else name):
            raise ValueError(
                f"names of an experiment and a run must be lower-case letters, digits and hyphens, with "
                f"{self._config.base!r} at most 126 of them, got {experiment!r} and {run!r}"
            )
        return name

    def run(self, experiment: str, run: str) -> "GcpRun":
        """See `Experiments.run`."""
        return GcpRun(self._config, self.name(experiment, run), run)

    def table(self, experiment: str) -> "pd.DataFrame":
        """See `Experiments.table`; numbers are floats, as Vertex AI keeps them."""
        name = self.name(experiment)
        with explained(f"experiment {name}"):
            if (resource := vertex(self._config).Experiment.get(name)) is None:
                raise PlatformError(f"there is no experiment {name}")
            table = resource.get_data_frame(include_time_series=False)
        if table.empty:
            return table
        table = table.rename(columns={"run_name": "run"}).set_index("run").sort_index()
        table["state"] = table["state"].map(STATES).fillna("running")
        parts = ("state", "param.", "metric.")
        return table[[name for part in parts for name in sorted(table) if name.startswith(part)]]


class GcpRun:
    """An `aiplatform.ExperimentRun`; see `platforms.protocol.Run`. It failed if its `with` block raises."""

    def __init__(self, config: Config, experiment: str, name: str):
        self._config, self._experiment, self._name = config, experiment, name

    def __enter__(self):
        config = self._config
        with self._explained():
            boards = tensorboards(config)
            board = boards[0] if boards else vertex(config).Tensorboard.create(config.base, labels=config.labels)
            sdk = vertex(config, experiment=self._experiment, experiment_tensorboard=board)
            resume = sdk.ExperimentRun.get(self._name, experiment=self._experiment) is not None
            self._run = sdk.start_run(self._name, tensorboard=None if resume else board.resource_name, resume=resume)
        return self

    def __exit__(self, kind, error, trace):
        with self._explained():
            states = vertex(self._config).gapic.Execution.State
            vertex(self._config).end_run(states.COMPLETE if kind is None else states.FAILED)

    def log_parameters(self, parameters: Mapping[str, str | float]) -> None:
        """See `Run.log_parameters`; later values replace earlier ones of the same name."""
        with self._explained():
            self._run.log_params(plain_values("parameter", parameters))

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """See `Run.log_metrics`; later values replace earlier ones of the same name."""
        with self._explained():
            self._run.log_metrics(plain_values("metric", metrics))

    def log_artefact(self, name: str, uri: str) -> None:
        """See `Run.log_artefact`."""
        with self._explained():
            sdk = vertex(self._config)
            with sdk.start_execution(schema_title="system.ContainerExecution", display_name=self._name) as execution:
                artefact = sdk.Artifact.create(schema_title="system.Artifact", uri=uri, display_name=name)
                execution.assign_output_artifacts([artefact])

    def _explained(self):
        return explained(f"run {self._name}")


def tensorboards(config: Config) -> list[Any]:
    """List the `aiplatform.Tensorboard`s of a configuration; that a filter knows their labels is not documented."""
    boards = vertex(config).Tensorboard.list(filter=f'display_name="{config.base}"')
    return [board for board in boards if has_labels(config, board)]
