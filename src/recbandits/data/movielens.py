"""MovieLens from a directory, the cache, the web or, where none of them has it, a synthetic set of the same shape.

MovieLens is not part of this project: its licence does not allow redistribution.
"""

import hashlib
import io
import os
import time
import urllib.request
import zipfile
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple

from recbandits.checks import replacing
from recbandits.data import formats, synthetic
from recbandits.data.tables import GENRES, STARS, MovieLens

__all__ = ["CACHE_VARIABLE", "DIRECTORY_VARIABLE", "GENRES", "STARS", "MovieLens", "load"]

DIRECTORY_VARIABLE = "RECBANDITS_MOVIELENS"
CACHE_VARIABLE = "RECBANDITS_CACHE"


class Archive(NamedTuple):
    """A file on the web: its addresses, tried in this order, and its SHA-256."""

    urls: tuple[str, ...]
    sha256: str


# The certificate of the server has expired; the digest makes the second address as safe as the first.
MOVIELENS_100K = Archive(
    tuple(f"{scheme}://files.grouplens.org/datasets/movielens/ml-100k.zip" for scheme in ("https", "http")),
    "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
)


class DownloadError(OSError):
    """No archive, neither in the cache nor from the web; the message has the reason."""


def load(
    directory: str | os.PathLike | None = None,
    cache: str | os.PathLike | None = None,
    offline: bool = False,
    *,
    _archive: Archive = MOVIELENS_100K,
) -> MovieLens:
    """Load MovieLens and print one line that names the source.

    Sources, in this order: the directory, if one is given; the archive in the cache; the official archive from the web,
    verified by its SHA-256 and then stored in the cache; the synthetic set. A directory or an archive that is missing
    or damaged is an error, no other source replaces it.

    Args:
      directory: folder with u.data, u.item and u.user (100K) or ratings.dat, movies.dat and users.dat (1M); None is
        $RECBANDITS_MOVIELENS.
      cache: folder for the archive; None is $RECBANDITS_CACHE, or ~/.cache/recbandits.
      offline: do not try the web.

    Raises:
      OSError: the directory, or a file in it, is missing or cannot be read.
      ValueError: a file is invalid; the sentence names file, line and reason.
    """
    directory = directory or os.environ.get(DIRECTORY_VARIABLE)
    cache = Path(cache or os.environ.get(CACHE_VARIABLE) or "~/.cache/recbandits").expanduser()
    try:
        data = _read_directory(Path(directory).expanduser()) if directory else _read_archive(cache, offline, _archive)
    except DownloadError as error:
        print(
            f"NO MOVIELENS: {error}. A synthetic set stands in for it, and no result below is MovieLens'. "
            f"For the real one set {DIRECTORY_VARIABLE} to a folder with u.data, u.item and u.user."
        )
        data = synthetic.generate()
    print(f"DATA: {data}")
    return data


def fetch(archive: Archive, timeout: float = 5.0, deadline: float = 60.0) -> bytes:
    """Download and verify an archive.

    Args:
      archive: its addresses, tried one after the other, and its digest.
      timeout: seconds to wait for the server at each step.
      deadline: seconds for each address, so that a slow server cannot keep a notebook waiting.

    Raises:
      DownloadError: all addresses failed, or returned another file.
    """
    reasons = []
    for url in archive.urls:
        try:
            with urllib.request.urlopen(url, timeout=timeout) as response:
                return _verify(_read_body(response, time.monotonic() + deadline), archive)
        except (OSError, ValueError, HTTPException) as error:
            reasons.append(f"{url}: {getattr(error, 'reason', error)}")
    raise DownloadError(f"the download failed ({'; '.join(reasons)})")


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
    if digest != archive.sha256:
        raise ValueError(f"SHA-256 must be {archive.sha256}, got {digest} ({len(content):,} bytes)")
    return content


def _read_directory(directory: Path) -> MovieLens:
    try:
        os.listdir(directory)
        return formats.read(directory, "directory")
    except OSError as error:
        raise type(error)(f"MovieLens directory {directory}: cannot read {error.filename}: {error.strerror}") from error


def _read_archive(cache: Path, offline: bool, archive: Archive) -> MovieLens:
    """Read the archive in the cache, or else download and store it."""
    file, origin = cache / "ml-100k.zip", "cache"
    if file.exists():
        try:
            content = _verify(file.read_bytes(), archive)
        except ValueError as error:
            raise ValueError(f"{file} is damaged, delete it and it will be downloaded again: {error}") from error
    elif offline:
        raise DownloadError("offline=True")
    else:
        content, origin = fetch(archive), "download"
        try:
            with replacing(file) as draft:
                draft.write_bytes(content)
        except OSError as error:
            print(f"The archive could not be stored in {cache}, the next run downloads it again: {error.strerror}")
    with zipfile.ZipFile(io.BytesIO(content)) as members:
        members.filename = file.name  # for error messages
        return formats.read(zipfile.Path(members, "ml-100k/"), origin)
