"""A small project on this machine, with what each step of a pipeline is given, and a way to run one step alone."""

import json
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from kfp import dsl, local

from recbandits.config import Config
from recbandits.data import synthetic
from recbandits.loop.generate import generate
from recbandits.loop.ingest import ingest
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS, SimulatedUsers
from recbandits.loop.steps import config_parameter, models_of
from recbandits.loop.train import train
from recbandits.platforms import choose

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
MIDDLE, END = START + timedelta(seconds=60), START + timedelta(seconds=120)


class Given(NamedTuple):
    """What a step gave: its parameters by name, its artifacts by name as (path, metadata)."""

    parameters: dict
    artifacts: dict


class Project:
    """A configuration with its platform, world, warehouse and settings."""

    def __init__(self, root):
        self.config = Config(artifacts=str(root / "artifacts"))
        self.parameter, self.platform = config_parameter(self.config), choose(self.config)
        self.settings = Settings(STARS, movies=20, candidates=5)
        self.world, self.world_directory = SimulatedUsers.make(synthetic.generate(), movies=20, rank=4), root / "world"
        self.world.save(self.world_directory)

    def ingested(self, directory, start, end):
        """The directory, with the decisions of a span of time."""
        ingest(self.platform.warehouse, start, end, self.settings.join, self.world.features, directory)
        return directory


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A project in which 600 decisions were logged in the first minute, and 600 in the second."""
    project = Project(tmp_path_factory.mktemp("project"))
    for seed, start in enumerate((START, MIDDLE)):
        generate(project.world, project.platform.warehouse, 600, start, seed, candidates=5)
    return project


@pytest.fixture(scope="session")
def datasets(project, tmp_path_factory):
    """Directories of the first minute's and of both minutes' decisions."""
    root = tmp_path_factory.mktemp("datasets")
    return project.ingested(root / "first", START, MIDDLE), project.ingested(root / "both", START, END)


@pytest.fixture(scope="session")
def models(project, datasets, tmp_path_factory):
    """Directories of a model of the first minute, which serves and is kept by its version, and of one that went on."""
    root, settings = tmp_path_factory.mktemp("models"), project.settings
    train(datasets[0], root / "first", settings.agent, settings.exploration)
    train(datasets[1], root / "second", settings.agent, settings.exploration, root / "first")
    models_of(project.config).keep(root / "first")
    return root / "first", root / "second"


@pytest.fixture
def run_step(tmp_path):
    """Function that runs one component by KFP's local runner, in a process of its own, and gives what it `Given`.

    Artifacts are given as (class, path); a failure raises RuntimeError.
    """
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "steps"), raise_on_error=True)

    def run(component, artifacts=None, **parameters):
        @dsl.pipeline(name="alone")
        def alone():
            found = {
                name: dsl.importer(artifact_uri=str(path), artifact_class=kind).output
                for name, (kind, path) in (artifacts or {}).items()
            }
            component(**found, **parameters)

        alone()
        (file,) = sorted(tmp_path.glob(f"steps/*/{component.name}/executor_output.json"))[-1:]
        written = json.loads(file.read_text())
        files = {name: given["artifacts"][0] for name, given in written.get("artifacts", {}).items()}
        given = {name: (artifact["uri"], artifact["metadata"]) for name, artifact in files.items()}
        return Given(written.get("parameterValues", {}), given)

    return run
