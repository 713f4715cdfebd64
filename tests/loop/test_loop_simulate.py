"""Simulated users: rates of visits, values and times of reports, and unavailable endpoints and publishers."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from recbandits.data import synthetic
from recbandits.loop.settings import Settings
from recbandits.loop.simulate import Simulator, linear_drift
from recbandits.loop.simulated_users import STARS, SimulatedUsers

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def users():
    return SimulatedUsers.of(Settings(STARS, movies=20, rank=2, never=0.1, twice=0.05), synthetic.generate())


class FirstCandidateEndpoint:
    """An endpoint whose action is the first candidate of each request."""

    def __init__(self):
        self.requests = []

    def predict(self, instances):
        first = len(self.requests)
        self.requests += instances
        return [
            {"event_id": f"event-{first + number}", "item_ids": [each["candidates"][0], "another"]}
            for number, each in enumerate(instances)
        ]


class UnavailableEndpoint:
    def predict(self, instances):
        raise ConnectionError("unavailable")


class MemoryPublisher:
    """A publisher that can be unavailable."""

    def __init__(self):
        self.rewards, self.is_available = [], True

    def send(self, records):
        if not self.is_available:
            raise TimeoutError("unavailable")
        self.rewards += records


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += timedelta(seconds=seconds)


def make_simulator(users, endpoint, publisher=None, **options):
    clock = Clock()
    return Simulator(users, endpoint, publisher or MemoryPublisher(), clock=clock, **options), clock


def report_all(simulator, clock):
    """Publish all reports, an hour later."""
    clock.advance(3600)
    while simulator.report_due():
        pass


def first_values(rewards):
    """Return the value of the first reward of each event, dict from event id to value."""
    values = {}
    for reward in rewards:
        values.setdefault(reward.event_id, reward.value)
    return values


def test_visits_come_at_the_rate_so_many_in_a_request(users):
    """2.5 s at 120 visits/s, looked at every 10 ms: 100 requests of 3 visits."""
    endpoint = FirstCandidateEndpoint()
    simulator, clock = make_simulator(users, endpoint, rate=120, instances=3, candidates=5)
    for _ in range(251):
        simulator.ask_due()
        clock.advance(0.01)
    assert len(endpoint.requests) == 300 == simulator.counts["visits"] == simulator.counts["answered"]
    assert all(len(set(each["candidates"])) == 5 for each in endpoint.requests)
    assert all({each["user_id"]} <= set(users.user_ids) and each["context"] for each in endpoint.requests)


def test_visits_that_are_overdue_by_more_than_a_second_are_missed(users):
    """After 10 s without a look, at 40 visits/s: 40 visits are made up for, 360 are missed."""
    endpoint = FirstCandidateEndpoint()
    simulator, clock = make_simulator(users, endpoint, rate=40)
    simulator.ask_due()
    clock.advance(10)
    simulator.ask_due()
    assert (simulator.counts["visits"], simulator.counts["missed"]) == (40, 360)
    simulator.ask_due()
    assert simulator.counts["visits"] == 40


def test_an_unavailable_endpoint_leaves_only_its_visits_unanswered(users):
    simulator, clock = make_simulator(users, UnavailableEndpoint(), rate=10)
    simulator.ask(7)
    clock.advance(60)
    assert simulator.report_due() == 0
    assert simulator.counts == Counter(visits=7, unanswered=7)


def test_reports_are_published_when_they_are_due_and_not_before(users):
    publisher = MemoryPublisher()
    simulator, clock = make_simulator(users, FirstCandidateEndpoint(), publisher, rate=10, instances=100)
    simulator.ask(5)
    report_count = simulator.counts["reports"]
    for _ in range(100):
        simulator.report_due()
        assert all(reward.time <= clock.now for reward in publisher.rewards)
        clock.advance(0.2)
    assert len(publisher.rewards) == report_count == simulator.counts["reported"]
    times = [reward.time for reward in publisher.rewards]
    assert times == sorted(times)
    assert [reward.event_id for reward in publisher.rewards] != sorted(reward.event_id for reward in publisher.rewards)


def test_undelivered_reports_are_sent_again(users):
    publisher = MemoryPublisher()
    publisher.is_available = False
    simulator, clock = make_simulator(users, FirstCandidateEndpoint(), publisher, rate=10, instances=50)
    simulator.ask(1)
    clock.advance(3600)
    assert simulator.report_due() == 0
    assert simulator.waiting == simulator.counts["reports"] > 40
    publisher.is_available = True
    assert simulator.report_due() == len(publisher.rewards) == simulator.counts["reports"]
    assert simulator.waiting == 0


class ExactUsers(SimulatedUsers):
    """Users who report their expected rating once at each visit, in a given order of (user, item)."""

    def with_visits(self, pairs):
        object.__setattr__(self, "pairs", iter(pairs))
        return self

    def visits(self, n, rng, candidates):
        users, items = np.array([next(self.pairs) for _ in range(n)]).T
        return users, items[:, None]

    def rate(self, expected, rng):
        return expected


def test_every_reward_is_that_of_its_own_user_and_movie(users):
    """940 users x 20 movies, in any order and 47 in a request: event n has the true mean of pair n, to the last bit."""
    pairs = np.stack(np.meshgrid(range(len(users.user_ids)), range(len(users.item_ids))), -1).reshape(-1, 2)
    pairs = np.random.default_rng(0).permutation(pairs)
    exact_users = ExactUsers(users.model, users.titles, never=0.0, twice=0.0).with_visits(pairs)
    publisher = MemoryPublisher()
    simulator, clock = make_simulator(exact_users, FirstCandidateEndpoint(), publisher, rate=10, instances=47)
    assert len(pairs) == 940 * 20 == 47 * 400
    simulator.ask(400)
    report_all(simulator, clock)
    truth = users.expected(pairs[:, 0], pairs[:, 1:])[:, 0]
    assert len(publisher.rewards) == len(pairs)
    assert {reward.event_id: reward.value for reward in publisher.rewards} == {
        f"event-{number}": value for number, value in enumerate(truth.tolist())
    }
    assert len(np.unique(truth)) > 0.9 * len(truth), "the values distinguish the pairs"


def test_the_same_seed_gives_the_same_visits(users):
    runs = []
    for seed in (1, 1, 2):
        endpoint = FirstCandidateEndpoint()
        make_simulator(users, endpoint, rate=10, seed=seed)[0].ask(20)
        runs.append(endpoint.requests)
    assert runs[0] == runs[1] != runs[2]


def test_preferences_drift_evenly_from_their_start():
    drift = linear_drift(START, 20)
    assert [drift(START + timedelta(seconds=seconds)) for seconds in (-5, 0, 5, 20, 99)] == [0, 0, 0.25, 1, 1]


def test_ratings_follow_the_current_drift(users):
    """Squared errors of 4,000 ratings by the old preferences less by the new ones: positive once they have drifted."""
    for degree in (0, 1):
        publisher, endpoint = MemoryPublisher(), FirstCandidateEndpoint()
        simulator, clock = make_simulator(users, endpoint, publisher, rate=10, instances=200)
        simulator.drift = lambda _, d=degree: d
        simulator.ask(20)
        report_all(simulator, clock)
        values = first_values(publisher.rewards)
        visits = [endpoint.requests[int(event_id.removeprefix("event-"))] for event_id in values]
        rows = users.user_ids.get_indexer([visit["user_id"] for visit in visits])
        items = users.find_items([[visit["candidates"][0]] for visit in visits])
        stars = np.array(list(values.values()))
        errors = [(stars - users.expected(rows, items, drift)[:, 0]) ** 2 for drift in (0, 1)]
        assert (errors[0].mean() > errors[1].mean()) == bool(degree)


def test_a_rate_of_zero_is_refused(users):
    with pytest.raises(ValueError, match="rate must be positive and finite, got 0"):
        Simulator(users, FirstCandidateEndpoint(), MemoryPublisher(), 0)
