"""MovieLens from a directory, the cache, the web or, when there is none of them, a synthetic set of the same shape.

MovieLens is not part of this project: its licence forbids to redistribute it.
"""

import io
import os
import zipfile
from pathlib import Path

from recbandits.data import download, formats, synthetic
from recbandits.data.tables import GENRES, STARS, MovieLens

__all__ = ["CACHE_VARIABLE", "DIRECTORY_VARIABLE", "GENRES", "STARS", "MovieLens", "load"]

DIRECTORY_VARIABLE = "RECBANDITS_MOVIELENS"
CACHE_VARIABLE = "RECBANDITS_CACHE"


def load(directory=None, cache=None, offline=False, *, _archive=download.MOVIELENS_100K):
    """Load MovieLens and print one line that says which source it is.

    Sources, in this order: a directory that was named; the archive in the cache; the official archive from the web,
    verified by its SHA-256 and then kept in the cache; the synthetic set. A directory that is missing or damaged is an
    error: nothing else is taken in its place.

    Args:
      directory: folder with u.data, u.item and u.user (100K) or ratings.dat, movies.dat and users.dat (1M); None is
        $RECBANDITS_MOVIELENS.
      cache: folder for the archive; None is $RECBANDITS_CACHE, or ~/.cache/recbandits.
      offline: do not try the web.

    Returns:
      MovieLens

    Raises:
      OSError: the directory, or a file in it, is missing or cannot be read.
      ValueError: a file is not what it should be; the sentence names file, line and reason.
    """
    directory = directory or os.environ.get(DIRECTORY_VARIABLE)
    file = Path(cache or os.environ.get(CACHE_VARIABLE) or "~/.cache/recbandits").expanduser() / "ml-100k.zip"
    if directory:
        data = _from_directory(Path(directory).expanduser())
    elif file.exists():
        data = _from_cache(file, _archive)
    elif offline:
        data = _synthetic("offline was asked for")
    else:
        data = _from_web(file, _archive)
    print(f"DATA: {data}")
    return data


def _from_directory(directory):
    try:
        os.listdir(directory)
        return formats.read(directory, "directory")
    except OSError as error:
        raise type(error)(f"MovieLens directory {directory}: cannot read {error.filename}: {error.strerror}") from error


def _from_cache(file, archive):
    try:
        content = download.verify(file.read_bytes(), archive)
    except ValueError as error:
        raise ValueError(f"{file} is damaged, delete it to have it fetched again: {error}") from error
    return _from_archive(content, "cache")


def _from_web(file, archive):
    try:
        content = download.fetch(archive)
    except download.DownloadError as error:
        return _synthetic(f"the download failed ({error})")
    try:
        download.keep(content, file)
    except OSError as error:
        print(f"The archive could not be kept in {file.parent} and will be fetched again next time: {error.strerror}")
    return _from_archive(content, "download")


def _from_archive(content, origin):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.filename = "ml-100k.zip"  # for the sentences that name a file
        return formats.read(zipfile.Path(archive, "ml-100k/"), origin)


def _synthetic(reason):
    print(
        f"NO MOVIELENS: {reason}. A synthetic set stands in for it, and no result below is MovieLens'. "
        f"For the real one set {DIRECTORY_VARIABLE} to a folder with u.data, u.item and u.user."
    )
    return synthetic.generate()
