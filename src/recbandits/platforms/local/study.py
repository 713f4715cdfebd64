"""A study as a directory: its trials are jobs, Optuna proposes their parameters, and nothing is kept in memory.

It has `study.json` (what was asked for), `proposals.json` (parameters of every trial), `trials/<number>` (a job each,
see `processes`) and, when it is complete, `best.json`.
"""

import json
import math
import os
import time
from dataclasses import asdict
from datetime import UTC, datetime

import numpy as np

from recbandits.platforms.jobs import Choice, Float, Trial
from recbandits.platforms.local import processes
from recbandits.platforms.local.supervisor import write_json
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.tuning import best_trial, with_parameters

_RANDOM = 4  # trials before the sampler trusts what it has seen
_FAILURES = 3  # in a row, after which something is wrong with all of them
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PAUSE = 0.1  # seconds until trials to stop are looked for again
_MAY_CHANGE = ("trials", "parallel")


class LocalStudy:
    """The study in a directory.

    Args:
      directory: `pathlib.Path`
      module: that its trials run.
    """

    def __init__(self, directory, module):
        self._directory, self._module, self._name = directory, module, directory.name

    def asked(self):
        """What was asked for, a dict of the fields of `Study`."""
        return processes.read_json(self._directory / "study.json")

    def tune(self, study):
        """Run trials until as many have succeeded as the study asks for.

        Trials are proposed in batches of `study.parallel`, each batch from the seed and all trials before it alone: the
        same study gives the same trials, however fast each of them runs, and whether it was interrupted or not. At
        most as many run at a time as there are cores, each on one thread. A study begun before goes on: trials that
        still run are waited for, others that did not end go on from their checkpoints, and what has ended stays.

        Returns:
          list of `Trial`

        Raises:
          PlatformError: another study has this name, somebody else tunes it now, or three trials in a row failed.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with processes.held(self._directory, f"study {self._name}"):
                self._begin(study)
                return self._go_on(study)
        except OSError as error:
            raise PlatformError(f"study {self._name} could not be written: {error.strerror or error}") from error

    def trials(self):
        """List the `Trial`s that were begun, in order of number."""
        asked, proposals = self.asked(), self._proposals()
        begun = [number for number in range(len(proposals)) if (self._place(number) / "job.json").exists()]
        return [self._trial(number, proposals[number], asked["metric"]) for number in begun]

    def stop(self):
        """Stop the trials that run, and propose no more until the study is tuned again."""
        (self._directory / "stop").touch()
        tuned = True
        while tuned:  # until its tuner is gone, which may be about to start another one
            tuned = processes.is_held(self._directory)
            for number in range(len(self._proposals())):
                processes.stop(self._place(number))
            time.sleep(_PAUSE if tuned else 0)

    def _begin(self, study):
        file = self._directory / "study.json"
        wanted, asked = json.loads(json.dumps(_as_dict(study))), self.asked()
        for key in wanted:
            if asked is not None and key not in _MAY_CHANGE and asked[key] != wanted[key]:
                raise PlatformError(
                    f"study {self._name} was begun with {key} {asked[key]}, give one with {wanted[key]} another name"
                )
        write_json(file, wanted)
        (self._directory / "stop").unlink(missing_ok=True)

    def _go_on(self, study):
        """Trials of a study whose directory is ours alone."""
        failures = 0
        while not (self._directory / "stop").exists():
            proposals, trials = self._proposals(), self.trials()
            open_ones = [number for number in range(len(proposals)) if not self._has_ended(number)]
            if open_ones:
                failures = self._run(study, open_ones, proposals, failures)
                continue
            missing = study.trials - sum(trial.state == "succeeded" for trial in trials)
            if missing <= 0:
                write_json(self._directory / "best.json", best_trial(self._name, trials, study.maximise)._asdict())
                break
            new = propose(study, trials, min(study.parallel, missing))
            write_json(self._directory / "proposals.json", proposals + new)
        return self.trials()

    def _run(self, study, numbers, proposals, failures):
        """Run trials, as many at a time as there are cores; the number of those that failed in a row."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        size = min(study.parallel, cores)
        for first in range(0, len(numbers), size):
            group = numbers[first : first + size]
            for number in group:
                processes.wait(self._place(number))  # for one that was left running by a tuner that is gone
                if not self._has_ended(number):
                    self._start(study, number, proposals[number])
            for number in group:
                processes.wait(self._place(number))
                self._settle(number)
                trial = self._trial(number, proposals[number], study.metric)
                failures = failures + 1 if trial.state == "failed" else 0
                if failures == _FAILURES:
                    raise PlatformError(
                        f"study {self._name}: {failures} trials in a row failed, the last: {trial.error}"
                    )
            if (self._directory / "stop").exists():
                break
        return failures

    def _start(self, study, number, parameters):
        arguments = with_parameters(study.job.arguments, parameters)
        named = {"CLOUD_ML_JOB_ID": self._name, "CLOUD_ML_TRIAL_ID": str(number)}
        environment, what = dict.fromkeys(_THREADS, "1") | named, f"trial {number} of {self._name}"
        processes.start(self._place(number), what, self._module, arguments, study.job.replicas, environment)

    def _settle(self, number):
        """Write down the end of a trial that vanished while we waited for it.

        Where somebody stops the study it was told to, before it could say so itself.
        """
        status = processes.status(self._place(number))
        if status.state == "interrupted":
            state = "stopped" if (self._directory / "stop").exists() else "failed"
            end = {"state": state, "code": None, "ended": datetime.now(UTC).isoformat()}
            write_json(self._place(number) / "end.json", end)

    def _has_ended(self, number):
        place = self._place(number)
        return (place / "job.json").exists() and processes.status(place).state in ("succeeded", "failed")

    def _trial(self, number, parameters, metric):
        place = self._place(number)
        status = processes.status(place)
        if status.state != "succeeded":
            state = "failed" if status.state == "interrupted" else status.state
            return Trial(number, state, parameters, None, status.error)
        try:
            value = reported(place / "metrics.jsonl", metric)
        except ValueError as error:
            return Trial(number, "failed", parameters, None, f"trial {number} of {self._name} {error}")
        recorded = (processes.read_json(place / "record.json") or {}).get("metrics", {}).get(metric)
        interval = tuple(recorded[1:]) if isinstance(recorded, list) else None
        return Trial(number, "succeeded", parameters, value, interval=interval)

    def _proposals(self):
        return processes.read_json(self._directory / "proposals.json") or []

    def _place(self, number):
        return self._directory / "trials" / str(number)


def propose(study, trials, count):
    """Parameters for the next trials: a function of the study and of the trials before them.

    Args:
      study: Study
      trials: list of `Trial`, all that were begun; those that succeeded are learnt from.
      count: how many to propose.

    Returns:
      list of dicts from parameter to value, of the types that the study has.
    """
    import optuna  # takes a second

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {name: _distribution(optuna.distributions, parameter) for name, parameter in study.parameters.items()}
    seed = int(np.random.SeedSequence([study.seed, len(trials)]).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_RANDOM, constant_liar=True)
    search = optuna.create_study(direction="maximize" if study.maximise else "minimize", sampler=sampler)
    for trial in trials:
        if trial.state == "succeeded":
            search.add_trial(optuna.trial.create_trial(params=trial.parameters, distributions=space, value=trial.value))
    return [search.ask(space).params for _ in range(count)]


def reported(file, metric):
    """The last value that a task reported by cloudml-hypertune.

    Args:
      file: `pathlib.Path` of lines of JSON.
      metric: tag.

    Raises:
      ValueError: there is none, or no finite number; the words follow the name of the trial.
    """
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    values, tags = [], set()
    for line in lines:
        try:
            report = json.loads(line)
            tags |= report.keys() - {"timestamp", "trial", "global_step", "checkpoint_path"}
        except (ValueError, AttributeError):
            raise ValueError(f"reported metrics that are no JSON objects: {line[:80]!r}") from None
        values += [report[metric]] if metric in report else []
    if not values:
        raise ValueError(f"reported no {metric}, {'only ' + ', '.join(sorted(tags)) if tags else 'nor anything else'}")
    try:
        number = float(values[-1])
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"reported {metric} {values[-1]!r}, which is no finite number")
    return number


def _distribution(distributions, parameter):
    if isinstance(parameter, Float):
        return distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    if isinstance(parameter, Choice):
        return distributions.CategoricalDistribution(parameter.values)
    return distributions.IntDistribution(parameter.low, parameter.high)


def _as_dict(study):
    """A study as JSON takes it, with the kind of each parameter."""
    kinds = {name: [type(value).__name__, asdict(value)] for name, value in study.parameters.items()}
    return asdict(study) | {"parameters": kinds}
