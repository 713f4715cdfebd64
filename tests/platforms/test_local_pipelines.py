"""Pipelines on this machine: real runs that succeed, fail, are stopped, killed and run again."""

import json
import threading
from pathlib import Path

import psutil
import pytest
from kfp import compiler, dsl

from recbandits.config import Config
from recbandits.platforms.local import forkserver
from recbandits.platforms.local.pipelines import LocalPipelines, _fork
from recbandits.platforms.local.units import units_below
from recbandits.platforms.pipelines import IMAGE
from recbandits.platforms.protocol import PlatformError
from tests.waiting import is_gone, until


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def write(directory: str, number: int, numbers: dsl.Output[dsl.Dataset]) -> int:
    """Record the process, wait while the file `gate` exists, and return a file and a number."""
    import os
    import time
    from pathlib import Path

    with Path(directory, "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    while Path(directory, "gate").exists():
        time.sleep(0.02)
    Path(numbers.path).write_text(str(number))
    return number + 1


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def double(directory: str, numbers: dsl.Input[dsl.Dataset], more: int) -> dict:
    """Refuse 13."""
    from pathlib import Path

    if more == 14:
        raise ValueError("the number must not be 13")
    return {"twice": 2 * int(Path(numbers.path).read_text()), "more": more}


def compiled(name, file):
    @dsl.pipeline(name=name)
    def pipeline(directory: str, number: int = 3) -> dict:
        first = write(directory=directory, number=number)
        return double(directory=directory, numbers=first.outputs["numbers"], more=first.outputs["Output"]).output

    compiler.Compiler().compile(pipeline, str(file))
    return file


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return compiled("tiny", tmp_path_factory.mktemp("templates") / "tiny.yaml")


@pytest.fixture
def pipelines(tmp_path):
    """Pipelines that are stopped after the test, also if it fails."""
    yield LocalPipelines(Config(artifacts=str(tmp_path / "all, ä 日本")))
    for unit in units_below(tmp_path):
        unit.stop()


@pytest.fixture
def directory(tmp_path):
    """Directory of the steps' records; a file `gate` in it keeps the first step from ending."""
    return tmp_path


def starts(directory):
    file = directory / "starts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def wait_for_step(directory):
    """Number of the process of the first step, when it has been started."""
    until(lambda: starts(directory), 60)
    return starts(directory)[0]


def test_a_name_is_one_run_for_good_and_gives_the_outputs_of_its_pipeline(pipelines, template, directory):
    """5 is written and doubled to 10; the step says 6. Once that is done, nothing is done again."""
    parameters = {"directory": str(directory), "number": 5}
    first = pipelines.run(template, "one", parameters)
    assert (first.state, first.outputs) == ("running", {})
    run = pipelines.wait("one")
    assert run == ("one", "succeeded", {"Output": {"twice": 10, "more": 6}}, ""), pipelines.logs("one")
    assert LocalPipelines(Config(artifacts=str(directory / "all, ä 日本"))).status("one") == run, "any process can ask"
    assert pipelines.run(template, "one", parameters) == run
    assert len(starts(directory)) == 1
    with pytest.raises(PlatformError, match="one was started with another template or other parameters"):
        pipelines.run(template, "one", {"directory": str(directory), "number": 4})


def test_a_failure_names_the_step_and_its_last_words(pipelines, template, directory):
    pipelines.run(template, "one", {"directory": str(directory), "number": 13})
    run = pipelines.wait("one")
    assert (run.state, run.outputs) == ("failed", {})
    assert run.error == (
        "pipeline run one failed with exit code 1: step double failed: ValueError: the number must not be 13"
    )


def test_forked_steps_come_to_the_same_end_as_those_that_kfp_executes(pipelines, template, directory, monkeypatch):
    ends = []
    for name in ("forked", "executed"):
        (directory / "gate").touch()
        pipelines.run(template, name, {"directory": str(directory)})
        is_executed = "kfp.dsl.executor_main" in psutil.Process(wait_for_step(directory)).cmdline()
        for file in ("gate", "starts"):
            (directory / file).unlink()
        ends.append((is_executed, *pipelines.wait(name)[1:]))
        monkeypatch.setattr(forkserver, "FORKED", ())
    outputs = {"Output": {"twice": 6, "more": 4}}
    assert ends == [(False, "succeeded", outputs, ""), (True, "succeeded", outputs, "")]


def test_a_step_that_installs_packages_is_executed_and_a_forked_one_ends_with_its_own_code(directory):
    """The commands are those that KFP compiles."""
    given, executed, codes = json.dumps({"outputs": {"outputFile": str(directory / "outputs.json")}}), [], []
    for packages in (["six"], None):

        @dsl.component(base_image=IMAGE, install_kfp_package=False, packages_to_install=packages)
        def leave():
            raise SystemExit(3)

        container = leave.component_spec.implementation.container
        command = [given if word == "{{$}}" else word for word in (*container.command, *container.args)]
        codes.append(_fork(lambda command: executed.append(command) or 0, command))
    assert len(executed) == 1
    assert codes == [0, 3]


def test_no_two_runs_of_one_pipeline_go_on_at_once(pipelines, template, directory):
    """Eight at once, of which one is started; another pipeline does not mind."""
    (directory / "gate").touch()
    errors = []

    def run(name):
        try:
            pipelines.run(template, name, {"directory": str(directory)})
        except PlatformError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=run, args=[f"run-{number}"]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running = pipelines.running("tiny")
    assert len(errors) == 7
    assert all(f"must wait: {running} of tiny is running" in sentence for sentence in errors)
    other = pipelines.run(
        compiled("other", directory / "other.yaml"), "other", {"directory": str(directory / "nowhere")}
    )
    assert other.state == "running"
    (directory / "gate").unlink()
    assert pipelines.wait(running).state == "succeeded"
    assert pipelines.running("tiny") is None
    assert len(starts(directory)) == 1


def test_a_run_that_was_stopped_leaves_nothing_and_is_run_again_to_the_same_end(pipelines, template, directory):
    (directory / "gate").touch()
    pipelines.run(template, "one", {"directory": str(directory)})
    step = psutil.Process(wait_for_step(directory))
    pipelines.stop("one")
    until(lambda: is_gone(step))
    assert pipelines.status("one").state == "stopped"
    (directory / "gate").unlink()
    pipelines.run(template, "one", {"directory": str(directory)})
    assert pipelines.wait("one").outputs == {"Output": {"twice": 6, "more": 4}}


@pytest.mark.parametrize("victim", ["step", "runner and command"])
def test_a_run_whose_processes_are_killed_is_run_again_to_the_same_end(pipelines, template, directory, victim):
    """Where the step outlives both, the run goes on until the step has ended: no two write at once."""
    (directory / "gate").touch()
    pipelines.run(template, "one", {"directory": str(directory)})
    step = psutil.Process(wait_for_step(directory))
    command = step.parent()  # which has forked it
    for process in [step] if victim == "step" else [command.parent(), command]:
        process.kill()
    if victim == "runner and command":
        psutil.wait_procs([command], timeout=10)
        assert pipelines.status("one").state == "running"
        assert pipelines.running("tiny") == "one"
        assert not is_gone(step)
        (directory / "gate").unlink()
    assert pipelines.wait("one").state == "failed"
    assert pipelines.status("one").error
    assert is_gone(step)
    (directory / "gate").unlink(missing_ok=True)
    pipelines.run(template, "one", {"directory": str(directory)})
    assert pipelines.wait("one").outputs == {"Output": {"twice": 6, "more": 4}}


def test_a_run_without_a_written_result_has_no_outputs_or_steps_of_an_earlier_attempt(pipelines, template, directory):
    """Its outputs are there, but not its end; while it runs again it has none."""
    pipelines.run(template, "one", {"directory": str(directory)})
    assert pipelines.wait("one").state == "succeeded"
    (directory / "all, ä 日本/pipelines/one/end.json").unlink()
    until(lambda: not pipelines.running("tiny"))
    assert pipelines.status("one").state == "failed"
    (directory / "gate").touch()
    assert pipelines.run(template, "one", {"directory": str(directory)})[1:3] == ("running", {})
    assert not (directory / "all, ä 日本/pipelines/one/outputs.json").exists()
    assert not list((directory / "all, ä 日本/pipelines/one").glob("steps/*/double"))


def test_an_unknown_name_is_refused(pipelines, directory):
    with pytest.raises(PlatformError, match="there is no pipeline run nothing; what there is: none"):
        pipelines.status("nothing")
    (directory / "text.yaml").write_text(json.dumps(["no pipeline"]))
    with pytest.raises(PlatformError, match="template must be a compiled pipeline, got"):
        pipelines.run(directory / "text.yaml", "one")
    with pytest.raises(PlatformError, match="template must be a compiled pipeline, got"):
        pipelines.run(Path("nowhere.yaml"), "one")
