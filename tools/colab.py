"""Install the locked packages into Colab's own Python, and restart its kernel once.

The first code cell of a notebook executes this file in Colab's kernel, when nothing of the repository can be imported.
The lock has none of the packages that the kernel itself is made of, such as IPython and tornado: they stay as they are.
"""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from IPython import get_ipython
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "colab.txt"
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--progress-bar=off", "--disable-pip-version-check"]


def version(name):
    """Return the installed version of a package, "" if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def is_installed():
    """Return whether this Python has the package, and all that the lock pins for it."""
    lines = [line.rstrip(" \\") for line in LOCK.read_text(encoding="utf-8").splitlines()]
    pins = [Requirement(line) for line in lines if line and line[0] not in "# "]
    pins = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    return version("recbandits") != "" and all(version(pin.name) in pin.specifier for pin in pins)


def prepare(folder):
    """Change to a folder of the repository; the first time, install the packages before, and restart the kernel.

    Args:
      folder: of the notebook, relative to the root of the repository.

    Raises:
      RuntimeError: this Python is not one that the lock is made for.
      subprocess.CalledProcessError: pip could not install the packages; what it wrote stands above.
    """
    if not (3, 11) <= sys.version_info < (3, 14):
        current = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise RuntimeError(
            f"RecBandits needs Python 3.11 to 3.13, and this runtime has {current}: choose another runtime version"
        )
    os.chdir(ROOT / folder)
    if is_installed():
        return
    print("Installing the packages of requirements/colab.txt, which takes some minutes", flush=True)
    subprocess.run([*PIP, "--no-deps", "--require-hashes", "-r", LOCK], check=True)
    subprocess.run([*PIP, "--no-deps", "--no-build-isolation", "--editable", ROOT], check=True)
    print("Done. The kernel restarts, which Colab reports as a crash: run the notebook again from its first cell.")
    get_ipython().kernel.do_shutdown(restart=True)
