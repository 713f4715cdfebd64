"""The training job, the same on a laptop, in a container and on Vertex AI.

`python -m recbandits.training.task simulate --agent linucb --alpha 0.5`; `--help` after a command and an agent lists
their flags.
"""

import contextlib
import difflib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import tyro

from recbandits import training
from recbandits.checks import Rule, check_fields, copy_files, one_of, require, require_each, write_text
from recbandits.training.job_paths import JobPaths, mounted
from recbandits.training.problems import AGENTS_OF, PROBLEMS, Learn, Problem, as_text

_PROGRAM = "recbandits.training.task"
_PROFILE = Rule("seconds from 0 to 60", lambda seconds: 0 <= seconds <= 60)  # longer traces are too large to open
_TUNING = ("CLOUD_ML_HP_METRIC_FILE", "CLOUD_ML_TRIAL_ID")
_FLAGS = tyro.constructors.ConstructorRegistry()


@dataclass
class Options:
    """Arguments of every job.

    Attributes:
      agent: name of an agent, whose flags are listed with it; empty takes the first one of the command.
      dry_run: print the settings and paths of the job, and do nothing.
      profile: seconds that TensorFlow's profiler records from the start of training, into the TensorBoard directory.
    """

    agent: str = ""
    dry_run: bool = False
    profile: float = 0.0

    def __post_init__(self):
        check_fields(self, dry_run=one_of((True, False)), profile=_PROFILE)


class Request(NamedTuple):
    """A command line, read and checked; `agent` has the parameters of the agent that `options` names."""

    command: str
    options: Options
    problem: Problem
    agent: Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, of the process unless arguments are given, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    request = parse(arguments)
    try:
        paths = JobPaths.from_environment()
        if request.options.dry_run:
            print(*describe(request, paths), sep="\n")
        else:
            run(request, paths, arguments)
    except (ValueError, KeyError, OSError, ArithmeticError, MemoryError, *_tensorflow_errors()) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        print(f"{_PROGRAM}: {' '.join(str(message).split())}", file=sys.stderr)
        return 1
    return 0


def parse(arguments: Sequence[str]) -> Request:
    """Read a command line; one that is wrong ends the process with a message and exit code 2."""
    command, *flags = arguments or [""]
    if command in ("-h", "--help"):
        print(f"usage: {_PROGRAM} COMMAND [--agent NAME] [-h] [OPTIONS]\n\ncommands:")
        print(*(f"  {name:12}{_summary(kind)}" for name, kind in PROBLEMS.items()), sep="\n")
        sys.exit(0)
    program, options = f"{_PROGRAM} {command}", {"use_underscores": True, "return_unknown_args": True}
    read = partial(tyro.cli, prog=program, args=flags, registry=_FLAGS, **options)
    try:
        require_each(one_of(PROBLEMS), command=command)
        for flag, word in pairwise(["=", *flags]):
            if not word.startswith("-") and ("=" in flag or not flag.startswith("--")):
                raise ValueError(f"unknown argument {word!r}")
        problem, agents = PROBLEMS[command], AGENTS_OF[command]
        (options,), _ = read(_flat(Options), add_help=False)
        name = options.agent or next(iter(agents))
        require(name in agents, f"agent of {command}", f"one of {', '.join(agents)}", name)
        summaries = [_summary(kind) for kind in (problem, agents[name])]
        text = f"{summaries[0]} Agents: {', '.join(agents)}. {name}: {summaries[1]}"
        parts, unknown = read(_flat(Options, problem, agents[name]), description=text)
        if unknown:
            known = [f"--{field.name}" for part in parts for field in fields(part)]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
            raise ValueError(f"unknown argument {unknown[0]!r}" + (f"; did you mean {near[0]}?" if near else ""))
        request = Request(command, replace(parts[0], agent=name), *parts[1:])
        request.problem.check_agent(request.agent)
    except (ValueError, TypeError) as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        sys.exit(2)
    return request


def _summary(kind: type) -> str:
    """Return the first line of a docstring; the name where the interpreter has none (`-OO`)."""
    return (kind.__doc__ or kind.__name__).splitlines()[0]


def _flat(*kinds):
    """Return the type of a tuple of dataclasses, whose fields are flags without prefixes."""
    return tuple[tuple(Annotated[kind, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff] for kind in kinds)]


@_FLAGS.primitive_rule
def _flag_rule(info):
    """Read `--layers=64,32`, `--encoding=64.0`, which tuning services write, and `--per_arm`, which is true.

    A text that is no value of the field's type is left as it is, for the dataclass to refuse.
    """
    literal, several = info.type_origin is Literal, info.type_origin is tuple
    kind = str if literal else get_args(info.type)[0] if several else info.type
    nested = several and isinstance(kind, type) and is_dataclass(kind)  # agents of a mixture, which no flag can set
    if kind not in (int, float, bool, str) and not nested:
        return None

    def read(texts):
        parts = [part for text in texts for part in (text.split(",") if several else [text])]
        return tuple(_convert(part, kind) for part in parts if part) if several else _convert(" ".join(parts), kind)

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{{{as_text(get_args(info.type))}}}" if literal else kind.__name__.upper() + ",..." * several,
        instance_from_str=read,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [as_text(value)],
    )


def _convert(text, kind):
    if is_dataclass(kind):
        return text
    if kind is bool:
        return {"": True, "true": True, "false": False}.get(text.lower(), text)
    with contextlib.suppress(ValueError):
        return kind(text)
    with contextlib.suppress(ValueError, OverflowError):
        return int(float(text)) if float(text).is_integer() else text
    return text


def describe(request: Request, paths: JobPaths) -> list[str]:
    """Return lines with the settings of a request, and the paths of its results."""
    command, options, problem, agent = request
    rows = {"agent": f"{options.agent}: {_as_flags(agent)}", "problem": _as_flags(problem)}
    rows["data"] = problem.data or "MovieLens from where recbandits.data.movielens.load finds it"
    rows |= {"profiler": f"{options.profile:g} seconds"} if options.profile else {}
    rows |= paths.describe()
    return [f"dry run of {command}", *(f"  {name:12}{text}" for name, text in rows.items())]


def run(request: Request, paths: JobPaths, arguments: Sequence[str]) -> None:
    """Run the experiment, export its policy, record and report its metrics; TensorFlow is imported here."""
    command, options, problem, agent = request
    if options.profile and paths.tensorboard is None:
        raise ValueError("--profile writes to the TensorBoard directory, set AIP_TENSORBOARD_LOG_DIR")
    if paths.replicas > 1 and problem.strategy != "multi_worker":
        raise ValueError(f"{paths.replicas} replicas share work in `fit --strategy=multi_worker` alone, use 1 here")
    from recbandits.notebook import quiet_tensorflow

    _check_accelerator(quiet_tensorflow())
    print(f"{command} with {options.agent}: {_as_flags(agent)}")
    from recbandits.data import data_file, movielens

    path, learns = problem.data and mounted(problem.data), isinstance(problem, Learn)
    require(path != "" or not learns, "--data", "the path of a TOML file (see recbandits.data.data_file)", path)
    data = (data_file if learns else movielens).load(path)
    with training.watch(paths.tensorboard, options.profile) if options.profile else contextlib.nullcontext():
        outcome = training.run_experiment(problem, agent, data, paths)
    metrics = outcome.metrics()
    version = _export(request, outcome, data, paths)
    if not paths.chief:
        return
    if paths.record is not None:
        record = {
            "command": command,
            "arguments": arguments,
            "agent": options.agent,
            "parameters": asdict(agent),
            "problem": asdict(problem),
            "data": repr(data),
            "metrics": metrics,
            "by_seed": outcome.by_seed,
            "policy_version": version,
        }
        write_text(paths.record, json.dumps(record, indent=2) + "\n")
    _report(metrics, outcome.examples)
    for name, value in metrics.items():
        print(name, "{:.4f} ({:.4f} to {:.4f})".format(*value) if isinstance(value, tuple) else f"{value:.4f}")


def _check_accelerator(tensorflow):
    """Check that TensorFlow sees the accelerator that the image was made for, before an idle one is paid for."""
    if os.environ.get("RECBANDITS_ACCELERATOR") == "GPU" and not tensorflow.config.list_physical_devices("GPU"):
        raise ValueError(
            "RECBANDITS_ACCELERATOR=GPU asks for a GPU, and TensorFlow sees none: start the container with one "
            "(`docker run --gpus all`), or take the image train"
        )


def _export(request, outcome, data, paths):
    """Export the policy and return its version; None where no path is given."""
    if paths.model is None:
        return None
    from recbandits.serving.policy import TrainingSummary, export, load

    _, options, problem, agent = request
    summary = TrainingSummary(
        data=repr(data),
        agent=options.agent,
        parameters=asdict(agent),
        metrics=outcome.metrics(),
        limits=(problem.limit,),
    )
    titles = data.titles if isinstance(problem, Learn) else data.movies["title"]
    extras = {"exploration": training.get_exploration(problem, agent), "arms": outcome.arms, "titles": titles}
    with tempfile.TemporaryDirectory() as folder:  # TensorFlow has every replica save; only the chief's copy is kept
        draft = export(outcome.policy, Path(folder, "model"), outcome.features, summary=summary, **extras)
        if paths.chief:
            copy_files(draft, paths.model)
            if (users := getattr(outcome.features, "users", None)) is not None:
                paths.write_users(users)
        return load(draft).version


def _report(metrics, step):
    """Report to a tuning service, where one runs the job."""
    if not set(_TUNING) & os.environ.keys():
        return
    from hypertune import HyperTune

    reporter = HyperTune()
    for name, value in metrics.items():
        reporter.report_hyperparameter_tuning_metric(name, value[0] if isinstance(value, tuple) else value, step)


def _as_flags(values):
    return " ".join(f"{name}={as_text(value)}" for name, value in vars(values).items() if value != "")


def _tensorflow_errors():
    """Return the errors of TensorFlow, once it has been imported."""
    tensorflow = sys.modules.get("tensorflow")
    return (tensorflow.errors.OpError,) if tensorflow else ()


if __name__ == "__main__":
    sys.exit(main())
