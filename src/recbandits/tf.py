"""TensorFlow with Keras 2, for which TF-Agents is written.

Modules import it by `from recbandits.tf import tf`, before they import TF-Agents. TensorFlow chooses Keras when it is
imported: it reads TF_USE_LEGACY_KERAS, which `import recbandits` has set. A later change has an effect on a part of
TensorFlow only, so this module refuses a TensorFlow that was imported without the variable.

Raises:
  ImportError: a package is missing, or TensorFlow was imported with Keras 3.
"""

import atexit
import gc
import sys
from importlib.util import find_spec
from pathlib import PurePath

_INSTALL = 'pip install "recbandits[tf]" && pip install --no-deps tf-agents==0.19.0 gym==0.23.0'

for _package in ("tensorflow", "tf_keras", "tensorflow_probability", "gym", "tf_agents"):
    if find_spec(_package) is None:
        raise ImportError(f"this module of recbandits needs {_package}, which is not installed: run {_INSTALL}")

_is_enabled = gc.isenabled()
gc.disable()  # for the half million objects of TensorFlow
try:
    import tensorflow as tf
finally:
    gc.freeze()  # they all stay: to look at them again and again takes a fifth of the time of the import
    # DuckDB reports objects that are left at the end; without it, the second that it takes to free them is saved.
    atexit.register(lambda: gc.unfreeze() if "duckdb" in sys.modules else None)
    if _is_enabled:
        gc.enable()

if not any("tf_keras" in PurePath(path).parts for path in tf.__path__):  # not tf.keras: that would load Keras
    raise ImportError(
        "TensorFlow was imported with Keras 3, which TF-Agents cannot use: import recbandits before TensorFlow, or set "
        "TF_USE_LEGACY_KERAS=1 in the environment of the process"
    )

__all__ = ["tf"]
