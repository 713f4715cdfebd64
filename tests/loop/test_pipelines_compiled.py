"""The compiled pipelines and components are those of the code, and hold nothing that KFP's local runner gets wrong."""

from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from kfp.components import load_component_from_file

from recbandits.config import Config
from recbandits.loop import pipelines
from recbandits.loop.core import PIPELINE, TEMPLATES, re_training_parameters, start_up_parameters
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS
from recbandits.platforms.pipelines import IMAGE

NAMES = ("start_up", "re_training")


def read(file):
    """The compiled pipeline of a file, which has no second document: that would be Kubernetes's own."""
    (spec,) = yaml.safe_load_all(Path(file).read_text(encoding="utf-8"))
    return spec


def test_the_files_in_the_package_are_what_the_code_compiles_to(tmp_path):
    """`python -m recbandits.loop.pipelines` writes them; the version of KFP that compiled them may be another one."""
    files = pipelines.compile_all(tmp_path)
    committed = {file.relative_to(TEMPLATES) for file in TEMPLATES.rglob("*.yaml")}
    assert committed == {file.relative_to(tmp_path) for file in files}
    for name in committed:
        committed_spec, compiled_spec = (read(folder / name) | {"sdkVersion": ""} for folder in (TEMPLATES, tmp_path))
        assert committed_spec == compiled_spec, name


@pytest.mark.parametrize("component", pipelines.COMPONENTS, ids=lambda component: component.name)
def test_a_component_can_be_shared_as_its_file(component):
    """Loaded from the file it has the inputs and outputs of the code; each parameter has its description."""
    file = TEMPLATES / "components" / f"{component.name}.yaml"
    loaded = load_component_from_file(str(file))
    (spec, shared) = (each.component_spec for each in (component, loaded))
    assert shared.inputs.keys() == spec.inputs.keys()
    assert shared.outputs.keys() == spec.outputs.keys()
    parameters = read(file)["components"][f"comp-{component.name}"]["inputDefinitions"]["parameters"]
    assert [name for name, parameter in parameters.items() if not parameter.get("description")] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_holds_nothing_that_the_local_runner_gets_wrong(name):
    """One graph of tasks that wait for tasks, and steps of Python functions whose packages are in the image.

    Of `dsl.If` no branch runs and of `If` with `Else` both, with status SUCCESS; a task after a failure does not run;
    `OneOf` raises; loops are run, but no step can collect what they give; retries, variables and caching under keys of
    their own are passed over. Packages would be installed into the interpreter that runs the pipeline.
    """
    spec = read(TEMPLATES / f"{name}.yaml")
    assert not [name for name, component in spec["components"].items() if "dag" in component]
    for task in spec["root"]["dag"]["tasks"].values():
        assert task.keys() <= {"taskInfo", "componentRef", "inputs", "dependentTasks", "cachingOptions"}
        assert task["cachingOptions"].keys() <= {"enableCache"}
    outputs = spec["root"]["dag"]["outputs"]
    assert {len(each["artifactSelectors"]) for each in outputs["artifacts"].values()} == {1}
    assert {key for each in outputs["parameters"].values() for key in each} == {"valueFromParameter"}
    for executor in spec["deploymentSpec"]["executors"].values():
        assert executor.keys() == {"container"}
        assert executor["container"].keys() == {"image", "command", "args"}
        assert "kfp.dsl.executor_main" in str(executor["container"]["command"])
        assert "pip install" not in str(executor["container"]["command"])


@pytest.mark.parametrize("name", NAMES)
def test_steps_run_in_our_image_in_a_straight_line(name):
    """Every step waits for the one before it; what has effects outside its artifacts is never taken from a cache."""
    spec = read(TEMPLATES / f"{name}.yaml")
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
    start_up, re_training = (read(TEMPLATES / f"{name}.yaml")["root"]["dag"]["tasks"]["ingester"] for name in NAMES)
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
        spec = read(TEMPLATES / f"{name}.yaml")
        inputs = spec["root"]["inputDefinitions"]["parameters"]
        needed = {key for key, value in inputs.items() if not value.get("isOptional")}
        assert needed <= parameters.keys() <= inputs.keys()
    assert read(TEMPLATES / "re_training.yaml")["pipelineInfo"]["name"] == PIPELINE


def test_no_step_imports_a_platform_by_itself():
    """A step gets its platform from the configuration; on a laptop nothing of Google Cloud is imported."""
    for file in TEMPLATES.rglob("*.yaml"):
        assert "recbandits.platforms.gcp" not in file.read_text(encoding="utf-8"), file.name
