"""Nothing is lost: the processes of the loop are killed while it runs, and every acknowledged event is logged once.

One loop of real processes serves all tests of this module. Who is killed when follows from a seed; what happens then
is what happens then.
"""

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
import pytest

from recbandits.config import Config
from recbandits.data import synthetic
from recbandits.interactions import Interaction, Reward
from recbandits.loop.live import SOURCE, TOPICS, Loop
from recbandits.loop.settings import Settings
from recbandits.loop.simulate import counts_of
from recbandits.loop.steps import re_training_parameters
from recbandits.loop.trigger import PIPELINE, Plan, due, serving_model
from recbandits.platforms import PlatformError
from recbandits.platforms.local.processes import is_held, read_json

KILLS = 50
TEMPLATE = SOURCE / "re_training.yaml"
SETTINGS = Settings(movies=30, rank=2, candidates=5, first=200, rate=40.0, delay=0.3, window=2.0, decisions=100)
# An endpoint takes seconds to come back, and a run of the pipeline to come far: they are chosen less often.
VICTIMS = {"server": 14, "pusher": 14, "messages": 8, "warehouse": 8, "endpoint": 3, "pipeline": 3}


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """A loop in which a first policy serves visitors, and two readers keep what the topics acknowledged."""
    before = os.environ.get("PUBSUB_EMULATOR_HOST")
    with Loop(Config(artifacts=str(tmp_path_factory.mktemp("artifacts"))), SETTINGS) as made:
        made.prepare(synthetic.generate())
        made.start("messages", "warehouse")
        for name, topic in made.topics.items():
            made.platform.messages.subscription(f"audit-{name}", topic)
        made.start("endpoint", "log-interaction", "log-reward")
        made.start_up()
        made.start("simulator")
        yield made
    if before is None:
        os.environ.pop("PUBSUB_EMULATOR_HOST", None)


def plan(loop):
    """A re-training of what there is, as soon as there is enough."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        serving = serving_model(loop.platform)
        found = due(loop.platform.warehouse, serving, loop.rule, datetime.now(UTC), SETTINGS.decisions)
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"there must be {SETTINGS.decisions} new decisions within a minute")


def begin(loop, found):
    parameters = re_training_parameters(
        loop.config, SETTINGS, loop.directory / "world", found, loop.topics["interactions"]
    )
    return loop.platform.pipelines.run(TEMPLATE, found.name, parameters)


def kill_run(loop, name):
    """SIGKILL for the runner of a pipeline and the step that it is at."""
    directory = loop.directory / "pipelines" / name
    os.killpg(int((directory / "group").read_text()), signal.SIGKILL)
    while is_held(directory):
        time.sleep(0.02)


def kill(loop, victim, rng):
    """SIGKILL for one process of a kind."""
    if victim == "endpoint":
        with suppress(ProcessLookupError):
            os.kill(read_json(loop.endpoint.directory / "server.json")["process"], signal.SIGKILL)
        while is_held(loop.endpoint.directory):
            time.sleep(0.02)
    elif victim in ("server", "pusher"):
        name = ("log-interaction", "log-reward")[rng.integers(2)]
        getattr(loop.platform.functions.parts(name), victim).kill()
    else:
        getattr(loop.platform, victim).service.kill()


def audit(loop, name, kind):
    """All records that a topic ever acknowledged, each as often as it was published."""
    from google.cloud.pubsub_v1 import SubscriberClient

    records = []
    with SubscriberClient() as client:
        subscription = loop.platform.messages.subscription(f"audit-{name}", loop.topics[name])
        while loop.platform.messages.backlog(f"audit-{name}"):
            received = client.pull(subscription=subscription, max_messages=1000).received_messages
            if received:
                client.acknowledge(subscription=subscription, ack_ids=[each.ack_id for each in received])
            records += [kind.from_json(each.message.data.decode()) for each in received]
    return records


def rows(loop, name):
    return loop.platform.warehouse.query(f"SELECT * FROM {name}").to_pylist()


def test_the_endpoint_answers_while_a_training_is_killed_and_running_it_again_changes_nothing(loop):
    found = plan(loop)
    user, movies = int(loop.world.user_ids[0]), loop.world.movie_ids[:5].tolist()
    begin(loop, found)
    end, killed, answered = time.monotonic() + 4.0, False, 0
    while time.monotonic() < end:
        assert len(loop.endpoint.predict([{"user_id": user, "candidates": movies}])) == 1
        answered += 1
        if not killed and end - time.monotonic() < 2.0:
            kill_run(loop, found.name)
            killed = True
    assert killed
    assert answered >= 10
    assert loop.platform.pipelines.status(found.name).state == "failed"
    assert loop.platform.pipelines.running(PIPELINE) is None
    begin(loop, found)
    run = loop.platform.pipelines.wait(found.name)
    assert run.state == "succeeded", run.error
    verdicts, shares = rows(loop, "verdicts"), loop.endpoint.traffic_split
    assert len(verdicts) == 2, "one of the first policy, one of the candidate"
    again = begin(loop, found)
    assert again == run
    assert (rows(loop, "verdicts"), loop.endpoint.traffic_split) == (verdicts, shares)


def test_whoever_is_killed_every_acknowledged_event_is_in_the_table_exactly_once(loop):
    rng = np.random.default_rng(7)
    victims = rng.permutation(np.repeat(list(VICTIMS), list(VICTIMS.values()))).tolist()
    assert len(victims) == KILLS
    run, killed = None, Counter()
    for victim in victims:
        time.sleep(rng.uniform(0.0, 0.3))
        if victim == "pipeline":
            if run is None or loop.platform.pipelines.status(run).state != "running":
                run = begin_some(loop, killed[victim])
                time.sleep(rng.uniform(0.5, 2.0))
            kill_run(loop, run)
        else:
            kill(loop, victim, rng)
        killed[victim] += 1
        revive(loop)
    assert sum(killed.values()) == KILLS
    assert loop.drain(patience=90)
    visits = counts_of(loop.directory)
    published = {name: audit(loop, name, kind) for name, kind in (("interactions", Interaction), ("rewards", Reward))}
    decisions = Counter(each.event_id for each in published["interactions"])
    written = Counter(row["event_id"] for row in rows(loop, "interactions") if row["policy_version"] != "uniform")
    assert set(written.values()) == {1}
    assert written.keys() == decisions.keys()
    logged = Counter((row["event_id"], row["time"], row["value"]) for row in rows(loop, "rewards"))
    said = {(each.event_id, each.time, each.value) for each in published["rewards"]}
    assert set(logged.values()) == {1}
    assert said <= logged.keys()
    of_first = {row["event_id"] for row in rows(loop, "interactions") if row["policy_version"] == "uniform"}
    assert {event for event, _, _ in logged.keys() - said} <= of_first
    assert visits["reported"] <= len(said) <= visits["reports"]
    assert visits["reported"] == visits["reports"], (
        "all that was acknowledged to the visitors, and they got it all away"
    )
    assert len(decisions) >= 0.5 * visits["answered"] > 100
    assert rows(loop, "quarantine") == []
    assert [loop.platform.messages.backlog(f"{name}-dead") for name in TOPICS] == [0, 0]


def begin_some(loop, number):
    """A run of the pipeline over all that there is."""
    serving = serving_model(loop.platform)
    warehouse, now = loop.platform.warehouse, datetime.now(UTC)
    snapshot = warehouse.snapshot(serving.until, now)
    name = f"chaos-{number}-{snapshot[:8]}"
    return begin(loop, Plan(name, serving.until, now, snapshot, serving.version, 0)).name


def revive(loop):
    """Have the loop start again what died; who needs another that is not back yet waits for the next look."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if not loop.watch():
                return
        except PlatformError:
            time.sleep(0.1)
    raise AssertionError("what was killed must run again within a minute")
