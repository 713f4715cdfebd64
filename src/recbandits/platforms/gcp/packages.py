"""Source packages of Cloud Functions: a zip with `main.py`, the package as a folder, and pinned requirements.

The project's wheel would bring TensorFlow with it, which no function needs: gigabytes, and half a minute before the
first answer. So the requirements are what the function's own `requirements.txt` names.
"""

import io
import zipfile
from importlib import metadata
from pathlib import Path

from recbandits.platforms.protocol import PlatformError

_DATE = (2020, 1, 1, 0, 0, 0)  # of every file, so that the same files are the same bytes


def pack(source: str | Path) -> bytes:
    """Pack a function.

    Args:
      source: directory with `main.py`, and `requirements.txt` that names a distribution on each line, without version.

    Returns:
      bytes of a zip that depend on the files' names and contents and on the installed versions alone.

    Raises:
      PlatformError: there are no requirements, or one of them is not installed here.
    """
    source, package = Path(source), Path(__file__).parents[2]
    roots = {source: source, package: package.parent}
    paths = {path.relative_to(base): path for root, base in roots.items() for path in root.rglob("*") if _belongs(path)}
    files = {path: file.read_bytes() for path, file in paths.items()}
    files[Path("requirements.txt")] = _requirements(source / "requirements.txt").encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path.as_posix(), _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[path], zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _requirements(file):
    """Return the text of a file of requirements, each pinned to the version that is installed here."""
    if not file.is_file():
        raise PlatformError(f"function source {file.parent} has no {file.name}: name what it needs, one on each line")
    names = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    try:
        return "".join(f"{name}=={metadata.version(name)}\n" for name in names if name)
    except metadata.PackageNotFoundError as error:
        raise PlatformError(f"{file} names {error.name}, which is not installed here") from error


def _belongs(path):
    """Whether a file goes to the cloud: no tests, nothing compiled here, nothing hidden."""
    return path.is_file() and path.suffix != ".pyc" and not path.name.startswith(("test_", "conftest", "."))
