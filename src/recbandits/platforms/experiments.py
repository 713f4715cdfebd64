"""What the project asks of experiment tracking."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pandas as pd


class Run(Protocol):
    """One run of an experiment, for use in a `with` block."""

    def log_parameters(self, parameters: Mapping[str, str | float]) -> None:
        """Keep a dict of texts and numbers."""

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Keep a dict of numbers: how the run ended."""

    def log_artefact(self, name: str, uri: str) -> None:
        """Remember where something that the run made is."""


class Experiments(Protocol):
    """Experiments on one platform."""

    def run(self, experiment: str, run: str) -> Run:
        """Begin or go on with a `Run`."""

    def table(self, experiment: str) -> "pd.DataFrame":
        """Compare the runs: DataFrame indexed by run, with columns `param.*` and `metric.*` and the state."""
