"""Experiments on this machine: parameters, metrics and states of runs in one SQLite file."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recbandits.checks import require
from recbandits.config import Config
from recbandits.platforms.local.sqlite import Database
from recbandits.platforms.protocol import PlatformError, plain_values

if TYPE_CHECKING:
    import pandas as pd

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (
  experiment TEXT, run TEXT, name TEXT, value TEXT NOT NULL, PRIMARY KEY (experiment, run, name)
) WITHOUT ROWID;
"""
_COLUMNS = ("state", "param.", "metric.", "artefact.")  # prefixes of names, in the order of the table


class LocalExperiments:
    """Runs in `runs/experiments` of the artifacts directory; see `platforms.protocol.Experiments`."""

    def __init__(self, config: Config):
        self._database = Database(config.artifacts_dir / "runs" / "experiments" / "experiments.sqlite", _SCHEMA)

    def run(self, experiment: str, run: str) -> "LocalRun":
        """See `Experiments.run`."""
        return LocalRun(self._database, _checked(experiment), _checked(run))

    def table(self, experiment: str) -> "pd.DataFrame":
        """See `Experiments.table`; states are those of jobs."""
        import pandas as pd

        rows: dict[str, dict[str, Any]] = {}
        facts = "SELECT run, name, value FROM facts WHERE experiment = ? ORDER BY run"
        with self._database.read() as connection:
            for run, name, value in connection.execute(facts, [_checked(experiment)]):
                rows.setdefault(run, {})[name] = json.loads(value)
            if not rows:
                names = [name for (name,) in connection.execute("SELECT DISTINCT experiment FROM facts ORDER BY 1")]
                known = ", ".join(names) or "none"
                raise PlatformError(f"there is no experiment {experiment}; what there is: {known}")
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")
        return table[[name for prefix in _COLUMNS for name in sorted(table) if name.startswith(prefix)]]


class LocalRun:
    """One run; see `platforms.protocol.Run`. It succeeded if its `with` block ends without an error."""

    def __init__(self, database: Database, experiment: str, run: str):
        self._database, self._key = database, (experiment, run)

    def __enter__(self):
        self._write({"state": "running"})
        return self

    def __exit__(self, kind, error, trace):
        self._write({"state": "succeeded" if kind is None else "failed"})

    def log_parameters(self, parameters: Mapping[str, str | float]) -> None:
        """See `Run.log_parameters`; later values replace earlier ones of the same name."""
        self._write({f"param.{name}": value for name, value in plain_values("parameter", parameters).items()})

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """See `Run.log_metrics`; later values replace earlier ones of the same name."""
        self._write({f"metric.{name}": value for name, value in plain_values("metric", metrics).items()})

    def log_artefact(self, name: str, uri: str) -> None:
        """See `Run.log_artefact`; the table has it in the column `artefact.<name>`."""
        self._write({f"artefact.{name}": str(uri)})

    def _write(self, facts):
        rows = [(*self._key, name, json.dumps(value)) for name, value in facts.items()]
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", rows)


def _checked(name):
    allowed = isinstance(name, str) and re.fullmatch(r"[a-z0-9][a-z0-9-]{0,127}", name)
    require(bool(allowed), "name", "1 to 128 lower-case letters, digits and hyphens, no hyphen first", name)
    return name
