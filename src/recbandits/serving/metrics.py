"""What a server counts."""

from collections import Counter, deque

_KEPT = 4096  # latest latencies, of which quantiles are told


class Metrics:
    """Counts since the start, and quantiles of the latest latencies.

    Attributes:
      statuses: Counter of requests by HTTP status.
      versions: Counter of predictions by the policy version that made them.
    """

    def __init__(self):
        self.statuses, self.versions = Counter(), Counter()
        self._seconds = deque(maxlen=_KEPT)

    def count(self, status, seconds):
        """Count a request that took that long from its headers to its answer."""
        self.statuses[status] += 1
        self._seconds.append(seconds)

    def snapshot(self):
        """Dict that fits into JSON: requests, statuses, versions, latency in milliseconds."""
        seconds = sorted(self._seconds)
        quantiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
        return {
            "requests": self.statuses.total(),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "versions": dict(self.versions),
            "latency_ms": {
                name: round(1000 * seconds[int(share * (len(seconds) - 1))], 3) if seconds else None
                for name, share in quantiles.items()
            },
        }
