"""Serving: policies as sealed directories, asked in process or over HTTP, without TensorFlow.

- `export` writes the policy of an agent (needs the extra `tf`); `load` reads it as a `ServedPolicy`.
- `ServedPolicy.recommend` answers a request of raw columns with a `Recommendation`: text ids, scores and propensities;
  `decide` answers many with `Decisions`.
- `Scorer` holds the arrays of a linear model or a network; `TrainingSummary` says what a policy was trained on.
- `TrafficSplit` divides users between versions; `Outbox` delivers the event log in the background.
- `python -m recbandits.serving.server` answers over HTTP (extra `serve`); `serving.predictor` answers files.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "decisions": "Decisions Recommendation",
        "outbox": "Outbox",
        "policy": "TrainingSummary export load",
        "scorer": "Scorer",
        "served": "ServedPolicy",
        "versions": "TrafficSplit",
    },
)
