"""The function that Cloud Scheduler calls, through functions-framework: visits at a rate, and rewards in the topic."""

import json
from dataclasses import asdict, replace

import functions_framework
import pytest

from recbandits.config import Config
from recbandits.data import synthetic
from recbandits.loop.core import FUNCTIONS
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS, SimulatedUsers
from recbandits.platforms.local import LocalPlatform
from recbandits.platforms.local.endpoints import LocalEndpoints
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Reward

SETTINGS = Settings(STARS, movies=20, rank=2, candidates=5, delay=0.05)


class FirstChoice:
    """An endpoint that shows all users the first candidate, unless it is down."""

    def __init__(self):
        self.visits, self.away, self.sizes = 0, False, set()  # the last are numbers of candidates

    def predict(self, instances):
        if self.away:
            raise PlatformError("the endpoint does not answer")
        start, self.visits = self.visits, self.visits + len(instances)
        self.sizes |= {len(instance["candidates"]) for instance in instances}
        return [
            {"event_id": f"event-{start + number}", "item_ids": instance["candidates"][:1]}
            for number, instance in enumerate(instances)
        ]


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    """Directory of simulated users."""
    directory = tmp_path_factory.mktemp("users")
    SimulatedUsers.of(SETTINGS, synthetic.generate()).save(directory)
    return directory


@pytest.fixture
def config(users, tmp_path, monkeypatch):
    """A configuration of its own, which the function finds, with users."""
    config = Config(artifacts=str(tmp_path))
    monkeypatch.setenv("RECBANDITS_CONFIG", str(config.write(tmp_path / "recbandits.toml")))
    monkeypatch.setenv("RECBANDITS_USERS", str(users))
    monkeypatch.setenv("RECBANDITS_SETTINGS", json.dumps(asdict(SETTINGS)))
    return config


@pytest.fixture
def endpoint(monkeypatch):
    endpoint = FirstChoice()
    monkeypatch.setattr(LocalEndpoints, "create", lambda *_: endpoint)
    return endpoint


@pytest.fixture
def client():
    """A client of the function."""
    return functions_framework.create_app("simulate", str(FUNCTIONS / "simulator" / "main.py")).test_client()


def test_visits_are_answered_and_their_rewards_are_published(config, endpoint, client):
    """1 s at 40 visits/s, 2 in a request, as many as this machine manages; what is reported is what the topic has."""
    messages = LocalPlatform(config).messages
    subscription = messages.subscription("rewards", messages.topic("rewards"))
    counts = client.post("/", json={"seconds": 1, "rate": 40, "instances": 2}).get_json()
    assert 2 <= counts["visits"] == counts["answered"] == endpoint.visits
    assert counts["visits"] % 2 == 0
    assert endpoint.sizes == {SETTINGS.candidates}, "of the loop, not of the class"
    assert counts["reports"] == counts["reported"] == messages.backlog("rewards")
    assert counts["waiting"] == 0
    rewards = [Reward.from_json(message.data.decode()) for message in messages.take(subscription, 100)]
    assert {reward.event_id for reward in rewards} <= {f"event-{number}" for number in range(endpoint.visits)}
    assert all(1 <= reward.value <= 5 for reward in rewards)


def test_the_rate_is_that_of_the_loop(config, endpoint, client, monkeypatch):
    """2 s at 40 visits/s, 5 in a request; a request that is late on a busy machine is missed."""
    monkeypatch.setenv("RECBANDITS_SETTINGS", json.dumps(asdict(replace(SETTINGS, rate=40.0))))
    counts = client.post("/", json={"seconds": 2}).get_json()
    assert 20 < counts["visits"] + counts["missed"] <= 80
    assert counts["visits"] % 5 == 0


def test_visits_of_an_endpoint_that_is_away_are_counted(config, endpoint, client):
    endpoint.away = True
    counts = client.post("/", json={"seconds": 1, "rate": 20}).get_json()
    assert counts["visits"] == counts["unanswered"] > 0
    assert counts["reports"] == 0


@pytest.mark.parametrize(
    ("body", "name"), [({"rate": True}, "rate"), ({"speed": 3}, "speed"), ({"instances": 0.5}, "instances")]
)
def test_a_body_that_is_not_valid_is_refused_by_name(client, body, name):
    response = client.post("/", json=body)
    assert response.status_code == 400
    assert response.get_json()["error"].startswith(f"{name} must be one of seconds, rate, instances")
