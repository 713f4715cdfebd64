"""Cloud Functions' source packages: a zip with `main.py`, the package itself and the requirements, pinned.

Cloud Functions installs `requirements.txt` and puts the folder on Python's path. The project's wheel would bring
TensorFlow with it, which no function needs: gigabytes, and half a minute before the first answer. So the package goes
along as a folder, and the requirements are what the function's own `requirements.txt` names.
"""

import io
import zipfile
from importlib import metadata
from pathlib import Path

from recbandits.platforms.protocol import PlatformError

_DAY = (2020, 1, 1, 0, 0, 0)  # of every file, so that the same files are the same bytes


def pack(source):
    """Pack a function.

    Args:
      source: directory with `main.py`, and `requirements.txt` that names a distribution on each line, without version.

    Returns:
      bytes of a zip that depend on the files' names and contents and on the installed versions alone.

    Raises:
      PlatformError: there are no requirements, or one of them is not installed here.
    """
    source, package = Path(source), Path(__file__).parents[2]
    files = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if _belongs(path)}
    files |= {path.relative_to(package.parent): path.read_bytes() for path in package.rglob("*") if _belongs(path)}
    files[Path("requirements.txt")] = requirements(source).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path.as_posix(), _DAY)
            entry.external_attr = 0o644 << 16
            zipped.writestr(entry, files[path], zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def requirements(source):
    """The text of a function's requirements, each pinned to the version that is installed here.

    Args:
      source: as of `pack`.

    Raises:
      PlatformError: as of `pack`.
    """
    file = Path(source, "requirements.txt")
    if not file.is_file():
        raise PlatformError(f"function source {source} has no requirements.txt: name what it needs, one on each line")
    lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return "".join(f"{name}=={_version(file, name)}\n" for name in lines if name)


def _version(file, name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError as error:
        raise PlatformError(f"{file} names {name}, which is not installed here: no version can be pinned") from error


def _belongs(path):
    """Whether a file goes to the cloud: no tests, nothing compiled here, nothing hidden."""
    return path.is_file() and path.suffix != ".pyc" and not path.name.startswith(("test_", "conftest", "."))
