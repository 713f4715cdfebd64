"""The pipelines of the loop, for KFP here and on Vertex AI.

Start-up runs once: a log, a first policy, a first deployment. Re-training runs again and again. Both are straight
lines: KFP's local runner runs the branches of a condition wrongly, and a decision that is data can be read later.

`python -m recbandits.loop.pipelines` compiles both, and each component by itself, into `templates` beside this file.
"""

from pathlib import Path
from typing import NamedTuple

from kfp import compiler, dsl

from recbandits.loop.components import COMPONENTS, deployer, evaluator, importer, ingester, monitor, trainer
from recbandits.loop.core import TEMPLATES


class StartUp(NamedTuple):
    """Outputs of the start-up pipeline."""

    model: dsl.Model
    verdict: str


class ReTraining(NamedTuple):
    """Outputs of the re-training pipeline."""

    model: dsl.Model
    judgement: str
    verdict: str


@dsl.pipeline(name="start-up", description="A log, a first policy, a first deployment.")
def start_up(
    config: dict,
    log: str,
    features: str,
    join: dict,
    holdout: float,
    agent: dict,
    exploration: dict,
    topic: str = "",
) -> StartUp:
    """Importer, Ingester, Trainer, Deployer."""
    window = importer(config=config, log=log).set_caching_options(False).outputs
    plan = {name: window[name] for name in ("start", "end", "snapshot")} | {"serving": ""}
    read = ingester(config=config, features=features, **plan, join=join, holdout=holdout).outputs
    parameters = {"agent": agent, "exploration": exploration, "serving": read["serving"]}
    model = trainer(config=config, dataset=read["dataset"], **parameters).outputs["model"]
    release = {"serving": read["serving"], "judgement": "", "canary": 100, "topic": topic}
    verdict = deployer(config=config, model=model, **release).set_caching_options(False)
    return StartUp(model, verdict.outputs["Output"])


@dsl.pipeline(name="re-training", description="What was logged since, a candidate, the gate, a canary.")
def re_training(
    config: dict,
    features: str,
    join: dict,
    holdout: float,
    agent: dict,
    exploration: dict,
    gate: dict,
    canary: int,
    start: str = "",
    end: str = "",
    serving: str = "",
    snapshot: str = "",
    topic: str = "",
) -> ReTraining:
    """Ingester, Monitor, Trainer, Evaluator, Deployer."""
    plan = {"start": start, "end": end, "serving": serving, "snapshot": snapshot}
    read = ingester(config=config, features=features, **plan, join=join, holdout=holdout).outputs
    monitor(config=config, dataset=read["dataset"], join=join)
    common = {"config": config, "serving": read["serving"]}
    learner = {"agent": agent, "exploration": exploration}
    model = trainer(**common, dataset=read["dataset"], **learner).outputs["model"]
    judgement = evaluator(**common, dataset=read["dataset"], model=model, gate=gate).outputs["Output"]
    release = {"judgement": judgement, "canary": canary, "topic": topic}
    verdict = deployer(**common, model=model, **release).set_caching_options(False)
    return ReTraining(model, judgement, verdict.outputs["Output"])


def compile_all(directory: Path = TEMPLATES) -> list[Path]:
    """Compile both pipelines, and each component by itself into `components`; return the files."""
    pipelines = {pipeline.name.replace("-", "_"): pipeline for pipeline in (start_up, re_training)}
    functions = pipelines | {f"components/{component.name}": component for component in COMPONENTS}
    files = {Path(directory, f"{name}.yaml"): function for name, function in functions.items()}
    Path(directory, "components").mkdir(parents=True, exist_ok=True)
    for file, function in files.items():
        compiler.Compiler().compile(function, str(file))
    return list(files)


if __name__ == "__main__":
    compile_all()
