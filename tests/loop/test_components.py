"""Each component alone, by KFP's local runner in a process of its own: it does what its function does."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from kfp import dsl, local

from recbandits.config import Config
from recbandits.data import synthetic
from recbandits.loop.canary import verdict_of
from recbandits.loop.components import deployer, evaluator, importer, ingester, monitor, trainer
from recbandits.loop.gate import Judgement, judge_log
from recbandits.loop.ingest import decisions_of, import_log, ingest, read_manifest, write_log
from recbandits.loop.models import config_parameter, keep_model, models_of, read_model
from recbandits.loop.settings import Settings
from recbandits.loop.simulate import simulate_log
from recbandits.loop.simulated_users import STARS, SimulatedUsers
from recbandits.loop.train import train
from recbandits.platforms import choose
from recbandits.platforms.pipelines import ALARM
from recbandits.records import Interaction, Verdict, from_table
from recbandits.serving.policy import load

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
MIDDLE, END = START + timedelta(seconds=60), START + timedelta(seconds=120)


class Outputs(NamedTuple):
    """Outputs of a component: its parameters by name, its artifacts by name as (path, metadata)."""

    parameters: dict
    artifacts: dict


class Project:
    """A configuration with its platform, users, warehouse and settings."""

    def __init__(self, root):
        self.config = Config(artifacts=str(root / "artifacts"))
        self.parameter, self.platform = config_parameter(self.config), choose(self.config)
        self.settings = Settings(STARS, movies=20, rank=4, candidates=5)
        self.users, self.users_directory = SimulatedUsers.of(self.settings, synthetic.generate()), root / "users"
        self.users.save(self.users_directory)

    def ingest(self, directory, start, end):
        """Ingest the decisions of a span of time into a directory, and return it."""
        ingest(self.platform.warehouse, start, end, self.settings.join, self.users.features, directory)
        return directory


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project in which 600 decisions were logged in the first minute, and 600 in the second."""
    project = Project(tmp_path_factory.mktemp("project"))
    for seed, start in enumerate((START, MIDDLE)):
        import_log(project.platform.warehouse, *simulate_log(project.users, 600, start, candidates=5, seed=seed))
    return project


@pytest.fixture(scope="module")
def datasets(project, tmp_path_factory):
    """Directories of the first minute's and of both minutes' decisions."""
    root = tmp_path_factory.mktemp("datasets")
    return project.ingest(root / "first", START, MIDDLE), project.ingest(root / "both", START, END)


@pytest.fixture(scope="module")
def models(project, datasets, tmp_path_factory):
    """Directories of a model of the first minute, which serves and is kept by its version, and of its child."""
    root, settings = tmp_path_factory.mktemp("models"), project.settings
    train(datasets[0], root / "first", settings.agent, settings.exploration)
    train(datasets[1], root / "second", settings.agent, settings.exploration, root / "first")
    keep_model(read_model(root / "first"), models_of(project.config))
    return root / "first", root / "second"


def judge(dataset, candidate, serving, gate):
    """Judge two models, given as directories, by the held-out decisions of a dataset."""
    policies = (load(directory / "policy") for directory in (candidate, serving))
    return judge_log(decisions_of(dataset, held_out=True), *policies, gate)


@pytest.fixture
def run_step(tmp_path):
    """Function that runs one component, and returns its `Outputs`.

    Artifacts are given as (class, path); a failure raises RuntimeError.
    """
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "steps"), raise_on_error=True)

    def run(component, artifacts=None, **parameters):
        @dsl.pipeline(name="alone")
        def alone():
            inputs = {
                name: dsl.importer(artifact_uri=str(path), artifact_class=kind).output
                for name, (kind, path) in (artifacts or {}).items()
            }
            component(**inputs, **parameters)

        alone()
        (file,) = sorted(tmp_path.glob(f"steps/*/{component.name}/executor_output.json"))[-1:]
        output = json.loads(file.read_text())
        files = {name: lists["artifacts"][0] for name, lists in output.get("artifacts", {}).items()}
        paths = {name: (artifact["uri"], artifact["metadata"]) for name, artifact in files.items()}
        return Outputs(output.get("parameterValues", {}), paths)

    return run


def test_the_importer_writes_a_log(project, run_step, tmp_path):
    """50 decisions, 10 % of them without a reward, some with two."""
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    end = start + timedelta(seconds=30 * 49 / 50, microseconds=1)
    interactions, rewards = simulate_log(project.users, 50, start, 30.0, candidates=5)
    write_log(tmp_path / "log", interactions, rewards)
    outputs = run_step(importer, config=project.parameter, log=str(tmp_path / "log"))
    rows = project.platform.warehouse.decisions(start, end, STARS)
    assert rows["event_id"].to_pylist() == interactions["event_id"].to_pylist()
    counts = {"decisions": 50, "rewards": len(rewards), "written": 50 + len(rewards)}
    assert outputs.artifacts["metrics"][1] == counts
    window = {"start": start.isoformat(), "end": end.isoformat()}
    snapshot = project.platform.warehouse.snapshot(start, end)
    assert outputs.parameters == window | {"snapshot": snapshot}


def test_the_ingester_gives_what_its_function_gives(project, datasets, run_step):
    """The same window gives the same bytes, but for the titles, which only the component knows."""
    expected = read_manifest(datasets[0])
    parameters = {"config": project.parameter, "features": str(project.users_directory), "snapshot": "planned"}
    parameters |= {"join": asdict(project.settings.join), "holdout": 0.3, "serving": "abc"}
    outputs = run_step(ingester, **parameters, **{name: expected[name] for name in ("start", "end")})
    directory, metadata = outputs.artifacts["dataset"]
    manifest = read_manifest(directory)
    assert manifest["files"] == expected["files"] | {"titles.json": manifest["files"]["titles.json"]}
    assert [manifest[name] for name in ("counts", "decisions")] == [expected[name] for name in ("counts", "decisions")]
    assert outputs.parameters == {"serving": "abc"}
    assert metadata["digest"] == manifest["digest"]
    counts = dict(outputs.artifacts["metrics"][1])
    assert counts == manifest["counts"]
    assert counts.pop("total") == sum(counts.values()) > 600


def test_the_monitor_logs_the_numbers_of_the_window_and_of_the_change_to_the_one_before(project, datasets, run_step):
    """Uniform random decisions: 1 / (k p) is 1. Rewards and contexts of both minutes are alike."""
    second = project.ingest(datasets[0].with_name("second"), MIDDLE, END)
    parameters = {"config": project.parameter, "join": asdict(project.settings.join)}
    outputs = run_step(monitor, {"dataset": (dsl.Dataset, second)}, **parameters)
    numbers = outputs.artifacts["metrics"][1]
    assert outputs.parameters == {"Output": []}
    assert (numbers["decisions"], numbers["ratio_uniform"]) == (600, pytest.approx(1))
    assert 0 < numbers["psi_reward"] < 0.1
    assert numbers["missing"] == pytest.approx(0.1, abs=0.05)


def test_the_monitor_writes_alarms_into_the_log_from_which_cloud_monitoring_sends_them(project, tmp_path, capsys):
    """In the second minute no client reports."""
    start, warehouse, metrics = datetime(2026, 2, 1, 12, tzinfo=UTC), project.platform.warehouse, dsl.Metrics()
    middle, end = (start + timedelta(seconds=seconds) for seconds in (60, 120))
    import_log(warehouse, *simulate_log(project.users, 300, start, candidates=5))
    decisions, _ = simulate_log(project.users, 300, middle, candidates=5)
    warehouse.write(from_table(decisions, Interaction))
    silent = project.ingest(tmp_path / "silent", middle, end)
    alarms = monitor.python_func(project.parameter, dsl.Dataset(uri=str(silent)), asdict(STARS), metrics)
    assert any("100.0% of the decisions have no reward" in alarm for alarm in alarms)
    lines = [f"{ALARM} {project.config.base}: {alarm}" for alarm in alarms]
    assert capsys.readouterr().out.splitlines() == lines


def test_the_trainer_goes_on_from_what_serves(project, datasets, models, run_step):
    """Of both minutes the first is known: what is new is the second's, and the version is the function's own."""
    serving, expected = (read_model(directory) for directory in models)
    learner = {"agent": asdict(project.settings.agent), "exploration": asdict(project.settings.exploration)}
    parameters = {"config": project.parameter, "serving": serving.version, **learner}
    outputs = run_step(trainer, {"dataset": (dsl.Dataset, datasets[1])}, **parameters)
    directory, metadata = outputs.artifacts["model"]
    model = read_model(directory)
    assert model.version == expected.version != serving.version
    assert (model.parent, model.learnt) == (serving.version, expected.learnt)
    assert metadata == {"version": model.version, "parent": serving.version}
    assert outputs.artifacts["metrics"][1] == {"new": expected.learnt - serving.learnt, "learnt": expected.learnt}


def test_the_evaluator_gives_the_judgement_of_its_function(project, datasets, models, run_step):
    """A gate that needs the weight of a million decisions does not pass, and the step succeeds all the same."""
    gate = replace(project.settings.gate, effective_sample_size=1e6)
    expected = judge(datasets[1], models[1], models[0], gate)
    artifacts = {"dataset": (dsl.Dataset, datasets[1]), "model": (dsl.Model, models[1])}
    serving = read_model(models[0]).version
    outputs = run_step(evaluator, artifacts, config=project.parameter, serving=serving, gate=asdict(gate))
    assert Judgement.from_json(outputs.parameters["Output"]) == expected
    assert (expected.serving, expected.candidate) == (serving, read_model(models[1]).version)
    metrics = outputs.artifacts["metrics"][1]
    assert metrics["passed"] == int(expected.passed) == 0
    assert metrics["low"] == pytest.approx(expected.low)
    assert metrics["low"] < metrics["difference"] < metrics["high"]
    assert Path(outputs.artifacts["report"][0]).read_text() == expected.html()


@pytest.fixture
def endpoint(project):
    endpoint = project.platform.endpoints.create()
    yield endpoint
    endpoint.delete()


def test_the_deployer_deploys_what_passed_and_says_why_it_refuses_the_rest(
    project, datasets, models, endpoint, run_step
):
    """A refused candidate gets nothing; one that passed gets 20 %."""
    first, second = (read_model(directory).version for directory in models)
    endpoint.deploy(models[0] / "policy")
    passed = judge(datasets[1], models[1], models[0], replace(project.settings.gate, margin=4.0))
    assert passed.passed
    refused = replace(passed, outcome="refused", why="Refused: by this test.")
    common = {"config": project.parameter, "canary": 20, "topic": ""}

    def deploy(judgement):
        model, text = (dsl.Model, models[1]), judgement.to_json()
        outputs = run_step(deployer, {"model": model}, serving=first, judgement=text, **common)
        verdict = Verdict.from_json(outputs.parameters["Output"])
        assert outputs.artifacts["metrics"][1] == {"deployed": int(verdict.kind == "deployed")}
        return verdict, endpoint.traffic_split

    verdict, split = deploy(refused)
    assert (verdict.version, verdict.why, split) == (second, "Refused: by this test.", {first: 100})
    verdict, split = deploy(passed)
    assert (verdict.kind, verdict.against, split) == ("deployed", first, {first: 80, second: 20})
    occasion = read_model(models[1]).until.isoformat()
    assert verdict.verdict_id == verdict_of("deployed", second, first, occasion, "why", None).verdict_id
    assert read_model(models_of(project.config) / second).version == second
    verdicts = project.platform.warehouse.verdicts()
    assert list(verdicts["version"]) == [second, second]
