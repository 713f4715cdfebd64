"""Training of agents, online and from logs, on one device or several, and the job that does it on any platform.

- `simulate` lets agents interact with an environment; `fit` trains an agent on logged decisions or slates.
- `scores` predicts the rewards of candidates; `doubly_robust` makes examples whose rewards correct the log.
- `Specs` and `SlateSpecs` describe logged decisions and slates to `make_agent`.
- `strategy` gives the `tf.distribute` strategy in whose scope an agent is made.
- `log_slates`, `serve_slates`, `slate_probabilities`, `slate_value` and `train_beside` work on slates of a policy.
- `watch`, `trace` and `operations` profile training steps.
- `Simulation`, `Fit` and `Rank` are the problems of a training job; `run_experiment` runs one and gives an `Outcome`.
- `make_environment`, `OfflineTask` and `RankingTask` give the data of a problem; `JobPaths` the paths of a job.

`python -m recbandits.training.task --help` is the job's command line.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "distribution": "strategy",
        "experiments": "OfflineTask Outcome RankingTask make_environment run_experiment",
        "job_paths": "JobPaths",
        "offline": "SlateSpecs Specs doubly_robust fit scores",
        "online": "simulate",
        "problems": "Fit Rank Simulation",
        "profiling": "operations trace watch",
        "slates": "log_slates serve_slates slate_probabilities slate_value train_beside",
    },
)
