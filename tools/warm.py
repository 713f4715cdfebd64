"""Imports what notebooks import, in the process from which those that execute them are forked (`tools.processes`).

What TensorFlow says while it is imported is not for the terminal.
"""

import contextlib
import os

stderr = os.dup(2)
with open(os.devnull, "w") as nowhere:
    os.dup2(nowhere.fileno(), 2)
with contextlib.suppress(ImportError):  # a notebook that needs one of them says so
    import recbandits.serving.saved_model
    import recbandits.training.experiments
    import sklearn.linear_model

    import tools.execute  # noqa: F401
os.dup2(stderr, 2)
os.close(stderr)
