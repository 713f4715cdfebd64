"""Policy directories, here or in a bucket, and their seal: settings, and a SHA-256 of every file."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE = "policy.json"
FORMAT = 2
_KIND = "recbandits policy"
# TensorFlow numbers its functions and the objects that hold them anew with every export.
_VARIABLES = "variables/variables.index", "variables/variables.data-00000-of-00001"
_NUMBERED = {"saved_model.pb", "fingerprint.pb", *_VARIABLES}


@contextmanager
def local_directory(uri: str | Path) -> Iterator[Path]:
    """Yield a directory on this machine as it is, or a temporary copy of a gs:// URI, which needs the extra `serve`.

    The copy does not exist where the bucket has no such directory.
    """
    if not str(uri).startswith("gs://"):
        yield Path(uri)
        return
    from google.cloud import storage

    bucket, _, name = str(uri).removeprefix("gs://").strip("/").partition("/")
    prefix = f"{name}/" if name else ""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder, name.rpartition("/")[2] or bucket)
        for blob in storage.Client(project=None).list_blobs(bucket, prefix=prefix):  # reading needs no project
            path = Path(os.path.normpath(directory / blob.name.removeprefix(prefix)))
            if not blob.name.endswith("/") and path.is_relative_to(directory):  # no folder's placeholder, no "../x"
                path.parent.mkdir(parents=True, exist_ok=True)
                blob.download_to_filename(path)
        yield directory


def read_bytes(uri: str | Path) -> bytes | None:
    """Read one file, by its path or its gs:// URI; None where there is none."""
    if not str(uri).startswith("gs://"):
        return Path(uri).read_bytes() if Path(uri).is_file() else None
    from google.api_core.exceptions import NotFound
    from google.cloud import storage

    try:
        return storage.Blob.from_uri(str(uri), client=storage.Client(project=None)).download_as_bytes()
    except NotFound:
        return None


def seal(directory: str | Path, settings: dict) -> None:
    """Write settings, what JSON can hold, into `policy.json` beside all other files of a policy.

    The version of a policy is the first 16 hexadecimal digits of a digest of all that is in the directory. Where a
    scorer holds what TensorFlow computes, it stands for the graph: the same policy exported twice has one version.
    """
    files = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in _files(directory).items()}
    content = {"what": _KIND, "format": FORMAT, **settings, "files": files}
    digest = _digest(content)
    Path(directory, FILE).write_text(_text(content | {"digest": digest}), encoding="utf-8")


def read(directory: str | Path) -> tuple[dict, dict[str, bytes]]:
    """Read a policy directory, and verify that every byte is what was written.

    Returns:
      What `seal` was given, with the "version" and the "digest" of every byte; and the bytes of each file, by name.

    Raises:
      ValueError: it is not a policy directory, or one that is damaged, incomplete, holds something else as well, or was
        written in another format.
    """
    directory = Path(directory)
    try:
        settings, files = _settings(directory), _files(directory)
        for name in sorted(settings["files"].keys() - files.keys()):
            raise ValueError(f"policy {directory.name} is incomplete, it has no {name}")
        for name in sorted(files.keys() - settings["files"].keys()):
            raise ValueError(f"the directory of a policy must hold nothing else, {directory.name} has {name}")
        contents = {name: path.read_bytes() for name, path in files.items()}
    except (OSError, RecursionError) as error:  # of another user, a link to nothing, or nested too deep
        raise ValueError(f"policy {directory.name} cannot be read: {error}") from error
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != settings["files"][name]:
            raise ValueError(f"policy {directory.name} is damaged, {name} is not what was exported")
    return settings, contents


def _settings(directory):
    path, name, must = directory / FILE, directory.name, "must be the directory of an exported policy"
    if not path.is_file():
        raise ValueError(f"{name} {must}, it has no {FILE}")
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (ValueError, RecursionError):  # neither text nor JSON
        raise ValueError(f"policy {name} is damaged, {FILE} cannot be read") from None
    if not isinstance(content, dict) or content.get("what") != _KIND:
        raise ValueError(f"{name} {must}, its {FILE} is of something else")
    if (other := content.get("format")) != FORMAT:
        raise ValueError(f"policy {name} has format {other!r}, this version of recbandits reads format {FORMAT}")
    digest = content.pop("digest", None)
    if _digest(content) != digest or text != _text(content | {"digest": digest}):
        raise ValueError(f"policy {name} is damaged, {FILE} is not what was exported")
    files = content.get("files")
    if not isinstance(files, dict) or not all(isinstance(each, str) for each in files.values()):
        raise ValueError(f"policy {name}: files must be SHA-256 by name, got {files!r:.100}")
    return content | {"version": _version(content), "digest": digest}


def _files(directory):
    """Return the path of each file but the seal, by its name within the directory."""
    paths = sorted(path for path in Path(directory).rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(directory).as_posix(): path for path in paths if path != Path(directory, FILE)}


def _version(content):
    excluded = _NUMBERED if content.get("scorer") else set()
    files = {name: digest for name, digest in content["files"].items() if name not in excluded}
    return _digest(content | {"files": files})[:16]


def _digest(content):
    return hashlib.sha256(_text(content).encode()).hexdigest()


def _text(content):
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
