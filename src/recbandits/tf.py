"""TensorFlow with Keras 2, for which TF-Agents is written.

Modules that need it say `from recbandits.tf import tf` before they import TF-Agents. `import recbandits` has set
TF_USE_LEGACY_KERAS by then; TensorFlow reads it once, when it is imported.
"""

from importlib.util import find_spec

_INSTALL = 'pip install "recbandits[tf]" && pip install --no-deps tf-agents==0.19.0 gym==0.23.0'

for _package in ("tensorflow", "tf_keras", "tf_agents"):
    if find_spec(_package) is None:
        raise ImportError(f"this module of recbandits needs {_package}, which is not installed: run {_INSTALL}")

import tensorflow as tf  # noqa: E402

if not any("tf_keras" in path for path in tf.__path__):
    raise ImportError(
        "TensorFlow was imported with Keras 3, which TF-Agents cannot use: import recbandits before TensorFlow, or set "
        "TF_USE_LEGACY_KERAS=1 in the environment of the process"
    )

__all__ = ["tf"]
