"""The compiled pipelines and components are those of the code, and hold nothing that KFP's local runner gets wrong."""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from kfp import compiler, dsl
from kfp.components import load_component_from_file

from recbandits.config import Config
from recbandits.loop import pipelines
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS
from recbandits.loop.steps import TEMPLATES, re_training_parameters, start_up_parameters
from recbandits.loop.trigger import PIPELINE
from recbandits.platforms.pipelines import IMAGE

NAMES = ("start_up", "re_training")


def read(file):
    """The first document of a compiled pipeline, and whether there is another one: what is Kubernetes's own."""
    spec, *more = yaml.safe_load_all(Path(file).read_text(encoding="utf-8"))
    return spec, bool(more)


def wrong_locally(file):
    """Find the features of a compiled pipeline that KFP's local runner runs otherwise or not at all, a set of words.

    Of `dsl.If` no branch runs and of `If` with `Else` both, with status SUCCESS; a task after a failure does not run;
    `OneOf` raises; loops are run, but no step can collect what they give; retries, variables and caching under keys of
    their own are passed over. Packages would be installed into the interpreter that runs the pipeline.
    """
    spec, more = read(file)
    features = {"Kubernetes"} if more else set()
    for part in (spec["root"], *spec["components"].values()):
        dag = part.get("dag", {})
        outputs = dag.get("outputs", {})
        several = [output for output in outputs.get("artifacts", {}).values() if len(output["artifactSelectors"]) > 1]
        features |= {"OneOf"} if several or "valueFromOneof" in str(outputs) else set()
        for task in dag.get("tasks", {}).values():
            policy = task.get("triggerPolicy", {})
            features |= {"condition"} if "condition" in policy else set()
            features |= {"exit handler"} if policy.get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED" else set()
            features |= {"retry"} if "retryPolicy" in task else set()
            features |= {"cache key"} if "cacheKey" in task.get("cachingOptions", {}) else set()
            features |= {"loop"} if {"parameterIterator", "artifactIterator"} & task.keys() else set()
    for executor in spec["deploymentSpec"]["executors"].values():
        container = executor.get("container", {})
        features |= {"environment"} if "env" in container else set()
        features |= {"packages"} if "pip install" in str(container) else set()
        features |= (
            {"container"} if "kfp.dsl.executor_main" not in str(container) and "container" in executor else set()
        )
    return features


def test_the_files_in_the_package_are_what_the_code_compiles_to(tmp_path):
    """`python -m recbandits.loop.pipelines` writes them; the version of KFP that compiled them may be another one."""
    files = pipelines.compile_all(tmp_path)
    committed = {file.relative_to(TEMPLATES) for file in TEMPLATES.rglob("*.yaml")}
    assert committed == {file.relative_to(tmp_path) for file in files}
    for name in committed:
        (committed_spec, _), (compiled_spec, _) = read(TEMPLATES / name), read(tmp_path / name)
        assert committed_spec | {"sdkVersion": ""} == compiled_spec | {"sdkVersion": ""}, name


@pytest.mark.parametrize("component", pipelines.COMPONENTS, ids=lambda component: component.name)
def test_a_component_can_be_shared_as_its_file(component):
    """Loaded from the file it has the inputs and outputs of the code; each parameter has its description."""
    file = TEMPLATES / "components" / f"{component.name}.yaml"
    loaded = load_component_from_file(str(file))
    (spec, shared) = (each.component_spec for each in (component, loaded))
    assert shared.inputs.keys() == spec.inputs.keys()
    assert shared.outputs.keys() == spec.outputs.keys()
    parameters = read(file)[0]["components"][f"comp-{component.name}"]["inputDefinitions"]["parameters"]
    assert [name for name, parameter in parameters.items() if not parameter.get("description")] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_holds_nothing_that_the_local_runner_gets_wrong(name):
    assert wrong_locally(TEMPLATES / f"{name}.yaml") == set()


@pytest.mark.parametrize("name", NAMES)
def test_steps_run_in_our_image_in_a_straight_line(name):
    """Every step waits for the one before it; what has effects outside its artifacts is never taken from a cache."""
    spec, _ = read(TEMPLATES / f"{name}.yaml")
    tasks = spec["root"]["dag"]["tasks"]
    order = ["importer"] * (name == "start_up") + ["ingester", "trainer"]
    order += ["evaluator"] * (name == "re_training") + ["deployer"]
    assert set(tasks) == set(order) | ({"monitor"} if name == "re_training" else set())
    assert all(before in tasks[after]["dependentTasks"] for before, after in pairwise(order))
    assert {step for step in order if not tasks[step]["cachingOptions"]} == {"importer", "deployer"} & set(order)
    executors = spec["deploymentSpec"]["executors"].values()
    assert {executor["container"]["image"] for executor in executors} == {IMAGE}


def test_the_snapshot_is_among_the_inputs_by_which_the_ingester_is_cached():
    """In the start-up pipeline it is the importer's; in re-training what the plan was made of."""
    start_up, re_training = (read(TEMPLATES / f"{name}.yaml")[0]["root"]["dag"]["tasks"]["ingester"] for name in NAMES)
    given = start_up["inputs"]["parameters"]["snapshot"]["taskOutputParameter"]
    assert given == {"outputParameterKey": "snapshot", "producerTask": "importer"}
    assert re_training["inputs"]["parameters"]["snapshot"] == {"componentInputParameter": "snapshot"}


def test_the_loop_gives_the_parameters_that_the_pipelines_take():
    config, settings = Config(), Settings(STARS)
    given = (
        start_up_parameters(config, settings, "log", "features"),
        re_training_parameters(config, settings, "features"),
    )
    for name, parameters in zip(NAMES, given, strict=True):
        spec, _ = read(TEMPLATES / f"{name}.yaml")
        inputs = spec["root"]["inputDefinitions"]["parameters"]
        needed = {key for key, value in inputs.items() if not value.get("isOptional")}
        assert needed <= parameters.keys() <= inputs.keys()
    assert read(TEMPLATES / "re_training.yaml")[0]["pipelineInfo"]["name"] == PIPELINE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def step(number: int) -> int:
    return number


@dsl.component(base_image=IMAGE, install_kfp_package=False, packages_to_install=["six"])
def installing(number: int) -> int:
    return number


class Number(NamedTuple):
    value: int


@dsl.pipeline(name="bad")
def one_of(number: int) -> Number:
    with dsl.If(number == 1):
        one = step(number=number)
    with dsl.Else():
        other = step(number=number)
    return Number(dsl.OneOf(one.outputs["Output"], other.outputs["Output"]))


@dsl.pipeline(name="bad")
def exit_handler(number: int):
    with dsl.ExitHandler(step(number=0)):
        step(number=number)


@dsl.pipeline(name="bad")
def loop(number: int):
    with dsl.ParallelFor([1, 2]) as each:
        step(number=each)


@dsl.pipeline(name="bad")
def retried(number: int):
    step(number=number).set_retry(2)


@dsl.pipeline(name="bad")
def with_variable(number: int):
    step(number=number).set_env_variable("A", "b")


@dsl.pipeline(name="bad")
def with_packages(number: int):
    installing(number=number)


@pytest.mark.parametrize(
    ("pipeline", "features"),
    [
        (one_of, {"condition", "OneOf"}),
        (exit_handler, {"exit handler"}),
        (loop, {"loop"}),
        (retried, {"retry"}),
        (with_variable, {"environment"}),
        (with_packages, {"packages"}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_unsupported_features_of_the_local_runner_are_found(pipeline, features, tmp_path):
    compiler.Compiler().compile(pipeline, str(tmp_path / "bad.yaml"))
    assert wrong_locally(tmp_path / "bad.yaml") == features


def test_no_step_imports_a_platform_by_itself():
    """A step gets its platform from the configuration; on a laptop nothing of Google Cloud is imported."""
    for file in TEMPLATES.rglob("*.yaml"):
        assert "recbandits.platforms.gcp" not in file.read_text(encoding="utf-8"), file.name
