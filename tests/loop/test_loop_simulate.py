"""Simulated users: how many visit, what they report and when, and what an endpoint that is away does to them."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from recbandits.data import synthetic
from recbandits.loop.simulate import Drift, Simulator
from recbandits.loop.simulated_users import SimulatedUsers

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def world():
    return SimulatedUsers.make(synthetic.generate(), movies=20, rank=2, never=0.1, twice=0.05)


class FirstChoice:
    """An endpoint that shows everybody the first candidate."""

    def __init__(self):
        self.asked = []

    def predict(self, instances):
        first = len(self.asked)
        self.asked += instances
        return [
            {"event_id": f"event-{first + number}", "item_ids": [each["candidates"][0], "another"]}
            for number, each in enumerate(instances)
        ]


class Away:
    def predict(self, instances):
        raise ConnectionError("away")


class Post:
    """A publisher that can be away."""

    def __init__(self):
        self.sent, self.away = [], False

    def send(self, records):
        if self.away:
            raise TimeoutError("away")
        self.sent += records


class Clock:
    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += timedelta(seconds=seconds)


def simulator(world, endpoint, post=None, **options):
    clock = Clock()
    return Simulator(world, endpoint, post or Post(), clock=clock, **options), clock


def test_requests_come_at_the_rate_each_with_its_visits(world):
    """2.5 s at 40 requests/s, looked at every 10 ms: 100 requests of 3 visits."""
    endpoint = FirstChoice()
    visitors, clock = simulator(world, endpoint, rate=40, instances=3, candidates=5)
    for _ in range(251):
        visitors.ask_due()
        clock.pass_(0.01)
    assert len(endpoint.asked) == 300 == visitors.counts["visits"] == visitors.counts["answered"]
    assert all(len(set(each["candidates"])) == 5 for each in endpoint.asked)
    assert all({each["user_id"]} <= set(world.user_ids) and each["context"] for each in endpoint.asked)


def test_what_an_endpoint_was_too_slow_for_is_missed_beyond_a_second(world):
    """After 10 s without a look, at 40 requests/s: 40 are made up for, 360 visitors have gone."""
    endpoint = FirstChoice()
    visitors, clock = simulator(world, endpoint, rate=40)
    visitors.ask_due()
    clock.pass_(10)
    visitors.ask_due()
    assert (visitors.counts["visits"], visitors.counts["missed"]) == (40, 360)
    visitors.ask_due()
    assert visitors.counts["visits"] == 40


def test_an_endpoint_that_is_away_costs_its_visits_and_nothing_else(world):
    visitors, clock = simulator(world, Away(), rate=10)
    visitors.ask(7)
    clock.pass_(60)
    assert visitors.report_due() == 0
    assert visitors.counts == Counter(visits=7, unanswered=7)


def test_reports_leave_when_they_are_due_and_not_before(world):
    post = Post()
    visitors, clock = simulator(world, FirstChoice(), post, rate=10, instances=100)
    visitors.ask(5)
    made = visitors.counts["reports"]
    for _ in range(100):
        visitors.report_due()
        assert all(reward.time <= clock.now for reward in post.sent)
        clock.pass_(0.2)
    assert len(post.sent) == made == visitors.counts["reported"]
    times = [reward.time for reward in post.sent]
    assert times == sorted(times)
    assert [reward.event_id for reward in post.sent] != sorted(reward.event_id for reward in post.sent)


def test_a_tenth_never_reports_and_a_twentieth_of_the_others_twice(world):
    """Of 5,000 visits about 4,500 report, 225 of them twice; four standard errors are 85 and 59."""
    post = Post()
    visitors, clock = simulator(world, FirstChoice(), post, rate=10, instances=250)
    visitors.ask(20)
    clock.pass_(3600)
    while visitors.report_due():
        pass
    by_event = Counter(reward.event_id for reward in post.sent)
    assert len(by_event) == pytest.approx(4500, abs=85)
    assert sum(count == 2 for count in by_event.values()) == pytest.approx(225, abs=59)
    assert visitors.waiting == 0


def test_reports_that_nobody_takes_are_kept_and_come_again(world):
    post = Post()
    post.away = True
    visitors, clock = simulator(world, FirstChoice(), post, rate=10, instances=50)
    visitors.ask(1)
    clock.pass_(3600)
    assert visitors.report_due() == 0
    assert visitors.waiting == visitors.counts["reports"] > 40
    post.away = False
    assert visitors.report_due() == len(post.sent) == visitors.counts["reports"]


def test_a_reward_is_what_this_user_thinks_of_what_was_shown(world):
    """The mean over many visits of one user and movie is its expected rating: four standard errors of 4,000 stars."""
    user, item = 3, 5

    class Same:
        def visits(self, n, rng, candidates):
            return np.full(n, user), np.tile(item, (n, 1))

        def __getattr__(self, name):
            return getattr(world, name)

    post = Post()
    visitors, clock = simulator(Same(), FirstChoice(), post, rate=10, instances=200)
    visitors.ask(20)
    clock.pass_(3600)
    while visitors.report_due():
        pass
    first = {}
    for reward in post.sent:
        first.setdefault(reward.event_id, reward.value)
    stars = np.array(list(first.values()))
    truth = world.expected(np.array([user]), np.array([[item]])).item()
    assert stars.mean() == pytest.approx(truth, abs=4 * stars.std() / np.sqrt(len(stars)))


class Certain(SimulatedUsers):
    """People who say exactly what they think, all of them and once, and who come in a given order of (user, item)."""

    def come(self, pairs):
        object.__setattr__(self, "pairs", iter(pairs))
        return self

    def visits(self, n, rng, candidates):
        users, items = np.array([next(self.pairs) for _ in range(n)]).T
        return users, items[:, None]

    def rate(self, expected, rng):
        return expected


def test_every_reward_is_that_of_its_own_user_and_movie(world):
    """940 users x 20 movies, in any order and 47 in a request: event n has the true mean of pair n, to the last bit."""
    pairs = np.stack(np.meshgrid(range(len(world.user_ids)), range(len(world.item_ids))), -1).reshape(-1, 2)
    pairs = np.random.default_rng(0).permutation(pairs)
    people = Certain(world.model, world.titles, never=0.0, twice=0.0).come(pairs)
    post = Post()
    visitors, clock = simulator(people, FirstChoice(), post, rate=10, instances=47)
    assert len(pairs) == 940 * 20 == 47 * 400
    visitors.ask(400)
    clock.pass_(3600)
    while visitors.report_due():
        pass
    truth = world.expected(pairs[:, 0], pairs[:, 1:])[:, 0]
    assert len(post.sent) == len(pairs)
    assert {reward.event_id: reward.value for reward in post.sent} == {
        f"event-{number}": value for number, value in enumerate(truth.tolist())
    }
    assert len(np.unique(truth)) > 0.9 * len(truth), "so that one of another pair would be seen"


def test_the_same_seed_brings_the_same_visitors(world):
    runs = []
    for seed in (1, 1, 2):
        endpoint = FirstChoice()
        simulator(world, endpoint, rate=10, seed=seed)[0].ask(20)
        runs.append(endpoint.asked)
    assert runs[0] == runs[1] != runs[2]


def test_preferences_drift_evenly_from_their_start():
    drift = Drift(START, 20)
    assert [drift.at(START + timedelta(seconds=seconds)) for seconds in (-5, 0, 5, 20, 99)] == [0, 0, 0.25, 1, 1]


def test_ratings_follow_the_drift_of_the_moment(world):
    """Squared errors of 4,000 ratings by the old preferences less by the new ones: positive once they have drifted."""
    for degree in (0, 1):
        post, endpoint = Post(), FirstChoice()
        simulation, clock = simulator(world, endpoint, post, rate=10, instances=200, drift=lambda _, d=degree: d)
        simulation.ask(20)
        clock.pass_(3600)
        while simulation.report_due():
            pass
        first = {}
        for reward in post.sent:
            first.setdefault(int(reward.event_id.removeprefix("event-")), reward.value)
        visits = [endpoint.asked[number] for number in first]
        people = world.find_users([visit["user_id"] for visit in visits])
        items = world.find_items([[visit["candidates"][0]] for visit in visits])
        stars = np.array(list(first.values()))
        errors = [(stars - world.expected(people, items, drift)[:, 0]) ** 2 for drift in (0, 1)]
        assert (errors[0].mean() > errors[1].mean()) == bool(degree)


def test_a_rate_that_is_none_is_refused(world):
    with pytest.raises(ValueError, match="rate must be a positive number of requests per second, got 0"):
        Simulator(world, FirstChoice(), Post(), 0)
