"""Serving: policies as sealed directories, asked in process or over HTTP, without TensorFlow.

- `export` writes the policy of an agent (needs the extra `tf`); `load` reads it as a `LoadedPolicy`.
- `LoadedPolicy.recommend` answers one user by ids with a `Recommendation`: ids, scores and propensities.
- `ServedPolicy.recommend` answers a request by raw columns and text ids: what `load` gives of a policy with `Features`.
- `Scorer` holds the arrays of a linear model or a network; `TrainingSummary` says what a policy was trained on.
- `TrafficSplit` divides users between versions; `Outbox` delivers the event log in the background.
- `python -m recbandits.serving.server` answers over HTTP (extra `serve`); `serving.batch` answers files.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "decisions": "Decisions Recommendation",
        "loaded": "LoadedPolicy",
        "outbox": "Outbox",
        "policy": "export load",
        "scorer": "Scorer",
        "served": "ServedPolicy",
        "summary": "TrainingSummary",
        "traffic_split": "TrafficSplit",
    },
)
