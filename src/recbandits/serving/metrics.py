"""Metrics of a prediction server, in the text format of Prometheus."""

import os
import sys
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from recbandits.serving.outbox import DirectLog, Outbox

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # upper bounds in seconds


class Metrics:
    """Counts since the start of a server, in a registry of their own; those of its event log are among them."""

    def __init__(self, event_log: Outbox | DirectLog | None = None):
        self._registry, self._event_log = (registry := CollectorRegistry()), event_log
        requests, predictions = "Prediction requests by HTTP status.", "Predictions by policy version."
        self._requests = Counter("recbandits_requests", requests, ["status"], registry=registry)
        self._predictions = Counter("recbandits_predictions", predictions, ["version"], registry=registry)
        seconds = "Seconds from the headers of a prediction request to its answer."
        self._seconds = Histogram("recbandits_request_seconds", seconds, registry=registry, buckets=_BUCKETS)
        ProcessCollector(registry=registry)
        registry.register(self)

    def count_request(self, status: int, seconds: float) -> None:
        """Count a prediction request by its HTTP status and the seconds to its answer."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def count_predictions(self, versions: Iterable[str]) -> None:
        """Count predictions by their policy version, or "refused"."""
        for version in versions:
            self._predictions.labels(version).inc()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics that are read when they are requested, for the registry."""
        server = {"process": str(os.getpid()), "tensorflow": str("tensorflow" in sys.modules)}
        yield InfoMetricFamily("recbandits_server", "Process id, and whether TensorFlow is loaded.", value=server)
        if self._event_log is not None:
            counters = GaugeMetricFamily("recbandits_outbox", "Counters of the event log.", labels=["counter"])
            for name, value in self._event_log.counters.items():
                counters.add_metric([name], value)
            yield counters

    def text(self) -> bytes:
        """Return all metrics as bytes in the text format of Prometheus."""
        return generate_latest(self._registry)


def read_metrics(text: str) -> dict:
    """Read the metrics of a prediction server from the text that it answers.

    Returns:
      dict: "requests", their number; "statuses", "versions" and "outbox", dicts of counts by HTTP status, by policy
      version and by counter of the event log; "process", the id of the process; "tensorflow", whether it is loaded.
    """
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def by_label(name):
        return {next(iter(each.labels.values())): int(each.value) for each in samples if each.name == name}

    (server,) = (each.labels for each in samples if each.name == "recbandits_server_info")
    statuses = by_label("recbandits_requests_total")
    return {
        "requests": sum(statuses.values()),
        "statuses": statuses,
        "versions": by_label("recbandits_predictions_total"),
        "outbox": by_label("recbandits_outbox"),
        "process": int(server["process"]),
        "tensorflow": server["tensorflow"] == "True",
    }
