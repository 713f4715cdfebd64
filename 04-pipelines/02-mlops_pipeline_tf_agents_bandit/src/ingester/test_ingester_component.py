from dataclasses import asdict

import pytest
from src.ingester.component import ingester

from recbandits.loop.ingest import read_manifest


@pytest.fixture
def asked(project):
    rule = {"join": asdict(project.settings.join), "holdout": 0.3}
    return {"config": project.parameter, "features": str(project.world_directory), "snapshot": "planned", **rule}


def test_the_ingester_gives_what_its_function_gives(project, datasets, asked, run_step):
    """The same window gives the same bytes, but for the titles, which only the component knows."""
    expected = read_manifest(datasets[0])
    window = {name: expected[name] for name in ("start", "end")}
    given = run_step(ingester, **asked, **window, serving="abc")
    directory, metadata = given.artifacts["dataset"]
    manifest = read_manifest(directory)
    titled = {"titles.json": manifest["files"]["titles.json"]}
    assert manifest["files"] == expected["files"] | titled
    assert {name: manifest[name] for name in ("counts", "decisions")} == {
        name: expected[name] for name in ("counts", "decisions")
    }
    assert given.parameters == {"serving": "abc"}
    assert metadata["digest"] == manifest["digest"]
    assert metadata["planned_snapshot"] == "planned"
    counts = dict(given.artifacts["metrics"][1])
    assert counts == manifest["counts"]
    assert counts.pop("total") == sum(counts.values()) > 600
