"""The steps of the loop's pipelines as KFP components, each a few lines around functions of the package.

`python -m recbandits.loop.pipelines` compiles each by itself into `templates/components`, to be shared.
"""

from functools import partial
from typing import NamedTuple

from kfp import dsl

from recbandits.platforms.pipelines import IMAGE

_component = partial(dsl.component, base_image=IMAGE, install_kfp_package=False)


@_component
def importer(config: dict, log: str, metrics: dsl.Output[dsl.Metrics]) -> NamedTuple(
    "Imported", [("start", str), ("end", str), ("snapshot", str)]
):
    """Write the decisions and rewards of a log to the warehouse; importing again has no further effect.

    Args:
        config: settings of the project.
        log: directory or gs:// URI with `interactions.parquet` and `rewards.parquet`.
        metrics: numbers of decisions, rewards and rows that are new.

    Returns:
        start and end of the decisions (ISO 8601), and a snapshot of the warehouse in that time, by which later steps
        are cached.
    """
    from datetime import datetime

    from recbandits.loop.ingest import import_log, read_log
    from recbandits.loop.models import platform_of
    from recbandits.training.job_paths import mounted

    warehouse = platform_of(config).warehouse
    done = import_log(warehouse, *read_log(mounted(log)))
    for name in ("decisions", "rewards", "written"):
        metrics.log_metric(name, done[name])
    start, end = done["start"], done["end"]
    return start, end, warehouse.snapshot(datetime.fromisoformat(start), datetime.fromisoformat(end))


@_component
def ingester(
    config: dict,
    features: str,
    start: str,
    end: str,
    serving: str,
    snapshot: str,
    join: dict,
    holdout: float,
    dataset: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple("Planned", [("serving", str)]):
    """Read the joined decisions of a window of time into a sealed dataset; what cannot be learnt from is quarantined.

    Args:
        config: settings of the project.
        features: directory or gs:// URI with the features by which the policy learns and serves, as `Features.save`
            writes them, and perhaps `titles.json`.
        start: time of the first decisions, ISO 8601.
        end: time before which decisions are read; empty to plan the window now, by what serves and what is logged.
        serving: version that serves, for the steps that follow; empty for none.
        snapshot: of the warehouse in that time, by which this step is cached: other data, another dataset.
        join: rule for rewards, `platforms.warehouse.Join` as a dict.
        holdout: share of the decisions that the learner does not see.
        dataset: decisions, TFRecords, features and manifest.
        metrics: the manifest's counts, which add up.

    Returns:
        serving, as given or as planned.
    """
    from datetime import datetime

    from recbandits.data.features import Features
    from recbandits.loop.core import plan_now
    from recbandits.loop.ingest import ingest, titles_of
    from recbandits.loop.models import platform_of
    from recbandits.platforms.warehouse import Join
    from recbandits.training.job_paths import mounted

    platform, rule, directory = platform_of(config), Join(**join), mounted(features)
    if end:
        first, last = datetime.fromisoformat(start), datetime.fromisoformat(end)
    else:
        first, last, serving = plan_now(platform, rule)
    options: dict = {"holdout": holdout, "titles": titles_of(directory)}
    manifest = ingest(platform.warehouse, first, last, rule, Features.load(directory), dataset.path, **options)
    names = ("start", "end", "snapshot", "decisions", "held_out", "digest")
    dataset.metadata.update({name: manifest[name] for name in names})
    for name, count in manifest["counts"].items():
        metrics.log_metric(name, count)
    return (serving,)


@_component
def monitor(config: dict, dataset: dsl.Input[dsl.Dataset], join: dict, metrics: dsl.Output[dsl.Metrics]) -> list:
    """Monitor propensities, drift and the join of a dataset's window of time.

    Args:
        config: settings of the project.
        dataset: from the Ingester.
        join: rule for rewards, `platforms.warehouse.Join` as a dict.
        metrics: numbers of the monitors.

    Returns:
        Sentences of the alarms, which are in the log as well, from which Cloud Monitoring sends an e-mail.
    """
    from datetime import datetime

    from recbandits.loop.ingest import read_manifest
    from recbandits.loop.models import load_policies, models_of, platform_of
    from recbandits.loop.monitors import compare_windows
    from recbandits.platforms.pipelines import ALARM
    from recbandits.platforms.warehouse import Join

    platform, manifest = platform_of(config), read_manifest(dataset.path)
    start, end = datetime.fromisoformat(manifest["start"]), datetime.fromisoformat(manifest["end"])
    policies = load_policies(models_of(platform.config), manifest["policy_versions"])
    numbers, alarms = compare_windows(platform.warehouse, start, end, Join(**join), policies)
    for name, number in numbers.items():
        metrics.log_metric(name, number)
    for alarm in alarms:
        print(f"{ALARM} {platform.config.base}: {alarm}", flush=True)
    return alarms


@_component
def trainer(
    config: dict,
    dataset: dsl.Input[dsl.Dataset],
    serving: str,
    agent: dict,
    exploration: dict,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train a candidate: one pass over the events that its parent has not learnt yet.

    Args:
        config: settings of the project.
        dataset: from the Ingester.
        serving: version of the parent; empty for none.
        agent: parameters of LinUCB.
        exploration: name and value of the exploration of the served policy.
        model: the policy to serve, and the agent that learns on.
        metrics: numbers of events learnt now and in all.
    """
    from recbandits.agents.parameters import LinUCB
    from recbandits.exploration import Exploration
    from recbandits.loop.models import models_of, platform_of
    from recbandits.loop.train import train

    parent = models_of(platform_of(config).config) / serving if serving else None
    done = train(dataset.path, model.path, LinUCB(**agent), Exploration(**exploration), parent)
    model.metadata.update(version=done["version"], parent=done["parent"] or "")
    for name in ("new", "learnt"):
        metrics.log_metric(name, done[name])


@_component
def evaluator(
    config: dict,
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    serving: str,
    gate: dict,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
) -> str:
    """Judge the candidate against what serves, off-policy, on decisions that it has not learnt from.

    Args:
        config: settings of the project.
        dataset: from the Ingester.
        model: the candidate.
        serving: version that serves.
        gate: `loop.settings.Gate` as a dict.
        metrics: the difference with its interval, whose coverage is the gate's level, and the effective sample size.
        report: the judgement as a page.

    Returns:
        The judgement as JSON, for the Deployer.
    """
    from pathlib import Path

    from recbandits.loop.gate import judge_log
    from recbandits.loop.ingest import decisions_of
    from recbandits.loop.models import POLICY, models_of, platform_of, read_model
    from recbandits.loop.settings import Gate
    from recbandits.serving.policy import load

    serving_policy = load(models_of(platform_of(config).config) / serving / POLICY)
    candidate, held_out = load(read_model(model.path).policy), decisions_of(dataset.path, held_out=True)
    judgement = judge_log(held_out, candidate, serving_policy, Gate(**gate))
    Path(report.path).write_text(judgement.html(), encoding="utf-8")
    metrics.log_metric("passed", int(judgement.passed))
    for name in ("difference", "low", "high", "effective_sample_size"):
        if (value := getattr(judgement, name)) is not None:
            metrics.log_metric(name, value)
    return judgement.to_json()


@_component
def deployer(
    config: dict,
    model: dsl.Input[dsl.Model],
    serving: str,
    judgement: str,
    canary: int,
    topic: str,
    metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Keep the model by its version, deploy it as a canary or refuse to, and write the verdict to the warehouse.

    Args:
        config: settings of the project.
        model: the candidate.
        serving: version that served when it was trained; empty for none.
        judgement: of the Evaluator, as JSON; empty for the first model.
        canary: percentage of the users who get it at first.
        topic: full name of the topic where the endpoint logs decisions; empty for where it does.
        metrics: whether it was deployed, 1 or 0.

    Returns:
        The verdict as JSON.
    """
    from recbandits.loop.canary import deploy
    from recbandits.loop.gate import Judgement
    from recbandits.loop.models import keep_model, models_of, platform_of, read_model

    platform, candidate = platform_of(config), read_model(model.path)
    keep_model(candidate, models_of(platform.config))
    judged = Judgement.from_json(judgement) if judgement else None
    endpoint = platform.endpoints.create(topic=topic or None)
    release = candidate.policy, candidate.version, judged, serving or None, canary
    verdict = deploy(endpoint, *release, until=candidate.until)
    platform.warehouse.write([verdict])
    metrics.log_metric("deployed", int(verdict.kind == "deployed"))
    return verdict.to_json()


COMPONENTS = (importer, ingester, monitor, trainer, evaluator, deployer)
