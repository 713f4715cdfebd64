"""Imports what notebooks import, in the process from which those that execute them are forked (`tools.processes`).

What TensorFlow says while it is imported is not for the terminal.
"""

import contextlib
import os
from importlib import import_module

MODULES = ["tools.execute", "recbandits.training.experiments", "recbandits.serving.saved_model", "sklearn.linear_model"]

stderr = os.dup(2)
with open(os.devnull, "w") as nowhere:
    os.dup2(nowhere.fileno(), 2)
for module in MODULES:
    with contextlib.suppress(ImportError):  # a notebook that needs one of them says so
        import_module(module)
os.dup2(stderr, 2)
os.close(stderr)
