"""Contextual bandits for recommender systems: explore, log, evaluate, learn, serve.

The rooms of the package follow the life of an interaction; each imports only from those above it: config, report,
machine, interactions, data, environments, agents, evaluation, training, serving, platforms, plots.
"""

__version__ = "0.1.0"
