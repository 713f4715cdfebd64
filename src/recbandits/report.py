"""What notebooks say about themselves: the profile they ran in and the numbers they arrived at."""

import importlib
import json
import math
import numbers
import os
import re
import tempfile

import pandas as pd

from recbandits.config import Config

PROFILES = ("quick", "full")

# Lines that TensorFlow's C++ code writes at start-up on every machine; none asks for anything from the reader.
_CHATTER = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|oneDNN custom operations are on"
    rb"|Could not find cuda drivers on your machine, GPU will not be used"
    rb"|This TensorFlow binary is optimized to use available CPU instructions"
    rb"|To enable the following instructions: .*, in other operations, rebuild TensorFlow"
    rb"|Unable to register cu(FFT|DNN|BLAS) factory"
    rb"|computation placer already registered"
    rb"|failed call to cuInit: .*NO_DEVICE|failed call to cuInit: .*UNKNOWN ERROR \(303\)"
)


def check_profile(profile):
    """Refuse anything but "quick" (minutes, the committed outputs) and "full" (the published numbers)."""
    if profile not in PROFILES:
        raise ValueError(f"PROFILE must be 'quick' or 'full', got {profile!r}")


def record_metrics(notebook, data, *, profile, **metrics):
    """Write a notebook's results to `<artifacts_dir>/metrics/<notebook>.json`.

    Args:
      notebook: id of the notebook, such as "01a-train-bandit-mf-env-simulation".
      data: the data they were computed on (`MovieLens.source`), or "none".
      profile: "quick" or "full".
      **metrics: finite numbers, at least one.

    Returns:
      pandas.DataFrame indexed by metric with the one column value, to be shown.

    Raises:
      ValueError: no metric, one that is not a finite number, or an unknown profile.
    """
    check_profile(profile)
    if not metrics:
        raise ValueError(f"{notebook} recorded no metric: give at least one as a keyword argument")
    metrics = {name: _finite(name, value) for name, value in metrics.items()}
    file = Config.load().artifacts_dir / "metrics" / f"{notebook}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    record = {"notebook": notebook, "data": data, "profile": profile, "metrics": metrics}
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draft.replace(file)
    return pd.DataFrame({"value": pd.Series(metrics, dtype=object).rename_axis("metric")})


def _finite(name, value):
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"metric {name!r} must be a finite number, got {value!r}")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def quiet_tensorflow():
    """Import TensorFlow without the lines its C++ code writes to stderr at start-up.

    Only known lines are dropped; whatever else was written in the meantime is passed on when the import ends.

    Returns:
      The module `tensorflow`, with its devices initialised.
    """
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            tensorflow = importlib.import_module("tensorflow")
            tensorflow.config.list_physical_devices()
            return tensorflow
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            os.write(2, b"".join(line for line in written if not _CHATTER.search(line)))
