"""A study as a directory: its trials are units, and Optuna's journal has their parameters and values.

It has `study.json` (the request), `journal.log` (Optuna's), `trials/<number>` (a unit each), `lock` (held by the
process that tunes it) and, once it was stopped, `stop`.
"""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from recbandits.config import count_cores
from recbandits.platforms.jobs import Choice, Float, Study, Trial
from recbandits.platforms.local.files import held, is_held, one_sentence, private, read_json, require_local, write_json
from recbandits.platforms.local.units import Unit
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.tuning import with_parameters

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STUDY_FILE = "study.json"
_JOURNAL = "journal.log"
_RANDOM = 4  # trials before the sampler uses the values of earlier ones
_FAILURES = 3  # in a row, after which the study ends with an error
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_POLL = 0.1  # seconds until trials to stop are looked for again
_MAY_CHANGE = ("trials", "parallel")
# In place of the lock files of Optuna, which outlive a process that is killed: the writer holds the lock of the study.
_NO_LOCK = SimpleNamespace(acquire=lambda: True, release=lambda: None)


class LocalStudy:
    """The study in a directory; `start` starts a trial's unit with arguments and variables, unless it has ended."""

    def __init__(self, directory: Path, start: Callable):
        self._directory, self._start, self._name = directory, start, directory.name

    def request(self) -> Any:
        """Return the fields of the `Study` as a dict; None before its first tuning."""
        return read_json(self._directory / STUDY_FILE)

    def tune(self, study: Study) -> list[Trial]:
        """Run trials until as many have succeeded as the study asks for; a PlatformError comes after three failures.

        Trials are proposed in batches of `study.parallel`, each from the seed and the trials before it alone: the same
        study gives the same trials, however fast each of them runs, and whether it was interrupted or not. At most as
        many run at a time as there are cores, each on one thread. A study that was interrupted resumes: trials that
        still run are waited for, others that did not end resume from their checkpoints, and those that ended stay.
        """
        with one_sentence(f"study {self._name}", "written"):
            require_local(private(self._directory))
            with held(self._directory) as lock:
                if lock is None:
                    raise PlatformError(f"study {self._name} is being tuned by another process")
                self._write_request(study)
                self._run(study)
                return self.trials()

    def trials(self) -> list[Trial]:
        """Return the `Trial`s that were started, in order of number, also while a tuner writes to the journal."""
        import optuna

        metric = self.request()["metric"]
        with one_sentence(f"study {self._name}", "read"):
            storage = _storage(self._directory)
            if self._name not in optuna.get_all_study_names(storage):
                return []
            proposals = optuna.load_study(storage=storage, study_name=self._name).get_trials()
            return [self._trial(each, metric) for each in proposals if self._unit(each.number).run]

    def stop(self) -> None:
        """Stop the trials that run, and start no more until the study is tuned again."""
        with one_sentence(f"study {self._name}", "stopped"):
            (self._directory / "stop").touch()
            tuned = True
            while tuned:  # until its tuner has ended, which may be about to start another trial
                tuned = is_held(self._directory)
                for number in os.listdir(private(self._directory / "trials")):
                    self._unit(number).stop()
                time.sleep(_POLL if tuned else 0)

    def _write_request(self, study):
        kinds = {name: [type(value).__name__, asdict(value)] for name, value in study.parameters.items()}
        settings, request = json.loads(json.dumps(asdict(study) | {"parameters": kinds})), self.request()
        for key in settings:
            if request is not None and key not in _MAY_CHANGE and request[key] != settings[key]:
                raise PlatformError(
                    f"study {self._name} was started with {key} {request[key]}, "
                    f"give one with {settings[key]} another name"
                )
        write_json(self._directory / STUDY_FILE, settings)
        (self._directory / "stop").unlink(missing_ok=True)
        if (journal := self._directory / _JOURNAL).exists():
            # A last line that was being written when its writer was killed is dropped: the next one would join it.
            os.truncate(journal, journal.read_bytes().rfind(b"\n") + 1)

    def _run(self, study):
        """Run what is missing, as many trials at a time as there are cores; the caller holds the lock."""
        import optuna

        storage, direction = _storage(self._directory), "maximize" if study.maximise else "minimize"
        search = optuna.create_study(storage=storage, study_name=self._name, direction=direction, load_if_exists=True)
        size, failures = min(study.parallel, count_cores()), 0
        while not self._stopped():
            unfinished = [trial for trial in search.get_trials() if not trial.state.is_finished()]
            if not unfinished:
                missing = study.trials - sum(trial.state == "succeeded" for trial in self.trials())
                if missing <= 0:
                    return
                search.add_trials(propose(study, search.get_trials(), min(study.parallel, missing)))
                continue
            group = unfinished[:size]
            for proposal in group:
                variables = {"CLOUD_ML_JOB_ID": self._name, "CLOUD_ML_TRIAL_ID": str(proposal.number)}
                arguments = with_parameters(study.job.arguments, proposal.params)
                self._start(self._unit(proposal.number), arguments, dict.fromkeys(_THREADS, "1") | variables)
            for proposal in group:
                self._unit(proposal.number).wait()
            if self._stopped():
                return
            for proposal in group:
                trial = self._trial(proposal, study.metric)
                state = None if trial.state == "succeeded" else optuna.trial.TrialState.FAIL
                search.tell(trial.number, trial.value, state=state)
                failures = failures + 1 if trial.state == "failed" else 0
                if failures == _FAILURES:
                    raise PlatformError(
                        f"study {self._name}: {failures} trials in a row failed, the last: {trial.error}"
                    )

    def _stopped(self):
        return (self._directory / "stop").exists()

    def _trial(self, proposal, metric):
        number, unit = proposal.number, self._unit(proposal.number)
        status = unit.status()
        if status.state != "succeeded":
            interrupted = "stopped" if self._stopped() else "failed"  # its end is not yet written
            state = interrupted if status.state == "interrupted" else status.state
            return Trial(number, state, proposal.params, None, status.error)
        try:
            value = reported(unit.directory / "metrics.jsonl", metric)
        except ValueError as error:
            return Trial(number, "failed", proposal.params, None, f"{unit.label} {error}")
        recorded = (read_json(unit.directory / "record.json") or {}).get("metrics", {}).get(metric)
        interval = tuple(recorded[1:]) if isinstance(recorded, list) else None
        return Trial(number, "succeeded", proposal.params, value, interval=interval)

    def _unit(self, number):
        return Unit(self._directory / "trials" / str(number), f"trial {number} of {self._name}")


def _storage(directory):
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return JournalStorage(JournalFileBackend(str(directory / _JOURNAL), lock_obj=_NO_LOCK))


def propose(study: Study, trials: "list[FrozenTrial]", count: int) -> "list[FrozenTrial]":
    """Propose parameters for the next trials: a function of the study and of the trials before them.

    Optuna's `ask` writes a trial and each of its parameters one after the other, so that a tuner that is killed leaves
    a trial without parameters. Here it asks a study in memory; each trial then is one line of the journal.
    """
    import optuna  # takes a second

    seed = int(np.random.SeedSequence([study.seed, len(trials)]).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_RANDOM, constant_liar=True)
    search = optuna.create_study(direction="maximize" if study.maximise else "minimize", sampler=sampler)
    search.add_trials(trials)
    space = {name: _distribution(optuna.distributions, parameter) for name, parameter in study.parameters.items()}
    for _ in range(count):
        search.ask(space)
    return search.get_trials()[len(trials) :]


def reported(file: Path, metric: str) -> float:
    """Return the last value of a metric in the file of cloudml-hypertune; a ValueError goes on after a trial's name."""
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
