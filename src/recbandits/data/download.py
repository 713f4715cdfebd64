"""Folders of data sets: directories, or archives from the web, verified by their SHA-256 and kept in a cache."""

import hashlib
import io
import os
import time
import urllib.request
import zipfile
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple

from recbandits.checks import replacing, require

CACHE_VARIABLE = "RECBANDITS_CACHE"


class Archive(NamedTuple):
    """A zip file on the web: its addresses, in order, its SHA-256, the folder of a data set in it, and its name."""

    urls: tuple[str, ...]
    sha256: str
    folder: str = ""
    file: str = ""  # empty for the name of the folder


class DownloadError(OSError):
    """No archive, neither in the cache nor from the web; the message has the reason."""


def find_cache(cache: str | os.PathLike | None) -> Path:
    """Return the folder of the cache: the one that is given, $RECBANDITS_CACHE, or ~/.cache/recbandits."""
    return Path(cache or os.environ.get(CACHE_VARIABLE) or "~/.cache/recbandits").expanduser()


def fetch(archive: Archive, timeout: float = 5.0, deadline: float = 60.0) -> bytes:
    """Download an archive from the first address that has it, and verify its digest.

    A server gets `timeout` seconds for each step and `deadline` seconds in all, so that a slow one cannot keep a
    notebook waiting. DownloadError if all addresses failed, or returned another file.
    """
    reasons = []
    for url in archive.urls:
        try:
            with urllib.request.urlopen(url, timeout=timeout) as response:
                return _verify(_read_body(response, time.monotonic() + deadline), archive)
        except (OSError, ValueError, HTTPException) as error:
            reasons.append(f"{url}: {getattr(error, 'reason', error)}")
    raise DownloadError(f"the download failed ({'; '.join(reasons)})")


def find_folder(
    directory: str | os.PathLike | None,
    archive: Archive,
    cache: str | os.PathLike | None,
    offline: bool,
    download: Callable[[Archive], bytes] = fetch,
) -> tuple[Path | zipfile.Path, str]:
    """Find the folder of a data set, and return it with its origin: "directory", "cache" or "download".

    Without a directory it is the folder in the archive, which comes from the cache (see `find_cache`), or, unless
    `offline`, by `download`, and is then stored in the cache. DownloadError if the archive is not in the cache, and the
    download is not to be tried or has failed; ValueError if the file in the cache is damaged.
    """
    if directory:
        return Path(directory).expanduser(), "directory"
    file = find_cache(cache) / (archive.file or f"{archive.folder}.zip")
    content, origin = _read_cached(file, archive, offline, download)
    members = zipfile.ZipFile(io.BytesIO(content))
    members.filename = file.name  # for error messages
    return zipfile.Path(members, f"{archive.folder}/"), origin


def _read_cached(file, archive, offline, download):
    if file.exists():
        try:
            return _verify(file.read_bytes(), archive), "cache"
        except ValueError as error:
            raise ValueError(f"{file} is damaged, delete it and it will be downloaded again: {error}") from error
    if offline:
        raise DownloadError("offline=True")
    content = download(archive)
    try:
        with replacing(file) as draft:
            draft.write_bytes(content)
    except OSError as error:
        advice = f"could not be stored in {file.parent}, the next run downloads it again"
        print(f"{file.name} {advice}: {error.strerror}")
    return content, "download"


def _read_body(response: HTTPResponse, end: float) -> bytes:
    """Read the body of a response until `end` on the monotonic clock, and check its length."""
    content = b""
    while chunk := response.read1(1 << 16):
        content += chunk
        if time.monotonic() > end:
            raise TimeoutError(f"only {len(content):,} bytes arrived before the deadline")
    size = int(response.headers.get("Content-Length") or 0)
    if len(content) < size:
        raise OSError(f"the connection ended after {len(content):,} of {size:,} bytes")
    return content


def _verify(content: bytes, archive: Archive) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    require(digest == archive.sha256, f"SHA-256 of the {len(content):,} bytes", archive.sha256, digest)
    return content
