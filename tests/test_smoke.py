"""The trial on Google Cloud, against recorded requests: what it calls, and that nothing of it is left."""

import pytest

from recbandits.config import Config
from recbandits.platforms.gcp.cloud import location
from tools.smoke import PREFIX, STEPS, run

CONFIG = Config(platform="gcp", project="movie-lab-42", prefix=PREFIX)


@pytest.fixture
def cloud(project, monkeypatch):
    """The project, in which predictions are answered, logged and found in BigQuery."""
    predictions = {"predictions": [{"event_id": f"e{row}"} for row in range(3)]}
    project.answers[f"POST https://.*/{location(CONFIG)}/endpoints/{CONFIG.endpoint}:rawPredict"] = predictions
    count = {"jobComplete": True, "jobReference": {"jobId": "query"}, "totalRows": "1", "rows": [{"f": [{"v": "1"}]}]}
    count["schema"] = {"fields": [{"name": "number", "type": "INTEGER"}]}
    bigquery = "https://[^/]+/bigquery/v2/projects/movie-lab-42"
    project.answers[f"POST {bigquery}/jobs"] = lambda request: request["body"] | {"status": {"state": "DONE"}}
    project.answers[f"GET {bigquery}/queries/.*"] = count
    return project


def names(results):
    return [result.name for result in results]


def test_every_step_is_taken_and_nothing_is_left(cloud):
    results = run(CONFIG, show=lambda _: None)
    assert [result.outcome for result in results] == ["ok"] * (len(STEPS) + 1)
