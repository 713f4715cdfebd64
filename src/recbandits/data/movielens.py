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

from recbandits.checks import replacing, require
from recbandits.data import formats, synthetic
from recbandits.data.tables import GENRES, OFFICIAL, STARS, MovieLens

__all__ = ["ARCHIVES", "CACHE_VARIABLE", "DIRECTORY_VARIABLE", "GENRES", "STARS", "MovieLens", "load"]

DIRECTORY_VARIABLE = "RECBANDITS_MOVIELENS"
CACHE_VARIABLE = "RECBANDITS_CACHE"


class Archive(NamedTuple):
    """A file on the web: its addresses, in order, its SHA-256, the folder in it, and the title of its set."""

    urls: tuple[str, ...]
    sha256: str
    name: str = "ml-100k"
    title: str = ""


# The certificate of the server has expired; the digest makes the second address as safe as the first. The digests are
# those of TensorFlow Datasets (url_checksums/movielens.txt), confirmed by those that SecretFlow has for 1M and OmniRec
# for latest-small. GroupLens may replace latest-small some day: this is the version of September 2018.
ARCHIVES = {
    name: Archive(
        tuple(f"{scheme}://files.grouplens.org/datasets/movielens/{name}.zip" for scheme in ("https", "http")),
        sha256,
        name,
        title,
    )
    for name, title, sha256 in (
        ("ml-100k", OFFICIAL, "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"),
        ("ml-1m", "MovieLens 1M", "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"),
        ("ml-latest-small", "MovieLens small", "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436"),
    )
}


class DownloadError(OSError):
    """No archive, neither in the cache nor from the web; the message has the reason."""


def load(
    directory: str | os.PathLike | None = None,
    cache: str | os.PathLike | None = None,
    offline: bool = False,
    *,
    name: str | None = None,
    _archive: Archive | None = None,
) -> MovieLens:
    """Load MovieLens and print one line that names the source.

    Sources, in this order: the directory, if one is given; the archive in the cache; the official archive from the web,
    verified by its SHA-256 and then stored in the cache; the synthetic set. A directory or an archive that is missing
    or damaged is an error, no other source replaces it.

    Args:
      directory: folder with the files of 100K, 1M, 10M, or a CSV set (`formats.FORMATS`); None is $RECBANDITS_MOVIELENS
        unless a name is given.
      cache: folder for the archives; None is $RECBANDITS_CACHE, or ~/.cache/recbandits.
      offline: do not try the web.
      name: of the archive, one of ARCHIVES; None is "ml-100k". Larger sets are read from a directory only.

    Raises:
      OSError: the directory, or a file in it, is missing or cannot be read.
      ValueError: a file is invalid; the sentence names file, line and reason. Or a directory and a name are given.
    """
    require(name is None or not directory, "name", "None where a directory is given", name)
    require(name is None or name in ARCHIVES, "name", f"one of {', '.join(ARCHIVES)}", name)
    directory = directory or (os.environ.get(DIRECTORY_VARIABLE) if name is None else None)
    cache = Path(cache or os.environ.get(CACHE_VARIABLE) or "~/.cache/recbandits").expanduser()
    archive = _archive or ARCHIVES[name or "ml-100k"]
    try:
        data = _read_directory(Path(directory).expanduser()) if directory else _read_archive(cache, offline, archive)
    except DownloadError as error:
        print(
            f"NO MOVIELENS: {error}. A synthetic set stands in for it, and no result below is MovieLens'. "
            f"For the real one set {DIRECTORY_VARIABLE} to the unpacked folder {archive.name}."
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
        return formats.read(directory, "directory")
    except OSError as error:
        if error.filename is None:  # the message of `formats.read` is a sentence
            raise
        raise type(error)(f"MovieLens directory {directory}: cannot read {error.filename}: {error.strerror}") from error


def _read_archive(cache: Path, offline: bool, archive: Archive) -> MovieLens:
    """Read the archive in the cache, or else download and store it."""
    file, origin = cache / f"{archive.name}.zip", "cache"
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
        return formats.read(zipfile.Path(members, f"{archive.name}/"), origin, archive.title)
