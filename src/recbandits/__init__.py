"""Contextual bandits for recommender systems: explore, log, evaluate, learn, serve.

The layers follow the life of a decision; each imports only from those above it: config, checks, notebook, tf, records,
data, exploration, evaluation, serving, environments, agents, training, platforms, plots, loop.
"""

import os

__version__ = "0.1.0"

# TensorFlow and gRPC read these when they are imported: TF-Agents needs Keras 2; without oneDNN all processors give the
# same numbers; start-up notes are left out. What the environment already says is kept.
for _name, _value in {
    "TF_USE_LEGACY_KERAS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_CPP_MIN_LOG_LEVEL": "1",
    "GRPC_VERBOSITY": "ERROR",
}.items():
    os.environ.setdefault(_name, _value)
