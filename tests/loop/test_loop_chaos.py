"""Nothing is lost: the processes of the loop are killed while it runs, and every acknowledged event is logged once.

One loop of real processes serves all tests of this module. Who is killed when follows from a seed; what happens then
is what happens then.
"""

import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import psutil
import pytest

from recbandits.config import Config
from recbandits.data import synthetic
from recbandits.loop.importing import import_log, simulate_log
from recbandits.loop.ingest import ingest
from recbandits.loop.live import Loop
from recbandits.loop.settings import Gate, Settings
from recbandits.loop.simulated_users import STARS
from recbandits.loop.steps import LOGGERS, TEMPLATES, re_training_parameters
from recbandits.loop.trigger import PIPELINE, Plan, due, serving_model
from recbandits.platforms.local.units import Unit
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Interaction, Reward

KILLS = 50
TEMPLATE = TEMPLATES / "re_training.yaml"
# The gate lets every candidate pass, so that the Deployer, the only step with effects, has them.
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
# An endpoint takes seconds to come back, and a run of the pipeline to come far: they are chosen less often.
VICTIMS = {"function": 44, "endpoint": 3}
STEPS = ("ingester", "trainer", "deployer")  # of which a run is killed
PATIENCE = 300.0  # seconds for what a busy machine may take long for


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """A loop in which a first policy serves visitors, and two readers keep what the topics acknowledged."""
    with Loop(Config(artifacts=str(tmp_path_factory.mktemp("artifacts"))), SETTINGS) as loop:
        loop.prepare(synthetic.generate())
        for name, topic in loop.topics.items():
            loop.platform.messages.subscription(f"audit-{name}", topic)
        loop.start()
        deploy_first_policy(loop)
        loop.visit()
        yield loop


def deploy_first_policy(loop):
    """Do what the start-up pipeline does, in this process: import a log, learn from it, deploy."""
    from recbandits.loop.canary import deploy
    from recbandits.loop.train import train

    warehouse, users = loop.platform.warehouse, loop.users
    data, model = (loop.directory / "first" / name for name in ("dataset", "model"))
    end = datetime.now(UTC) - timedelta(seconds=2 * SETTINGS.join.window)
    start = end - timedelta(seconds=SETTINGS.first / SETTINGS.rate)
    import_log(warehouse, *simulate_log(users, SETTINGS.first, start, SETTINGS.first / SETTINGS.rate, 5))
    ingest(warehouse, start, end, loop.settings.join, users.features, data, SETTINGS.holdout)
    train(data, model, SETTINGS.agent, SETTINGS.exploration)
    loop.models.keep(model)
    warehouse.write([deploy(loop.endpoint, model, None, None)])


def make_plan(loop):
    """Plan a re-training, as soon as enough is new."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        serving = serving_model(loop.platform)
        plan = due(loop.platform.warehouse, serving, loop.settings.join, datetime.now(UTC), SETTINGS.decisions)
        if plan:
            return plan
        time.sleep(0.2)
    raise AssertionError(f"there must be {SETTINGS.decisions} new decisions by now")


def start_run(loop, plan):
    features, topic = loop.directory / "users", loop.topics["interactions"]
    parameters = re_training_parameters(loop.config, SETTINGS, features, plan, topic)
    return loop.platform.pipelines.run(TEMPLATE, plan.name, parameters)


def kill_run(loop, name):
    """SIGKILL for the runner of a pipeline and the step that it is at; whether it was still running."""
    return kill_unit(Unit(loop.directory / "pipelines" / name, name))


def kill_unit(unit):
    """SIGKILL for all processes of a unit; whether it was still running."""
    ran = unit.running
    while unit.running:
        for process in unit.members():
            with suppress(psutil.NoSuchProcess):
                process.kill()
    return ran


def step_of(loop, name, step):
    """Directory of a step of a run; None before it begins."""
    return next((loop.directory / "pipelines" / name).glob(f"steps/*/{step}"), None)


def until(condition, what, meanwhile=lambda: time.sleep(0.02)):
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        meanwhile()


def kill_in(loop, name, step, meanwhile=lambda: time.sleep(0.02)):
    """SIGKILL for a run of the pipeline as soon as it is at a step; whether it was, and had not done it."""

    def ended():
        return loop.platform.pipelines.status(name).state != "running"

    until(lambda: step_of(loop, name, step) or ended(), f"{name} must come to the {step}", meanwhile)
    ran, place = kill_run(loop, name), step_of(loop, name, step)
    return ran and place is not None and not (place / "executor_output.json").exists()


def kill_in_steps(loop, steps):
    """Run the pipeline again and again, until it was killed in each of some steps; others are killed meanwhile."""
    deadline, number = time.monotonic() + 2 * PATIENCE, 0
    for step in steps:
        killed = False
        while not killed:
            assert time.monotonic() < deadline, f"a run must be killed in the {step}"
            with suppress(PlatformError):  # somebody was killed of whom it asks something
                killed, number = kill_in(loop, start_some_run(loop, number), step), number + 1
    return len(steps)


def kill(loop, victim, rng):
    """SIGKILL for one process of a kind."""
    if victim == "endpoint":
        kill_unit(loop.endpoint.unit)
    else:
        loop.platform.functions.unit(("log-interaction", "log-reward")[rng.integers(2)]).kill()


def audit(loop, name, kind):
    """All records that a topic ever acknowledged, each as often as it was published."""
    messages = loop.platform.messages
    taken = messages.take(messages.subscription(f"audit-{name}", loop.topics[name]), 1_000_000)
    return [kind.from_json(message.data.decode()) for message in taken]


def rows(loop, name):
    return loop.platform.warehouse.query(f"SELECT * FROM {name}").to_pylist()


def test_the_endpoint_answers_while_a_training_is_killed_and_running_it_again_changes_nothing(loop):
    """Killed in the Trainer, and between the Deployer's deployment and its verdict, for which it is kept waiting."""
    plan, answered = make_plan(loop), Counter()
    requests = loop.users.requests([0], np.arange(5)[None])

    def ask(what):
        assert len(loop.endpoint.predict(requests)) == 1
        answered[what] += 1
        time.sleep(0.2)  # each answer is logged, too

    def failed():
        assert loop.platform.pipelines.status(plan.name).state == "failed"
        return loop.platform.pipelines.running(PIPELINE) is None

    start_run(loop, plan)
    assert kill_in(loop, plan.name, "trainer", lambda: ask("training"))
    assert failed()
    ask("killed")
    start_run(loop, plan)
    until(lambda: step_of(loop, plan.name, "evaluator"), "it must come to the Evaluator", lambda: ask("training"))
    with closing(sqlite3.connect(loop.directory / "warehouse" / "warehouse.sqlite", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")  # so that the Deployer, which comes next, waits with its verdict
        until(lambda: len(loop.endpoint.traffic_split) == 2, "there must be a canary", lambda: ask("deploying"))
        assert kill_run(loop, plan.name)
    assert failed()
    shares = loop.endpoint.traffic_split
    assert len(rows(loop, "verdicts")) == 1, "of the first policy, none of the candidate that serves already"
    start_run(loop, plan)
    run = loop.platform.pipelines.wait(plan.name)
    assert run.state == "succeeded", run.error
    verdicts = rows(loop, "verdicts")
    assert [verdict["kind"] for verdict in verdicts] == ["deployed", "deployed"]
    assert loop.endpoint.traffic_split == shares
    again = start_run(loop, plan)
    assert again == run
    assert (rows(loop, "verdicts"), loop.endpoint.traffic_split) == (verdicts, shares)
    assert answered["training"] >= 10
    assert answered["killed"] == 1
    assert answered["deploying"] >= 1


def test_whichever_process_is_killed_every_acknowledged_event_is_in_the_table_exactly_once(loop):
    rng = np.random.default_rng(7)
    victims = rng.permutation(np.repeat(list(VICTIMS), list(VICTIMS.values()))).tolist()
    assert len(victims) + len(STEPS) == KILLS
    with ThreadPoolExecutor() as beside:
        runs = beside.submit(kill_in_steps, loop, rng.permutation(STEPS).tolist())
        for victim in victims:
            time.sleep(rng.uniform(0.0, 0.3))
            kill(loop, victim, rng)
            revive(loop)
        assert runs.result() == len(STEPS)
    assert loop.drain(PATIENCE)
    visits = loop.simulator.counts
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
    assert [loop.platform.messages.backlog(f"{name}-dead") for name in LOGGERS] == [0, 0]


def start_some_run(loop, number):
    """A run of the pipeline over all that there is."""
    serving = serving_model(loop.platform)
    warehouse, now = loop.platform.warehouse, datetime.now(UTC)
    snapshot = warehouse.snapshot(serving.until, now)
    name = f"chaos-{number}-{snapshot[:8]}"
    return start_run(loop, Plan(name, serving.until, now, snapshot, serving.version, 0)).name


def revive(loop):
    """Start again what was killed; a part that needs another one that is not back yet waits for the next try."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(PlatformError):
            return loop.start()
        time.sleep(0.1)
    raise AssertionError("what was killed must run again")


def test_a_dead_letter_is_not_said_to_be_in_the_warehouse(loop):
    messages = loop.platform.messages
    assert loop.drain(PATIENCE)
    messages.publisher(messages.topic("rewards-dead")).send([Reward("nobody's", datetime.now(UTC), 1.0)])
    assert not loop.drain(PATIENCE)
