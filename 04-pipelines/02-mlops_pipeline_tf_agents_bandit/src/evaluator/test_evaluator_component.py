from dataclasses import asdict, replace
from pathlib import Path

import pytest
from kfp import dsl
from src.evaluator.component import evaluator

from recbandits.loop.gate import Judgement, judge
from recbandits.loop.models import read_model


def test_the_evaluator_gives_the_judgement_of_its_function(project, datasets, models, run_step):
    """A gate that needs the weight of a million decisions refuses, and the step succeeds all the same."""
    gate = replace(project.settings.gate, effective_sample_size=1e6)
    expected = judge(datasets[1], models[1], models[0], gate)
    artifacts = {"dataset": (dsl.Dataset, datasets[1]), "model": (dsl.Model, models[1])}
    serving = read_model(models[0]).version
    given = run_step(evaluator, artifacts, config=project.parameter, serving=serving, gate=asdict(gate))
    assert Judgement.from_json(given.parameters["Output"]) == expected
    assert (expected.serving, expected.candidate) == (serving, read_model(models[1]).version)
    metrics = given.artifacts["metrics"][1]
    assert metrics["passed"] == int(expected.passed) == 0
    assert metrics["low"] == pytest.approx(expected.low)
    assert metrics["low"] < metrics["difference"] < metrics["high"]
    assert Path(given.artifacts["report"][0]).read_text() == expected.html()
