"""What the project asks of experiment tracking."""

from typing import Protocol


class Run(Protocol):
    """One run of an experiment, for use in a `with` block."""

    def log_parameters(self, parameters):
        """Keep a dict of texts and numbers."""

    def log_metrics(self, metrics):
        """Keep a dict of numbers: how the run ended."""

    def log_artefact(self, name, uri):
        """Remember where something that the run made is."""


class Experiments(Protocol):
    """Experiments on one platform."""

    def run(self, experiment, run):
        """Begin or go on with a `Run`."""

    def table(self, experiment):
        """Compare the runs: DataFrame indexed by run, with columns `param.*` and `metric.*` and the state."""
