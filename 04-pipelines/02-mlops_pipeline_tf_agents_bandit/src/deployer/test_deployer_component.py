from dataclasses import replace

import pytest
from kfp import dsl
from src.deployer.component import deployer

from recbandits.loop.gate import judge
from recbandits.loop.models import read_model
from recbandits.loop.steps import models_of
from recbandits.records import Verdict


@pytest.fixture
def endpoint(project):
    endpoint = project.platform.endpoints.create()
    yield endpoint
    endpoint.delete()


def test_the_deployer_deploys_what_passed_and_says_why_it_refuses_the_rest(
    project, datasets, models, endpoint, run_step
):
    """The first serves all; a refused candidate gets nothing; one that passed gets 20 %; again, nothing changes."""
    first, second = (read_model(directory).version for directory in models)
    passed = judge(datasets[1], models[1], models[0], replace(project.settings.gate, margin=4.0))
    assert passed.passed
    refused = replace(passed, outcome="refused", why="Refused: by this test.")
    asked = {"config": project.parameter, "canary": 20, "topic": ""}

    def deploy(directory, serving, judgement):
        text = judgement.to_json() if judgement else ""
        given = run_step(deployer, {"model": (dsl.Model, directory)}, serving=serving, judgement=text, **asked)
        verdict = Verdict.from_json(given.parameters["Output"])
        assert given.artifacts["metrics"][1] == {"deployed": int(verdict.kind == "deployed")}
        return verdict, endpoint.traffic_split

    verdict, split = deploy(models[0], "", None)
    assert (verdict.kind, verdict.version, split) == ("deployed", first, {first: 100})
    verdict, split = deploy(models[1], first, refused)
    assert (verdict.kind, verdict.why, split) == ("refused", "Refused: by this test.", {first: 100})
    for _ in range(2):
        verdict, split = deploy(models[1], first, passed)
        assert (verdict.kind, verdict.against, split) == ("deployed", first, {first: 80, second: 20})
    assert read_model(models_of(project.config).path(second)).version == second
    verdicts = project.platform.warehouse.verdicts()
    assert list(zip(verdicts["kind"], verdicts["version"], strict=True)) == [
        ("deployed", first),
        ("refused", second),
        ("deployed", second),
    ]
