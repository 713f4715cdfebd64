"""Fault injection: processes of the loop get SIGKILL while it runs, and every acknowledged event is logged once.

One loop of real processes serves all tests of this module. A seed determines which processes are killed when; the
effects depend on the machine. PROFILE=full kills 100 processes in place of 20, after 30 minutes of visits.
"""

import os
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import psutil
import pytest

from recbandits.config import Config
from recbandits.data import synthetic
from recbandits.loop.core import LOGGERS, PIPELINE, TEMPLATES, Plan, due, re_training_parameters
from recbandits.loop.ingest import import_log, ingest
from recbandits.loop.live import Loop
from recbandits.loop.models import keep_model, read_model, serving_model
from recbandits.loop.settings import Gate, Settings
from recbandits.loop.simulate import simulate_log
from recbandits.loop.simulated_users import STARS
from recbandits.platforms.local.units import Unit
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Interaction, Reward
from tests.waiting import until

KILLS, SOAK = (100, 1800.0) if os.environ.get("PROFILE") == "full" else (20, 12.0)  # processes; seconds of visits
TEMPLATE = TEMPLATES / "re_training.yaml"
# The gate passes every candidate, so that the Deployer, the only step with effects, deploys each.
SETTINGS = Settings(
    replace(STARS, window=2.0),
    movies=30,
    rank=2,
    candidates=5,
    first=200,
    rate=20.0,
    delay=0.3,
    decisions=100,
    gate=Gate(margin=9.0, effective_sample_size=1.0, rewarded_decisions=1.0),
)
# An endpoint takes seconds to restart, and so do the later steps of a run: they are chosen less often.
VICTIMS = {"function": KILLS - 5, "endpoint": 2}
STEPS = ("ingester", "trainer", "deployer")  # of which a run is killed
PATIENCE = 300.0  # seconds, enough for a busy machine


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """A loop in which a first policy serves visitors, and two subscriptions keep the acknowledged messages."""
    with Loop(Config(artifacts=str(tmp_path_factory.mktemp("artifacts"))), SETTINGS) as loop:
        loop.prepare(synthetic.generate())
        for name, topic in loop.topics.items():
            loop.platform.messages.subscription(f"audit-{name}", topic)
        loop.start()
        deploy_first_policy(loop)
        loop.visit()
        yield loop


def deploy_first_policy(loop):
    """Import a log, learn from it and deploy, as the start-up pipeline does, in this process."""
    from recbandits.loop.canary import deploy
    from recbandits.loop.train import train

    warehouse, users = loop.platform.warehouse, loop.users
    data, model = (loop.directory / "first" / name for name in ("dataset", "model"))
    end = datetime.now(UTC) - timedelta(seconds=2 * SETTINGS.join.window)
    start = end - timedelta(seconds=SETTINGS.first / SETTINGS.rate)
    import_log(warehouse, *simulate_log(users, SETTINGS.first, start, SETTINGS.first / SETTINGS.rate, 5))
    ingest(warehouse, start, end, loop.settings.join, users.features, data, SETTINGS.holdout)
    train(data, model, SETTINGS.agent, SETTINGS.exploration)
    first = keep_model(read_model(model), loop.models)
    warehouse.write([deploy(loop.endpoint, first.policy, first.version, None, None, until=first.until)])


def make_plan(loop):
    """Plan a re-training, as soon as enough is new."""
    plans, serving = [], serving_model(loop.platform)

    def is_due():
        arguments = loop.settings.join, datetime.now(UTC), SETTINGS.decisions
        plans.append(due(loop.platform.warehouse, serving, *arguments))
        return plans[-1]

    until(is_due, PATIENCE)
    return plans[-1]


def start_run(loop, plan):
    features, topic = loop.directory / "users", loop.topics["interactions"]
    parameters = re_training_parameters(loop.config, SETTINGS, features, plan, topic)
    return loop.platform.pipelines.run(TEMPLATE, plan.name, parameters)


def kill_run(loop, name):
    """Send SIGKILL to the runner of a pipeline and its current step; return whether it was still running."""
    return kill_unit(Unit(loop.directory / "pipelines" / name, name))


def kill_unit(unit):
    """Send SIGKILL to all processes of a unit; return whether it was still running."""
    was_running = unit.running
    while unit.running:
        for process in unit.members():
            with suppress(psutil.NoSuchProcess):
                process.kill()
    return was_running


def step_of(loop, name, step):
    """Return the directory of a step of a run; None before it starts."""
    return next((loop.directory / "pipelines" / name).glob(f"steps/*/{step}"), None)


def kill_in(loop, name, step, meanwhile=lambda: None):
    """Send SIGKILL to a run of the pipeline at a step; return whether the step had started and not finished."""

    def has_ended():
        return loop.platform.pipelines.status(name).state != "running"

    until(lambda: step_of(loop, name, step) or has_ended() or meanwhile(), PATIENCE)
    was_running, directory = kill_run(loop, name), step_of(loop, name, step)
    return was_running and directory is not None and not (directory / "executor_output.json").exists()


def kill_in_steps(loop, steps):
    """Run the pipeline repeatedly, until it was killed in each of some steps, while other processes are killed too."""
    deadline, number = time.monotonic() + 2 * PATIENCE, 0
    for step in steps:
        killed = False
        while not killed:
            assert time.monotonic() < deadline, f"a run must be killed in the {step}"
            with suppress(PlatformError):  # a process that the run needs was killed
                killed, number = kill_in(loop, start_some_run(loop, number), step), number + 1
    return len(steps)


def kill(loop, victim, rng):
    """Send SIGKILL to one process of a kind; return whether it was still running."""
    if victim == "endpoint":
        return kill_unit(loop.endpoint.unit)
    return kill_unit(loop.platform.functions.unit(("log-interaction", "log-reward")[rng.integers(2)]))


def audit(loop, name, kind):
    """Return all records that a topic acknowledged, each as often as it was published."""
    messages = loop.platform.messages
    deliveries = messages.take(messages.subscription(f"audit-{name}", loop.topics[name]), 1_000_000)
    return [kind.from_json(message.data.decode()) for message in deliveries]


def rows(loop, name):
    return loop.platform.warehouse.query(f"SELECT * FROM {name}").to_pylist()


def measure(loop):
    """Measure the memory and descriptors of each unit, and the waiting events, which must not grow."""
    functions = {name: loop.platform.functions.unit(name) for name in LOGGERS.values()}
    units = {"endpoint": loop.endpoint.unit} | functions
    processes = {name: unit.members() for name, unit in units.items()}
    return {
        **{f"bytes of {name}": sum(each.memory_info().rss for each in some) for name, some in processes.items()},
        **{f"descriptors of {name}": sum(each.num_fds() for each in some) for name, some in processes.items()},
        "events that wait": sum(map(loop.backlog, LOGGERS)),
    }


def test_memory_descriptors_and_queues_stay_flat_while_users_visit(loop):
    """From the second to the last quarter of the time, by their medians; the first quarter warms up."""
    answered, samples = loop.simulator.counts["answered"], []
    for _ in range(60):
        samples.append(measure(loop))
        time.sleep(SOAK / 60)
    samples = pd.DataFrame(samples)
    early, late = samples[15:30].median(), samples[45:].median()
    assert loop.simulator.counts["answered"] - answered > 0.5 * SETTINGS.rate * SOAK
    is_size = samples.columns.str.startswith("bytes")
    assert (early[is_size] > 20e6).all(), "each has a process"
    assert (late[is_size] < 1.1 * early[is_size]).all(), samples
    assert (late[~is_size] <= early[~is_size] + SETTINGS.rate).all(), samples


def test_the_endpoint_answers_while_a_training_is_killed_and_a_repeated_run_changes_nothing(loop):
    """Killed in the Trainer, and between the Deployer's deployment and its verdict, which a lock delays."""
    plan, answers = make_plan(loop), Counter()
    requests = loop.users.requests([0], np.arange(5)[None])

    def predict(phase):
        assert len(loop.endpoint.predict(requests)) == 1
        answers[phase] += 1
        time.sleep(0.2)  # each answer is logged, too

    def predict_while_it_runs():
        status = loop.platform.pipelines.status(plan.name)
        assert status.state == "running", status.error
        predict("deploying")

    def has_failed():
        assert loop.platform.pipelines.status(plan.name).state == "failed"
        return loop.platform.pipelines.running(PIPELINE) is None

    start_run(loop, plan)
    assert kill_in(loop, plan.name, "trainer", lambda: predict("training"))
    assert has_failed()
    predict("killed")
    start_run(loop, plan)
    until(lambda: step_of(loop, plan.name, "evaluator") or predict("training"), PATIENCE)
    with closing(sqlite3.connect(loop.directory / "warehouse" / "warehouse.sqlite", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")  # so that the Deployer, which comes next, waits with its verdict
        until(lambda: len(loop.endpoint.traffic_split) == 2 or predict_while_it_runs(), PATIENCE)
        assert kill_run(loop, plan.name)
    assert has_failed()
    shares = loop.endpoint.traffic_split
    assert len(rows(loop, "verdicts")) == 1, "of the first policy, none of the candidate that serves already"
    start_run(loop, plan)
    run = loop.platform.pipelines.wait(plan.name)
    assert run.state == "succeeded", run.error
    verdicts = rows(loop, "verdicts")
    assert [verdict["kind"] for verdict in verdicts] == ["deployed", "deployed"]
    assert loop.endpoint.traffic_split == shares
    assert start_run(loop, plan) == run
    assert (rows(loop, "verdicts"), loop.endpoint.traffic_split) == (verdicts, shares)
    assert answers["training"] >= 10
    assert answers["killed"] == 1
    assert answers["deploying"] >= 1


def test_every_acknowledged_event_is_logged_exactly_once_while_processes_are_killed(loop):
    rng = np.random.default_rng(7)
    victims = rng.permutation(np.repeat(list(VICTIMS), list(VICTIMS.values()))).tolist()
    kills = 0
    with ThreadPoolExecutor() as pool:
        runs = pool.submit(kill_in_steps, loop, rng.permutation(STEPS).tolist())
        for victim in victims:
            time.sleep(rng.uniform(0.0, 0.3))
            kills += kill(loop, victim, rng)
            restart(loop)
        assert kills + runs.result() == KILLS
    assert loop.drain(PATIENCE)
    visits = loop.simulator.counts
    published = {name: audit(loop, name, kind) for name, kind in (("interactions", Interaction), ("rewards", Reward))}
    decisions = Counter(each.event_id for each in published["interactions"])
    written = Counter(row["event_id"] for row in rows(loop, "interactions") if row["policy_version"] != "uniform")
    assert set(written.values()) == {1}
    assert written.keys() == decisions.keys()
    logged = Counter((row["event_id"], row["time"], row["value"]) for row in rows(loop, "rewards"))
    published_rewards = {(each.event_id, each.time, each.value) for each in published["rewards"]}
    assert set(logged.values()) == {1}
    assert published_rewards <= logged.keys()
    of_first = {row["event_id"] for row in rows(loop, "interactions") if row["policy_version"] == "uniform"}
    assert {event for event, _, _ in logged.keys() - published_rewards} <= of_first
    assert visits["reported"] <= len(published_rewards) <= visits["reports"]
    assert visits["reported"] == visits["reports"], "every report was delivered and acknowledged"
    assert len(decisions) >= 0.5 * visits["answered"] > 100
    assert rows(loop, "quarantine") == []
    assert [loop.platform.messages.backlog(f"{name}-dead") for name in LOGGERS] == [0, 0]


def start_some_run(loop, number):
    """Start a run of the pipeline on all decisions since the data of the serving model."""
    serving = serving_model(loop.platform)
    warehouse, now = loop.platform.warehouse, datetime.now(UTC)
    snapshot = warehouse.snapshot(serving.until, now)
    name = f"chaos-{number}-{snapshot[:8]}"
    return start_run(loop, Plan(name, serving.until, now, snapshot, serving.version, 0)).name


def restart(loop):
    """Restart killed processes; one that needs another one that is still down waits for the next attempt."""

    def has_started():
        with suppress(PlatformError):
            loop.start()
            return True

    until(has_started, PATIENCE)


def test_a_dead_letter_does_not_count_as_logged(loop):
    messages = loop.platform.messages
    assert loop.drain(PATIENCE)
    messages.publisher(messages.topic("rewards-dead")).send([Reward("unknown", datetime.now(UTC), 1.0)])
    assert not loop.drain(PATIENCE)
