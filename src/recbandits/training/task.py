"""The training job, the same on a laptop, in a container and on Vertex AI.

`python -m recbandits.training.task simulate --agent linucb --alpha 0.5` and the like; `--help` after `simulate`, `fit`
or `rank`, and after an agent, lists the flags.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from recbandits.agents import parameters
from recbandits.agents.ranking.parameters import Ranking
from recbandits.notebook import quiet_tensorflow
from recbandits.training.flags import Parser, add_flags, as_text
from recbandits.training.job_paths import Places, mounted
from recbandits.training.problems import AGENTS_OF, PROBLEMS, Problem

_PROGRAM = "recbandits.training.task"
_LONGEST_PROFILE = 60
_TUNING = ("CLOUD_ML_HP_METRIC_FILE", "CLOUD_ML_TRIAL_ID")
_RATED = "users were asked about movies that they had rated; what they think of others is unknown"
_LIMITS = {
    "simulate": "the reward is what a factorisation of ratings predicts, not what users said",
    "fit": _RATED,
    "rank": _RATED,
}


class Request(NamedTuple):
    """What a command line asks for."""

    command: str
    problem: Problem
    name: str  # of the agent
    agent: object  # its parameters
    dry_run: bool
    profile: float  # seconds that are to be profiled


def main(arguments=None):
    """Run the command line; returns the exit code.

    Args:
      arguments: list of texts; None takes those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    request, places = parse(arguments), Places.from_environment()
    if request.dry_run:
        print(*description(request, places), sep="\n")
        return 0
    try:
        run(request, places, arguments)
    except (ValueError, KeyError, OSError, ArithmeticError, MemoryError, *_tensorflow_errors()) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        print(f"{_PROGRAM}: {' '.join(str(message).split())}", file=sys.stderr)
        return 1
    return 0


def parse(arguments):
    """Make a `Request` of a command line; one that is wrong ends the process with a sentence and exit code 2."""
    first = Parser(prog=_PROGRAM, add_help=False)
    _add_common(first, agents=None, nargs="?", default="simulate")
    command, name = vars(first.parse_known_args(arguments)[0]).values()
    agents = AGENTS_OF[command]
    name = name or next(iter(agents))
    if name not in agents:
        first.error(f"argument --agent: {command} takes {', '.join(agents)}, got {name!r}")
    problem, agent = PROBLEMS[command], agents[name]
    parser = Parser(prog=_PROGRAM, description=problem.__doc__.partition("\n")[0])
    _add_common(parser, agents)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    text = "let TensorFlow's profiler watch the training from its start, into the TensorBoard directory (default: 0)"
    parser.add_argument("--profile", type=_seconds, default=0.0, metavar="SECONDS", help=text)
    add_flags(parser, problem, f"problem of {command!r}")
    add_flags(parser, agent, f"agent {name!r}")
    values = parser.parse(arguments)
    try:
        made = [kind(**{field: values[field] for field in _fields(kind) & values.keys()}) for kind in (problem, agent)]
        made[0].check(made[1])
    except ValueError as error:
        parser.error(str(error))
    return Request(command, made[0], name, made[1], values["dry_run"], values["profile"])


def description(request, places):
    """Lines that say what a request asks for, and where what comes of it would go."""
    rows = {"agent": f"{request.name}: {_as_flags(request.agent)}", "problem": _as_flags(request.problem)}
    rows["data"] = request.problem.data or "MovieLens from where recbandits.data.movielens.load finds it"
    rows |= {"profiler": f"{request.profile:g} seconds"} if request.profile else {}
    rows |= places.describe()
    return [f"would {request.command}, and do nothing now", *(f"  {name:12}{text}" for name, text in rows.items())]


def run(request, places, arguments):
    """Solve, export, record and report; what takes long is imported here."""
    if request.profile and places.tensorboard is None:
        raise ValueError("--profile needs a place for what it finds, set AIP_TENSORBOARD_LOG_DIR to a directory")
    if places.replicas > 1 and getattr(request.problem, "strategy", "none") != "multi_worker":
        raise ValueError(f"{places.replicas} replicas share work in `fit --strategy=multi_worker` alone, use 1 here")
    quiet_tensorflow()
    from recbandits.data import movielens
    from recbandits.training.experiments import solve

    print(f"{request.command} with {request.name}: {_as_flags(request.agent)}")
    data = movielens.load(request.problem.data and mounted(request.problem.data))
    with _profiler(request.profile, places.tensorboard):
        outcome = solve(request.problem, request.agent, data, places)
    metrics = outcome.metrics()
    version = _export(request, outcome, data, places)
    if places.chief:
        _write(places.record, _record(request, arguments, data, outcome, version))
        _report(metrics, outcome.examples)
        print(*(f"{name} {_interval(value)}" for name, value in metrics.items()), sep="\n")


def _seconds(text):
    """Seconds to profile, few enough for a trace that can be looked at."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= _LONGEST_PROFILE:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be seconds from 0 to {_LONGEST_PROFILE}, got {text!r}")


def _profiler(seconds, directory):
    """A context in which TensorFlow's profiler watches, if it was asked for."""
    if not seconds:
        return contextlib.nullcontext()
    from recbandits.training.profiling import watch

    return watch(directory, seconds)


def _add_common(parser, agents, **options):
    parser.add_argument("command", choices=PROBLEMS, help="simulated users, a log, or lists to rank", **options)
    parser.add_argument("--agent", choices=agents, help="its flags are listed with it")


def _export(request, outcome, data, places):
    """Export the policy, and give its version; None where there is no place for it."""
    if places.model is None:
        return None
    from recbandits.serving.policy import TrainingSummary, export, load

    summary = TrainingSummary(
        data=repr(data),
        agent=request.name,
        parameters=asdict(request.agent),
        metrics=outcome.metrics(),
        limits=(_LIMITS[request.command],),
    )
    options = {"exploration": _exploration(request), "arms": outcome.arms, "titles": data.movies["title"]}
    with tempfile.TemporaryDirectory() as folder:  # TensorFlow has every replica save, one of them for good
        made = export(outcome.policy, Path(folder, "model"), outcome.features, summary=summary, **options)
        if places.chief:
            _copy(made, places.model)
        return load(made).version


def _copy(source, target):
    """Copy a directory, file by file: in a bucket that is mounted, one with files in it cannot be renamed."""
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _exploration(request):
    """How the exported policy explores: as its agent does, or by a share of random choices."""
    from recbandits.serving.policy import Exploration

    if isinstance(request.agent, parameters.Boltzmann):
        return Exploration("softmax", request.agent.temperature)
    if isinstance(request.agent, parameters.SquareCB):
        return Exploration("inverse_gap", request.agent.gamma)
    if isinstance(request.agent, Ranking) and request.agent.policy == "no_penalty":
        return Exploration("plackett_luce", request.agent.temperature)
    own = isinstance(request.agent, parameters.EpsilonGreedy)
    epsilon = request.agent.epsilon if own else request.problem.serve_epsilon
    return Exploration("epsilon_greedy", epsilon) if epsilon else None


def _record(request, arguments, data, outcome, version):
    """What the job leaves behind: the arguments as received, what they meant, and what came of it."""
    return {
        "command": request.command,
        "arguments": arguments,
        "agent": request.name,
        "parameters": asdict(request.agent),
        "problem": asdict(request.problem),
        "data": repr(data),
        "metrics": outcome.metrics(),
        "by_seed": outcome.by_seed,
        "policy_version": version,
    }


def _write(file, record):
    if file is None:
        return
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draft.replace(file)


def _report(metrics, step):
    """Tell a tuning service, where one asks."""
    if not set(_TUNING) & os.environ.keys():
        return
    from hypertune import HyperTune

    reporter = HyperTune()
    for name, value in metrics.items():
        reporter.report_hyperparameter_tuning_metric(name, value[0] if isinstance(value, tuple) else value, step)


def _fields(kind):
    return kind.__dataclass_fields__.keys()


def _as_flags(values):
    return " ".join(f"{name}={as_text(value)}" for name, value in vars(values).items() if value != "")


def _interval(value):
    return "{:.4f} ({:.4f} to {:.4f})".format(*value) if isinstance(value, tuple) else f"{value:.4f}"


def _tensorflow_errors():
    """Errors of TensorFlow, if it has been imported by now."""
    tensorflow = sys.modules.get("tensorflow")
    return (tensorflow.errors.OpError,) if tensorflow else ()


if __name__ == "__main__":
    sys.exit(main())
