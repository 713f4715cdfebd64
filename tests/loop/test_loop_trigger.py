"""When it is time to train again: counts, windows, canaries that wait, rewards that stay away, runs that fail."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from kfp import compiler, dsl

from recbandits.config import Config
from recbandits.loop.core import Core, PipelineLearner
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS
from recbandits.loop.trigger import PIPELINE, due, plan_now, span
from recbandits.platforms.local.pipelines import LocalPipelines
from recbandits.platforms.local.units import units_below
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.pipelines import IMAGE
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Interaction, Reward, Verdict

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SETTINGS = Settings(STARS)


class Served(NamedTuple):
    """What of a model matters here."""

    version: str
    until: datetime


def at(seconds):
    return NOON + timedelta(seconds=seconds)


def decision(number, time, rewarded=True):
    event = f"event-{number}"
    shown = Interaction(event, time, "first", "1", "{}", ("1", "2"), "1", 0.5)
    return [shown, *([Reward(event, time + timedelta(seconds=1), 4.0)] if rewarded else [])]


def verdict(kind, version, against, seconds):
    return Verdict(f"{kind}-{version}", at(seconds), kind, version, against, "Because of this test.")


@pytest.fixture
def warehouse():
    """One decision a second from noon on, 100 in all, each with a reward a second later; the first model is served."""
    warehouse = LocalWarehouse()
    records = [record for number in range(100) for record in decision(number, at(number))]
    warehouse.write([*records, verdict("deployed", "first", "", 0)])
    return warehouse


FIRST = Served("first", NOON)


def test_it_is_due_when_enough_decisions_have_their_rewards(warehouse):
    """At 12:00:55 rewards of 50 decisions are a window old: those of 12:00:00 to 12:00:49."""
    assert due(warehouse, FIRST, STARS, at(55), 51) is None
    plan = due(warehouse, FIRST, STARS, at(55), 50)
    assert (plan.start, plan.end, plan.serving, plan.new) == (at(-60), at(50), "first", 50)
    assert plan.snapshot == warehouse.snapshot(at(-60), at(50))


def test_decisions_that_nobody_answers_count_where_silence_is_an_answer(warehouse):
    """50 more decisions from 12:00:00.5 on; with a default all 100 until 12:00:49.5 count, without one 50."""
    silent = [decision(1000 + n, at(n + 0.5), rewarded=False) for n in range(50)]
    warehouse.write([record for records in silent for record in records])
    assert due(warehouse, FIRST, STARS, at(55), 101) is None
    assert due(warehouse, FIRST, STARS, at(55), 100).new == 100
    assert due(warehouse, FIRST, replace(STARS, default=None), at(55), 1).new == 50


def test_an_impossible_reward_does_not_count(warehouse):
    before = due(warehouse, FIRST, STARS, at(55), 1).new
    for number, value in enumerate((1000.0, -1e9, 1e308)):
        shown, told = decision(1000 + number, at(7))
        warehouse.write([shown, replace(told, value=value)])
    assert due(warehouse, FIRST, STARS, at(55), 1).new == before


@pytest.mark.parametrize("kind", ["held", "refused"])
def test_what_was_decided_on_does_not_count_again(warehouse, kind):
    warehouse.write([verdict(kind, "second", "first", 50)])
    assert due(warehouse, FIRST, STARS, at(90), 40).new == 40


def test_the_same_data_and_the_same_model_are_the_same_run(warehouse):
    plan = due(warehouse, FIRST, STARS, at(55), 50)
    assert due(warehouse, FIRST, STARS, at(55), 50) == plan
    assert due(warehouse, Served("other", NOON), STARS, at(55), 50).name != plan.name
    assert due(warehouse, FIRST, STARS, at(55), 50, overlap=30).name != plan.name, "another window, the same data"
    warehouse.write(decision(1000, at(7)))
    assert due(warehouse, FIRST, STARS, at(55), 50).name != plan.name


def test_the_window_reaches_back_for_what_was_delivered_late_and_leaves_what_may_still_be_answered(warehouse):
    serving = Served("second", at(40))
    assert span(warehouse, serving, STARS, at(70), overlap=10) == (at(30), at(65))
    assert span(warehouse, serving, replace(STARS, window=20.0), at(70), overlap=10) == (at(30), at(50))


def test_where_rewards_stay_away_decisions_wait_instead_of_counting_as_unanswered(warehouse):
    """The newest reward is of 12:01:40; whoever decides later has none, whether asked at 12:02 or at 13:00."""
    warehouse.write([record for n in range(100, 3000) for record in decision(n, at(n), rewarded=False)])
    assert span(warehouse, FIRST, STARS, at(3600)) == (at(-60), at(95))
    assert due(warehouse, FIRST, STARS, at(3600), 96) is None


def test_where_decisions_stay_away_the_window_does_not_pass_them_by(warehouse):
    """The newest decision is of 12:01:39; rewards for later ones, which another function logs, are there already."""
    warehouse.write([record for n in range(100, 300) for record in decision(n, at(n))[1:]])
    assert span(warehouse, FIRST, STARS, at(3600)) == (at(-60), at(94))


def test_what_a_verdict_was_about_does_not_count_again(warehouse):
    """A candidate was refused at 12:00:50: only decisions since 12:00:45, a window before, are new after that."""
    warehouse.write([verdict("refused", "second", "first", 50)])
    assert due(warehouse, FIRST, STARS, at(90), 41) is None
    plan = due(warehouse, FIRST, STARS, at(90), 40)
    assert (plan.start, plan.new) == (at(-60), 40), "but all that the serving model has not learnt is read"


def test_a_canary_waits_for_its_verdict_before_the_next_one_is_trained(warehouse):
    """As long as it has the smaller share; promoted it has the larger one, and its predecessor is the control."""

    def planned(shares):
        return due(warehouse, FIRST, STARS, at(90), 1, shares=shares)

    warehouse.write([verdict("deployed", "second", "first", 10)])
    assert planned({"first": 80, "second": 20}) is None
    assert planned({"first": 100, "second": 0}), "it was taken back, by the guardrail or by somebody"
    assert planned({"first": 10, "second": 90}), "it was promoted"


class Shares(NamedTuple):
    """An endpoint, of which the shares are asked alone."""

    traffic_split: dict


class Endpoints(NamedTuple):
    """Endpoints of which there is one."""

    endpoint: Shares

    def create(self):
        return self.endpoint


class Platform(NamedTuple):
    """What the trigger asks of a platform."""

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
def quick(
    config: dict,
    features: str,
    join: dict,
    holdout: float,
    agent: dict,
    exploration: dict,
    seed: int,
    gate: dict,
    canary: int,
    start: str,
    end: str,
    serving: str,
    snapshot: str,
    topic: str,
) -> str:
    """Takes what the re-training pipeline takes, and is done at once."""
    return step(features=features, serving=serving).output


@pytest.fixture
def platform(warehouse, tmp_path):
    """The first model serves and is kept."""
    config = Config(artifacts=str(tmp_path / "artifacts"))
    first = tmp_path / "artifacts" / "policies" / "first"
    first.mkdir(parents=True)
    known = {"version": "first", "parent": None, "learnt": 1, "until": NOON.isoformat()}
    known |= {"parameters": asdict(SETTINGS.agent), "exploration": asdict(SETTINGS.exploration)}
    (first / "model.json").write_text(json.dumps({"what": "recbandits model", **known}))
    yield Platform(config, warehouse, Endpoints(Shares({"first": 100})), LocalPipelines(config))
    for unit in units_below(tmp_path):
        unit.stop()


@pytest.fixture
def template(tmp_path):
    compiler.Compiler().compile(quick, str(tmp_path / "quick.yaml"))
    return tmp_path / "quick.yaml"


def core_of(platform, template, settings, features):
    learner = PipelineLearner(platform, settings, features, template=template)
    return Core(platform.endpoints.create(), platform.warehouse, settings, learner)


def test_a_tick_starts_what_is_due_once(platform, template, tmp_path):
    core = core_of(platform, template, replace(SETTINGS, decisions=50), tmp_path)
    assert core.tick(at(50)) == []
    (run,) = core.tick(at(55))
    assert run.state == "running"
    assert core.tick(at(100)) == [], "never two at once"
    assert platform.pipelines.wait(run.name).outputs == {"Output": "first"}
    plan = due(platform.warehouse, FIRST, STARS, at(55), 50)
    assert run.name == plan.name
    assert core.tick(at(55)) == [platform.pipelines.status(run.name)], "the same is not run again"


def test_a_run_that_fails_three_times_is_given_up_until_as_much_again_is_new(platform, template, tmp_path):
    """40 are enough. Those until 12:00:45 are given up; 45 seconds later there are 45 new ones."""
    (tmp_path / "broken").touch()
    core = core_of(platform, template, replace(SETTINGS, decisions=40), tmp_path)
    names = [run.name for _ in range(3) if (run := core.retrain(at(50))) and platform.pipelines.wait(run.name)]
    assert len(names) == 3
    assert len(set(names)) == 1
    assert "the features are broken" in platform.pipelines.status(names[0]).error
    assert core.retrain(at(50)) is core.retrain(at(84)) is None
    (tmp_path / "broken").unlink()
    run = core.retrain(at(95))
    assert run.name != names[0]
    assert platform.pipelines.wait(run.name).state == "succeeded"


def test_a_run_that_could_not_be_started_does_not_keep_the_next_one_from_it(platform, template, tmp_path):
    """There is no template at first: no run starts, and the status of none is asked for."""
    core = core_of(platform, tmp_path / "later.yaml", replace(SETTINGS, decisions=40), tmp_path)
    for _ in range(2):
        with pytest.raises(PlatformError, match="template must be a compiled pipeline"):
            core.retrain(at(50))
    template.rename(tmp_path / "later.yaml")
    assert core.retrain(at(50)).state == "running"


def test_where_no_policy_serves_there_is_none_to_go_on_from(platform, template, tmp_path):
    platform = platform._replace(endpoints=Endpoints(Shares({})))
    assert core_of(platform, template, SETTINGS, tmp_path).tick(at(1000), least_new=1) == []
    with pytest.raises(PlatformError, match="nothing serves yet that a re-training could go on from"):
        plan_now(platform, SETTINGS)


def test_one_new_decision_is_enough_where_one_was_asked_for(platform, template, tmp_path):
    """At 12:00:06 one decision has had its window, that of 12:00:00; by the settings two thousand are enough."""
    core = core_of(platform, template, SETTINGS, tmp_path)
    assert core.tick(at(6)) == []
    assert core.tick(at(6), least_new=1)[0].state == "running"
