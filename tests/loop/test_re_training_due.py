"""When a re-training is due: counts, windows, canaries without a verdict, delayed rewards, failed runs."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from kfp import compiler, dsl

from recbandits.config import Config
from recbandits.loop.core import PIPELINE, PipelineCore, due, plan_now, span
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS
from recbandits.platforms.local.pipelines import LocalPipelines
from recbandits.platforms.local.units import units_below
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.pipelines import IMAGE
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Interaction, Reward, Verdict

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SETTINGS = Settings(STARS)


class ServingModel(NamedTuple):
    """The fields of a `Model` that the trigger reads."""

    version: str
    until: datetime


def time_at(seconds):
    return NOON + timedelta(seconds=seconds)


def make_events(number, time, rewarded=True):
    event = f"event-{number}"
    decision = Interaction(event, time, "first", "1", "{}", ("1", "2"), "1", 0.5)
    return [decision, *([Reward(event, time + timedelta(seconds=1), 4.0)] if rewarded else [])]


def verdict(kind, version, against, seconds):
    return Verdict(f"{kind}-{version}", time_at(seconds), kind, version, against, "Because of this test.")


@pytest.fixture
def warehouse():
    """One decision a second from noon on, 100 in all, each with a reward a second later; the first model is served."""
    warehouse = LocalWarehouse()
    records = [record for number in range(100) for record in make_events(number, time_at(number))]
    warehouse.write([*records, verdict("deployed", "first", "", 0)])
    return warehouse


FIRST = ServingModel("first", NOON)


def test_a_re_training_is_due_when_enough_decisions_have_their_rewards(warehouse):
    """At 12:00:55 rewards of 50 decisions are a window old: those of 12:00:00 to 12:00:49."""
    assert due(warehouse, FIRST, STARS, time_at(55), 51) is None
    plan = due(warehouse, FIRST, STARS, time_at(55), 50)
    assert (plan.start, plan.end, plan.serving, plan.new) == (time_at(-60), time_at(50), "first", 50)
    assert plan.snapshot == warehouse.snapshot(time_at(-60), time_at(50))


def test_decisions_without_a_reward_count_if_there_is_a_default(warehouse):
    """50 more decisions from 12:00:00.5 on; with a default all 100 until 12:00:49.5 count, without one 50."""
    silent = [make_events(1000 + n, time_at(n + 0.5), rewarded=False) for n in range(50)]
    warehouse.write([record for records in silent for record in records])
    assert due(warehouse, FIRST, STARS, time_at(55), 101) is None
    assert due(warehouse, FIRST, STARS, time_at(55), 100).new == 100
    assert due(warehouse, FIRST, replace(STARS, default=None), time_at(55), 1).new == 50


def test_an_impossible_reward_does_not_count(warehouse):
    before = due(warehouse, FIRST, STARS, time_at(55), 1).new
    for number, value in enumerate((1000.0, -1e9, 1e308)):
        decision, reward = make_events(1000 + number, time_at(7))
        warehouse.write([decision, replace(reward, value=value)])
    assert due(warehouse, FIRST, STARS, time_at(55), 1).new == before


def test_the_same_data_and_the_same_model_are_the_same_run(warehouse):
    plan = due(warehouse, FIRST, STARS, time_at(55), 50)
    assert due(warehouse, FIRST, STARS, time_at(55), 50) == plan
    assert due(warehouse, ServingModel("other", NOON), STARS, time_at(55), 50).name != plan.name
    assert due(warehouse, FIRST, STARS, time_at(55), 50, overlap=30).name != plan.name, "another window, the same data"
    warehouse.write(make_events(1000, time_at(7)))
    assert due(warehouse, FIRST, STARS, time_at(55), 50).name != plan.name


def test_the_window_starts_before_the_data_of_the_model_and_ends_a_reward_window_ago(warehouse):
    serving = ServingModel("second", time_at(40))
    assert span(warehouse, serving, STARS, time_at(70), overlap=10) == (time_at(30), time_at(65))
    assert span(warehouse, serving, replace(STARS, window=20.0), time_at(70), overlap=10) == (time_at(30), time_at(50))


def test_while_rewards_are_delayed_decisions_wait_instead_of_counting_as_unanswered(warehouse):
    """The newest reward is of 12:01:40; later decisions have none, at 13:00 as at 12:02."""
    warehouse.write([record for n in range(100, 3000) for record in make_events(n, time_at(n), rewarded=False)])
    assert span(warehouse, FIRST, STARS, time_at(3600)) == (time_at(-60), time_at(95))
    assert due(warehouse, FIRST, STARS, time_at(3600), 96) is None


def test_while_decisions_are_delayed_the_window_does_not_skip_them(warehouse):
    """The newest decision is of 12:01:39; rewards for later ones, which another function logs, are there already."""
    warehouse.write([record for n in range(100, 300) for record in make_events(n, time_at(n))[1:]])
    assert span(warehouse, FIRST, STARS, time_at(3600)) == (time_at(-60), time_at(94))


@pytest.mark.parametrize("kind", ["held", "refused"])
def test_decisions_of_a_verdict_do_not_count_again(warehouse, kind):
    """It was of 12:00:50: only decisions since 12:00:45, a window before, are new after that."""
    warehouse.write([verdict(kind, "second", "first", 50)])
    assert due(warehouse, FIRST, STARS, time_at(90), 41) is None
    plan = due(warehouse, FIRST, STARS, time_at(90), 40)
    assert (plan.start, plan.new) == (time_at(-60), 40), "but all that the serving model has not learnt is read"


def test_a_canary_waits_for_its_verdict_before_the_next_one_is_trained(warehouse):
    """As long as it has the smaller share; promoted it has the larger one, and its predecessor is the control."""

    def plan(shares):
        return due(warehouse, FIRST, STARS, time_at(90), 1, shares=shares)

    warehouse.write([verdict("deployed", "second", "first", 10)])
    assert plan({"first": 80, "second": 20}) is None
    assert plan({"first": 100, "second": 0}), "it was rolled back"
    assert plan({"first": 10, "second": 90}), "it was promoted"


class Shares(NamedTuple):
    """An endpoint of which only the shares are read."""

    traffic_split: dict


class Endpoints(NamedTuple):
    """Endpoints with a single endpoint."""

    endpoint: Shares

    def create(self):
        return self.endpoint


class Platform(NamedTuple):
    """The parts of a platform that the trigger uses."""

    config: Config
    warehouse: LocalWarehouse
    endpoints: Endpoints
    pipelines: LocalPipelines


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def step(features: str, serving: str) -> str:
    """Fail as long as the features are broken."""
    from pathlib import Path

    if Path(features, "broken").exists():
        raise ValueError("the features are broken")
    return serving


@dsl.pipeline(name=PIPELINE)
def quick_pipeline(
    config: dict,
    features: str,
    join: dict,
    holdout: float,
    agent: dict,
    exploration: dict,
    gate: dict,
    canary: int,
    start: str,
    end: str,
    serving: str,
    snapshot: str,
    topic: str,
) -> str:
    """A pipeline with the parameters of the re-training pipeline and one short step."""
    return step(features=features, serving=serving).output


@pytest.fixture
def platform(warehouse, tmp_path):
    """The first model is stored and serves."""
    config = Config(artifacts=str(tmp_path / "artifacts"))
    first = tmp_path / "artifacts" / "policies" / "first"
    first.mkdir(parents=True)
    fields = {"version": "first", "parent": None, "learnt": 1, "until": NOON.isoformat()}
    fields |= {"parameters": asdict(SETTINGS.agent), "exploration": asdict(SETTINGS.exploration)}
    (first / "model.json").write_text(json.dumps({"what": "recbandits model", **fields}))
    yield Platform(config, warehouse, Endpoints(Shares({"first": 100})), LocalPipelines(config))
    for unit in units_below(tmp_path):
        unit.stop()


@pytest.fixture
def template(tmp_path):
    compiler.Compiler().compile(quick_pipeline, str(tmp_path / "quick.yaml"))
    return tmp_path / "quick.yaml"


def core_of(platform, template, settings, features):
    core = PipelineCore(platform, platform.endpoints.create(), settings, features)
    core.template = template
    return core


def test_a_tick_starts_a_re_training_once(platform, template, tmp_path):
    core = core_of(platform, template, replace(SETTINGS, decisions=50), tmp_path)
    assert core.tick(time_at(50)) == []
    (run,) = core.tick(time_at(55))
    assert run.state == "running"
    assert core.tick(time_at(100)) == [], "never two at once"
    assert platform.pipelines.wait(run.name).outputs == {"Output": "first"}
    plan = due(platform.warehouse, FIRST, STARS, time_at(55), 50)
    assert run.name == plan.name
    assert core.tick(time_at(55)) == [platform.pipelines.status(run.name)], "the same is not run again"


def test_a_run_that_fails_three_times_is_abandoned_until_enough_decisions_are_new(platform, template, tmp_path):
    """40 are enough. Those until 12:00:45 are abandoned; 45 seconds later there are 45 new ones."""
    (tmp_path / "broken").touch()
    core = core_of(platform, template, replace(SETTINGS, decisions=40), tmp_path)
    names = [run.name for _ in range(3) if (run := core.retrain(time_at(50))) and platform.pipelines.wait(run.name)]
    assert len(names) == 3
    assert len(set(names)) == 1
    assert "the features are broken" in platform.pipelines.status(names[0]).error
    assert core.retrain(time_at(50)) is core.retrain(time_at(84)) is None
    (tmp_path / "broken").unlink()
    run = core.retrain(time_at(95))
    assert run.name != names[0]
    assert platform.pipelines.wait(run.name).state == "succeeded"


def test_a_run_that_could_not_start_does_not_block_the_next_one(platform, template, tmp_path):
    """There is no template at first: no run starts, and no status is read."""
    core = core_of(platform, tmp_path / "later.yaml", replace(SETTINGS, decisions=40), tmp_path)
    for _ in range(2):
        with pytest.raises(PlatformError, match="template must be a compiled pipeline"):
            core.retrain(time_at(50))
    template.rename(tmp_path / "later.yaml")
    assert core.retrain(time_at(50)).state == "running"


def test_without_a_serving_policy_nothing_is_planned(platform, template, tmp_path):
    platform = platform._replace(endpoints=Endpoints(Shares({})))
    assert core_of(platform, template, SETTINGS, tmp_path).tick(time_at(1000), least_new=1) == []
    with pytest.raises(PlatformError, match="nothing serves yet that a re-training could go on from"):
        plan_now(platform, SETTINGS)


def test_one_new_decision_is_enough_if_least_new_is_one(platform, template, tmp_path):
    """At 12:00:06 one decision has had its window, that of 12:00:00; by the settings two thousand are enough."""
    core = core_of(platform, template, SETTINGS, tmp_path)
    assert core.tick(time_at(6)) == []
    assert core.tick(time_at(6), least_new=1)[0].state == "running"
