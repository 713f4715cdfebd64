"""Experiments on this machine: a directory of TensorBoard's event files for each run; its HParams tab compares them."""

import re
from numbers import Real
from typing import NamedTuple

import pandas as pd

from recbandits.platforms.protocol import PlatformError

_METRIC, _ARTEFACT = "metric/", "artefact/"


class LocalExperiments:
    """Runs below `runs/experiments` of the artifacts directory; see `platforms.experiments.Experiments`.

    `tensorboard --logdir` on that directory shows them.

    Args:
      config: Config
    """

    def __init__(self, config):
        self._root = config.artifacts_dir / "runs" / "experiments"

    def run(self, experiment, run):
        """See `Experiments.run`."""
        return LocalRun(self._root / _name(experiment) / _name(run))

    def table(self, experiment):
        """See `Experiments.table`; numbers are float32, as TensorBoard keeps them, and states those of jobs."""
        runs = {place.name: _read(place) for place in sorted(self._place(experiment).iterdir())}
        parts = {"param.": "parameters", "metric.": "metrics"}
        rows = {}
        for name, run in runs.items():
            rows[name] = {"state": run.state}
            for prefix, part in parts.items():
                rows[name] |= {prefix + key: value for key, value in getattr(run, part).items()}
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")
        return table[["state", *(name for prefix in parts for name in sorted(table) if name.startswith(prefix))]]

    def series(self, experiment, run):
        """See `Experiments.series`."""
        return _read(self._place(experiment, run)).series

    def artefacts(self, experiment, run):
        """See `Experiments.artefacts`."""
        return _read(self._place(experiment, run)).artefacts

    def _place(self, *names):
        place = self._root.joinpath(*map(_name, names))
        if not place.is_dir():
            known = ", ".join(sorted(path.name for path in place.parent.glob("*"))) or "none"
            raise PlatformError(
                f"there is no {('experiment', 'run')[len(names) - 1]} {names[-1]}; what there is: {known}"
            )
        return place


class LocalRun:
    """One run; see `platforms.experiments.Run`. It succeeded if its `with` block ends without an error."""

    def __init__(self, place):
        self._place = place

    def __enter__(self):
        import tensorflow as tf

        self._tf, self._writer = tf, tf.summary.create_file_writer(str(self._place))
        self._parameters = _read(self._place).parameters
        self._replace("state", _end("STATUS_RUNNING"))
        return self

    def __exit__(self, kind, error, trace):
        self._writer.close()
        self._replace("state", _end("STATUS_SUCCESS" if kind is None else "STATUS_FAILURE"))

    def log_parameters(self, parameters):
        """See `Run.log_parameters`; later values replace earlier ones of the same name."""
        for name, value in parameters.items():
            if not isinstance(value, str | Real):
                raise ValueError(f"parameter {name!r} must be a text or a number, got {value!r}")
        from tensorboard.plugins.hparams import api

        self._parameters |= parameters
        self._replace("parameters", api.hparams_pb(self._parameters, trial_id=self._place.name))

    def log_metrics(self, metrics):
        """See `Run.log_metrics`; later values replace earlier ones of the same name."""
        self._write({_METRIC + name: value for name, value in metrics.items()}, 0)

    def log_series(self, metrics, step):
        """See `Run.log_series`; a later value of the same step replaces an earlier one."""
        self._write(metrics, step)

    def log_artefact(self, name, uri):
        """See `Run.log_artefact`."""
        with self._writer.as_default():
            self._tf.summary.text(_ARTEFACT + name, uri, step=0)
        self._writer.flush()

    def _write(self, numbers, step):
        for name, value in numbers.items():
            if not isinstance(value, Real):
                raise ValueError(f"metric {name.removeprefix(_METRIC)!r} must be a number, got {value!r}")
        with self._writer.as_default(step):
            for name, value in numbers.items():
                self._tf.summary.scalar(name, value)
        self._writer.flush()

    def _replace(self, name, summary):
        """Write a file of its own, for of what the HParams tab reads it takes the first it finds."""
        for file in self._place.glob(f"*.{name}"):
            file.unlink()
        writer = self._tf.summary.create_file_writer(str(self._place), filename_suffix=f".{name}")
        with writer.as_default():
            self._tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=0)
        writer.close()


class _Content(NamedTuple):
    """What the event files of a run say."""

    state: str
    parameters: dict
    metrics: dict
    series: pd.DataFrame
    artefacts: dict


def _read(place):
    """`_Content` of a run's directory."""
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
    from tensorboard.plugins.hparams import metadata
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(place), {TENSORS: 0}, purge_orphaned_data=False).Reload()
    state, parameters, metrics, series, artefacts = "running", {}, {}, {}, {}
    for tag in events.Tags()["tensors"]:
        content = events.SummaryMetadata(tag).plugin_data.content
        points = sorted(events.Tensors(tag), key=lambda event: event.wall_time)
        values = {event.step: make_ndarray(event.tensor_proto).ravel() for event in points}
        if tag == metadata.SESSION_START_INFO_TAG:
            parameters = _parameters(metadata.parse_session_start_info_plugin_data(content))
        elif tag == metadata.SESSION_END_INFO_TAG:
            state = _STATES[metadata.parse_session_end_info_plugin_data(content).status]
        elif tag.startswith(_METRIC):
            metrics[tag.removeprefix(_METRIC)] = float(values[0][0])
        elif tag.startswith(_ARTEFACT):
            artefacts[tag.removeprefix(_ARTEFACT)] = values[0][0].decode()
        else:
            series[tag] = pd.Series({step: float(value[0]) for step, value in values.items()})
    return _Content(state, parameters, metrics, pd.DataFrame(series).rename_axis("step").sort_index(), artefacts)


_STATES = ("running", "succeeded", "failed", "running")  # as the HParams tab numbers them


def _parameters(started):
    """Parameters as they were given, from what the HParams tab reads."""
    values = {name: (value.WhichOneof("kind"), value) for name, value in started.hparams.items()}
    return {name: getattr(value, kind) for name, (kind, value) in sorted(values.items())}


def _end(status):
    """What the HParams tab reads as the state of a run."""
    from tensorboard.plugins.hparams import api_pb2, summary

    return summary.session_end_pb(api_pb2.Status.Value(status))


def _name(name):
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,127}", name):
        raise ValueError(f"name must be 1 to 128 lower-case letters, digits and hyphens, no hyphen first, got {name!r}")
    return name
