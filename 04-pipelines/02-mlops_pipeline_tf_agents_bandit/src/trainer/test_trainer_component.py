from dataclasses import asdict

import pytest
from kfp import dsl
from src.trainer.component import trainer

from recbandits.loop.models import read_model


@pytest.fixture
def asked(project):
    learner = {"agent": asdict(project.settings.agent), "exploration": asdict(project.settings.exploration)}
    return {"config": project.parameter, "seed": 0, **learner}


def test_the_trainer_goes_on_from_what_serves(datasets, models, asked, run_step):
    """Of both minutes the first is known: what is new is the second's, and the version is the function's own."""
    serving, expected = (read_model(directory) for directory in models)
    given = run_step(trainer, {"dataset": (dsl.Dataset, datasets[1])}, serving=serving.version, **asked)
    directory, metadata = given.artifacts["model"]
    model = read_model(directory)
    assert model.version == expected.version != serving.version
    assert (model.parent, model.learnt) == (serving.version, expected.learnt)
    assert metadata == {"version": model.version, "parent": serving.version}
    assert given.artifacts["metrics"][1] == {"new": expected.learnt - serving.learnt, "learnt": expected.learnt}
