"""The two pipelines: start-up, until something serves, and re-training, again and again after that.

`python -m src.pipelines` compiles them to `start_up.yaml` and `re_training.yaml` beside this file. Both are straight
lines: what decides is inside a step, because KFP's local runner runs a condition's branches wrongly, and a decision
that is data can be read later.
"""

from pathlib import Path
from typing import NamedTuple

from kfp import compiler, dsl
from src.deployer.component import deployer
from src.evaluator.component import evaluator
from src.generator.component import generator
from src.ingester.component import ingester
from src.trainer.component import trainer


class StartUp(NamedTuple):
    """What the start-up pipeline gives."""

    model: dsl.Model
    verdict: str


class ReTraining(NamedTuple):
    """What the re-training pipeline gives."""

    model: dsl.Model
    judgement: str
    verdict: str


@dsl.pipeline(name="start-up", description="First interactions, a first policy, a first deployment.")
def start_up(
    config: dict,
    world: str,
    features: str,
    start: str,
    end: str,
    first: int,
    candidates: int,
    join: dict,
    holdout: float,
    agent: dict,
    exploration: dict,
    seed: int,
    topic: str = "",
) -> StartUp:
    """Generator, Ingester, Trainer, Deployer."""
    place = {"config": config, "start": start, "end": end}
    begun = generator(**place, world=world, first=first, candidates=candidates, seed=seed).set_caching_options(False)
    plan = {"serving": "", "snapshot": begun.outputs["Output"]}
    read = ingester(**place, features=features, **plan, join=join, holdout=holdout)
    learner = {"agent": agent, "exploration": exploration, "seed": seed}
    learnt = trainer(config=config, dataset=read.outputs["dataset"], serving=read.outputs["serving"], **learner)
    model = learnt.outputs["model"]
    release = {"serving": read.outputs["serving"], "judgement": "", "canary": 100, "topic": topic}
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
    seed: int,
    gate: dict,
    canary: int,
    start: str = "",
    end: str = "",
    serving: str = "",
    snapshot: str = "",
    topic: str = "",
) -> ReTraining:
    """Ingester, Trainer, Evaluator, Deployer."""
    plan = {"start": start, "end": end, "serving": serving, "snapshot": snapshot}
    read = ingester(config=config, features=features, **plan, join=join, holdout=holdout)
    place = {"config": config, "serving": read.outputs["serving"]}
    data = read.outputs["dataset"]
    learnt = trainer(**place, dataset=data, agent=agent, exploration=exploration, seed=seed)
    model = learnt.outputs["model"]
    judged = evaluator(**place, dataset=data, model=model, gate=gate)
    release = {"judgement": judged.outputs["Output"], "canary": canary, "topic": topic}
    verdict = deployer(**place, model=model, **release).set_caching_options(False)
    return ReTraining(model, judged.outputs["Output"], verdict.outputs["Output"])


def compile_all(directory):
    """Compile both pipelines into a directory; gives the files by name."""
    files = {pipeline: Path(directory, f"{pipeline}.yaml") for pipeline in ("start_up", "re_training")}
    for name, file in files.items():
        compiler.Compiler().compile(globals()[name], str(file))
    return files


if __name__ == "__main__":
    compile_all(Path(__file__).parent)
