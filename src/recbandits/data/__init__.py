"""Tables of MovieLens and Open Bandit, their splits and features, and training data made from them.

- `movielens.load`, `open_bandit.load`, `data_file.load`: MovieLens, the Open Bandit Dataset as `OpenBandit`, and a data
  set of your own as `LoggedData`, described by a TOML file; `formats.read`, `formats.write`: files of MovieLens.
- `MovieLens`, `RowError`, `GENRES`, `STARS`: the three tables, the refusal of a value, and the values of columns.
- `Split`, `ThreeWaySplit`, `random_split`, `split_by_time`, `split_by_user`, `train_validation_test`, `draw_lists`: row
  ids of training and held-out ratings. `half_of_users`: the ids of those that tuning may use, or of the others.
- `Encoder`, `Features`, `GLOBAL`, `PER_ARM`: raw columns of requests and items as features, fitted once and sealed into
  the policy, and the parts of an observation.
- `RatingFeatures`: those of MovieLens, with the users whose columns are the context.
- `log_decisions`, `LoggedDecisions`, `uniform`, `popularity`, `explore_scores`: logs simulated from ratings.
- `Examples`, `make_examples`, `make_doubly_robust_examples`, `cross_fit_examples`: training data of agents that choose
  one arm.
- `SlateExamples`, `slate_examples`, `list_examples`, `cross_fitted_lists`: training data of ranking agents;
  `RatedLists`, `rated_lists`: all ratings of each user, to measure the quality of rankings.
- `write_records`, `read_records`, `validate_records`, `encode_examples`, `write_shards`, `find_records`: ratings
  as TFRecords; `write_trajectories`, `read_trajectories`, `read_examples`: logged decisions. They need TF-Agents.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "tables": "GENRES STARS MovieLens RowError",
        "open_bandit": "OpenBandit",
        "splits": "Split ThreeWaySplit draw_lists half_of_users random_split split_by_time split_by_user "
        "train_validation_test",
        "data_file": "LoggedData",
        "encoder": "Encoder",
        "features": "GLOBAL PER_ARM Features",
        "rating_features": "RatingFeatures",
        "simulated_logs": "LoggedDecisions explore_scores log_decisions popularity uniform",
        "examples": "Examples cross_fit_examples make_doubly_robust_examples make_examples",
        "slates": "RatedLists SlateExamples cross_fitted_lists list_examples rated_lists slate_examples",
        "tfrecords": "encode_examples find_records read_records validate_records write_records write_shards",
        "trajectories": "read_examples read_trajectories write_trajectories",
    },
)
