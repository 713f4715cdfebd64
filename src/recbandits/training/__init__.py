"""Training of agents, online and from logs, on one device or several, and the job that does it on any platform.

- `simulate` lets agents interact with an environment; `fit` trains an agent on logged decisions or slates, which
  `Specs` describes to `make_agent`; `get_strategy` gives the `tf.distribute` strategy in whose scope it is made.
- `score_candidates` predicts the rewards of candidates; `mean_squared_error` measures the predictions.
- `train` lets an agent learn a `Log`, `target_probabilities` computes its policy on another one, where `evaluate`
  compares policies; `score_log` scores the candidates of a log.
- `log_slates`, `serve_slates`, `compute_slate_probabilities` and `train_off_policy` work on slates of a policy.
- `watch` and `trace` profile training steps, `read_operations` reads the traces.
- `Simulation`, `Fit`, `Rank` and `Learn` are the problems of a job; `run_experiment` runs one and gives an `Outcome`.
  `make_environment`, `OfflineTask` and `RankingTask` give their data, `get_exploration` that of the exported policy,
  `JobPaths` the paths, `read_users` what it knew of the users of MovieLens.

`python -m recbandits.training.task --help` is the job's command line.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "distribution": "get_strategy",
        "epochs": "mean_squared_error",
        "experiments": "OfflineTask Outcome RankingTask get_exploration make_environment run_experiment",
        "job_paths": "JobPaths read_users",
        "logs": "evaluate score_log target_probabilities train",
        "offline": "Specs fit score_candidates",
        "online": "simulate",
        "problems": "Fit Learn Rank Simulation",
        "profiling": "read_operations trace watch",
        "slates": "compute_slate_probabilities log_slates serve_slates train_off_policy",
    },
)
