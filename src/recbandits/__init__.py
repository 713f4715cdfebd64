"""Contextual bandits for recommender systems: explore, log, evaluate, learn, serve.

The layers follow the life of a decision; each imports only from those above it: checks, config, notebook, tf, records,
data, exploration, evaluation, serving, environments, agents, training, plots, platforms, loop.
"""

import os
from importlib import import_module

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


def lazy_exports(package: str, modules: dict[str, str]) -> tuple:
    """Return `__getattr__` and `__all__` of a package, which import its modules when their public names are used.

    The names of each module are separated by spaces; its own name exports it.
    """
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def get_attribute(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{homes[name]}")
        return module if name == homes[name] else getattr(module, name)

    return get_attribute, sorted(homes)
